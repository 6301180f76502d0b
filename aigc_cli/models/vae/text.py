"""Variational autoencoders of text (Bowman et al., Generating Sentences from a Continuous Space, 2016).

The latent reaches a transformer decoder in the two ways of Li et al. (Optimus: Organizing Sentences via Pre-trained
Modeling of a Latent Space, 2020, section 3.2): as a memory that every layer attends to, and added to the embeddings.

A decoder that sees all earlier tokens is tempted to do without the latent. Against that: free bits, a weight of the KL
that rises from 0, and word dropout, which hides earlier tokens from it in training.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from aigc_cli.config.schema import STRICT
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Prompts
from aigc_cli.models.language_model import (
    LanguageModel,
    WritingControls,
    mean_of_tokens,
    per_token,
    token_nats,
    unless_all,
)
from aigc_cli.models.variational import FlatVAE, Posterior, VariationalConfig
from aigc_cli.nn.collective import draw, normal_like, weighted
from aigc_cli.nn.decoding import Choice, Session, write
from aigc_cli.nn.style import TransformerConfig
from aigc_cli.nn.transformer import FRESH_STD, TokenTransformer, Transformer
from aigc_cli.randomness import Noise
from aigc_cli.registry import register


@dataclass(config=STRICT, frozen=True, kw_only=True)
class TextVAEConfig(TransformerConfig, VariationalConfig):
    """The keys of ``model=vae`` on text; configs/model/vae_text.yaml explains them."""

    name: Literal["vae_text"]
    decoder_layers: Annotated[int, Field(ge=1)]
    memory: Annotated[int, Field(ge=1)]
    tie_embeddings: bool
    word_dropout: Annotated[float, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _trains_whole(self) -> Self:
        if self.lora.rank is not None:
            raise ValueError(
                f"lora.rank={self.lora.rank} would freeze all weights beside its adapters, and those between texts and "
                "latents are no other model's: leave it out, model.init_from= trains all of them"
            )
        return self

    @property
    def decoder(self) -> TransformerConfig:
        """Of the decoder's stack."""
        return replace(self, layers=self.decoder_layers)


@dataclass(config=STRICT, frozen=True, kw_only=True)
class TextVAEControls(WritingControls):
    """What ``sample`` takes; `prompt` is what texts begin with, and in the other modes what is encoded."""

    #: How samples are arranged: each by itself; held-out texts beside their reconstructions; walks from text to text.
    mode: str | None = None
    #: Where a walk ends that begins at `prompt`.
    to: str | None = None
    #: The texts of a walk, both ends among them; None is 8.
    frames: Annotated[int, Field(ge=2, le=1000)] | None = None
    #: Scales the deviation of latents: below 1, texts of less variety, whatever `temperature` makes of their tokens.
    latent_temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    #: Where latents are drawn: the prior of training, or a Gaussian mixture fitted on the encoded training set.
    prior: Literal["normal", "gmm"] = "normal"


