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
from torch.nn.functional import cross_entropy

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Prompts
from aigc_cli.models.codes.base import CodesControls, CodesModel, CodesModelConfig, guided
from aigc_cli.nn.collective import draw, integers
from aigc_cli.nn.decoding import Session, choose
from aigc_cli.nn.transformer import TokenTransformer
from aigc_cli.randomness import Noise
from aigc_cli.registry import register

_NONE = -1  # no target is ignored


@dataclass(config=STRICT, frozen=True, kw_only=True)
class CodeTransformerConfig(CodesModelConfig):
    """The keys of ``model=transformer data.tokens=RUN``; configs/model/transformer_codes.yaml explains them."""

    name: Literal["transformer_codes"]
    replaced: Annotated[float, Field(ge=0, lt=1)]


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
        self.decoder = TokenTransformer(
            config, self.vocab_size, self.length, causal=True, tied=config.tie_embeddings, grid=self.places,
            extra=self.any + 1 - self.vocab_size,
        )  # fmt: skip

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The mean cross-entropy of codes (n, t), in nats per code."""
        seen = batch.content
        if self.config.replaced:  # a small set is soon known by heart: some of what is read is not what was there
            other = draw(integers(self.vocab_size), *seen.shape, device=seen.device)
            seen = torch.where(draw(torch.rand, *seen.shape, device=seen.device) < self.config.replaced, other, seen)
        return {"loss": self.decoder(self._shifted(self.told(batch), seen), batch.content, _NONE)}

    @staticmethod
    def _shifted(told: Tensor, codes: Tensor) -> Tensor:
        """What is read where each code is written: the class, and the codes but the last."""
        return torch.cat([told[:, None], codes[:, :-1]], 1)

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, Tensor]:
        """Exact negative log-likelihoods of codes given their class, ``"nats_per_code"`` first; see :meth:`per_code`.
        Nothing is drawn."""
        logits = self.decoder.logits(self.decoder.hidden(self._shifted(self.told(batch), batch.content)))
        nats = cross_entropy(logits.float().flatten(0, 1), batch.content.flatten(), reduction="none")
        return self.per_code(nats.view_as(batch.content).double().sum(1), "nats_per_code")

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
        rows = [[token, *row] for token, row in zip(told.tolist(), given, strict=True)]
        session = Session(self.decoder, rows + [[self.any, *row[1:]] for row in rows] * guides, count, pad=self.any)
        uniform = noise.uniform(self.length) if controls.temperature > 0 else None  # each code has its own draw
        for place in range(self.length - count, self.length):
            scores = session.logits()
            scores = guided(scores, controls.guidance) if guides else scores
            code = choose(scores, controls.choice(), None if uniform is None else uniform[:, place])
            session.append(code.repeat(2) if guides else code)
        return session.tokens[: len(noise), 1:]
