"""What the models of text share: special tokens, prompts, the words that steer writing, and held-out scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn.functional import cross_entropy

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import DataSpec
from aigc_cli.models.base import Model, ModelConfig, Prompts, Transfer
from aigc_cli.nn.decoding import COLDEST, Choice, Session, beam_search, write
from aigc_cli.nn.lora import adapters
from aigc_cli.nn.style import TransformerConfig
from aigc_cli.nn.watermark import GreenList, Key, usual_width
from aigc_cli.randomness import Noise

#: How many tokens may be asked for; room for them is made beforehand.
MaxTokens = Annotated[int, Field(ge=1, le=1_000_000)]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class LanguageModelConfig(ModelConfig, TransformerConfig):
    """The keys of every model of tokens."""

    tie_embeddings: bool

    @model_validator(mode="after")
    def _adapts_something(self) -> Self:
        if self.lora.rank is not None and self.init_from is None:
            what = f"lora.rank={self.lora.rank} trains adapters beside weights that were trained before"
            raise ValueError(f"{what}, and init_from names none: add model.init_from=RUN")
        if self.lora.rank is not None and self.lora.rank > self.width:
            what = f"lora.rank={self.lora.rank} is above width={self.width}, and no matrix there has a higher rank"
            raise ValueError(f"{what}: choose at most that, such as lora.rank={max(1, self.width // 8)}")
        return self


@dataclass(config=STRICT, frozen=True, kw_only=True)
class DrawingControls:
    """What ``sample`` of every model of tokens takes."""

    #: What the text begins with, or what it is made from. A model knows no strings: its ``sample`` is given
    #: :class:`~aigc_cli.models.base.Prompts`, and pays no heed to this.
    prompt: str | None = None
    #: Divides scores: below 1, more of what is likely anyway; 0 always takes the likeliest token.
    temperature: Annotated[float, Field(ge=0)] = 1.0
    #: Draws from so many of the likeliest tokens.
    top_k: Annotated[int, Field(ge=1)] | None = None
    #: Draws from the fewest tokens that have this probability together (Holtzman et al. 2020).
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    #: Draws from tokens with at least this share of the likeliest one's probability (Nguyen et al. 2024).
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    #: Tokens written at most; None is as many as the model looks at, or as still fit after the prompt.
    max_tokens: MaxTokens | None = None

    def choice(self) -> Choice:
        """How a token is chosen."""
        return Choice(self.temperature, self.top_k, self.top_p, self.min_p)

    def check_drawing(self) -> None:
        """Raises ValueError for controls of how a token is drawn where none is: at temperature 0."""
        named = [name for name in ("top_k", "top_p", "min_p") if getattr(self, name) is not None]
        if self.temperature == 0 and named:
            hint = f"add temperature=1, or leave out {' and '.join(named)}"
            raise ValueError(f"temperature=0 takes the likeliest token: {hint}")


@dataclass(config=STRICT, frozen=True, kw_only=True)
class WritingControls(DrawingControls):
    """What ``sample`` of a model takes that writes from left to right."""

    #: Above 1, tokens that the text has already become less likely (Keskar et al. 2019).
    repetition_penalty: Annotated[float, Field(ge=1)] = 1.0
    #: Above 1, searches for the likeliest text with so many candidates at a time.
    beam: Annotated[int, Field(ge=1)] = 1
    #: For beam search: the exponent of the length that divides log-probabilities; more prefers long texts.
    length_penalty: Annotated[float, Field(ge=0)] = 1.0

    @model_validator(mode="after")
    def _search_or_draw(self) -> WritingControls:
        if self.beam > 1:
            drawing = {"top_k": None, "top_p": None, "min_p": None, "repetition_penalty": 1.0}
            named = [name for name, usual in drawing.items() if getattr(self, name) != usual]
            named += ["temperature"] if self.temperature not in (0.0, 1.0) else []
            if named:
                raise ValueError(f"beam={self.beam} searches and does not draw: leave out {' and '.join(named)}")
        else:
            self.check_drawing()
            if self.length_penalty != 1:
                raise ValueError("length_penalty works with beam search alone: add beam=5, or leave it out")
        return self

    def choice(self) -> Choice:
        """See :meth:`DrawingControls.choice`."""
        return replace(super().choice(), repetition_penalty=self.repetition_penalty)


class LanguageModel(Model):
    """Base of the models of tokens."""

    layouts = frozenset({"tokens"})
    #: The name of the :class:`TokenTransformer` in it.
    tokens: ClassVar[str]
    #: Tensors that belong to its own data, as of :class:`Transfer`.
    own: ClassVar[tuple[str, ...]] = ()
    config: TransformerConfig
    #: What marks the texts that it draws, as of :meth:`watermark`.
    mark: GreenList | None = None
    #: Whether the tokens before one are known when it is chosen.
    left_to_right: ClassVar[bool] = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        assert spec.vocab_size is not None, "text has a vocabulary"
        self.vocab_size = spec.vocab_size
        specials = dict(spec.specials)
        self.pad, self.bos, self.eos = specials["pad"], specials["bos"], specials["eos"]

    def watermark(self, key: Key) -> None:
        """From now on texts are drawn with a mark."""
        width = usual_width(self.vocab_size) if self.left_to_right else 1
        self.mark = GreenList(key, self.vocab_size, (token for _, token in self.spec.specials), width=width)

    def choice(self, controls: DrawingControls) -> Choice:
        """How a token is chosen; a ConfigError where a text is to have a mark, and nothing is drawn that could."""
        choice = controls.choice()
        if self.mark is None:
            return choice
        if choice.temperature < COLDEST or choice.top_k == 1 or choice.min_p == 1:
            what = "watermark=: the likeliest token is taken, and a mark lies in how tokens are drawn"
            raise ConfigError(what, "add temperature=1, or leave watermark= out")
        return replace(choice, mark=self.mark)

    def transfer(self) -> Transfer:
        """One family's transformer of tokens may start from another's; a head from the embedding it was tied to."""
        embedding, head = f"{self.tokens}.embedding.weight", f"{self.tokens}.head.weight"
        return Transfer(
            parts={"tokens": self.tokens},
            rows=(embedding, head),
            stand_ins={head: embedding},
            own=(*(name for name, _ in adapters(self)), *self.own),
        )

    def held(self, controls: Any = None) -> int:
        """The keys and values of a whole window in every layer, and the scores of the vocabulary, for each beam."""
        window = 2 * self.config.layers * self.config.width * self.spec.shape[0]
        beams = 1 if controls is None else controls.beam
        return int(beams * (window + self.vocab_size))

    def given(self, rows: Sequence[Sequence[int]], noise: Noise, *, most: int | None = None) -> list[list[int]]:
        """The prompt of each sample.

        Raises:
            ConfigError: a prompt is empty, or holds tokens beyond `most`, by default those of the vocabulary.
        """
        limit = self.vocab_size if most is None else most
        for tokens in rows:
            if not tokens or not all(0 <= token < limit for token in tokens):
                what = f"holds a token beyond the {limit} that the model reads" if tokens else "is empty"
                raise ConfigError(f"a prompt {what}", "give it at least one token of the vocabulary")
        return [list(rows[index % len(rows)]) for index in noise.indices]

    def allowed(self, prompts: Prompts | None, noise: Noise) -> Tensor | None:
        """The tokens of which each sample's first is one, (n, vocab), by :attr:`Prompts.first`; None where any may."""
        if prompts is None or not any(prompts.first):
            return None
        found = torch.zeros(len(noise), self.vocab_size, dtype=torch.bool)
        for row, index in enumerate(noise.indices):
            found[row, list(prompts.first[index % len(prompts.first)]) or slice(None)] = True
        return found.to(noise.device)

    @staticmethod
    def most(controls: DrawingControls, limit: int) -> int:
        """The tokens that are asked for, of a model that writes up to `limit`; a ConfigError if they are more."""
        count = controls.max_tokens or limit
        if count > limit:
            what = f"max_tokens={count}: this model writes up to {limit}"
            raise ConfigError(what, f"choose max_tokens={limit} or less")
        return count

    def written(self, session: Session, controls: WritingControls, noise: Noise, count: int) -> Tensor:
        """Token ids (n, prompt + count): a session's rows, written on as `controls` say, each until it ends."""
        if controls.beam > self.vocab_size:
            what = f"beam={controls.beam} is more than the {self.vocab_size} tokens of the vocabulary"
            raise ConfigError(what, "follow fewer, such as beam=5")
        if controls.beam > 1:
            if self.mark is not None:
                raise ConfigError("watermark=: beam search draws nothing that a mark could lie in", "leave beam= out")
            penalty = controls.length_penalty
            return beam_search(session, controls.beam, count, length_penalty=penalty, stop=self.eos)[0]
        uniform = noise.uniform(count) if controls.temperature > 0 else None
        return write(session, self.choice(controls), uniform, count, self.eos)


