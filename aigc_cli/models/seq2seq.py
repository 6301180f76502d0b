"""A transformer from one sequence to another (Vaswani et al., Attention Is All You Need, 2017)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Prompts
from aigc_cli.models.language_model import LanguageModel, LanguageModelConfig, WritingControls, token_scores, unless_all
from aigc_cli.nn.collective import weighted
from aigc_cli.nn.decoding import Session, padded
from aigc_cli.nn.token_transformer import TokenTransformer
from aigc_cli.nn.transformer import Transformer
from aigc_cli.randomness import Noise
from aigc_cli.registry import register


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

    Both sides share their vocabulary and its embedding. The loss is the mean cross-entropy in nats per target token,
    with its label smoothing.
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
        sources = [self._whole(row) for row in self.given([[self.bos]] if prompts is None else prompts.rows, noise)]
        longest = max(map(len, sources))
        if longest > self.longest:
            raise ConfigError(
                f"a prompt has {longest} tokens, its ends included, and this model reads {self.longest}",
                "shorten it, or train with a larger data.max_length",
            )
        return self.translate(padded(sources, self.pad, noise.device), noise, controls)

    def _whole(self, row: list[int]) -> list[int]:
        start = [] if row[0] == self.bos else [self.bos]
        return [*start, *row, *([] if row[-1] == self.eos else [self.eos])]

    def translate(self, source: Tensor, noise: Noise, controls: TranslationControls) -> Tensor:
        """Targets (n, t), as :meth:`sample`, of sources (n, s) as the data has them."""
        count = self.most(controls, self.longest - 1)
        session = Session(self.decoder, [[self.bos]] * len(source), count, self.pad, **self.read(source))
        return self.written(session, controls, noise, count)


def _source(batch: Batch) -> Tensor:
    assert batch.source is not None, "pairs have sources"
    return batch.source
