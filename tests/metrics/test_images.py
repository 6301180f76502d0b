"""Sets of images, of a dataset and of a model, and what is refused of them."""

from collections.abc import Iterator

import pytest
import torch

from aigc_cli.data.images import ImageDataset
from aigc_cli.errors import DataError, NonFiniteError
from aigc_cli.metrics.images import DatasetImages, GeneratedImages, Images, same_shape


def all_of(images: Images, batch_size: int = 3) -> torch.Tensor:
    batches = list(images.batches(batch_size))
    assert all(len(batch) <= batch_size for batch in batches)
    assert all(batch.dtype == torch.uint8 for batch in batches)
    return torch.cat(batches)


def test_a_part_of_a_dataset_is_always_the_same_part() -> None:
    content = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(40, 1, 2, 2).contiguous()
    dataset = ImageDataset(content, None)
    parts = [DatasetImages(dataset, "train", "x", 10) for _ in range(2)]
    rows = all_of(parts[0])[:, 0, 0, 0]
    assert len(set(rows.tolist())) == 10
    assert torch.equal(rows, all_of(parts[1], 7)[:, 0, 0, 0])
    assert parts[0].key != DatasetImages(dataset, "train", "x").key
    assert len(DatasetImages(dataset, "train", "x", 100)) == 40


def test_sizes_must_agree() -> None:
    def side(*shape: int) -> DatasetImages:
        return DatasetImages(ImageDataset(torch.zeros(2, *shape, dtype=torch.uint8), None), "train", "x")

    with pytest.raises(DataError, match="held-out images are 1x4x4 and real ones 1x8x8"):
        same_shape(side(1, 4, 4), side(1, 8, 8), "held-out")
    with pytest.raises(DataError, match="generated images are 1x4x4 and real ones 3x4x4") as raised:
        same_shape(side(1, 4, 4), side(3, 4, 4))
    assert "channels" in (raised.value.hint or "")


def test_a_model_that_draws_nan_is_data_that_cannot_be_trusted() -> None:
    def stream(batch_size: int) -> Iterator[torch.Tensor]:
        raise NonFiniteError("NaN", "step=")
        yield

    with pytest.raises(DataError, match="NaN"):
        list(GeneratedImages(stream, 3, (1, 2, 2)).batches(2))
