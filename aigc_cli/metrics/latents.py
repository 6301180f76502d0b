"""``active_units``: how many latent dimensions of a variational autoencoder say something about an item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torchmetrics import Metric

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Dataset
from aigc_cli.data.open import encoded, items_at
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.result import Result, Score, finite
from aigc_cli.models.base import Model
from aigc_cli.models.variational import ACTIVE
from aigc_cli.progress import progress
from aigc_cli.registry import register
from aigc_cli.sampling.generate import in_batches


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ActiveUnitsConfig:
    """It has no choices."""

    name: Literal["active_units"]


@register("metric", "active_units", ActiveUnitsConfig)
class ActiveUnits(Metric):
    """``active_units``: the latent dimensions whose posterior mean has a variance above 0.01 over items.

    Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016, section 5.2. Sums are in float64.
    """

    is_differentiable = False
    full_state_update = False
    figures: ClassVar[dict[str, str]] = {"active_units": ""}
    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, config: ActiveUnitsConfig) -> None:
        super().__init__()
        self.config = config
        for state in ("total", "squares"):  # of each dimension, once it is known how many there are
            self.add_state(state, default=torch.zeros(1, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, means: Tensor) -> None:
        """Adds the posterior means (n, d) of items."""
        means = means.double().cpu()
        self.total = self.total + means.sum(0)
        self.squares = self.squares + means.square().sum(0)
        self.count = self.count + len(means)

    def compute(self) -> dict[str, Tensor]:
        """The figure, a float64 scalar.

        Raises:
            DataError: there are fewer than two items, or means that are not finite.
        """
        if self.count < 2:
            raise DataError("active_units looks at how items differ, and there are fewer than two", "give more with n=")
        variance = (self.squares - self.total.square() / self.count) / (self.count - 1)
        if not bool(variance.isfinite().all()):
            raise DataError("active_units: posterior means are not finite", "choose an earlier checkpoint with step=")
        return {"active_units": (variance > ACTIVE).sum().double()}


def measure_active_units(
    model: Model, dataset: Dataset, rows: Sequence[int], *, device: torch.device, batch_size: int | None = None
) -> Result:
    """The latent dimensions that are in use over some items.

    Args:
        model: In evaluation mode, on `device`.
        dataset: Where the items are.
        rows: Which of them.
        device: Where the model is.
        batch_size: Items at a time; None suits the memory.

    Raises:
        ConfigError: the model has no latent vector with a Gaussian posterior.
        DataError: there are fewer than two items, or means that are not finite.
        ResourceError: a batch does not fit in memory.
    """
    if "posterior" not in model.can:
        raise ConfigError(
            f"active_units looks at a latent vector's posterior, and {type(model).__name__} has none",
            "name a run of model=vae",
        )
    metric = ActiveUnits(ActiveUnitsConfig(name="active_units"))
    metric.distributed_available_fn = lambda: False

    def encode(some: Sequence[int]) -> int:
        metric.update(model.encode(encoded(items_at(dataset, some).to(device), dataset.codec)))
        return len(some)

    with progress(len(rows), "encoding", "items") as bar:
        for done in in_batches(encode, rows, model.held(), device, batch_size):
            bar.advance(done)
    figures, d = finite("active_units", metric.compute()), len(metric.total)
    return Result(
        metric="active_units",
        extractor=None,
        plain=True,
        better=metric.figures,
        config=vars(metric.config),
        n_real=len(rows),
        generated=Score(figures, len(rows)),
        facts={"signature": f"of {d} latent dimensions, those whose posterior mean has a variance above {ACTIVE}"},
    )
