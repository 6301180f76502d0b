import pytest
import torch

from aigc_cli.data import SPLITS, open_dataset
from aigc_cli.errors import ConfigError

CONFIG = {"name": "digits", "size": 16, "flip": False, "val_fraction": 0.1, "test_fraction": 0.2}


def test_splits_are_disjoint_and_cover_everything():
    sets = {split: open_dataset({**CONFIG, "size": 8}, split) for split in SPLITS}
    assert {split: len(data) for split, data in sets.items()} == {"train": 1258, "val": 180, "test": 359}
    counts = sum(torch.bincount(data.resident().labels, minlength=10) for data in sets.values())
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len({data.spec.fingerprint for data in sets.values()}) == 3


@pytest.mark.parametrize("size", [7, 8, 16, 32])
def test_sizes(size):
    data = open_dataset({**CONFIG, "size": size}, "val")
    assert data.spec.shape == (1, size, size)
    content = data.resident().content
    assert content.dtype == torch.uint8
    assert content.max() > 230
    assert content.min() == 0


def test_the_fingerprint_is_of_the_content():
    first, again = (open_dataset(CONFIG, "val").spec.fingerprint for _ in range(2))
    assert first == again
    assert open_dataset({**CONFIG, "size": 32}, "val").spec.fingerprint != first


def test_the_test_part_does_not_depend_on_the_validation_part():
    other = open_dataset({**CONFIG, "val_fraction": 0.3}, "test")
    assert other.spec.fingerprint == open_dataset(CONFIG, "test").spec.fingerprint


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"size": 0}, "data.size"),
        ({"size": "16"}, "data.size"),
        ({"val_fraction": 1.5}, "data.val_fraction"),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, "leave nothing"),
        ({"sise": 8}, "data.sise"),
    ],
)
def test_wrong_configurations(change, word):
    with pytest.raises(ConfigError, match=word):
        open_dataset({**CONFIG, **change}, "train")


def test_a_split_that_is_left_empty():
    with pytest.raises(ConfigError, match="val split of digits is empty"):
        open_dataset({**CONFIG, "val_fraction": 0.0}, "val")


def test_unknown_names():
    with pytest.raises(ConfigError, match="there is no data named 'digit'") as caught:
        open_dataset({**CONFIG, "name": "digit"}, "train")
    assert "digits" in caught.value.hint
    with pytest.raises(ConfigError, match="split"):
        open_dataset(CONFIG, "valid")
