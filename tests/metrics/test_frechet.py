"""The Fréchet distance against closed forms, and where other ways to compute it go wrong."""

import numpy as np
import pytest
import torch

from aigc_cli.errors import DataError
from aigc_cli.metrics.extractors.base import FeatureStatistics
from aigc_cli.metrics.frechet import FDConfig, FrechetDistance, frechet_distance


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> FeatureStatistics:
    return FeatureStatistics(2, torch.from_numpy(mean).double(), torch.from_numpy(covariance).double())


def rotation(d: int, seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))
    return q


def test_one_dimension() -> None:
    distance = frechet_distance(
        gaussian(np.array([1.0]), np.array([[4.0]])), gaussian(np.array([3.0]), np.array([[9.0]]))
    )
    assert float(distance) == pytest.approx((1 - 3) ** 2 + (2 - 3) ** 2, abs=1e-12)


@pytest.mark.parametrize("rank", [6, 3, 1])
def test_commuting_covariances_singular_or_not(rank: int) -> None:
    rng = np.random.default_rng(0)
    q = rotation(6, 1)
    a, b = rng.uniform(0.5, 2, 6), rng.uniform(0.5, 2, 6)
    a[rank:] = b[rank:] = 0
    m1, m2 = rng.normal(size=6), rng.normal(size=6)
    wanted = ((m1 - m2) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    got = frechet_distance(gaussian(m1, q @ np.diag(a) @ q.T), gaussian(m2, q @ np.diag(b) @ q.T))
    assert float(got) == pytest.approx(wanted, abs=1e-9)


def test_general_covariances_against_the_matrix_root() -> None:
    rng = np.random.default_rng(3)
    a, b = (np.cov(rng.normal(size=(50, 5)) @ rng.normal(size=(5, 5)), rowvar=False) for _ in range(2))
    values, vectors = np.linalg.eigh(a)
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    wanted = np.trace(a) + np.trace(b) - 2 * np.sqrt(np.linalg.eigvalsh(root @ b @ root)).sum()
    assert float(frechet_distance(gaussian(np.zeros(5), a), gaussian(np.zeros(5), b))) == pytest.approx(
        wanted, abs=1e-9
    )


@pytest.mark.parametrize("n", [10, 500])  # fewer and more than dimensions
def test_identical_sets_are_at_zero_and_never_below(n: int) -> None:
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(n, 64)))
    statistics = FeatureStatistics.of(rows)
    assert 0 <= float(frechet_distance(statistics, statistics)) < 1e-9
    shuffled = FeatureStatistics.of(rows[torch.randperm(n)])
    assert 0 <= float(frechet_distance(statistics, shuffled)) < 1e-9


def test_fewer_items_than_dimensions() -> None:
    # Two orthogonal lines in a space of 64 dimensions: nothing overlaps, so the distance is the sum of both traces.
    a, b = torch.zeros(5, 64, dtype=torch.float64), torch.zeros(5, 64, dtype=torch.float64)
    a[:, 0] = b[:, 1] = torch.linspace(-1, 1, 5, dtype=torch.float64)
    got = frechet_distance(FeatureStatistics.of(a), FeatureStatistics.of(b))
    assert float(got) == pytest.approx(2 * float(a[:, 0].var()), abs=1e-9)


def test_the_metric_gathers_batches_and_says_when_they_are_few() -> None:
    rng = np.random.default_rng(0)
    real, fake = (torch.from_numpy(rng.normal(shift, 1, (40, 8))).float() for shift in (0, 1))
    metric = FrechetDistance(FDConfig(name="fd", extractor="pixels"), 8)
    for start in range(0, 40, 7):
        metric.update(real[start : start + 7], True)
        metric.update(fake[start : start + 7], False)
    wanted = frechet_distance(FeatureStatistics.of(real), FeatureStatistics.of(fake))
    assert float(metric.compute()["fd"]) == pytest.approx(float(wanted), rel=1e-12)
    assert metric.notes() == []
    metric.reset()
    metric.update(real[:5], True)
    metric.update(fake[:5], False)
    metric.compute()
    assert "biased" in metric.notes()[0]


@pytest.mark.parametrize(("n_real", "n_fake"), [(1, 5), (5, 1), (5, 0)])
def test_too_few_images_give_no_number(n_real: int, n_fake: int) -> None:
    metric = FrechetDistance(FDConfig(name="fd", extractor="pixels"), 3)
    metric.update(torch.rand(n_real, 3), True)
    metric.update(torch.rand(n_fake, 3), False)
    with pytest.raises(DataError, match="too few"):
        metric.compute()