def token_scores(logits: Tensor, targets: Tensor, pad: int) -> dict[str, Tensor]:
    """Negative log-likelihoods, as of :func:`per_token`, from scores (n, t, vocab) of targets (n, t)."""
    return per_token(token_nats(logits, targets, pad).double().sum(1), (targets != pad).sum(1), "nll")


def token_nats(logits: Tensor, targets: Tensor, pad: int) -> Tensor:
    """The cross-entropy of each token, nats, (n, t), from scores (n, t, vocab) of targets (n, t); 0 for `pad`."""
    nats = cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=pad, reduction="none")
    return nats.view_as(targets)


def per_token(nats: Tensor, tokens: Tensor, name: str) -> dict[str, Tensor]:
    """Held-out scores of each item, (n,) float64, from its nats (n,) over so many tokens (n,). ``<name>_per_token``,
    first; ``<name>``, the sum of an item's nats; and ``tokens``, so that sums over a split may be divided."""
    counts = tokens.to(torch.float64)
    return {f"{name}_per_token": nats.double() / counts.clamp(min=1), name: nats.double(), "tokens": counts}


def mean_of_tokens(hidden: Tensor, there: Tensor) -> Tensor:
    """The mean (n, width) of the features (n, t, width) of the tokens (n, t) that are there."""
    return (hidden * there[..., None]).sum(1) / there.sum(1, keepdim=True)


def unless_all(there: Tensor) -> Tensor | None:
    """A mask of what is there; None on a CPU where that is all, but a GPU is not waited for to know."""
    return None if there.device.type == "cpu" and bool(there.all()) else there
