"""The Free Spoken Digit Dataset (Jackson et al., 2016-2020): 3,000 recordings of ten digits by six speakers."""

from __future__ import annotations

import hashlib
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import SPLITS, Split, attributes_of, combined
from aigc_cli.data.cache import Published, cache_dir, find_root
from aigc_cli.data.sounds import SoundDataset, SoundsConfig
from aigc_cli.data.splits import Cut, Fraction, rows_of
from aigc_cli.data.utterances import Recordings as Spoken
from aigc_cli.data.utterances import Utterances, how_many, strings, with_room
from aigc_cli.errors import DataError
from aigc_cli.files import walk_files
from aigc_cli.modalities.audio_decode import decode_sound, quiet
from aigc_cli.modalities.spoken import SpokenText
from aigc_cli.modalities.unreadable import Unreadable
from aigc_cli.registry import register

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TESTS = 5  # recordings of each digit by each speaker, the first, make the official test part
RATE = 8000
LARGEST = 1 << 20  # bytes of a recording
#: SHA-256 of all recordings, one after the other, by digit, speaker and number.
SUM = "785339f71d0b6135255dedb18ad7d4ffd064c47f58940c1489407a0e278b5322"
ARCHIVE = Published(
    "free-spoken-digit-dataset-1.0.10.tar.gz",
    ["https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz"],
    {},  # an archive that is made when it is asked for has no sum of its own: its recordings have
)
_NAME = re.compile(rf"(\d)_({'|'.join(SPEAKERS)})_(\d+)\.wav")


@dataclass(config=STRICT, frozen=True, kw_only=True)
class FsddConfig(SoundsConfig):
    """See ``configs/data/fsdd.yaml``."""

    name: Literal["fsdd"]
    root: str | None
    label: Literal["digit", "speaker", "digit_speaker"]
    task: Literal["speech"] | None
    words: str | int | None
    val_fraction: Fraction


class Recordings(NamedTuple):
    """All of them, by digit, speaker and number."""

    of: list[tuple[int, str, int]]
    content: np.ndarray  # int16 (n, channels, samples)
    long: int  # how many are longer than that
    original: bool  # whether they are the published ones, to the last bit


@register("data", "fsdd", FsddConfig)
def fsdd(config: FsddConfig, split: Split) -> SoundDataset | Utterances:
    """Labelled by digit, by speaker, or by both; the official test part, and validation cut from the rest. For the task
    speech, digits or strings of them with what is said, which are labelled by speaker.

    Raises DataError where there are no recordings, one of them is damaged, or the archive that was downloaded does not
    hold what was published.
    """
    path = ARCHIVE.find(None, cache_dir() / "data" / "fsdd") if config.root is None else find_root(config.root)
    found = _recordings(path, config.sample_rate, config.channels, config.samples, config.normalize)
    if config.root is None and not found.original:
        raise DataError(f"{path} does not hold the recordings that were published", "remove it to get it again")
    dataset = (_speech if config.task == "speech" else _labelled)(config, split, found)
    dataset.original = found.original and config.sample_rate == RATE
    return dataset


def _labelled(config: FsddConfig, split: Split, found: Recordings) -> SoundDataset:
    """Digits, of classes."""
    part = _PARTS[config.label]
    words = [(DIGITS[digit], speaker)[part] for digit, speaker, _ in found.of]
    values = list(dict.fromkeys(words)) if config.label != "speaker" else sorted(set(words))
    rows = _splits(found, config)
    return SoundDataset(
        config, found.content[rows[split]], np.array([values.index(words[row]) for row in rows[split]]),
        classes=[combined(value) for value in values], attributes=attributes_of(("digit", "speaker")[part], values),
        train=lambda: found.content[rows["train"]], notes=_notes(found, rows, config),
    )  # fmt: skip


