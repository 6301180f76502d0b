"""Statistics that accumulate and merge, and the check that features are finite."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from aigc_cli.errors import DataError
from aigc_cli.metrics.extractors.base import FeatureStatistics, check_finite, merge_packed


def features(n: int, d: int = 7, seed: int = 0) -> torch.Tensor:
    # Far from the origin, where sums of squares would lose half of their digits.
    return torch.from_numpy(np.random.default_rng(seed).normal(1e4, 1.0, (n, d)))


def test_statistics_are_numpys() -> None:
    rows = features(50)
    statistics = FeatureStatistics.of(rows)
    np.testing.assert_allclose(statistics.mean, rows.numpy().mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(statistics.covariance, np.cov(rows.numpy(), rowvar=False), atol=1e-10)


@pytest.mark.parametrize("cuts", [(1,), (25,), (1, 2, 3), (10, 20, 49)])
def test_merging_parts_gives_the_whole(cuts: tuple[int, ...]) -> None:
    rows = features(50)
    edges = [0, *cuts, 50]
    parts = [FeatureStatistics.of(rows[a:b]) for a, b in pairwise(edges)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    whole = FeatureStatistics.of(rows)
    assert merged.n == 50
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(merged.covariance, whole.covariance, rtol=0, atol=1e-9)


def test_packed_statistics_merge_as_processes_hand_them_over() -> None:
    rows = features(30)
    empty = FeatureStatistics(0, torch.zeros(7, dtype=torch.float64), torch.zeros(7, 7, dtype=torch.float64))
    parts = [FeatureStatistics.of(rows[:11]).packed(), empty.packed(), FeatureStatistics.of(rows[11:]).packed()]
    merged = FeatureStatistics.unpacked(merge_packed(torch.stack(parts)))
    whole = FeatureStatistics.of(rows)
    assert merged.n == 30
    torch.testing.assert_close(merged.covariance, whole.covariance, rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    rows = features(4)
    assert check_finite(rows, "x") is rows
    rows[2, 1] = value
    with pytest.raises(DataError, match="1 of 4 rows"):
        check_finite(rows, "the features")