@register("model", "vae_text", TextVAEConfig)
class TextVAE(LanguageModel, FlatVAE):
    """A bidirectional encoder, pooled to a latent, and a causal decoder that writes from it.

    What is modelled of an item (n, t) are its tokens but the first, as in every model here that writes: of a sentence
    the first is ``bos``, and of a window the decoder is given ``bos`` in its place.

    The phase ``"main"`` minimises nats per token, so that rates and clipping mean what they mean for other models of
    text. Its curves beside ``"loss"`` are the terms of the exact negative ELBO, ``"reconstruction"`` and ``"kl"``, in
    nats per item, and ``"nelbo_per_token"``, whatever `beta`, warm-up, free bits and dropout make of it.
    """

    config: TextVAEConfig
    can = frozenset({"sample", "prompt", "latents", "decode", "encode", "posterior", "score", "examine"})
    controls: ClassVar[type] = TextVAEControls
    scaled_by = "latent_temperature"
    of_latents = frozenset({"latent_temperature", "prior"})
    tokens = "decoder"
    moves_on: ClassVar[bool] = True
    advice = "raise model.free_bits, model.word_dropout or model.kl_warmup, or make the decoder smaller"

    def __init__(self, config: TextVAEConfig, spec: DataSpec) -> None:
        super().__init__(spec)
        self.config = config
        self.dimensions = config.latent
        #: The most tokens of a text, ``eos`` included.
        self.longest = spec.shape[0] - 1
        unknown = spec.special("unk")
        assert unknown is not None, "text has a token for what is unknown"
        self.unknown = unknown
        self.decoder = TokenTransformer(
            config.decoder, self.vocab_size, self.longest, causal=True, cross=True, tied=config.tie_embeddings
        )
        self.encoder = Transformer(config, self.longest, causal=False)
        self.to_posterior = nn.Linear(config.width, 2 * config.latent)
        self.to_memory = nn.Linear(config.latent, config.memory * config.width)
        self.to_offset = nn.Linear(config.latent, config.width, bias=False)
        # Latents as large as their noise, memories as what is normed, offsets as embeddings: a latent that begins by
        # saying little to the decoder is soon left out.
        nn.init.normal_(self.to_posterior.weight, 0.0, self.config.width**-0.5)
        nn.init.normal_(self.to_memory.weight, 0.0, self.dimensions**-0.5)
        nn.init.normal_(self.to_offset.weight, 0.0, FRESH_STD * self.dimensions**-0.5)
        for layer in (self.to_posterior, self.to_memory):
            nn.init.zeros_(layer.bias)
        self.learn_prior()

    # training

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The losses on token ids (n, t)."""
        targets = batch.content[:, 1:]
        posterior = self.posterior(batch)
        normal = normal_like(posterior.mean)
        reconstruction = self._nats(targets, posterior.at(normal)).sum(1).mean()
        kl = self.kl_of(batch, posterior, normal)
        tokens = (targets != self.pad).sum()
        items_per_token = len(targets) / tokens
        nelbo = (reconstruction + kl.sum()).detach()
        return {
            "loss": weighted((reconstruction + self.paid(kl)) * items_per_token, tokens),
            "reconstruction": reconstruction.detach(),
            "kl": kl.sum().detach(),
            "nelbo_per_token": nelbo * items_per_token,
        }

    def compile_networks(self, **options: Any) -> None:
        """Compiles the encoder, and the decoder's stack, which is what is called of it."""
        self.encoder.compile(**options)
        self.decoder.stack.compile(**options)

    def posterior(self, batch: Batch) -> Posterior:
        """See :meth:`FlatVAE.posterior`; from the mean of what the encoder makes of the tokens but ``bos``."""
        texts = batch.content[:, 1:]
        there = texts != self.pad
        features = self.encoder(self.decoder.embedding(texts), mask=unless_all(there))
        return Posterior(*self.to_posterior(mean_of_tokens(features, there)).float().chunk(2, 1))

    def _seen(self, latents: Tensor) -> dict[str, Tensor]:
        """What the decoder sees of latents (n, d): a memory (n, m, width), and an offset (n, width)."""
        memory = self.to_memory(latents).unflatten(1, (self.config.memory, -1))
        return {"memory": memory, "offset": self.to_offset(latents)}

    def _drawn(self, noise: Tensor) -> dict[str, Tensor]:
        """The same of noise of the prior (n, d)."""
        return self._seen(self.placed(noise))

    def _nats(self, targets: Tensor, latents: Tensor) -> Tensor:
        """-log p of each token of targets (n, t) given those before it and latents (n, d); 0 for ``pad``."""
        given = torch.cat([torch.full_like(targets[:, :1], self.bos), targets[:, :-1]], 1)
        if self.training and self.config.word_dropout:
            hidden = draw(torch.rand, *given.shape, device=given.device) < self.config.word_dropout
            hidden[:, 0] = False
            given = torch.where(hidden, self.unknown, given)
        features = self.decoder.hidden(given, **self._seen(latents))
        return token_nats(self.decoder.logits(features), targets, self.pad)

    # sampling

    def turns(self, controls: TextVAEControls) -> list[int]:
        """None: it is not told classes."""
        return []

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """The likeliest token after the likeliest token, from latents (n, d): (n, \\*spec.shape), int64."""
        session = Session(self.decoder, [[self.bos]] * len(latents), self.longest, self.pad, **self._drawn(latents))
        return write(session, Choice(temperature=0), None, self.longest, self.eos)

    def sample(self, noise: Noise, controls: TextVAEControls, prompts: Prompts | None = None) -> Tensor:
        """Token ids (n, 1 + prompt + max_tokens), int64: ``bos``, a prompt if there is one, and what follows it up to
        ``eos``, then ``pad``.

        Without either they are (n, \\*spec.shape). A window that is full moves on; of a prompt that is longer, the last
        tokens are read.

        Raises:
            ConfigError: an empty prompt, or one with tokens that are none.
        """
        rows = [[self.bos]] * len(noise)
        if prompts is not None:
            given = self.given(prompts.rows, noise)
            rows = [[self.bos, *(token for token in row if token != self.bos)] for row in given]
        count = controls.max_tokens or self.longest
        seen = self._drawn(self.latents(noise, controls))
        session = Session(self.decoder, rows, count, self.pad, self.allowed(prompts, noise), **seen)
        return self.written(session, controls, noise, count)

    # held-out scores

    def reconstruction(self, batch: Batch, latents: Tensor) -> Tensor:
        """See :meth:`FlatVAE.reconstruction`; float64, since a text's nats are a sum over its tokens."""
        return self._nats(batch.content[:, 1:], latents).double().sum(1)

    def bounds(self, name: str, nats: Tensor, batch: Batch) -> dict[str, Tensor]:
        """See :func:`per_token`."""
        return per_token(nats, (batch.content[:, 1:] != self.pad).sum(1), name)
