"""A language model that writes from left to right (Radford et al., Improving Language Understanding, 2018).

Where its parts are, in the order in which a text meets them:

    modalities/text.py         strings to token ids, and back
    nn/token_transformer.py    embedding, a stack of blocks, scores of the vocabulary
    nn/transformer.py          the block: attention, feed-forward layer, norms, positions
    nn/fused.py                attention heads, norms, rotations and dropout by hand, where that is faster
    nn/lora.py                 adapters beside weights that stay as they are
    this file                  the loss, held-out scores, vectors, and how a text begins
    models/language_model.py   what all models of tokens share: controls, prompts, the sum of a text's nats
    nn/decoding.py             a session that reads prompts and draws one token after another, and beam search
    nn/cache.py                the keys and values of what it has read, so that each token is read once
    nn/collective.py           sums and draws over all processes of a training
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Prompts, Transfer
from aigc_cli.models.language_model import (
    LanguageModel,
    LanguageModelConfig,
    WritingControls,
    mean_of_tokens,
    token_scores,
)
from aigc_cli.nn.collective import summed, weighted
from aigc_cli.nn.decoding import Session, invert
from aigc_cli.nn.token_transformer import TokenTransformer
from aigc_cli.randomness import Noise
from aigc_cli.registry import register


@dataclass(config=STRICT, frozen=True, kw_only=True)
class DecoderConfig(LanguageModelConfig):
    """The keys of ``model=transformer``; configs/model/transformer.yaml explains them."""

    name: Literal["transformer"]


@register("model", "transformer", DecoderConfig)
class DecoderLanguageModel(LanguageModel):
    """p(text) as a product over tokens, each given those before it within the window.

    An item (n, t) gives t - 1 targets. The loss is their mean negative log-likelihood in nats, whose exponential is the
    perplexity.
    """

    can = frozenset({"sample", "prompt", "encode", "score", "fill"})
    controls: ClassVar[type] = WritingControls
    tokens = "decoder"
    moves_on: ClassVar[bool] = True
    config: DecoderConfig
    fills_from = "the true tokens before it"
    begins: Tensor

    def __init__(self, config: DecoderConfig, spec: DataSpec) -> None:
        super().__init__(spec)
        self.config = config
        self.context = spec.shape[0] - 1
        self.decoder = TokenTransformer(config, self.vocab_size, self.context, causal=True, tied=config.tie_embeddings)
        # What training items begin with: the one token that nothing before it predicts.
        self.register_buffer("begins", torch.zeros(self.vocab_size, dtype=torch.int64))

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The mean cross-entropy of token ids (n, t) but the first, in nats per token."""
        tokens = batch.content
        if self.training:
            first = tokens[:, 0]
            self.begins += summed(torch.zeros_like(self.begins).index_add_(0, first, torch.ones_like(first)))
        targets = tokens[:, 1:]
        # Each process counts by its own number of tokens: else a token would weigh more where there are fewer.
        return {"loss": weighted(self.decoder(tokens[:, :-1], targets, self.pad), (targets != self.pad).sum())}

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, Tensor]:
        """Exact negative log-likelihoods; see :func:`token_scores`. Nothing is drawn."""
        logits = self.decoder.logits(self.decoder.hidden(batch.content[:, :-1]))
        return token_scores(logits, batch.content[:, 1:], self.pad)

    def encode(self, batch: Batch) -> Tensor:
        """The mean of the features of each item's tokens within the window, (n, width); each has seen those before it
        alone."""
        tokens = batch.content[:, : self.context]
        return mean_of_tokens(self.decoder.hidden(tokens), tokens != self.pad)

    def transfer(self) -> Transfer:
        """As of every model of tokens; what items begin with is of its own data."""
        found = super().transfer()
        return found._replace(own=(*found.own, "begins"))

    def fill(self, tokens: Tensor, gaps: Tensor, noise: Noise, controls: WritingControls) -> Tensor:
        """Token ids (n, t) whose gaps (n, t) are the likeliest tokens after the true ones before them."""
        # All in one pass, since no guess is put in the place of a true token: that is how such a model is trained.
        likeliest = self.decoder.logits(self.decoder.hidden(tokens[:, :-1])).argmax(-1)
        return torch.where(gaps, torch.cat([tokens[:, :1], likeliest], 1), tokens)

    def sample(self, noise: Noise, controls: WritingControls, prompts: Prompts | None = None) -> Tensor:
        """Token ids (n, prompt + max_tokens), int64: prompts and what follows, up to ``eos``, then ``pad``.

        Without a prompt a row begins with a token as training items do, and has (n, \\*spec.shape). A window that is
        full moves on; of a prompt that is longer, the last tokens are read.

        Raises:
            ConfigError: an empty prompt, or one with tokens that are none.
        """
        count = controls.max_tokens or self.context
        rows = self._beginnings(noise) if prompts is None else self.given(prompts.rows, noise)
        session = Session(self.decoder, rows, count, self.pad, first=self.allowed(prompts, noise))
        return self.written(session, controls, noise, count)

    def _beginnings(self, noise: Noise) -> list[list[int]]:
        # The first token has nothing before it to follow from, so that it is drawn as often as training items had it.
        seen = self.begins + (self.begins.sum() == 0)  # before training, any
        tokens: list[int] = invert(seen.expand(len(noise), -1), noise.uniform()).tolist()
        return [[token] for token in tokens]
