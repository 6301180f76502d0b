"""What a dataset is made of can be had before it is read, by the rules that read it."""

import pytest

from aigc_cli.config.compose import compose
from aigc_cli.data.images import EncodedImages, ImageDataset
from aigc_cli.data.open import open_dataset
from aigc_cli.data.raw import raw_of


@pytest.fixture
def broken(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.png").write_bytes(b"not a picture")
    return compose("train", ["data=image_folder", f"data.root={tmp_path}"])["data"]


def test_files_are_had_without_reading_them(broken):
    raw = raw_of(lambda: open_dataset(broken, "train"))
    assert raw.kind == "image"
    assert isinstance(raw.content, EncodedImages)
    assert len(raw.content) == 3  # copies of one, which are all on one side of the cut


def test_text_is_had_without_reading_it(tmp_path):
    (tmp_path / "text.txt").write_bytes(b"\xff\xfe broken")
    words = ["model=transformer", "data=text", f"data.root={tmp_path}"]
    raw = raw_of(lambda: open_dataset(compose("train", words)["data"], "train"))
    assert raw.kind == "text"
    assert raw.content.source("train").files[0][0] == "text.txt"


def test_what_offers_nothing_is_opened():
    raw = raw_of(lambda: open_dataset(compose("train", ["data=digits"])["data"], "val"))
    assert raw.kind == "image"
    assert isinstance(raw.content, ImageDataset)
