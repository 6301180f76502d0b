"""Active units: against the variance over all items at once, whatever the batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from toy_metrics import asked
from toy_text import ToyText, windows

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.passages import Passages
from aigc_cli.modalities.base import Batch
from aigc_cli.models.base import Model
from aigc_cli.models.variational import ACTIVE, FlatVAE, Posterior

DATA = ToyText(windows(40, 6))
#: The deviations that each latent's posterior means are scaled to.
SCALES = torch.tensor([3.0, 1.01 * ACTIVE**0.5, 0.99 * ACTIVE**0.5, 0.0])


class Latent(FlatVAE):
    """Gives each item means that vary over the items of :data:`DATA` as much as :data:`SCALES` says, about 5."""

    layouts = frozenset({"tokens"})
    can = frozenset({"encode", "decode", "posterior"})
    dimensions = len(SCALES)

    def posterior(self, batch: Batch) -> Posterior:
        first = DATA.batch.content[:, 1].double()
        placed = (batch.content[:, 1] - first.mean()) / first.std()
        mean = 5 + placed[:, None] * SCALES
        return Posterior(mean, torch.zeros_like(mean))

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        raise NotImplementedError


class Plain(Model):
    layouts = frozenset({"tokens"})


def measured(model: Model, rows: range = range(40), batch_size: int | None = None) -> Any:
    return asked("active_units", model, Passages(DATA, "test", "toy", rows=rows), batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [None, 1, 7])
def test_units_whose_means_vary_are_active(batch_size: int | None) -> None:
    result = measured(Latent(DATA.spec), batch_size=batch_size)
    assert result.generated.figures == {"active_units": 2}
    assert result.generated.n == result.n_real == 40
    assert "of 4 latent dimensions" in result.facts["signature"]


def test_what_gives_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="Plain has no posterior"):
        measured(Plain(DATA.spec))
    with pytest.raises(DataError, match="fewer than two"):
        measured(Latent(DATA.spec), range(1))
    monkeypatch.setattr(f"{__name__}.SCALES", SCALES * torch.nan)
    with pytest.raises(DataError, match="not finite"):
        measured(Latent(DATA.spec))
