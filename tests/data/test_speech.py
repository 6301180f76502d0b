"""Speech with what is said in it: the layout of LJSpeech, a text that espeak-ng says, and strings of recordings."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from aigc_cli.config.compose import compose
from aigc_cli.data.open import open_dataset
from aigc_cli.data.utterances import Recordings, Utterances, how_many, strings
from aigc_cli.errors import ConfigError, DataError

WORDS = ["data=speech", "data.sample_rate=8000", "data.seconds=0.5", "data.val_fraction=0.2", "data.test_fraction=0.2"]


def opened(root: Path, *words: str, split: str = "train") -> Utterances:
    config = compose("train", ["model=seq2seq", *WORDS, f"data.root={root}", *words, "recipe=null"])
    dataset = open_dataset(config["data"], split)  # type: ignore[arg-type]
    assert isinstance(dataset, Utterances)
    return dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve recordings of LJSpeech's layout, of which one is too long and one is not there."""
    (tmp_path / "wavs").mkdir()
    lines = []
    for number in range(12):
        wave = 0.3 * np.sin(np.arange(9000 if number == 3 else 1000 + 50 * number) * 0.3)
        if number != 5:
            soundfile.write(tmp_path / "wavs" / f"LJ-{number}.wav", wave, 8000)
        lines.append(f"LJ-{number}|Mr. {number}|Mister  number {'abcdefghijkl'[number]}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_recordings_come_with_what_is_said_as_it_is_read(folder: Path) -> None:
    sets = {split: opened(folder, split=split) for split in ("train", "val", "test")}
    assert {split: len(data) for split, data in sets.items()} == {"train": 6, "val": 2, "test": 2}
    train = sets["train"]
    assert all(text.startswith("mister number ") for text in train.texts)
    batch = train.gatherer("cpu")(torch.arange(6))
    assert batch.source is not None
    assert batch.labels is None, "one voice is no class"
    assert train.codec.source is not None
    assert train.codec.source.text(batch.source) == train.texts
    assert any("LJ-5" in line for line in train.problems())
    assert any("LJ-3: longer than" in line for line in train.problems())
    alone = opened(folder, "data.task=null")
    assert alone.spec.source is None
    assert alone.gatherer("cpu")(torch.arange(1)).source is None


def test_a_last_field_of_numbers_is_not_what_is_said(folder: Path) -> None:
    path = folder / "metadata.csv"
    lines = path.read_text().splitlines()
    said = "metadata.csv ends in a number"
    for field in ("1.25", "1:02,5", "900"):
        path.write_text("".join(f"{line}|{field}\n" for line in lines))
        train = opened(folder)
        assert all(text.startswith("mister number ") for text in train.texts)
        assert any(said in line for line in train.problems())
    path.write_text("\n".join([*(f"{line}|900" for line in lines[1:]), lines[0]]) + "\n")
    train = opened(folder)
    assert "900" in train.texts, "one line has words there"
    assert not any(said in line for line in train.problems())


def test_recordings_are_known_by_more_than_their_size_and_time_of_change(folder: Path) -> None:
    before = opened(folder, "data.task=null").spec.fingerprint
    for path in (folder / "wavs").glob("*.wav"):
        path.with_suffix(".xml").write_text("<words/>")  # as tools that align text leave it
        stat, wave = path.stat(), soundfile.read(path)[0]
        soundfile.write(path, wave[::-1], 8000)
        assert path.stat().st_size == stat.st_size
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert opened(folder, "data.task=null").spec.fingerprint != before


def test_metadata_that_is_missing_or_malformed_is_named(folder: Path) -> None:
    (folder / "metadata.csv").write_text("LJ-0\n")
    with pytest.raises(DataError, match=r"line 1 of .* is not id\|speaker\|text"):
        opened(folder, "data.speakers=true")
    (folder / "metadata.csv").unlink()
    with pytest.raises(DataError, match=r"there is no metadata\.csv"):
        opened(folder)


def test_a_text_is_said_by_espeak_and_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("espeakng_loader")
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("Yes\nno\n\nmaybe\nsure\n")
    words = ["data.voice='espeak:en-us,en-us+f3'", "data.seconds=2", "data.val_fraction=0", "data.test_fraction=0"]
    data = opened(tmp_path / "text.txt", *words)
    assert sorted(data.texts) == ["maybe", "no", "sure", "yes"]
    assert data.spec.classes == ("en-us", "en-us+f3")
    assert data.gatherer("cpu")(torch.arange(4)).content.abs().amax((1, 2)).min() > 1000
    monkeypatch.setattr("subprocess.run", None)
    assert opened(tmp_path / "text.txt", *words).spec.fingerprint == data.spec.fingerprint
    with pytest.raises(DataError, match="is a folder"):
        opened(tmp_path, *words)


def test_strings_are_of_one_voice_and_fit() -> None:
    counts = np.full(12, 1000)
    found = Recordings(np.ones((12_000, 1), np.int16), np.arange(12) * 1000, counts, [str(n) for n in range(12)],
                       np.arange(12) % 3)  # fmt: skip
    made = strings(found, "train", (2, 4), 8000, 4200)
    assert len(made) == 48
    assert made == strings(found, "train", (2, 4), 8000, 4200)
    assert made[:12] != strings(found, "test", (2, 4), 8000, 4200)
    for parts in made:
        assert len({row % 3 for row, _ in parts}) == 1
        assert 1 <= len(parts) <= 3, "a fourth has no room"
        assert sum(1000 + gap for _, gap in parts) <= 4200


@pytest.mark.parametrize(("words", "found"), [(None, (1, 1)), (3, (3, 3)), ("1..5", (1, 5))])
def test_how_many_words_are_said(words: str | int | None, found: tuple[int, int]) -> None:
    assert how_many(words) == found


@pytest.mark.parametrize("words", ["0", "5..1", "many", "1..99"])
def test_a_number_of_words_that_is_none_is_refused(words: str) -> None:
    with pytest.raises(ConfigError, match=f"data.words={words} does not say"):
        how_many(words)
