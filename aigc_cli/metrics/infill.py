"""``infill``: how many of some masked tokens a model finds, from what stands around them or only before them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.base import Figures, Metric, Stream, Takes
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.modalities.tokenizers import PAD
from aigc_cli.nn.masking import Masks, masks_at
from aigc_cli.randomness import Noise
from aigc_cli.registry import register


class Fills(NamedTuple):
    """What was guessed for gaps in some items."""

    rows: Sequence[int]  #: The numbers of the items.
    tokens: Tensor  #: As they were, int64 (n, t).
    gaps: Mapping[str, Tensor]  #: Which were masked, bool (n, t), by the score that they are for.
    guesses: Mapping[str, Tensor]  #: (n, t), likewise.
    fills_from: str  #: What the guesses were made from, in words.


@dataclass(config=STRICT, frozen=True, kw_only=True)
class InfillConfig(PlainConfig):
    """How much is masked, and where."""

    seed: Annotated[int, Field(ge=0)]


@register("metric", "infill", InfillConfig)
class Infill(Metric):
    """``infill``: the share of masked tokens that a model fills in as they were, of 15, 30 and 50 % of all.

    The masks are those of an item and a seed alone, the same for every model of the same tokens, and those of a smaller
    share are among those of a larger. An item's first token is never masked, since a writer from the left is given it.
    """

    takes: ClassVar[Takes] = {"items": ("fills",)}
    needs = frozenset({"fill"})
    shares: ClassVar[dict[str, float]] = {"infill_15": 0.15, "infill_30": 0.3, "infill_50": 0.5}
    figures: ClassVar[Figures] = dict.fromkeys(shares, "higher")
    right: Tensor
    masked: Tensor

    def __init__(self, config: InfillConfig, width: int = 0) -> None:
        super().__init__(config, width)
        self._fills_from = ""
        #: What was masked, so that a reader sees whether two models were given the same gaps.
        self._places = {figure: hashlib.sha256() for figure in self.shares}
        for state in ("right", "masked"):
            zeros = torch.zeros(len(self.shares), dtype=torch.int64)
            self.add_state(state, default=zeros, dist_reduce_fx="sum")

    def options(self) -> dict[str, Any]:
        """How much is masked, and the seed of where."""
        return {"shares": self.shares, "mask_seed": self.config.seed}

    def update(self, stream: Stream, fills: Fills) -> None:
        """Adds the guesses for some items."""
        self._fills_from = fills.fills_from
        for place, (figure, gaps) in enumerate(fills.gaps.items()):
            self.right[place] += ((fills.guesses[figure] == fills.tokens) & gaps).sum().cpu()
            self.masked[place] += gaps.sum().cpu()
            for row, gap in zip(fills.rows, gaps.cpu(), strict=True):
                self._places[figure].update(f"{row} {gap.nonzero().flatten().tolist()}".encode())

    def compute(self) -> dict[str, Tensor]:
        """Shares in [0, 1], float64 scalars by name."""
        return dict(zip(self.shares, self.right.double() / self.masked, strict=True))

    def facts(self) -> dict[str, Any]:
        """What was masked, and that all of it counts tokens."""
        masks = {figure: digest.hexdigest()[:8] for figure, digest in self._places.items()}
        return {
            "signature": f"filled in from {self._fills_from}; masks {'-'.join(masks.values())}",
            "masks": masks,
            "masked": dict(zip(self.shares, self.masked.tolist(), strict=True)),
            "per_token": list(self.figures),
        }


def gaps_of(tokens: Tensor, rows: Sequence[int], share: float, seed: int, longest: int) -> Tensor:
    """Which of the tokens (n, t) of some items are masked, bool (n, t), on their device.

    Args:
        tokens: Filled up with `pad`.
        rows: The numbers of the items.
        share: Of the tokens of an item but its first, rounded up.
        seed: Of the choice; with an item's number all that it depends on.
        longest: The most tokens of any item.
    """
    targets = tokens != PAD
    targets[:, 0] = False
    keys = Noise(seed, rows, tokens.device).uniform(longest)[:, : tokens.shape[1]]
    masks: Masks = masks_at([share] * len(tokens), targets, keys)
    gaps = torch.zeros_like(targets)
    gaps[masks.rows[masks.counts], masks.places[masks.counts]] = True
    return gaps
