"""Items of a dataset and of a model, and what is refused of them."""

from collections.abc import Iterator

import pytest
import torch

from aigc_cli.data.images import ImageDataset
from aigc_cli.errors import DataError, NonFiniteError
from aigc_cli.metrics.items import DatasetItems, SampledItems, same_shape
from aigc_cli.metrics.passages import items_of
from aigc_cli.modalities.base import Batch, DataSpec, Items


def all_of(items: Items, size: int = 3) -> torch.Tensor:
    batches = [batch.content for batch in items.batches(size)]
    assert all(len(batch) <= size for batch in batches)
    return torch.cat(batches)


def test_a_part_of_a_dataset_is_always_the_same_part() -> None:
    content = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(40, 1, 2, 2).contiguous()
    dataset = ImageDataset(content, None)
    parts = [DatasetItems(dataset, "train", "x", 10), DatasetItems(dataset, "train", "x").take(10)]
    rows = all_of(parts[0])[:, 0, 0, 0]
    assert len(set(rows.tolist())) == 10
    assert torch.equal(rows, all_of(parts[1], 7)[:, 0, 0, 0])
    assert parts[0].key == parts[1].key != DatasetItems(dataset, "train", "x").key
    assert len(DatasetItems(dataset, "train", "x", 100)) == 40
    assert DatasetItems(dataset, "train", "x", rows=[3, 1]).key is None  # which stand for nothing
    with pytest.raises(DataError, match="nothing in the val split"):
        items_of(ImageDataset(content[:0], None), "val", "x")


def test_sizes_must_agree() -> None:
    def side(*shape: int) -> DatasetItems:
        return DatasetItems(ImageDataset(torch.zeros(2, *shape, dtype=torch.uint8), None), "train", "x")

    with pytest.raises(DataError, match="held-out images are 1x4x4 and real ones 1x8x8"):
        same_shape(side(1, 4, 4), side(1, 8, 8), "held-out")
    with pytest.raises(DataError, match="generated images are 1x4x4 and real ones 3x4x4") as raised:
        same_shape(side(1, 4, 4), side(3, 4, 4))
    assert "channels" in (raised.value.hint or "")


def test_a_model_that_draws_nan_is_data_that_cannot_be_trusted() -> None:
    def stream() -> Iterator[Batch]:
        raise NonFiniteError("NaN", "step=")
        yield

    with pytest.raises(DataError, match="NaN"):
        list(SampledItems(stream, 3, DataSpec("image", (1, 2, 2))).batches(2))
