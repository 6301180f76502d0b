"""A transformer that says a text: an encoder reads its characters, with the voice before them, and a decoder writes the
codes of sound that attend to them (Wang et al., Neural Codec Language Models are Zero-Shot Text to Speech Synthesizers,
2023, without the recording that theirs is shown)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AliasChoices, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn.functional import cross_entropy

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Prompts
from aigc_cli.models.codes.base import CodesModel, CodesModelConfig
from aigc_cli.nn.collective import weighted
from aigc_cli.nn.decoding import Choice, Session, padded, write
from aigc_cli.nn.transformer import TokenTransformer, Transformer, fresh
from aigc_cli.randomness import Noise
from aigc_cli.registry import register

_NONE = -1  # a target that does not count


@dataclass(config=STRICT, frozen=True, kw_only=True)
class SpeechConfig(CodesModelConfig):
    """The keys of ``model=seq2seq`` on speech; configs/model/seq2seq_audio.yaml explains them."""

    name: Literal["seq2seq_audio"]
    replaced: Annotated[float, Field(ge=0, lt=1)]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class SpeechControls:
    """What ``sample`` takes."""

    #: What is said.
    prompt: str | None = None
    #: Who says it, or several separated by commas, of a model that was trained on several voices; None is all in turn.
    class_: Annotated[str | None, Field(alias="class", validation_alias=AliasChoices("class", "class_"))] = None
    #: Divides scores: below 1, more of what is likely anyway; 0 always takes the likeliest code.
    temperature: Annotated[float, Field(ge=0)] = 0.7
    #: Draws from so many of the likeliest codes.
    top_k: Annotated[int, Field(ge=1)] | None = None
    #: Draws from the fewest codes that have this probability together (Holtzman et al. 2020).
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None


@register("model", "seq2seq_audio", SpeechConfig)
class SpeechModel(CodesModel):
    """p(codes | text, voice): the codes of a clip up to its end, each given the text and those before it."""

    can = frozenset({"sample", "prompt", "score"})
    from_source = True
    controls: ClassVar[type] = SpeechControls
    tokens = "decoder"
    config: SpeechConfig

    def __init__(self, config: SpeechConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        end, source = spec.special("eos"), spec.source
        assert source is not None and source.vocab_size is not None, "speech says a text"  # noqa: PT018
        if end is None:
            hint = "use data.tokens=kmeans"
            raise ConfigError("speech is as long as it takes, and the codes of this tokenizer have no end", hint)
        self.end, self.longest = end, source.shape[0]
        self.pad, self.bos, self.eos = (source.special(name) or 0 for name in ("pad", "bos", "eos"))
        voices = self.any + 1 - self.vocab_size
        self.embedding = torch.nn.Embedding(source.vocab_size + voices, config.width)
        fresh(self.embedding)
        self.encoder = Transformer(config, self.longest + 1, causal=False)
        self.decoder = TokenTransformer(
            config, self.vocab_size, self.length, causal=True, cross=True, tied=config.tie_embeddings, extra=1
        )

    def read(self, source: Tensor, told: Tensor) -> dict[str, Tensor | None]:
        """What the decoder attends to, of sources (n, s) and the token of each one's voice (n,)."""
        first = self.embedding.num_embeddings + told - self.any - 1
        tokens = torch.cat([first[:, None], source], 1)
        there = tokens != self.pad
        return {"memory": self.encoder(self.embedding(tokens), mask=there), "memory_mask": there}

    def _written(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Codes (n, t) of which the longest item of a batch has a last one that counts, and the targets: those up to
        the first end."""
        codes = batch.content
        counts = (codes == self.end).cumsum(1).roll(1, 1) == 0  # there is no end before it
        counts[:, 0] = True
        if codes.device.type == "cpu":  # a GPU is not waited for to know
            kept = int(counts.any(0).nonzero().max()) + 1
            codes, counts = codes[:, :kept], counts[:, :kept]
        return codes, torch.where(counts, codes, _NONE)

    def _scores(self, codes: Tensor, batch: Batch) -> Tensor:
        """Scores (n, t, vocab) of codes (n, t), each given those before it."""
        assert batch.source is not None, "speech says a text"
        begin = torch.full_like(codes[:, :1], self.vocab_size)
        shown = torch.cat([begin, codes[:, :-1]], 1)
        return self.decoder.logits(self.decoder.hidden(shown, **self.read(batch.source, self.told(batch))))

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The mean cross-entropy of codes up to the end of each clip, in nats per code."""
        codes, targets = self._written(batch)
        scores = self._scores(self.replaced(codes, self.config.replaced), batch)
        loss = cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=_NONE)
        return {"loss": weighted(loss, (targets != _NONE).sum())}

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, Tensor]:
        """Exact negative log-likelihoods given text and voice: ``"nats_per_code"``, of codes up to the end, and their
        sum. Nothing is drawn."""
        codes, targets = self._written(batch)
        scores = self._scores(codes, batch).float()
        nats = cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=_NONE, reduction="none")
        total, count = nats.view_as(codes).double().sum(1), (targets != _NONE).sum(1)
        return {"nats_per_code": total / count, "nats": total}

    def sample(self, noise: Noise, controls: SpeechControls, prompts: Prompts | None = None) -> Tensor:
        """Codes (n, t), int64, of what prompts say, up to the end and then more of that.

        Raises:
            ConfigError: there is no prompt, or one with more characters than the model reads.
        """
        if prompts is None:
            raise ConfigError("there is nothing to say", 'give a text, such as prompt="seven three"')
        sources = padded(
            [self._between(prompts.rows[i % len(prompts.rows)]) for i in noise.indices], self.pad, noise.device
        )
        told = torch.full((len(noise),), self.any)
        if (labels := self._voices(noise.indices, controls, prompts)) is not None:
            told = self.vocab_size + labels
        seen = self.read(sources, told.to(noise.device))
        choice = Choice(controls.temperature, controls.top_k, controls.top_p)
        session = Session(self.decoder, [[self.vocab_size]] * len(noise), self.length, self.end, **seen)
        uniform = noise.uniform(self.length) if controls.temperature > 0 else None
        return write(session, choice, uniform, self.length, self.end)[:, 1:]

    def _between(self, row: Sequence[int]) -> list[int]:
        """The characters of a text between the tokens of its ends."""
        whole = [self.bos, *row[row[0] == self.bos : len(row) - (row[-1] == self.eos)], self.eos]
        if len(whole) > self.longest:
            what = f"a text has {len(whole) - 2} characters, and this model reads {self.longest - 2}"
            raise ConfigError(what, "say it in parts, or train on longer texts")
        return whole

    def _voices(self, indices: Sequence[int], controls: Any, prompts: Prompts) -> Tensor | None:
        """Who says each sample: the voices that are asked for in turn, else those that prompts have."""
        known = prompts.labels if controls.class_ is None and self.conditional else None
        if known is None:
            return self.labels(indices, controls, "cpu")
        return torch.tensor([known[index % len(known)] for index in indices])
