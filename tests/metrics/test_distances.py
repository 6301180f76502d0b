"""The Fréchet distances and the kernel distance."""

import numpy as np
import pytest
import torch

from aigc_cli.errors import DataError
from aigc_cli.metrics.distances import (
    FD,
    KID,
    FDInfinity,
    FDInfinityConfig,
    KIDConfig,
    frechet_distance,
    intercept,
    polynomial_mmd,
)
from aigc_cli.metrics.extractors.base import FeatureConfig, FeatureStatistics


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
    metric = FD(FeatureConfig(name="fd", extractor="pixels"), 8)
    for start in range(0, 40, 7):
        metric.update("real", FeatureStatistics.of(real[start : start + 7]))
        metric.update("fake", FeatureStatistics.of(fake[start : start + 7]))
    wanted = frechet_distance(FeatureStatistics.of(real), FeatureStatistics.of(fake))
    assert float(metric.compute()["fd"]) == pytest.approx(float(wanted), rel=1e-12)
    assert metric.notes() == []
    metric.reset()
    metric.update("real", FeatureStatistics.of(real[:5]))
    metric.update("fake", FeatureStatistics.of(fake[:5]))
    metric.compute()
    assert "biased" in metric.notes()[0]


@pytest.mark.parametrize(("n_real", "n_fake"), [(1, 5), (5, 1)])
def test_too_few_items_give_no_number(n_real: int, n_fake: int) -> None:
    metric = FD(FeatureConfig(name="fd", extractor="pixels"), 3)
    metric.update("real", FeatureStatistics.of(torch.rand(n_real, 3)))
    metric.update("fake", FeatureStatistics.of(torch.rand(n_fake, 3)))
    with pytest.raises(DataError, match="too few"):
        metric.compute()


# extrapolated


D = 24


def drawn(n: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, scale, (n, D))).float()


def measured(real: torch.Tensor, fake: torch.Tensor, seed: int = 0) -> float:
    config = FDInfinityConfig(name="fd_infinity", extractor="x", points=10, smallest=0.2, seed=seed)
    metric = FDInfinity(config, D)
    for part in real.split(100):
        metric.update("real", FeatureStatistics.of(part))
    for part in fake.split(100):
        metric.update("fake", part)
    return float(metric.compute()["fd_infinity"])


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


def test_the_same_seed_gives_the_same_score() -> None:
    real, fake = drawn(500, 0), drawn(300, 1)
    assert measured(real, fake) == measured(real, fake) != measured(real, fake, seed=1)


def test_a_line_needs_items_enough() -> None:
    with pytest.raises(DataError, match="needs at least 100"):
        measured(drawn(500, 0), drawn(99, 1))


def test_it_says_where_its_line_begins_too_early() -> None:
    config = FDInfinityConfig(name="fd_infinity", extractor="x", points=10, smallest=0.1, seed=0)
    metric = FDInfinity(config, D)
    metric.update("fake", drawn(200, 0))
    assert "from 20 items on, fewer than the 24 features" in metric.notes()[0]


def normal(n: int, shift: float, seed: int, d: int = 16) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, 1, (n, d))).float()


def kid(real: torch.Tensor, fake: torch.Tensor, subsets: int = 20, subset_size: int = 50) -> KID:
    config = KIDConfig(name="kid", extractor="pixels", subsets=subsets, subset_size=subset_size, seed=2020)
    metric = KID(config, real.shape[1])
    for part in real.split(33):
        metric.update("real", part)
    for part in fake.split(17):
        metric.update("fake", part)
    return metric


def test_it_is_torch_fidelitys() -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    real, fake = normal(120, 0, 0), normal(90, 0.3, 1)
    wanted = kid_features_to_metric(fake, real, kid_subsets=20, kid_subset_size=50, rng_seed=2020, verbose=False)
    got = kid(real, fake).compute()
    assert float(got["kid"]) == pytest.approx(wanted["kernel_inception_distance_mean"], rel=1e-5)
    assert float(got["kid_std"]) == pytest.approx(wanted["kernel_inception_distance_std"], rel=1e-4)


def test_it_is_torch_fidelitys_in_float64_to_the_last_digits() -> None:
    """What tells them apart above is that it sums kernels in float32."""
    from torch_fidelity.metric_kid import kid_features_to_metric

    fake, real = normal(90, 0.1, 1), normal(120, 0, 0)
    wanted = kid_features_to_metric(
        fake.double(), real.double(), kid_subsets=20, kid_subset_size=50, rng_seed=2020, verbose=False
    )
    got = kid(real, fake).compute()
    assert float(got["kid"]) == pytest.approx(wanted["kernel_inception_distance_mean"], rel=1e-11)
    assert float(got["kid_std"]) == pytest.approx(wanted["kernel_inception_distance_std"], rel=1e-11)


def test_it_is_centred_whatever_the_number_of_items() -> None:
    for m in (5, 50):
        values = [
            float(polynomial_mmd(normal(m, 0, 2 * i).double(), normal(m, 0, 2 * i + 1).double())) for i in range(300)
        ]
        assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


def test_small_sets_serve_whole_and_it_says_so() -> None:
    metric = kid(normal(30, 0, 0), normal(40, 0, 1), subset_size=1000)
    assert np.isfinite(float(metric.compute()["kid"]))
    assert metric.notes() == ["subsets of 30, because there are no more items"]


def test_there_is_no_spread_over_subsets_that_are_all_the_same() -> None:
    for metric in (kid(normal(30, 0, 0), normal(30, 0, 1)), kid(normal(300, 0, 0), normal(300, 0, 1), subsets=1)):
        assert set(metric.compute()) == {"kid"}
        assert "no kid_std" in metric.notes()[-1]
    for metric in (kid(normal(31, 0, 0), normal(30, 0, 1)), kid(normal(60, 0, 0), normal(60, 0, 1))):
        assert float(metric.compute()["kid_std"]) > 1e-5
        assert not any("no kid_std" in note for note in metric.notes())


def test_one_image_gives_no_number() -> None:
    with pytest.raises(DataError, match="too few"):
        kid(normal(30, 0, 0), normal(1, 0, 1)).compute()
