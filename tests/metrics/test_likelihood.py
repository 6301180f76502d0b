"""Held-out likelihood: sums over all items, whatever the batches, with bounds shown as bounds."""

from typing import Any

import numpy as np
import pytest
import torch
from toy_metrics import asked

from aigc_cli.data.images import ImageDataset
from aigc_cli.data.open import encoded, items_at
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.items import DatasetItems
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Model
from aigc_cli.randomness import Noise

SPEC = DataSpec("image", (1, 4, 4))


class Bounded(Model):
    """Gives a bound that is tighter with more samples, and noisy in a way that depends on the item alone."""

    can = frozenset({"score"})
    layouts = frozenset({"map"})

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, torch.Tensor]:
        base = batch.content.flatten(1).sum(1) + 50
        drawn = noise.normal(samples).mean(dim=1)
        if samples > 1:
            return {"iw_bound": base - 1 + drawn * 0.1, "bits_per_dim": (base - 1) / 16}
        return {"nelbo": base + drawn, "bits_per_dim": base / 16, "kl": drawn * 0 + 3, "reconstruction": base - 3}


class Plain(Model):
    layouts = frozenset({"map"})


class ErrorAlone(Model):
    can = frozenset({"score"})
    layouts = frozenset({"map"})

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, torch.Tensor]:
        return {"mse": batch.content.flatten(1).mean(1)}


def dataset(n: int = 20) -> ImageDataset:
    content = np.random.default_rng(0).integers(0, 256, (n, 1, 4, 4), dtype=np.uint8)
    return ImageDataset(torch.from_numpy(content), None)


def measured(samples: int = 1, batch_size: int = 7, rows: range = range(20), model: Model | None = None) -> Any:
    items = DatasetItems(dataset(), "test", "noise", rows=rows)
    return asked("likelihood", model or Bounded(SPEC), items, seed=3, batch_size=batch_size, samples=samples)


def test_batches_do_not_matter_and_the_seed_decides() -> None:
    figures = measured().generated.figures
    assert measured(batch_size=20).generated.figures == pytest.approx(figures, rel=1e-9)
    assert measured().generated.figures == figures
    assert figures["elbo"] == -figures["nelbo"]
    assert figures["kl"] == 3


def test_more_samples_add_the_tighter_bound() -> None:
    result = measured(samples=5)
    figures = result.generated.figures
    assert figures["iw_bound"] < figures["nelbo"]
    assert figures["iw_bits_per_dim"] == pytest.approx(figures["bits_per_dim"] - 1 / 16)
    assert figures["nelbo"] == measured().generated.figures["nelbo"]


def test_a_bound_says_that_it_is_one() -> None:
    assert measured().bounds == {"nelbo": "<=", "bits_per_dim": "<=", "elbo": ">="}
    assert measured(samples=2).bounds["iw_bound"] == "<="


def test_each_score_says_which_way_is_better() -> None:
    lower = dict.fromkeys(("nelbo", "bits_per_dim", "iw_bound", "iw_bits_per_dim"), "lower")
    assert measured(samples=4).better == {**lower, "elbo": "higher", "kl": "", "reconstruction": ""}


def test_every_score_is_the_mean_over_all_items() -> None:
    rows = range(20)
    batch = encoded(items_at(dataset(), rows), dataset().codec)
    once, more = (Bounded(SPEC).score(batch, Noise(3, rows), samples) for samples in (1, 4))
    wanted = {**once, "elbo": -once["nelbo"], "iw_bound": more["iw_bound"], "iw_bits_per_dim": more["bits_per_dim"]}
    figures = measured(samples=4).generated.figures  # a batch is of one item, and of seven
    assert figures == pytest.approx({name: float(each.double().mean()) for name, each in wanted.items()}, rel=1e-6)
    assert measured(samples=4, batch_size=28).generated.figures == pytest.approx(figures, rel=1e-6)


def test_each_item_counts_once() -> None:
    whole = measured().generated.figures["reconstruction"]
    halves = [measured(rows=rows).generated.figures["reconstruction"] for rows in (range(5), range(5, 20))]
    assert whole == pytest.approx((5 * halves[0] + 15 * halves[1]) / 20, rel=1e-6)


@pytest.mark.parametrize("kind", [Plain, ErrorAlone])
def test_a_model_without_one_says_so(kind: type[Model]) -> None:
    with pytest.raises(ConfigError, match="no likelihood"):
        measured(model=kind(SPEC))


def test_a_score_that_is_not_finite_gives_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounded, "score", lambda *_: {"nelbo": torch.tensor([float("nan")])})
    with pytest.raises(DataError, match="not finite"):
        measured()