def _speech(config: FsddConfig, split: Split, found: Recordings) -> Utterances:
    """Digits, or strings of digits by one speaker, with what is said."""
    words, rows = how_many(config.words), _splits(found, config)
    voices = np.array([SPEAKERS.index(speaker) for _, speaker, _ in found.of])
    counts = found.content.shape[2] - (found.content != 0).any(1)[:, ::-1].argmax(1)
    whole = found.content.transpose(0, 2, 1).reshape(-1, config.channels)

    def spoken(part: Split) -> Spoken:
        own = rows[part]
        said = [DIGITS[found.of[row][0]] for row in own.tolist()]
        return Spoken(whole, own * found.content.shape[2], counts[own], said, voices[own])

    room = with_room(config, words)
    items = None if words == (1, 1) else strings(spoken(split), split, words, config.sample_rate, room.samples)
    longest = words[1] * (max(map(len, DIGITS)) + 1)
    return Utterances(
        room, split, spoken, items, voices=SPEAKERS, source=SpokenText.of(DIGITS), longest=longest,
        notes=_notes(found, rows, config),
    )  # fmt: skip


#: What of (digit, speaker) each label says.
_PARTS = {"digit": slice(0, 1), "speaker": slice(1, 2), "digit_speaker": slice(0, 2)}


def _splits(found: Recordings, config: FsddConfig) -> Mapping[Split, np.ndarray]:
    """The places of each split among the recordings."""
    return {split: _rows(found.of, split, config.val_fraction) for split in SPLITS}


def _rows(of: Sequence[tuple[int, str, int]], split: Split, val: float) -> np.ndarray:
    """The places of a split among the recordings."""
    tests = np.array([number < TESTS for _, _, number in of])
    rest = np.flatnonzero(~tests)
    return np.flatnonzero(tests) if split == "test" else rest[rows_of(split, len(rest), Cut(val=val), "fsdd")]


def _notes(found: Recordings, rows: Mapping[Split, np.ndarray], config: FsddConfig) -> list[str]:
    notes = [", ".join(f"{part} {len(some):,}" for part, some in rows.items())]
    if found.long:
        seconds = config.samples / config.sample_rate
        notes.append(f"{found.long} of {len(found.of):,} recordings are longer than {seconds:g} s, and cut")
    if not found.original:
        notes.append("these are not the 3,000 recordings of version 1.0.10, so scores do not compare with others")
    return notes


@lru_cache(maxsize=2)
def _recordings(path: Path, rate: int, channels: int, samples: int, normalize: Any) -> Recordings:
    """What is in the folder or the archive, decoded."""
    files = sorted((_said(name), content) for name, content in _files(path) if _NAME.fullmatch(name))
    if not files:
        raise DataError(f"there are no recordings of the Free Spoken Digit Dataset in {path}", f"put {ARCHIVE} there")
    digest = hashlib.sha256()
    content = np.zeros((len(files), channels, samples), dtype=np.int16)
    long = 0
    with quiet():
        for place, (of, encoded) in enumerate(files):
            try:
                wave = decode_sound(encoded, rate, channels, normalize).samples
            except Unreadable as error:
                raise DataError(
                    f"{path}: {'_'.join(map(str, of))}.wav cannot be read: {error}", f"get {ARCHIVE} again"
                ) from error
            digest.update(encoded)
            content[place, :, : len(wave)] = wave[:samples].T
            long += len(wave) > samples
    return Recordings([of for of, _ in files], content, long, digest.hexdigest() == SUM)


def _said(name: str) -> tuple[int, str, int]:
    """The digit, the speaker and the number that the name of a recording says."""
    found = _NAME.fullmatch(name)
    assert found is not None, name
    return int(found[1]), found[2], int(found[3])


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """The names, without folders, and contents of the files in a folder or a tar, or in the one tar in a folder."""
    if path.is_dir():
        files = dict(walk_files(path))
        recordings = [found for found in files.values() if _NAME.fullmatch(found.name)]
        tars = [found for name, found in files.items() if name.lower().endswith((".tar", ".tar.gz", ".tgz"))]
        if recordings or len(tars) != 1:
            for found in recordings:
                yield found.name, found.read_bytes()
            return
        path = tars[0]
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                name = member.name.rsplit("/", 1)[-1]
                if _NAME.fullmatch(name) and member.isfile() and member.size <= LARGEST:
                    file = tar.extractfile(member)
                    assert file is not None, "it is a file"
                    yield name, file.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{path} is broken, or not a tar: {error}", f"get {ARCHIVE} again") from error
