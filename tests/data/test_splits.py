"""Which items each split holds never changes: scores on record, and models in use, depend on it."""

import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from aigc_cli.config.schema import load_yaml
from aigc_cli.data import SPLITS, Dataset, Split, open_dataset
from aigc_cli.data.open import items_at
from aigc_cli.data.splits import Cut, empty, names_of, part_for, parts_named, places_of, positions_of, rows_of

CONFIGS = Path(__file__).parents[2] / "configs/data"
TOKENIZER = {"kind": "byte", "vocab_size": 300, "path": None}
TEXT = {"context": 16, "val_fraction": 0.2, "test_fraction": 0.1, "tokenizer": TOKENIZER}
PAIRS = {"val_fraction": 0.2, "test_fraction": 0.1, "tokenizer": TOKENIZER}


def config(name: str, **changes: Any) -> dict[str, Any]:
    return {**load_yaml(CONFIGS / f"{name}.yaml"), **changes}


def paint(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 50, 200)).save(path)
    return folder


def digits(folder: Path) -> dict[str, Any]:
    return config("digits", size=8, flip=False, val_fraction=0.1, test_fraction=0.2)


def pictures(folder: Path, *names: str) -> dict[str, Any]:
    return config("image_folder", root=str(paint(folder, list(names))), size=8, val_fraction=0.2, test_fraction=0.1)


def flat(folder: Path) -> dict[str, Any]:
    return pictures(folder, *[f"{i}.png" for i in range(40)])


def classes(folder: Path) -> dict[str, Any]:
    return pictures(folder, *[f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(20)])


def named_folders(folder: Path) -> dict[str, Any]:
    return pictures(folder, *[f"train/{i}.png" for i in range(30)], *[f"Valid/{i}.png" for i in range(4)])


def zipped(folder: Path) -> dict[str, Any]:
    values = classes(folder / "pets")
    return {**values, "root": shutil.make_archive(str(folder / "packed"), "zip", folder, "pets")}


def write_parquet(path: Path, n: int, start: int = 0) -> None:
    raw = path.with_suffix(".png")
    cells = []
    for i in range(n):
        Image.new("RGB", (8, 8), (start + i, 0, 0)).save(raw)
        cells.append(raw.read_bytes())
    raw.unlink()
    pq.write_table(pa.table({"image": cells, "label": [i % 3 for i in range(n)]}), path)


def one_parquet(folder: Path) -> dict[str, Any]:
    write_parquet(folder / "all.parquet", 40)
    return config("parquet", root=str(folder / "all.parquet"), size=8, val_fraction=0.2, test_fraction=0.1)


def named_parquets(folder: Path) -> dict[str, Any]:
    for name, n, start in (("train-00000", 30, 0), ("test-00000", 5, 100)):
        write_parquet(folder / f"{name}.parquet", n, start)
    return config("parquet", root=str(folder), size=8, val_fraction=0.2, test_fraction=0.1)


def idx(folder: Path) -> dict[str, Any]:
    for prefix, n in (("train", 40), ("t10k", 10)):
        pixels = np.arange(n, dtype=np.uint8).repeat(28 * 28)
        header = struct.pack(">iiii", 0x803, n, 28, 28)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = bytes(i % 10 for i in range(n))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 0x801, n) + labels)
    return config("mnist", root=str(folder), size=28, val_fraction=0.2)


def lines(n: int, word: str = "line") -> str:
    return "".join(f"{word} {i} of several\n" for i in range(n))


def prose(folder: Path) -> dict[str, Any]:
    (folder / "a.txt").write_text(lines(50))
    return config("text", root=str(folder / "a.txt"), **TEXT)


def files(folder: Path) -> dict[str, Any]:
    for i in range(20):
        (folder / f"{i}.txt").write_text(lines(4, f"file {i}"))
    return config("text", root=str(folder), **TEXT)


def rows(folder: Path) -> dict[str, Any]:
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(60)))
    return config("text", root=str(folder / "a.jsonl"), **TEXT)


