"""What a classifier says of items; and the Vendi score against its definition, and at the ends of its scale."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aigc_cli.data.images import ImageDataset
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.evaluation import Evaluation
from aigc_cli.metrics.extractors.base import FeatureConfig, Sources
from aigc_cli.metrics.items import DatasetItems, SampledItems
from aigc_cli.metrics.record import Record
from aigc_cli.metrics.reference_free import ClassAccuracy, InceptionScore, ISConfig, Vendi
from aigc_cli.metrics.views import Views
from aigc_cli.modalities.base import Batch, DataSpec

METRIC = {"class_accuracy": {"name": "class_accuracy", "extractor": "pixels"}}
NAMES = ("a", "b", "c", "d")


def brightest(classes: list[int]) -> Tensor:
    """Images whose first four pixels, the logits of the extractor here, say the class."""
    content = torch.zeros(len(classes), 1, 4, 4, dtype=torch.uint8)
    content[range(len(classes)), 0, 0, classes] = 255
    return content


def real(classes: list[int], labels: list[int] | None) -> DatasetItems:
    held = None if labels is None else torch.tensor(labels)
    return DatasetItems(ImageDataset(brightest(classes), held, NAMES if labels else ()), "test", "rows")


def generated(classes: list[int], labels: list[int] | None) -> SampledItems:
    def stream() -> Iterator[Batch]:
        yield Batch(brightest(classes), None if labels is None else torch.tensor(labels))

    return SampledItems(stream, len(classes), DataSpec("image", (1, 4, 4), NAMES if labels else ()))


def evaluated(fake: SampledItems, held_out: DatasetItems) -> Record:
    (result,) = Evaluation(METRIC, Views(Sources(), 2), real([0, 1], [0, 1]), held_out).of(fake)
    return result


def test_it_is_the_share_of_right_ones_over_all_and_in_the_worst_class() -> None:
    metric = ClassAccuracy(FeatureConfig(name="class_accuracy", extractor="pixels"), 4)
    metric.update("fake", torch.eye(4)[[0, 0, 1, 3]], torch.tensor([0, 0, 1, 1]))
    metric.update("fake", torch.eye(4)[[3]], torch.tensor([3]))
    figures = {name: float(value) for name, value in metric.compute().items()}
    assert figures == {"class_accuracy": pytest.approx(4 / 5), "worst_class_accuracy": pytest.approx(1 / 2)}


@pytest.mark.usefixtures("pixels")
def test_samples_are_held_against_what_was_asked_and_held_out_images_against_their_labels() -> None:
    result = evaluated(generated([0, 1, 2, 3, 0], [0, 1, 2, 3, 1]), real([0, 1, 1], [0, 1, 2]))
    assert result.generated.figures == {"class_accuracy": pytest.approx(4 / 5), "worst_class_accuracy": 0.5}
    assert result.at_baseline_n is not None
    assert result.at_baseline_n.figures["class_accuracy"] == 1
    assert result.baseline is not None
    assert result.baseline.figures["class_accuracy"] == pytest.approx(2 / 3)


@pytest.mark.usefixtures("pixels")
def test_images_without_classes_are_neither_right_nor_wrong() -> None:
    with pytest.raises(ConfigError, match="no class to be checked"):
        evaluated(generated([0, 1], None), real([0, 1], [0, 1]))
    assert evaluated(generated([0, 1], [0, 1]), real([0, 1], None)).baseline is None


def test_labels_follow_the_images(blobs: Callable[..., ImageDataset], monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = blobs(12)
    some: Any = DatasetItems(dataset, "test", "blobs", 5)
    wanted = [row % 2 for row in some.rows]
    assert torch.cat([batch.labels for batch in some.batches(2)]).tolist() == wanted
    whole = dataset.resident()
    monkeypatch.setattr(dataset, "resident", lambda: None)
    monkeypatch.setattr(dataset, "read", lambda row: (whole.content[row], int(whole.labels[row])))  # type: ignore
    assert torch.cat([batch.labels for batch in some.batches(2)]).tolist() == wanted


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


def test_the_ends_of_the_scale_of_vendi() -> None:
    assert vendi(torch.eye(5).repeat(8, 1)) == pytest.approx(5, abs=1e-9)
    assert vendi(torch.ones(40, 5)) == pytest.approx(1, abs=1e-9)


def test_one_image_gives_no_number() -> None:
    with pytest.raises(DataError, match="too few"):
        vendi(torch.ones(1, 3))
