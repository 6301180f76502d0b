"""Images of noise on either side of an evaluation, and metrics on their pixels, which need no network."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from aigc_cli.data.images import ImageDataset
from aigc_cli.metrics.evaluation import Evaluation
from aigc_cli.metrics.extractors.base import Sources
from aigc_cli.metrics.items import DatasetItems, SampledItems
from aigc_cli.metrics.views import Views
from aigc_cli.modalities.base import Batch, DataSpec

FD = {"name": "fd", "extractor": "pixels"}
PRDC = {"name": "prdc", "extractor": "pixels", "k": 3, "memory_mb": 8}
IS = {"name": "is", "extractor": "pixels", "splits": 2, "seed": 0}
ALL: dict[str, Any] = {"fd": FD, "prdc": PRDC, "is": IS}


def side(content: Tensor, split: str = "train") -> DatasetItems:
    return DatasetItems(ImageDataset(content, None), split, "noise")


def generated(content: Tensor) -> SampledItems:
    def stream() -> Iterator[Batch]:
        yield from map(Batch, content.split(16))

    return SampledItems(stream, len(content), DataSpec("image", tuple(content.shape[1:])))


def ready(metrics: dict[str, Any], *sides: DatasetItems | None, size: int | None = None) -> Evaluation:
    return Evaluation(metrics, Views(Sources(), size), *sides)