def named_files(folder: Path) -> dict[str, Any]:
    for name, n in (("train-a.txt", 30), ("Training/b.txt", 10), ("test.txt", 6), ("readme.txt", 2)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(lines(n, name))
    return config("text", root=str(folder), **TEXT)


def two_files(folder: Path) -> dict[str, Any]:
    for name in ("en", "de"):
        (folder / name).write_text(lines(60, name))
    return config("pairs", source=str(folder / "en"), target=str(folder / "de"), **PAIRS)


def named_pairs(folder: Path) -> dict[str, Any]:
    for name, n in (("train", 50), ("valid", 7)):
        for side in ("en", "de"):
            (folder / f"{name}.{side}").write_text(lines(n, name + side))
    return config("pairs", root=str(folder), source="en", target="de", **PAIRS)


def digest(dataset: Dataset) -> str:
    """Its number of items, the beginning of its fingerprint, and the beginning of a digest of all it holds."""
    batch = items_at(dataset, range(len(dataset)))
    parts = [part for part in (batch.source, batch.content, batch.labels) if part is not None]
    content = hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()
    return f"{len(dataset)} {dataset.spec.fingerprint[:8]} {content[:8]}"


@pytest.mark.parametrize(
    ("make", "changes", "expected"),
    [
        (digits, {}, ["1258 fd99902d 9e0a3359", "180 9ffeeb62 4b2944fc", "359 70c102cf 9a3908cc"]),
        (flat, {}, ["27 40bc3ea2 0eb8f02b", "9 4f22ff6f 4c9ead80", "4 a9b065ce 6b256bd3"]),
        (classes, {}, ["24 78685136 0cf066f0", "12 c0e38db8 e08a8cc5", "4 b3295fd6 2ac7f8cc"]),
        (
            classes,
            {"labels": False, "channels": 1},
            ["24 e7f1daf5 926f29af", "12 48366fe2 87474ad7", "4 e7a670bb def21ea1"],
        ),
        (classes, {"memory_gb": 1e-09}, ["24 4207cf31 0cf066f0", "12 8e70e7c2 e08a8cc5", "4 42436f6a 2ac7f8cc"]),
        (named_folders, {}, ["27 07a69251 9f123629", "4 0fdb5de9 5943a28b", "3 03728d5a e396a07e"]),
        (zipped, {}, ["24 78685136 0cf066f0", "12 c0e38db8 e08a8cc5", "4 b3295fd6 2ac7f8cc"]),
        (one_parquet, {}, ["28 db416adb ec1f8553", "8 e4a12e15 7789f908", "4 f9d247dd 05f3f212"]),
        (named_parquets, {}, ["24 d8c53b3f be2917f8", "6 df82bb56 c04fc219", "5 315cae0e f3bb4319"]),
        (idx, {}, ["32 10de39ee 50696c85", "8 ef28a346 ccef9dc7", "10 251f51a1 67542bdd"]),
        (prose, {}, ["42 ef17bcd1 4d8321a4", "12 3c22941c b8ae9093", "6 1a72a8f8 2fd896be"]),
        (
            prose,
            {"lines": True, "items": "documents"},
            ["35 4d55c6f7 8269b51e", "10 a8d9fefc 37f142fd", "5 bb7d67aa e3d04e4f"],
        ),
        (
            prose,
            {"lines": True, "split_by": "document"},
            ["38 7496b449 44360508", "10 bb7632f7 b735f494", "12 2595f7e4 595fd78e"],
        ),
        (files, {}, ["73 16b25bfd 54c724dc", "21 95dffd4f 4c42897e", "11 13a802ea 70b67b52"]),
        (files, {"split_by": "document"}, ["89 cabed775 c78c094a", "5 65224dd4 2d7e02fc", "11 a6bf4604 9c044df7"]),
        (
            files,
            {"split_by": "document", "items": "documents"},
            ["17 8cd46a81 619e57b6", "1 ff677206 fd3d79aa", "2 ef757ca3 fa6a8af2"],
        ),
        (rows, {"items": "documents"}, ["42 f90c72b1 34dbdecb", "12 3504df66 e68109ff", "6 fb77912b 94b01cb6"]),
        (
            rows,
            {"items": "documents", "split_by": "document"},
            ["45 a2ed9cbf 6c1086a1", "12 db0e4f57 708f5c37", "3 a59be80c 0073b9bb"],
        ),
        (named_files, {}, ["53 dc9440fd 5bb17d6b", "14 b2d33e25 eec3913e", "9 6f6790fc 7a6c175b"]),
        (
            named_files,
            {"items": "documents", "split_by": "document"},
            ["1 651e6c55 093103c1", "1 1a789352 acd49c10", "1 3317df77 5f749cd5"],
        ),
        (two_files, {}, ["47 bb0ff9c5 fc435d16", "9 6d5dd358 a4565856", "4 f0f49708 58656ed7"]),
        (named_pairs, {}, ["48 84645e55 a65afd92", "7 cee38853 4d6d4e0e", "2 3384f851 351f9f92"]),
    ],
)
def test_membership_is_what_it_always_was(
    make: Callable[[Path], dict[str, Any]], changes: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    values = {**make(tmp_path), **changes}
    assert [digest(open_dataset(values, split)) for split in SPLITS] == expected


def test_adding_files_moves_no_other() -> None:
    names = [f"{i}.png" for i in range(1000)]
    more = names + [f"new-{i}.png" for i in range(200)]
    for split, expected in zip(SPLITS, (700, 100, 200), strict=True):
        before, after = (names_of(split, given, Cut(0.1, 0.2), "here") for given in (names, more))
        assert set(before) <= set(after)
        assert abs(len(before) - expected) < 50


def test_few_files_still_give_each_split_one() -> None:
    for n in range(3, 12):
        parts = [names_of(split, [f"{i}" for i in range(n)], Cut(0.1, 0.1), "here") for split in SPLITS]
        assert sorted(name for part in parts for name in part) == sorted(map(str, range(n)))
        assert all(parts)


def test_the_test_part_does_not_depend_on_how_much_is_for_validation() -> None:
    names = [str(i) for i in range(100)]
    little, much = Cut(0.05, 0.2), Cut(0.4, 0.2)
    assert rows_of("test", 100, little, "x").tolist() == rows_of("test", 100, much, "x").tolist()
    assert names_of("test", names, little, "x") == names_of("test", names, much, "x")
    assert places_of("test", little) == places_of("test", much)
    assert positions_of("test", 100, little) == positions_of("test", 100, much)


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["train.txt", "VALID/a.txt", "test-2.txt", "notes.txt"], {"train": [0], "val": [1], "test": [2]}),
        (["train.txt", "training-b.txt"], {"train": [0, 1]}),
        (["train.txt", "notes.txt"], {"train": [0]}),  # and notes are not merged with it
        (["training_log.txt", "notes.txt"], {}),  # the log of a training is not a split
        (["plain/train-00000-of-00002.parquet", "plain/extra-0.parquet"], {"train": [0]}),
        (["train/0.parquet", "eval/0.parquet"], {"train": [0], "test": [1]}),
        (["data/train.txt", "data/validate.txt", "data/held-out.txt"], {"train": [0], "val": [1], "test": [2]}),
        (["test.txt", "val.txt"], {}),
        (["trained.txt", "notes.txt"], {}),
    ],
)
def test_first_words_name_the_parts(names: list[str], parts: dict[Split, list[int]]) -> None:
    assert parts_named(names) == parts


def test_what_has_no_part_is_cut_off_the_training_part() -> None:
    cut = Cut(0.1, 0.2)
    assert [part_for(split, ("train", "val"), cut) for split in SPLITS] == [
        ("train", Cut(0.0, 0.2)), ("val", Cut()), ("train", Cut(0.0, 0.2)),
    ]  # fmt: skip
    assert [part_for(split, (), cut) for split in SPLITS] == [("train", cut)] * 3


def test_a_split_that_is_empty_says_which_fractions_would_fill_it() -> None:
    cut = Cut(val=0.1, test=0.1)
    assert "data.val_fraction=0 data.test_fraction=0" in empty("train", "folder", cut, 1, "files").hint
    assert "raise data.test_fraction=" in empty("test", "folder", cut, 9, "files").hint
