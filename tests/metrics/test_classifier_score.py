"""The Inception score against torch-fidelity's."""

import numpy as np
import pytest
import torch

from aigc_cli.errors import DataError
from aigc_cli.metrics.classifier_score import InceptionScore, ISConfig


def score(logits: torch.Tensor, splits: int = 10) -> dict[str, torch.Tensor]:
    metric = InceptionScore(ISConfig(name="is", extractor="pixels", splits=splits, seed=2020), logits.shape[1])
    for part in logits.split(13):
        metric.update("fake", part)
    return metric.compute()


def test_it_is_torch_fidelitys() -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (103, 8))).float()
    wanted = isc_features_to_metric(logits, splits=10, shuffle=True, rng_seed=2020)
    got = score(logits)
    assert float(got["is"]) == pytest.approx(wanted["inception_score_mean"], rel=1e-9)
    assert float(got["is_std"]) == pytest.approx(wanted["inception_score_std"], rel=1e-9)


def test_the_ends_of_the_scale() -> None:
    assert float(score(torch.eye(4).repeat(50, 1) * 100, splits=1)["is"]) == pytest.approx(4)
    assert float(score(torch.zeros(50, 4))["is"]) == pytest.approx(1)


def test_fewer_images_than_splits_give_no_number() -> None:
    with pytest.raises(DataError, match="too few"):
        score(torch.zeros(5, 4))
