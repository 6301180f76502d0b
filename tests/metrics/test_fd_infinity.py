"""The extrapolated Fréchet distance: free of the bias with n that the plain one has."""

import numpy as np
import pytest
import torch

from aigc_cli.errors import DataError
from aigc_cli.metrics.extractors.base import FeatureStatistics
from aigc_cli.metrics.fd_infinity import FDInfinityConfig, FrechetInfinity, intercept
from aigc_cli.metrics.frechet import frechet_distance

D = 24


def drawn(n: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, scale, (n, D))).float()


def measured(real: torch.Tensor, fake: torch.Tensor, seed: int = 0) -> float:
    config = FDInfinityConfig(name="fd_infinity", extractor="x", points=10, smallest=0.2, seed=seed)
    metric = FrechetInfinity(config, D)
    for side, is_real in ((real, True), (fake, False)):
        for part in side.split(100):
            metric.update(part, is_real)
    return float(metric.compute()["fd_infinity"])


def test_statistics_that_are_taken_later_count() -> None:
    metric = FrechetInfinity(FDInfinityConfig(name="fd_infinity", extractor="x", points=3, smallest=0.5, seed=0), D)
    metric.take(FeatureStatistics.of(drawn(50, 0)), True)
    metric.update(drawn(60, 1), False)
    first = metric.compute()["fd_infinity"]
    metric.take(FeatureStatistics.of(drawn(50, 2, 3.0)), True)
    assert metric.compute()["fd_infinity"] != first


def test_a_line_through_exact_points_meets_its_intercept() -> None:
    sizes = np.array([100, 150, 200, 400])
    assert intercept(sizes, 3.5 + 20 / sizes) == pytest.approx(3.5, abs=1e-12)


def test_its_bias_is_a_small_part_of_the_plain_ones() -> None:
    real, n = drawn(40_000, 0), 400
    truth = D * (1.3 - 1) ** 2
    plain, extrapolated = [], []
    for seed in range(1, 9):
        fake = drawn(n, seed, 1.3)
        plain.append(float(frechet_distance(FeatureStatistics.of(real), FeatureStatistics.of(fake))))
        extrapolated.append(measured(real, fake))
    assert np.mean(plain) - truth > 0.3
    assert abs(np.mean(extrapolated) - truth) < 0.25 * (np.mean(plain) - truth)


def test_the_same_seed_gives_the_same_figure() -> None:
    real, fake = drawn(500, 0), drawn(300, 1)
    assert measured(real, fake) == measured(real, fake) != measured(real, fake, seed=1)


def test_too_few_images_give_no_number() -> None:
    with pytest.raises(DataError, match="needs at least 100"):
        measured(drawn(500, 0), drawn(99, 1))


def test_it_says_where_its_line_begins_too_early() -> None:
    config = FDInfinityConfig(name="fd_infinity", extractor="x", points=10, smallest=0.1, seed=0)
    metric = FrechetInfinity(config, D)
    metric.update(drawn(200, 0), False)
    assert "from 20 images on, fewer than the 24 features" in metric.notes()[0]
