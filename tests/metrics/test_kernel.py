"""The kernel distance against torch-fidelity's, and its lack of bias."""

import numpy as np
import pytest
import torch

from aigc_cli.errors import DataError
from aigc_cli.metrics.kernel import KID, KIDConfig, polynomial_mmd


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
