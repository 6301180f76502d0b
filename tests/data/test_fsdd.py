"""Spoken digits: the official test part, labels of three kinds, a folder or the archive."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from aigc_cli.config.compose import compose
from aigc_cli.data.fsdd import DIGITS
from aigc_cli.data.open import open_dataset
from aigc_cli.errors import DataError

PUBLISHED = Path(os.environ.get("AIGC_TEST_DATA", "/nowhere"), "fsdd", "free-spoken-digit-dataset.tar.gz")


def opened(root, split="train", *words):
    return open_dataset(compose("train", ["data=fsdd", f"data.root={root}", *words])["data"], split)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven recordings of each digit by two speakers: a sine whose pitch says which one it is."""
    root = tmp_path_factory.mktemp("fsdd")
    (root / "recordings").mkdir()
    for digit in range(10):
        for place, speaker in enumerate(("george", "theo")):
            for number in range(7):
                n = 9000 if (digit, number) == (3, 0) else 2000 + 100 * number
                wave = np.sin(np.arange(n) * (200 + 20 * digit + 7 * number + 300 * place) / 8000 * 2 * np.pi)
                soundfile.write(root / "recordings" / f"{digit}_{speaker}_{number}.wav", 0.1 * wave, 8000)
    (root / "README.md").write_text("about")
    return root


def test_the_first_five_of_each_are_the_test_part_and_the_rest_is_cut(folder):
    sets = {split: opened(folder, split, "data.val_fraction=0.25") for split in ("train", "val", "test")}
    assert {split: len(data) for split, data in sets.items()} == {"train": 30, "val": 10, "test": 100}
    clips = [clip.numpy().tobytes() for data in sets.values() for clip in data.resident().content]
    assert len(set(clips)) == 140
    assert "1.024 s, and cut" in " ".join(sets["test"].describe())
    assert not sets["test"].original


@pytest.mark.parametrize(("label", "classes"), [("digit", 10), ("speaker", 2), ("digit_speaker", 20)])
def test_labels_are_digits_speakers_or_both(folder, label, classes):
    data = opened(folder, "test", f"data.label={label}")
    assert len(data.spec.classes) == classes
    assert np.bincount(data.resident().labels).tolist() == [100 // classes] * classes
    first = {"digit": DIGITS[0], "speaker": "george", "digit_speaker": "zero-george"}
    assert data.spec.classes[0] == first[label]
    said = dict(data.spec.attributes)
    assert list(said) == label.split("_")
    assert ["-".join(values) for values in zip(*said.values(), strict=True)] == list(data.spec.classes)


def test_an_archive_holds_the_same(folder, tmp_path):
    archive = tmp_path / "digits.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "free-spoken-digit-dataset")
    assert opened(archive).spec.fingerprint == opened(folder).spec.fingerprint
    assert opened(tmp_path).spec.fingerprint == opened(folder).spec.fingerprint, "where the hint has it put"


def test_a_recording_that_is_damaged_is_named(folder, tmp_path):
    archive = tmp_path / "digits.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, "digits")
        info = tarfile.TarInfo("digits/recordings/9_theo_9.wav")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"words"))
    with pytest.raises(DataError, match="9_theo_9"):
        opened(archive)


def test_what_is_no_archive_of_digits_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    for root in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(DataError, match=r"no recordings|not a tar"):
            opened(root)


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="needs the published recordings")
def test_the_published_recordings_are_known():
    sets = {split: opened(PUBLISHED, split) for split in ("train", "val", "test")}
    assert {split: len(data) for split, data in sets.items()} == {"train": 2430, "val": 270, "test": 300}
    assert all(data.original for data in sets.values())
    assert np.bincount(sets["test"].resident().labels).tolist() == [30] * 10
