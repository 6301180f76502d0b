"""``infill``: how many of some masked tokens a model finds, from what stands around them or only before them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torchmetrics import Metric

from aigc_cli.config.schema import STRICT, check
from aigc_cli.data.base import Dataset
from aigc_cli.data.open import chosen_rows, items_at
from aigc_cli.errors import ConfigError
from aigc_cli.metrics.passages import Passages
from aigc_cli.metrics.result import Result, Score, finite
from aigc_cli.modalities.tokenizers import FIRST, PAD
from aigc_cli.models.base import Model
from aigc_cli.nn.masking import Masks, masks_at
from aigc_cli.progress import progress
from aigc_cli.randomness import Noise
from aigc_cli.registry import register
from aigc_cli.sampling.generate import in_batches

_COUNTED = 4096  # training items that the commonest token is counted on
_TOKENS = 2**14  # of a batch


@dataclass(config=STRICT, frozen=True, kw_only=True)
class InfillConfig:
    """How much is masked, and where."""

    name: Literal["infill"]
    seed: Annotated[int, Field(ge=0)]


@register("metric", "infill", InfillConfig)
class Infill(Metric):
    """``infill``: the share of masked tokens that a model fills in as they were, of 15, 30 and 50 % of all.

    The masks are those of an item and a seed alone, the same for every model of the same tokens, and those of a smaller
    share are among those of a larger. An item's first token is never masked, since a writer from the left is given it.
    """

    is_differentiable = False
    full_state_update = False
    shares: ClassVar[dict[str, float]] = {"infill_15": 0.15, "infill_30": 0.3, "infill_50": 0.5}
    figures: ClassVar[dict[str, str]] = dict.fromkeys(shares, "higher")
    right: Tensor
    masked: Tensor

    def __init__(self, config: InfillConfig) -> None:
        super().__init__()
        self.config = config
        for state in ("right", "masked"):
            zeros = torch.zeros(len(self.shares), dtype=torch.int64)
            self.add_state(state, default=zeros, dist_reduce_fx="sum")

    def update(self, figure: str, guesses: Tensor, tokens: Tensor, gaps: Tensor) -> None:
        """Adds guesses (n, t) for the gaps (n, t) of tokens (n, t), bool and int64, at the share of a figure."""
        place = list(self.shares).index(figure)
        self.right[place] += ((guesses == tokens) & gaps).sum().cpu()
        self.masked[place] += gaps.sum().cpu()

    def compute(self) -> dict[str, Tensor]:
        """Shares in [0, 1], float64 scalars by name."""
        return dict(zip(self.shares, self.right.double() / self.masked, strict=True))


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


def measure_infill(
    model: Model,
    passages: Passages,
    train: Dataset,
    values: Mapping[str, Any],
    *,
    controls: Any,
    seed: int,
    device: torch.device,
    batch_size: int | None = None,
) -> Result:
    """The accuracy of a model's fillings of passages, beside that of the commonest token of the training set.

    Args:
        model: In evaluation mode, on `device`.
        passages: What is masked; texts, and not pairs.
        train: What the model was trained on.
        values: The metric's configuration.
        controls: Of ``model.controls``, for models that have a choice of how they fill.
        seed: Of what is drawn on the way.
        device: Where the model is.
        batch_size: Items at a time; None suits their length, and is halved where memory runs out.

    Raises:
        ConfigError: the model fills no gaps.
    """
    if "fill" not in model.can:
        raise ConfigError(f"{type(model).__name__} fills no gaps", "a run of model=bert or model=transformer does")
    config = check("metric.infill", InfillConfig, values)
    metric, floor = Infill(config), Infill(config)
    places = {figure: hashlib.sha256() for figure in metric.shares}
    commonest, longest = _commonest(train, passages.codec.tokenizer.vocab_size), passages.dataset.spec.shape[0]

    def fill(rows: Sequence[int]) -> int:
        tokens = items_at(passages.dataset, rows).content.to(device)
        gaps = {figure: gaps_of(tokens, rows, share, config.seed, longest) for figure, share in metric.shares.items()}
        guesses = {name: model.fill(tokens, gaps[name], Noise(seed, rows, device), controls) for name in gaps}
        for figure in gaps:
            metric.update(figure, guesses[figure], tokens, gaps[figure])
            floor.update(figure, torch.full_like(tokens, commonest), tokens, gaps[figure])
            for row, gap in zip(rows, gaps[figure].cpu(), strict=True):
                places[figure].update(f"{row} {gap.nonzero().flatten().tolist()}".encode())
        return len(rows)

    size = batch_size or max(1, _TOKENS // longest)
    with progress(len(passages), "filling gaps", "items") as bar:
        for done in in_batches(fill, passages.rows, longest, device, min(size, len(passages))):
            bar.advance(done)
    scores = []
    for one in (metric, floor):
        one.distributed_available_fn = lambda: False
        scores.append(Score(finite("infill", one.compute()), len(passages)))
    masks = {figure: digest.hexdigest()[:8] for figure, digest in places.items()}
    return Result(
        metric="infill",
        extractor=None,
        plain=True,
        better=metric.figures,
        config=dict(values),
        n_real=len(passages),
        generated=scores[0],
        beside={"commonest token": scores[1]},
        facts={
            "signature": f"filled in from {model.fills_from}; masks {'-'.join(masks.values())}",
            "masks": masks,
            "masked": dict(zip(metric.shares, metric.masked.tolist(), strict=True)),
            "per_token": list(metric.figures),
        },
    )


def _commonest(train: Dataset, vocab_size: int) -> int:
    rows = sorted(chosen_rows(train, "commonest")[:_COUNTED])
    counts = torch.bincount(items_at(train, rows).content.flatten(), minlength=vocab_size)
    counts[:FIRST] = 0
    return int(counts.argmax())
