import pytest
import torch

from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.images import ImageDataset
from aigc_cli.data.selection import chosen_rows, encoded, held_out_split, items_at
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.modalities.image import ImageCodec


class Streamed(Dataset):
    """The same items as another dataset, which it does not hold."""

    codec = ImageCodec()

    def __init__(self, held: ImageDataset) -> None:
        self.held, self.spec = held, held.spec

    def __len__(self) -> int:
        return len(self.held)

    def resident(self) -> Batch | None:
        return None

    def read(self, index: int) -> tuple[torch.Tensor, int | None]:
        return self.held.read(index)


def pictures(n: int, labels: bool = True) -> ImageDataset:
    pixels = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 1, 2, 2).clone()
    return ImageDataset(pixels, torch.arange(n) % 3 if labels else None, ("a", "b", "c") if labels else ())


@pytest.mark.parametrize("labels", [True, False])
def test_items_come_as_asked_for_whether_they_are_held_or_read(labels: bool) -> None:
    held = pictures(9, labels)
    for dataset in (held, Streamed(held)):
        batch = items_at(dataset, [7, 2, 2])
        assert batch.content[:, 0, 0, 0].tolist() == [7, 2, 2]
        assert (None if batch.labels is None else batch.labels.tolist()) == ([1, 2, 2] if labels else None)
    assert encoded(items_at(held, [0]), held.codec).content.unique().tolist() == [-1.0]


def test_rows_are_in_an_order_of_their_key() -> None:
    rows = chosen_rows(pictures(50), "look", 3)
    assert sorted(rows) == list(range(50))
    assert rows == chosen_rows(pictures(50), "look", 3)
    assert rows != chosen_rows(pictures(50), "look", 4)
    assert rows[:5] != list(range(5))


@pytest.mark.parametrize(
    ("sizes", "found"),
    [({"test": 3, "val": 2, "train": 9}, "test"), ({"val": 2, "train": 9}, "val"), ({"test": 0, "train": 9}, "train")],
)
def test_the_first_split_that_holds_anything(sizes: dict[str, int], found: Split) -> None:
    def open_split(split: Split) -> Dataset:
        if split not in sizes:
            raise ConfigError("no such split")
        return pictures(sizes[split]) if sizes[split] else Streamed(Nothing())

    split, dataset = held_out_split(open_split)
    assert (split, len(dataset)) == (found, sizes[found])


class Nothing(ImageDataset):
    """No items at all."""

    def __init__(self) -> None:
        self.spec = DataSpec("image", (1, 2, 2))

    def __len__(self) -> int:
        return 0


def test_data_that_cannot_be_trusted_is_not_passed_over() -> None:
    def broken(split: Split) -> Dataset:
        raise DataError("torn")

    with pytest.raises(DataError):
        held_out_split(broken)
