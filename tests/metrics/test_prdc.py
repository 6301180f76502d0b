"""Precision, recall, density and coverage against their authors' package."""

import numpy as np
import pytest
import torch

from aigc_cli.errors import DataError
from aigc_cli.metrics.prdc import PRDC, PRDCConfig


def measured(real: np.ndarray, fake: np.ndarray, k: int = 5, memory_mb: int = 64, batch: int = 64) -> dict[str, float]:
    metric = PRDC(PRDCConfig(name="prdc", extractor="pixels", k=k, memory_mb=memory_mb), real.shape[1])
    for part in torch.from_numpy(real).split(batch):
        metric.update("real", part)
    for part in torch.from_numpy(fake).split(batch):
        metric.update("fake", part)
    return {name: float(value) for name, value in metric.compute().items()}


@pytest.mark.parametrize(("n_real", "n_fake", "k"), [(200, 200, 5), (300, 120, 3), (90, 250, 1)])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_they_are_the_packages(
    n_real: int, n_fake: int, k: int, offset: float, capsys: pytest.CaptureFixture[str]
) -> None:
    from prdc import compute_prdc

    rng = np.random.default_rng(n_real)
    real = (rng.normal(0, 1, (n_real, 12)) + offset).astype(np.float32)
    fake = (rng.normal(0.3, 0.8, (n_fake, 12)) + offset).astype(np.float32)
    wanted = compute_prdc(real, fake, k)
    assert measured(real, fake, k) == pytest.approx({key: float(value) for key, value in wanted.items()}, abs=1e-12)


def test_blocks_give_the_figures_of_one_piece() -> None:
    rng = np.random.default_rng(0)
    real, fake = (rng.normal(0, 1, (700, 4)).astype(np.float32) for _ in range(2))
    assert measured(real, fake, memory_mb=1) == measured(real, fake, memory_mb=1000, batch=700)


def test_the_ends_of_the_scale() -> None:
    real = np.random.default_rng(0).normal(0, 1, (60, 4)).astype(np.float32)
    same = measured(real, real)
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    far = measured(real, real + 100)
    assert far == dict.fromkeys(("precision", "recall", "density", "coverage"), 0)
    collapsed = measured(real, np.repeat(real[:1], 60, axis=0))
    assert collapsed["precision"] == 1
    assert collapsed["recall"] == 0
    assert collapsed["coverage"] < 0.2


@pytest.mark.parametrize(("n_real", "n_fake"), [(5, 60), (60, 5), (60, 0)])
def test_too_few_images_give_no_number(n_real: int, n_fake: int) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    with pytest.raises(DataError, match="needs at least 6"):
        measured(rows[:n_real], rows[:n_fake])
