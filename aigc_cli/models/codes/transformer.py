"""A transformer that writes codes one after the other (Esser, Rombach and Ommer, Taming Transformers for
High-Resolution Image Synthesis, 2021; Sun et al., Autoregressive Model Beats Diffusion: Llama for Scalable Image
Generation, 2024)."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Prompts
from aigc_cli.models.codes.base import CodesControls, CodesModel, CodesModelConfig, guided
from aigc_cli.models.codes.delay import begun, delayed, write_delayed
from aigc_cli.nn.decoding import Session, choose
from aigc_cli.nn.transformer import TokenTransformer
from aigc_cli.randomness import Noise
from aigc_cli.registry import register

_NONE = -1  # no code
_MANY = 2  # codebooks, above which their codes are written with a delay and not one after the other

Reach = Annotated[int, Field(ge=0, le=8)]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class CodeTransformerConfig(CodesModelConfig):
    """The keys of ``model=transformer data.tokens=RUN``; configs/model/transformer_codes.yaml explains them."""

    name: Literal["transformer_codes"]
    replaced: Annotated[float, Field(ge=0, lt=1)]
    delay: bool | Literal["auto"] = "auto"
    neighbours: Reach | tuple[Reach, ...] = 0


@dataclass(config=STRICT, frozen=True, kw_only=True)
class CodeWritingControls(CodesControls):
    """What ``sample`` takes."""

    #: The share of an item's rows of codes that are kept with mode=continue, from the top; the rest is written anew.
    keep: Annotated[float, Field(gt=0, lt=1)] = 0.5


@register("model", "transformer_codes", CodeTransformerConfig)
class CodeTransformer(CodesModel):
    """p(codes | class) as a product over codes, each given the class and those before it."""

    can = frozenset({"sample", "score", "continue"})
    controls: ClassVar[type] = CodeWritingControls
    tokens = "decoder"
    config: CodeTransformerConfig

    def __init__(self, config: CodeTransformerConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        #: Whether a step writes a code of each codebook, see :mod:`aigc_cli.models.codes.delay`.
        self.delayed = self.codebooks > 1 and (self.codebooks > _MANY if config.delay == "auto" else config.delay)
        if self.delayed and spec.specials:  # a code of the end belongs to no codebook, of which each step writes one
            if config.delay != "auto":
                what = "model.delay=true is for codes of which each has a codebook, and these have one for the end"
                raise ConfigError(what, "leave model.delay= out")
            self.delayed = False
        steps = self.length // self.codebooks + self.codebooks - 1 if self.delayed else self.length
        self.decoder = TokenTransformer(
            config, self.vocab_size, steps, causal=True, tied=config.tie_embeddings,
            grid=self.spec.grid if self.delayed else self.places,
            extra=self.any + 1 - self.vocab_size, reach=self._reach(),
        )  # fmt: skip

    def _reach(self) -> tuple[int, ...]:
        """How far ``model.neighbours`` reaches on each axis; empty where it reads none."""
        asked, axes = self.config.neighbours, len(self.places)
        if not asked:
            return ()
        if self.delayed or not axes or math.prod(self.places) != self.length:
            what = "model.neighbours is for codes that lie in a grid, and are written one after the other"
            raise ConfigError(what, "add model.delay=false" if self.delayed else "leave model.neighbours= out")
        reach = asked if isinstance(asked, tuple) else (asked,) * axes
        if len(reach) != axes:
            what = f"model.neighbours has {len(reach)} numbers, and the codes lie in {'x'.join(map(str, self.places))}"
            raise ConfigError(what, f"give one for each of the {axes} axes, or one for all")
        return reach if any(reach) else ()

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The mean cross-entropy of codes (n, t), in nats per code."""
        seen = self.replaced(batch.content, self.config.replaced)
        return {"loss": self._nats(self.told(batch), seen, batch.content, "mean")}

    def _nats(self, told: Tensor, seen: Tensor, codes: Tensor, reduction: str) -> Tensor:
        """The nats of codes (n, t), each given the class and those before it as they were `seen` (n, t); with the
        `reduction` "none" of each, in any order within an item and with 0 for others, (n * steps,)."""
        k = self.codebooks
        if self.delayed:
            seen, targets = (
                delayed(torch.unflatten(part, 1, (-1, k)), fill) for part, fill in ((seen, self.any), (codes, _NONE))
            )
            rows = begun(told, seen)
        else:
            rows, targets = torch.cat([told[:, None], seen[:, :-1]], 1), codes
        logits = self.decoder.logits(self.decoder.hidden(rows)).float()
        if self.delayed:
            logits = torch.unflatten(logits, 2, (k, -1)).flatten(1, 2)
            targets = torch.where(targets == _NONE, _NONE, targets % logits.shape[2])
        else:
            logits = self.limited(logits, torch.arange(self.length, device=codes.device))
        return cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_NONE, reduction=reduction)

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, Tensor]:
        """Exact negative log-likelihoods of codes given their class, ``"nats_per_code"`` first; see :meth:`per_code`.
        Nothing is drawn."""
        nats = self._nats(self.told(batch), batch.content, batch.content, "none")
        return self.per_code(nats.view(len(batch), -1).double().sum(1), "nats_per_code")

    def left_out(self, grid: tuple[int, ...], controls: CodeWritingControls) -> list[bool]:
        """Which places of a `grid` are written anew where an item is continued: all of its last rows, or times."""
        rows, each = grid[0], math.prod(grid[1:])
        kept = min(max(1, round(controls.keep * rows)), rows - 1) * each
        return [place >= kept for place in range(rows * each)]

    def sample(self, noise: Noise, controls: CodeWritingControls, prompts: Prompts | None = None) -> Tensor:
        """Codes (n, t), int64: prompts, the first codes of an item each, and what follows.

        Raises:
            ConfigError: prompts of which one is as long as an item; guidance of a model that is not told classes.
        """
        told, guides = self.asked_for(noise, controls, prompts)
        given = self.given(prompts, noise)
        count = self.length - len(given[0])
        if any(len(row) != len(given[0]) for row in given) or not count:
            raise ConfigError("prompts must be of one length, and leave codes to write", "keep less of them")
        if self.delayed:
            return self._written_delayed(noise, controls, told, torch.tensor(given, device=noise.device), guides)
        rows = [[token, *row] for token, row in zip(told.tolist(), given, strict=True)]
        session = Session(self.decoder, rows + [[self.any, *row[1:]] for row in rows] * guides, count, pad=self.any)
        uniform = noise.uniform(self.length) if controls.temperature > 0 else None  # each code has its own draw
        for place in range(self.length - count, self.length):
            scores = session.logits()
            scores = guided(scores, controls.guidance) if guides else scores
            scores = self.limited(scores, torch.full_like(told, place))
            code = choose(scores, controls.choice(), None if uniform is None else uniform[:, place])
            session.append(code.repeat(2) if guides else code)
        return session.tokens[: len(noise), 1:]

    def _written_delayed(
        self, noise: Noise, controls: CodeWritingControls, told: Tensor, given: Tensor, guides: bool
    ) -> Tensor:
        k, kept = self.codebooks, given.shape[1]
        canvas = torch.unflatten(pad(given.long(), (0, self.length - kept), value=self.any), 1, (-1, k))
        uniform = noise.uniform(self.decoder.length, k) if controls.temperature > 0 else None
        guidance = controls.guidance if guides else None
        found = write_delayed(
            self.decoder, told, canvas, kept // k, self.any, guidance, controls.choice(), uniform
        )  # fmt: skip
        return found.flatten(1)
