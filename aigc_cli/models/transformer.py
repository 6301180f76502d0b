"""Transformers that write from left to right: of a text (Radford et al., Improving Language Understanding, 2018), or of
a target given its source (Vaswani et al., Attention Is All You Need, 2017).

Where their parts are, in the order in which a text meets them:

    modalities/text.py         strings to token ids, and back
    nn/transformer.py          embedding, blocks of attention and feed-forward layers, scores of the vocabulary
    nn/attention.py            heads, norms, rotations and dropout, and the keys and values of what has been read
    nn/lora.py                 adapters beside weights that stay as they are
    this file                  the loss, held-out scores, vectors, and how a text begins
    models/language_model.py   what all models of tokens share: controls, prompts, the sum of a text's nats
    nn/decoding.py             a session that reads prompts and draws one token after another, and beam search
    nn/collective.py           sums and draws over all processes of a training
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Prompts
from aigc_cli.models.language_model import (
    LanguageModel,
    LanguageModelConfig,
    WritingControls,
    mean_of_tokens,
    token_scores,
    unless_all,
)
from aigc_cli.nn.collective import summed, weighted
from aigc_cli.nn.decoding import Session, invert, padded
from aigc_cli.nn.transformer import TokenTransformer, Transformer
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
    own = ("begins",)
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
        """The mean of the features of each item's tokens within the window, (n, width), none of which sees ahead."""
        tokens = batch.content[:, : self.context]
        return mean_of_tokens(self.decoder.hidden(tokens), tokens != self.pad)

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
        return self.written(self.session(noise, count, prompts), controls, noise, count)

    def session(self, noise: Noise, count: int, prompts: Prompts | None = None) -> Session:
        """Rows that :meth:`sample` begins with, and room for `count` tokens in each."""
        if prompts is None:
            # The first token follows from nothing, so that it is drawn as often as training items had it.
            seen = self.begins + (self.begins.sum() == 0)  # before training, any
            rows = invert(seen.expand(len(noise), -1), noise.uniform())[:, None].tolist()
        else:
            rows = self.given(prompts.rows, noise)
        return Session(self.decoder, rows, count, self.pad, first=self.allowed(prompts, noise))


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Seq2SeqConfig(LanguageModelConfig):
    """The keys of ``model=seq2seq``; configs/model/seq2seq.yaml explains them."""

    name: Literal["seq2seq"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class TranslationControls(WritingControls):
    """What ``sample`` takes: `prompt` is what is translated, and what is likeliest is usually wanted."""

    temperature: Annotated[float, Field(ge=0)] = 0.0


@register("model", "seq2seq", Seq2SeqConfig)
class Seq2SeqModel(LanguageModel):
    """p(target | source): an encoder that sees all of the source, and a causal decoder that attends to it.

    Both share their vocabulary and its embedding. The loss is in nats per target token, with its label smoothing.
    """

    can = frozenset({"sample", "prompt", "score"})
    from_source = True
    controls: ClassVar[type] = TranslationControls
    tokens = "decoder"
    config: Seq2SeqConfig

    def __init__(self, config: Seq2SeqConfig, spec: DataSpec) -> None:
        super().__init__(spec)
        self.config = config
        self.longest = spec.shape[0]
        self.decoder = TokenTransformer(
            config, self.vocab_size, self.longest - 1, causal=True, cross=True, tied=config.tie_embeddings
        )
        self.encoder = Transformer(config, self.longest, causal=False)

    def read(self, source: Tensor) -> dict[str, Tensor | None]:
        """What the decoder attends to, (n, s, width), of sources (n, s), and which of it is there, (n, s)."""
        there = unless_all(source != self.pad)
        return {"memory": self.encoder(self.decoder.embedding(source), mask=there), "memory_mask": there}

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The mean cross-entropy of targets (n, t) but their first token, given sources (n, s)."""
        tokens, smoothing = batch.content, self.config.label_smoothing
        loss = self.decoder(tokens[:, :-1], tokens[:, 1:], self.pad, smoothing, **self.read(_source(batch)))
        return {"loss": weighted(loss, (tokens[:, 1:] != self.pad).sum())}

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, Tensor]:
        """Exact negative log-likelihoods of targets; see :func:`token_scores`. Nothing is drawn."""
        hidden = self.decoder.hidden(batch.content[:, :-1], **self.read(_source(batch)))
        return token_scores(self.decoder.logits(hidden), batch.content[:, 1:], self.pad)

    def sample(self, noise: Noise, controls: TranslationControls, prompts: Prompts | None = None) -> Tensor:
        """Targets (n, t), int64, from ``bos`` to ``eos``, then ``pad``.

        Prompts are sources, which are given ``bos`` and ``eos`` where they have none; without any, they are empty.

        Raises:
            ConfigError: an empty prompt or a longer one than the model reads, or more tokens than it writes.
        """
        given = self.given([[self.bos]] if prompts is None else prompts.rows, noise)
        starts = [row if row[0] == self.bos else [self.bos, *row] for row in given]
        sources = [row if row[-1] == self.eos else [*row, self.eos] for row in starts]
        longest = max(map(len, sources))
        if longest > self.longest:
            what = f"a prompt has {longest} tokens, its ends included, and this model reads {self.longest}"
            raise ConfigError(what, "shorten it, or train with a larger data.max_length")
        count, source = self.most(controls, self.longest - 1), padded(sources, self.pad, noise.device)
        session = Session(self.decoder, [[self.bos]] * len(source), count, self.pad, **self.read(source))
        return self.written(session, controls, noise, count)


def _source(batch: Batch) -> Tensor:
    assert batch.source is not None, "pairs have sources"
    return batch.source
