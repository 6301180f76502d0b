"""A person's own speech: recordings with what is said in each, as LJSpeech has them; or a text that espeak-ng says."""

from __future__ import annotations

import json
import re
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Split
from aigc_cli.data.cache import digest_of, find_root
from aigc_cli.data.espeak import corpus_of
from aigc_cli.data.own import accept
from aigc_cli.data.sound_files import NOUN, SoundFiles, duration, sound_files
from aigc_cli.data.sounds import SoundsConfig
from aigc_cli.data.splits import CutConfig, rows_of
from aigc_cli.data.utterances import Recordings, Utterances
from aigc_cli.errors import DataError
from aigc_cli.files import some_of, stamp
from aigc_cli.modalities.audio_decode import is_sound
from aigc_cli.modalities.spoken import SpokenText, normal
from aigc_cli.modalities.text import read_codec
from aigc_cli.modalities.text_files import printable, read_lines
from aigc_cli.modalities.unreadable import Unreadable
from aigc_cli.registry import register

METADATA = "metadata.csv"
_NUMBER = re.compile(r"\s*\d[\d.,:]*\s*")
_LAYOUT = "a folder with wavs/ and a metadata.csv, of which each line is id|text, or id|text|text as it is read"


@dataclass(config=STRICT, frozen=True, kw_only=True)
class CharactersConfig:
    """The section ``data.tokenizer``."""

    path: str | None


@dataclass(config=STRICT, frozen=True, kw_only=True)
class SpeechConfig(SoundsConfig, CutConfig):
    """See ``configs/data/speech.yaml``."""

    name: Literal["speech"]
    root: str | None
    voice: str | None
    speakers: bool
    task: Literal["speech"] | None
    tokenizer: CharactersConfig
    max_bad: Annotated[int, Field(ge=0)]


class Row(NamedTuple):
    """A line of the metadata."""

    file: str
    text: str
    speaker: str


@register("data", "speech", SpeechConfig)
def speech(config: SpeechConfig, split: Split) -> Utterances:
    """Speech with what is said in it.

    Raises ConfigError where nothing says where it is, or espeak-ng is asked for and not installed, and DataError where
    the metadata or recordings are missing or broken.
    """
    what = "a file with a sentence a line" if config.voice else _LAYOUT
    root = find_root(config.root, f"name {what}")
    folder = corpus_of(root, config.voice) if config.voice else root
    rows, idle = read_metadata(folder, second=config.speakers or config.voice is not None)
    files = sound_files(
        config, read=partial(_path, folder), keys=[row.file for row in rows], names=[row.file for row in rows],
        identity=digest_of([str(folder), *(_stamp(folder, row.file) for row in rows)]),
    )  # fmt: skip
    failed = {place: entry.reason for place, entry in enumerate(files.entries) if entry.reason}
    problems = [f"each line of {METADATA} ends in a number, which is not read as text"] if idle else []
    problems += accept(files, failed, config.max_bad, NOUN[1])
    long = [row.file for row, entry in zip(rows, files.entries, strict=True) if entry.n > config.samples]
    kept = [place for place, entry in enumerate(files.entries) if not entry.reason and entry.n <= config.samples]
    if not kept:
        seconds = config.samples / config.sample_rate
        raise DataError(f"no recording in {folder} is at most {seconds:g} s long", "raise data.seconds=")
    problems += [f"{some_of(long)}: longer than data.seconds={config.seconds:g}, and left out"] if long else []
    return _utterances(config, split, [rows[place] for place in kept], files, kept, problems)


def _utterances(
    config: SpeechConfig, split: Split, rows: list[Row], files: SoundFiles, kept: list[int], problems: list[str]
) -> Utterances:
    voices = sorted({row.speaker for row in rows})

    @cache
    def own(part: Split) -> np.ndarray:
        return rows_of(part, len(rows), config.cut, "speech")

    def found(part: Split) -> Recordings:
        chosen = own(part).tolist()
        entries = [files.entries[kept[row]] for row in chosen]
        starts, counts = (np.array([getattr(entry, name) for entry in entries]) for name in ("start", "n"))
        speakers = np.array([voices.index(rows[row].speaker) for row in chosen])
        return Recordings(files.pack.content, starts, counts, [rows[row].text for row in chosen], speakers)

    source = None
    if config.task == "speech":
        path = config.tokenizer.path
        texts = [rows[row].text for row in own("train").tolist()]
        source = SpokenText.of(texts) if path is None else SpokenText(read_codec(Path(path)).tokenizer)
    total = sum(files.entries[place].n for place in kept) / config.sample_rate
    return Utterances(
        config, split, found, None, voices=voices, source=source, longest=max(len(row.text) for row in rows),
        problems=problems if split == "train" else [],
        notes=[f"{len(rows):,} recordings, {duration(total)}, by {len(voices)} voice{'s' * (len(voices) > 1)}"],
    )  # fmt: skip


def read_metadata(folder: Path, *, second: bool) -> tuple[list[Row], bool]:
    """The rows of a folder's metadata; with `second` the second field says who speaks. And whether a last field is
    passed over, which is a number in every row, such as how long a recording is: a text as it is read spells them out.

    Raises:
        DataError: it is missing, or a line has too few fields.
    """
    path = folder / METADATA
    if not path.is_file():
        raise DataError(f"there is no {METADATA} in {printable(folder)}", f"point data.root= at {_LAYOUT}")
    lines = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        file, *fields = line.split("|")
        speaker = fields.pop(0).strip() if second and fields else ""
        lines.append((number, file, speaker, fields))
    idle = all(len(fields) > 1 and _NUMBER.fullmatch(fields[-1]) for *_, fields in lines)
    rows = []
    for number, file, speaker, fields in lines:
        text = normal(fields[-2 if idle else -1]) if fields else ""
        if not file.strip() or not text or Path(file).name != file.strip():
            form = "id|speaker|text" if second else "id|text"
            raise DataError(f"line {number} of {printable(path)} is not {form}", "write it so, or remove it")
        rows.append(Row(file.strip(), text, speaker))
    if not rows:
        raise DataError(f"{printable(path)} is empty", f"point data.root= at {_LAYOUT}")
    return rows, idle


@lru_cache(maxsize=4)
def _names(folder: Path) -> dict[str, Path]:
    """The files of recordings, by their names without an ending."""
    below = folder / "wavs" if (folder / "wavs").is_dir() else folder
    return {path.stem: path for path in sorted(below.iterdir()) if path.is_file() and is_sound(path.name)}


def _path(folder: Path, name: str) -> Path:
    found = _names(folder).get(name.removesuffix(".wav"))
    if found is None:
        raise Unreadable("there is no such file")
    return found


def _stamp(folder: Path, name: str) -> str:
    found = _names(folder).get(name.removesuffix(".wav"))
    about = None if found is None else found.stat()
    return json.dumps([name, None if about is None else stamp(about)])
