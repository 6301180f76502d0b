import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aigc_cli.config.schema import load_yaml
from aigc_cli.data import SPLITS, open_dataset
from aigc_cli.data.loader import Loader
from aigc_cli.errors import ConfigError, DataError

CONFIG = {
    "name": "image_folder",
    "root": None,
    "size": 8,
    "channels": 3,
    "labels": True,
    "flip": True,
    "val_fraction": 0.2,
    "test_fraction": 0.2,
    "max_bad": 0,
    "memory_gb": 4.0,
}


def paint(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 12), (number * 7 % 256, 50, 200)).save(path)
    return folder


def opened(root: Path, split: str = "train", **changes):
    return open_dataset({**CONFIG, "root": str(root), **changes}, split)


def pack(folder: Path, archive: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, prefix + path.relative_to(folder).as_posix())
        packed.writestr("__MACOSX/._x.png", b"junk")
    return archive


NESTED = [f"{kind}/{i}.{suffix}" for kind in ("cat", "dog") for i in range(20) for suffix in ("png", "bmp")]


def test_nested_folders_are_classes(tmp_path):
    root = paint(tmp_path / "pets", [*NESTED, "cat/deeper/still/x.PNG"])
    sets = [opened(root, split) for split in SPLITS]
    assert sum(map(len, sets)) == 81
    assert all(data.spec.classes == ("cat", "dog") for data in sets)
    assert sum(int(data.resident().labels.sum()) for data in sets) == 40
    assert sets[0].spec.shape == (3, 8, 8)


def test_flat_is_unlabelled(tmp_path):
    data = opened(paint(tmp_path, [f"{i}.jpg" for i in range(9)]))
    assert data.spec.classes == ()
    assert data.resident().labels is None


def test_labels_can_be_ignored(tmp_path):
    assert opened(paint(tmp_path, [*NESTED, "loose.png"]), labels=False).spec.classes == ()


def test_pictures_beside_class_folders_are_an_error(tmp_path):
    with pytest.raises(DataError, match=r"loose\.png"):
        opened(paint(tmp_path, [*NESTED, "loose.png"]))


@pytest.mark.parametrize("prefix", ["", "pets/"])
def test_a_zip_is_what_its_folder_is(tmp_path, prefix):
    root = paint(tmp_path / "pets", NESTED)
    archive = pack(root, tmp_path / "pets.zip", prefix)
    for split in SPLITS:
        assert opened(archive, split).spec == opened(root, split).spec
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["pets", "pets.zip"]


def test_a_zip_of_one_folder_is_flat(tmp_path):
    archive = pack(paint(tmp_path / "cats", [f"{i}.png" for i in range(9)]), tmp_path / "cats.zip", "cats/")
    assert opened(archive).spec.classes == ()


def test_split_folders_are_taken(tmp_path):
    names = [f"train/{kind}/{i}.png" for kind in "ab" for i in range(10)]
    root = paint(tmp_path, [*names, "valid/a/0.png", "test/a/0.png", "test/b/0.png"])
    assert [len(opened(root, split)) for split in SPLITS] == [20, 1, 2]
    assert opened(root, "val").spec.classes == ("a", "b")


def test_a_split_without_a_folder_is_cut_from_train(tmp_path):
    root = paint(tmp_path, [*[f"train/{i}.png" for i in range(30)], "test/0.png"])
    sizes = [len(opened(root, split)) for split in SPLITS]
    assert sizes[0] + sizes[1] == 30
    assert sizes[2] == 1
    assert opened(root).spec.classes == ()


def test_a_class_may_be_called_train(tmp_path):
    root = paint(tmp_path, [f"{kind}/{i}.png" for kind in ("boat", "train") for i in range(10)])
    assert opened(root).spec.classes == ("boat", "train")


def broken(tmp_path: Path, count: int = 2) -> Path:
    root = paint(tmp_path, [f"{i}.png" for i in range(30)])
    for i in range(count):
        (root / f"bad-{i}.png").write_text("only words")
    return root


FEW = {"val_fraction": 0.0, "test_fraction": 0.0}


@pytest.mark.parametrize("memory_gb", [4.0, 1e-6])
def test_unreadable_files_are_left_out_and_listed(tmp_path, memory_gb):
    data = opened(broken(tmp_path), max_bad=2, memory_gb=memory_gb, **FEW)
    assert len(data) == 30
    assert [line.split(":")[0] for line in data.problems()] == ["bad-0.png", "bad-1.png"]
    assert "not a png" in data.problems()[0]


def test_too_many_unreadable_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"2 of 32 .*bad-0\.png.*bad-1\.png") as caught:
        opened(broken(tmp_path), max_bad=1, **FEW)
    assert "data.max_bad=2" in caught.value.hint


def test_only_broken_files(tmp_path):
    for i in range(8):
        (tmp_path / f"{i}.png").write_text("words")
    with pytest.raises(DataError, match=r"none of 8 .*0\.png: .*not a png.*and 3 more"):
        opened(tmp_path, max_bad=100, **FEW)


