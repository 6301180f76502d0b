"""The Vendi score against its definition, and at the ends of its scale."""

import numpy as np
import pytest
import torch

from aigc_cli.errors import DataError
from aigc_cli.metrics.extractors.base import FeatureConfig
from aigc_cli.metrics.vendi import Vendi


def vendi(rows: torch.Tensor) -> float:
    metric = Vendi(FeatureConfig(name="vendi", extractor="x"), rows.shape[1])
    for part in rows.split(7):
        metric.update("fake", part)
    return float(metric.compute()["vendi"])


@pytest.mark.parametrize(("n", "d"), [(40, 6), (6, 40)])
def test_it_is_the_entropy_of_the_similarities_of_all_pairs(n: int, d: int) -> None:
    rows = np.random.default_rng(0).normal(size=(n, d))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(unit @ unit.T / n)
    values = values[values > 1e-12]
    assert vendi(torch.from_numpy(rows)) == pytest.approx(np.exp(-(values * np.log(values)).sum()), abs=1e-6)


def test_the_ends_of_the_scale() -> None:
    assert vendi(torch.eye(5).repeat(8, 1)) == pytest.approx(5, abs=1e-9)
    assert vendi(torch.ones(40, 5)) == pytest.approx(1, abs=1e-9)


def test_one_image_gives_no_number() -> None:
    with pytest.raises(DataError, match="too few"):
        vendi(torch.ones(1, 3))
