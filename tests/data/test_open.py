from pathlib import Path

import pytest
import torch

from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.images import ImageDataset
from aigc_cli.data.open import Splits, chosen_rows, encoded, items_at, open_dataset, reference_rows
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.modalities.image import ImageCodec
from aigc_cli.new_run import create_run

DIGITS = {"name": "digits", "size": 8, "flip": False, "val_fraction": 0.1, "test_fraction": 0.2}


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


def test_the_rows_of_a_reference_depend_on_the_split_alone() -> None:
    few = reference_rows(pictures(50), "val", 7)
    assert few == [3, 6, 7, 23, 34, 43, 49]  # scores that are on record were measured on these
    assert few != reference_rows(pictures(50), "test", 7)
    for everything in (None, 50, 60):
        assert reference_rows(pictures(50), "val", everything) == list(range(50))


def splits(sizes: dict[str, int | None]) -> Splits:
    """Splits of so many items; None is a split that cannot be read."""

    def open_split(split: Split) -> Dataset:
        if split not in sizes:
            raise ConfigError("no such split")
        size = sizes[split]
        if size is None:
            raise DataError(f"{split} is torn")
        return pictures(size) if size else Streamed(Nothing())

    return Splits("toys", open_split)


@pytest.mark.parametrize(
    ("sizes", "avoid", "found"),
    [
        ({"test": 3, "val": 2, "train": 9}, None, "test"),
        ({"test": 3, "val": 2, "train": 9}, "test", "val"),
        ({"val": 2, "train": 9}, None, "val"),
        ({"test": 0, "train": 9}, None, "train"),
        ({"test": 3, "train": 9}, "test", "train"),
    ],
)
def test_the_held_out_split_is_the_first_that_holds_anything(
    sizes: dict[str, int | None], avoid: Split | None, found: Split
) -> None:
    split, dataset = splits(sizes).held_out(avoid)
    assert (split, len(dataset)) == (found, sizes[found])


def test_a_held_out_split_that_cannot_be_read_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert splits({"test": None, "val": 2, "train": 9}).held_out()[0] == "val"
    assert capsys.readouterr().err == "aigc: warning: skipping the test split: test is torn\n"
    with pytest.raises(DataError, match="test is torn"):
        splits({"test": None}).held_out()
    with pytest.raises(ConfigError, match="toys has no held-out items"):
        splits({"test": 0, "val": 0, "train": 9}).held_out(avoid="train")
    with pytest.raises(ConfigError, match="no such split"):  # the dataset's own words, which say what to change
        splits({"train": 9}).held_out(avoid="train")
    assert capsys.readouterr().err == ""


def test_a_split_is_opened_once() -> None:
    opened: list[Split] = []

    def open_split(split: Split) -> Dataset:
        opened.append(split)
        return pictures(2)

    twice = Splits("toys", open_split)
    assert twice["val"] is twice["val"]
    assert opened == ["val"]


def test_the_data_of_a_run_is_compared_with_what_it_was_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"model": {"name": "gan"}, "data": {**DIGITS, "size": 16}, "outputs": str(tmp_path), "run_dir": None}
    run = create_run(config)
    run.save_config(config, open_dataset(config["data"], "train").spec)
    same = Splits.of_run(run, {"root": None, "size": None})
    assert len(same["val"]) > 0
    assert capsys.readouterr().err == ""
    moved = Splits.of_run(run, {"size": 8})
    assert [moved[split].spec.shape for split in ("val", "train")] == [(1, 8, 8)] * 2  # type: ignore[index]
    assert capsys.readouterr().err == f"aigc: warning: the data differs from what {run.name} was trained on\n"


def test_data_that_is_named_needs_no_null_keys_of_other_datasets() -> None:
    everywhere = {"root": None, "context": None}
    assert len(Splits.named({**DIGITS, **everywhere})["val"]) == len(Splits.of_config(DIGITS)["val"])
    with pytest.raises(ConfigError, match="root"):
        Splits.named({**DIGITS, "root": "there"})["val"]


class Nothing(ImageDataset):
    """No items at all."""

    def __init__(self) -> None:
        self.spec = DataSpec("image", (1, 2, 2))

    def __len__(self) -> int:
        return 0
