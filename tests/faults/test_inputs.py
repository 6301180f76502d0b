"""Inputs whose content changes while their size and their time stay: nothing that was worked out of the old is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from aigc_cli.config.compose import compose
from aigc_cli.data.open import open_dataset
from aigc_cli.modalities.audio_files import open_clips
from aigc_cli.modalities.image_files import open_images

STREAMED = ["data=image_folder", "data.size=16", "data.memory_gb=1e-6", "data.val_fraction=0", "data.test_fraction=0"]


def paint(path: Path, value: int) -> None:
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path, format="BMP")


def rewritten(path: Path, write: Callable[[Path], object]) -> None:
    """Replaces a file as ``rsync -t`` does: beside it, with its time."""
    before = path.stat()
    part = path.with_name(".part")
    write(part)
    os.utime(part, ns=(before.st_atime_ns, before.st_mtime_ns))
    part.replace(path)
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def fingerprint(*words: str) -> str:
    """Of a dataset's training split, which is not held."""
    dataset = open_dataset(compose("train", ["model=vae", "recipe=null", *words])["data"], "train")
    assert dataset.resident() is None
    return dataset.spec.fingerprint


def test_pictures_that_are_streamed(tmp_path: Path) -> None:
    for number in range(4):
        paint(tmp_path / f"{number}.bmp", number)
    words = [*STREAMED, f"data.root={tmp_path}"]
    before = fingerprint(*words)
    assert fingerprint(*words) == before
    rewritten(tmp_path / "2.bmp", lambda path: paint(path, 99))
    assert fingerprint(*words) != before
    rewritten(tmp_path / "2.bmp", lambda path: paint(path, 2))
    assert fingerprint(*words) == before, "it is the content that counts"


def sound(path: Path, value: int) -> None:
    soundfile.write(path, np.full(800, value / 256), 8000, format="WAV")


@pytest.mark.parametrize(("write", "opened"), [(paint, open_images), (sound, open_clips)])
def test_what_a_metric_looks_at(
    tmp_path: Path, write: Callable[[Path, int], None], opened: Callable[[Path], Any]
) -> None:
    suffix = ".bmp" if write is paint else ".wav"
    for number in range(4):
        write(tmp_path / f"{number}{suffix}", number)
    before = opened(tmp_path)
    rewritten(tmp_path / f"2{suffix}", lambda path: write(path, 99))
    after = opened(tmp_path)
    assert after.key != before.key
    assert after.facts["listing"] != before.facts["listing"]


def test_pictures_in_columns(tmp_path: Path) -> None:
    def write(path: Path, value: int) -> None:
        paint(tmp_path / ".one", value)
        content = (tmp_path / ".one").read_bytes()
        pq.write_table(pa.table({"image": [content] * 4}), path, compression="none", write_statistics=False)

    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "train.parquet"
    write(file, 1)
    words = ["data=parquet", *STREAMED[1:], f"data.root={tmp_path / 'data'}"]
    before = fingerprint(*words)
    rewritten(file, lambda path: write(path, 99))
    assert fingerprint(*words) != before


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.txt", ["data=text", "data.context=8"]), ("a.tsv", ["data=pairs", "data.source=a", "data.target=b"])],
)
def test_texts(tmp_path: Path, name: str, words: list[str]) -> None:
    file = tmp_path / name
    file.write_text("a\tb\n" + "one\ttwo\n" * 40)
    model = "seq2seq" if "data=pairs" in words else "transformer"
    words = [f"model={model}", *words, f"data.root={file}", "data.tokenizer.kind=char", "data.val_fraction=0"]
    before = fingerprint(*words, "data.test_fraction=0")
    rewritten(file, lambda path: path.write_text("a\tb\n" + "won\ttoo\n" * 40))
    assert fingerprint(*words, "data.test_fraction=0") != before
