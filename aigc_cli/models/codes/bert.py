"""A transformer that guesses masked codes, and writes by filling masks in a few passes (Chang et al., MaskGIT: Masked
Generative Image Transformer, 2022)."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

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
from aigc_cli.nn.collective import draw, draw_common, rank, weighted, world_size
from aigc_cli.nn.masking import Masks, Region, by_schedule, halton, in_region, masks_at
from aigc_cli.nn.transformer import TokenTransformer
from aigc_cli.randomness import Noise
from aigc_cli.registry import register

STRATA = 8  # numbers of masks that an item's bound is averaged over, spread evenly


@dataclass(config=STRICT, frozen=True, kw_only=True)
class CodeBertConfig(CodesModelConfig):
    """The keys of ``model=bert data.tokens=RUN``; configs/model/bert_codes.yaml explains them."""

    name: Literal["bert_codes"]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class CodeFillingControls(CodesControls):
    """What ``sample`` takes."""

    #: Passes over all codes of an item, each of which settles more of them than the one before it.
    passes: Annotated[int, Field(ge=1)] = 12
    #: What settles first: what the model is surest of, or places far from each other.
    order: Literal["confidence", "halton"] = "confidence"
    #: With order=confidence, how much chance has a say in it: 0 goes by the model alone.
    spread: Annotated[float, Field(ge=0)] = 4.0
    #: What is filled with mode=infill; the rest is kept.
    region: Region = "lower"


@register("model", "bert_codes", CodeBertConfig)
class CodeBert(CodesModel):
    """Guesses masked codes of an item from its class and all other codes. The loss is of masks as writing has them: of
    a share cos(pi u / 2) of the codes, u uniform (section 3.3)."""

    can = frozenset({"sample", "score", "infill"})
    controls: ClassVar[type] = CodeFillingControls
    tokens = "encoder"
    config: CodeBertConfig

    def __init__(self, config: CodeBertConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        #: The token that stands for what is to be guessed.
        self.mask: int = self.any + 1
        self.encoder = TokenTransformer(
            config, self.vocab_size, self.length + 1, causal=False, tied=config.tie_embeddings, grid=self.places,
            extra=self.mask + 1 - self.vocab_size,
        )  # fmt: skip

    def compile_networks(self, **options: Any) -> None:
        """Compiles the stack: which features the head runs on changes from step to step."""
        self.encoder.stack.compile(**options)

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The mean cross-entropy of masked codes, in nats each."""
        n = len(batch)
        # Spread evenly over the items of all processes, from one common draw on, which is on the host: it has to know
        # how many codes are masked.
        first = float(draw_common(torch.rand, 1))
        places = [(row + first) / (n * world_size()) for row in range(n * rank(), n * (rank() + 1))]
        shares = [max(math.cos(math.pi / 2 * place), 1e-3) for place in places]
        masks = self._masks(shares, batch.content, draw(torch.rand, *batch.content.shape, device=batch.content.device))
        nats = self._guessed(batch, masks)
        count = masks.counts.sum()
        return {"loss": weighted(nats.sum() / count, count)}

    @staticmethod
    def _masks(shares: list[float], codes: Tensor, keys: Tensor) -> Masks:
        return masks_at(shares, torch.ones_like(codes, dtype=torch.bool), keys)

    def _guessed(self, batch: Batch, masks: Masks) -> Tensor:
        """The nats of each masked code (m,), 0 where one does not count."""
        shown = torch.cat([self.told(batch)[:, None], masks.apply(batch.content, self.mask)], 1)
        hidden = self.encoder.hidden(shown)[:, 1:]
        logits = self.limited(self.encoder.logits(hidden[masks.rows, masks.places]).float(), masks.places)
        nats = cross_entropy(logits, batch.content[masks.rows, masks.places], reduction="none")
        return torch.where(masks.counts, nats, 0)

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, Tensor]:
        """A bound on the negative log-likelihood of codes given their class, ``"nelbo_per_code"`` first, averaged over
        8 numbers of masks for each of `samples`, spread evenly from 1 to all; see :meth:`per_code`."""
        codes, strata = batch.content, STRATA * samples
        first, keys = noise.uniform().double(), noise.uniform(strata, self.length)
        totals = torch.zeros(len(codes), dtype=torch.float64, device=codes.device)
        for stratum in range(strata):
            masks = self._masks(((stratum + first) / strata).tolist(), codes, keys[:, stratum])
            # T / k for each of k masked: so the sum bounds the negative log-likelihood on average.
            nats = self._guessed(batch, masks).double() * (self.length / masks.of_row)[masks.rows]
            totals.index_add_(0, masks.rows, nats / strata)
        return self.per_code(totals, "nelbo_per_code")

    def held(self, controls: Any = None) -> int:
        """As of other models of codes, with the scores of all of them at once."""
        rows = 2 if getattr(controls, "guidance", 1.0) != 1.0 else 1
        return super().held(controls) + rows * self.length * self.vocab_size

    def left_out(self, grid: tuple[int, ...], controls: CodeFillingControls) -> list[bool]:
        """Which places of a `grid` (..., rows, columns) are filled anew: those of the region that is asked for, at all
        times of a clip."""
        out: list[bool] = in_region(grid, controls.region).flatten().tolist()
        return out

    def sample(self, noise: Noise, controls: CodeFillingControls, prompts: Prompts | None = None) -> Tensor:
        """Codes (n, t), int64; of prompts, rows of t codes with :attr:`mask` for gaps, these are filled.

        Raises:
            ConfigError: prompts of another length; guidance of a model that is not told classes.
        """
        told, guides = self.asked_for(noise, controls, prompts)
        given = [[self.mask] * self.length] * len(noise) if prompts is None else self.given(prompts, noise)
        if any(len(row) != self.length for row in given):
            raise ConfigError("a prompt has another number of codes than an item", "give whole items, with gaps")
        canvas = torch.tensor(given, device=noise.device)

        places = torch.arange(self.length, device=noise.device)

        def scores(codes: Tensor, done: float) -> Tensor:
            """Scores (n, t, vocab) of all codes; guidance grows with the share that is `done`."""
            shown = torch.cat([told[:, None], codes], 1)
            if guides:
                shown = torch.cat([shown, torch.cat([torch.full_like(told, self.any)[:, None], codes], 1)])
            found = self.encoder.logits(self.encoder.hidden(shown)[:, 1:]).float()
            scale = 1 + (controls.guidance - 1) * (done if controls.guidance > 1 else 1)
            return self.limited(guided(found, scale) if guides else found, places)

        draws = noise.uniform(controls.passes, 2, self.length)
        order = self._order().to(noise.device) if controls.order == "halton" else None
        return by_schedule(scores, canvas, self.mask, controls.choice(), draws, controls.spread, order)

    def _order(self) -> Tensor:
        """When each code settles, int64 (t,); those of the first codebook before all others."""
        order = halton(self.spec.grid or (self.length,))
        return torch.cat([order[:, None] + level * len(order) for level in range(self.codebooks)], 1).flatten()