def test_a_truncated_picture_counts(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    root = paint(tmp_path, [f"{i}.jpg" for i in range(5)])
    Image.fromarray(noise).save(root / "x.jpg")
    (root / "x.jpg").write_bytes((root / "x.jpg").read_bytes()[:1500])
    assert "truncated" in opened(root, max_bad=1, **FEW).problems()[0]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "there is nothing at"),
        (lambda path: path.mkdir(), "no pictures in .* it is empty"),
        (lambda path: (path.mkdir(), (path / "a.txt").write_text("")), r"1 x \.txt"),
        (lambda path: path.write_text("a file"), "neither a folder nor a zip"),
    ],
    ids=["missing", "empty", "others", "file"],
)
def test_a_root_without_pictures(tmp_path, make, reason):
    make(tmp_path / "root")
    with pytest.raises(DataError, match=reason) as caught:
        opened(tmp_path / "root")
    assert str(tmp_path / "root") in caught.value.message
    assert caught.value.hint


def test_no_root_and_an_empty_split(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.root="):
        open_dataset(CONFIG, "train")
    with pytest.raises(ConfigError, match="test split"):
        opened(paint(tmp_path, ["a.png", "b.png", "c.png"]), "test", test_fraction=0.0)


def test_a_zip_that_leads_outside_or_is_damaged(tmp_path):
    with zipfile.ZipFile(tmp_path / "up.zip", "w") as packed:
        packed.writestr("../../x.png", b"")
    with pytest.raises(DataError, match="leads outside"):
        opened(tmp_path / "up.zip")
    good = pack(paint(tmp_path / "pets", ["a.png", "b.png"]), tmp_path / "pets.zip")
    content = bytearray(good.read_bytes())
    content[60:90] = bytes(30)
    good.write_bytes(content)
    assert len(opened(good, max_bad=1, **FEW).problems()) == 1


def test_hidden_files_and_loops_of_links(tmp_path):
    root = paint(tmp_path / "root", ["a/0.png", ".hidden/1.png", "a/.2.png"])
    os.symlink(root, root / "a" / "up")
    assert len(opened(root, **FEW)) == 1


def test_odd_names(tmp_path):
    paint(tmp_path, ["ü ber/日本 0.png", "b/1.png"])
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    (tmp_path / "b" / "1.png").rename(os.fsencode(tmp_path).decode() + "/\udcff/1.png")
    data = opened(tmp_path, **FEW)
    assert len(data) == 2
    assert [name.encode() for name in data.spec.classes] == [r"ü ber".encode(), rb"\xff"]


def test_streaming_matches_residence(tmp_path):
    root = paint(tmp_path / "root", NESTED)
    archive = pack(root, tmp_path / "root.zip")
    views = {"augment": ["crop", "rotation", "colour"]}
    held = Loader(opened(root, **views), batch_size=7, seed=1, device="cpu")
    for source in (root, archive):
        data = opened(source, memory_gb=1e-6, **views)
        assert data.resident() is None
        streamed = Loader(data, batch_size=7, seed=1, device="cpu", workers=2)
        for k in range(12):
            assert torch.equal(streamed.batch(k).content, held.batch(k).content)


def test_the_check_of_streamed_files_is_remembered_until_one_changes(tmp_path, cache, monkeypatch):
    root = broken(tmp_path / "root")
    for _ in range(2):
        assert len(opened(root, max_bad=2, memory_gb=1e-6, **FEW)) == 30
    assert len(list((cache / "checked").iterdir())) == 1
    paint(root, ["bad-0.png"])
    assert len(opened(root, max_bad=2, memory_gb=1e-6, **FEW)) == 31


def test_the_fingerprint_of_streamed_files_is_of_their_pixels(tmp_path):
    def bitmaps(name: str, value: int) -> Path:
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (10, 12), (value, i, 200)).save(tmp_path / name / f"{i}.bmp")
            os.utime(tmp_path / name / f"{i}.bmp", ns=(10**18, 10**18))
        return tmp_path / name

    first, other = bitmaps("first", 1), bitmaps("other", 2)  # of the same names, sizes and times
    copy = shutil.copytree(first, tmp_path / "copy", copy_function=shutil.copyfile)
    archive = pack(first, tmp_path / "first.zip")
    prints = [opened(root, memory_gb=1e-9, **FEW).spec.fingerprint for root in (first, copy, archive, other)]
    assert prints[0] == prints[1] == prints[2] != prints[3]
    shutil.copyfile(other / "0.bmp", first / "0.bmp")
    assert opened(first, memory_gb=1e-9, **FEW).spec.fingerprint != prints[0]


def test_a_file_that_goes_away_is_named(tmp_path):
    data = opened(paint(tmp_path, ["a.png"]), memory_gb=1e-9, **FEW)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png can no longer be read"):
        data.read(0)


def test_the_defaults_in_yaml(tmp_path):
    values = load_yaml(Path(__file__).parents[2] / "configs/data/image_folder.yaml")
    data = open_dataset({**values, "root": str(paint(tmp_path, NESTED))}, "train")
    assert data.spec.shape == (3, 64, 64)
