"""What can be measured of text as it comes, a piece at a time: characters, scripts, lines, and what is odd there."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aigc_cli.data.alike import sketch
from aigc_cli.data.corpus import PIECE, Piece
from aigc_cli.errors import DataError
from aigc_cli.modalities.scripts import letters_by_script
from aigc_cli.modalities.text_files import Reading, printable, text_of

LONG_LINE = 20_000  # characters
LINE = 20  # characters of a line that texts do not share by chance
_MOST_LINES = 20_000_000  # that are held against each other
_MOST_SKETCHES = 100_000  # documents that are held against each other
_SKETCHED = 1 << 20  # characters of a document that its sketch is of
_POINTS = 0x110000
INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\u180e"
#: UTF-8 that was read as Windows-1252 or Latin-1, and saved again.
MOJIBAKE = re.compile("\u00c3[\u0080-\u00bf\u201a-\u2122]|\u00e2\u20ac[\u0080-\u2122]|\u00c2[\u00a0-\u00bf]")
MARKUP = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]{0,200})?/?>|&(?:amp|lt|gt|quot|nbsp|#\d+);")


@dataclass
class TextFacts:
    """What is known of the documents of a split, or of one side of its pairs."""

    near: bool = True  # whether texts that are nearly the same are sought, which takes a sketch of each
    points: np.ndarray = field(default_factory=lambda: np.zeros(_POINTS, dtype=np.int64))
    documents: int = 0
    lines: int = 0
    longest: int = 0  # characters of the longest line
    lengths: list[int] = field(default_factory=list)  # characters of each document
    digests: list[int] = field(default_factory=list)  # of each document
    sketches: list[np.ndarray] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)  # digests of the lines, but short ones
    names: list[str] = field(default_factory=list)  # how each document begins
    odd: Counter[str] = field(default_factory=Counter)
    _parts: list[str] = field(default_factory=list)
    _waiting: list[str] = field(default_factory=list)
    _size: int = 0

    def add(self, piece: Piece, side: int = 0) -> None:
        """The next piece of a document."""
        text = piece.texts[side]
        self._waiting.append(text)
        self._size += len(text)
        if self._size >= PIECE:
            self.count()
        self._parts.append(text)
        if piece.ends:
            self._end("".join(self._parts))
            self._parts = []

    def close(self) -> None:
        """Ends the last document, which a split may cut off, and counts what is left."""
        if self._parts:
            self._end("".join(self._parts))
            self._parts = []
        self.count()

    def count(self) -> None:
        """Counts the characters that have come since the last time: one by one, lines would take too long."""
        text = "\n".join(self._waiting)
        points = np.frombuffer("".join(self._waiting).encode("utf-32-le", "replace"), dtype=np.uint32)
        self.points += np.bincount(points, minlength=_POINTS)
        self._waiting, self._size = [], 0
        self.odd["mojibake"] += len(MOJIBAKE.findall(text)) if not text.isascii() else 0
        self.odd["markup"] += len(MARKUP.findall(text)) if "<" in text or "&" in text else 0
        self.odd["unnormalised"] += not unicodedata.is_normalized("NFC", text)

    def _end(self, text: str) -> None:
        self.documents += 1
        self.lengths.append(len(text))
        self.digests.append(digest_of_text(text))
        self.names.append(beginning(text))
        if self.near and self.documents <= _MOST_SKETCHES:
            self.sketches.append(sketch(text[:_SKETCHED]))
        for line in text.split("\n"):
            self.longest = max(self.longest, len(line))
            if len(line) >= LINE and len(self.repeated) < _MOST_LINES:
                self.repeated.append(digest_of_text(line.strip()))
            self.lines += 1
        self.lines -= text.endswith("\n")

    @property
    def characters(self) -> int:
        """How many there are in all."""
        return int(self.points.sum())

    def of(self, characters: str) -> int:
        """How many there are of some characters."""
        return int(self.points[[ord(each) for each in characters]].sum())

    def controls(self) -> int:
        """Characters that move a cursor or end a message, but for NUL, tabs and ends of lines."""
        places = [*range(1, 9), 11, 12, *range(14, 32), *range(127, 160)]
        return int(self.points[places].sum())


def digest_of_text(text: str) -> int:
    """64 bits of a sum of a text, as a signed number."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "big", signed=True)


def beginning(text: str, most: int = 40) -> str:
    """The first words of a text, on one line, by which a person knows it."""
    start = " ".join(text[: 4 * most].split())
    return repr(start if len(start) <= most and len(text) <= 4 * most else f"{start[: most - 3]}...")


def scripts(points: np.ndarray) -> dict[str, float]:
    """The scripts of the letters among counts of characters (0x110000,), with the share of each, the largest first."""
    found = letters_by_script({chr(point): int(points[point]) for point in np.flatnonzero(points).tolist()})
    return {name: count / found.total() for name, count in found.most_common()}


@dataclass
class FileFacts:
    """What is wrong with the files of a source, by their names."""

    failed: dict[str, DataError] = field(default_factory=dict)
    broken: Counter[str] = field(default_factory=Counter)  # bytes that are not text
    empty: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)  # with ends of lines of several kinds
    returns: list[str] = field(default_factory=list)  # with carriage returns
    marks: list[str] = field(default_factory=list)  # with the mark of an encoding within the text
    good: list[Any] = field(default_factory=list)  # the parts that can be read, as the source has them


def each_part(source: Any) -> Iterator[tuple[str, Any, Any]]:
    """The name of each file of a source (or of each two that belong together), itself, and a source of it alone."""
    for attribute in ("files", "parts"):
        for part in getattr(source, attribute, ()):
            alone = copy(source)
            setattr(alone, attribute, [part])
            paths = [part[1]] if attribute == "files" else part
            alone.identity = f"{source.identity} {[str(path) for path in paths]}"
            yield " and ".join(printable(path.name) for path in paths), part, alone


def check_files(source: Any, reading: Reading) -> FileFacts:
    """Reads each file of a source by itself, so that one that is broken does not hide the others."""
    facts = FileFacts()
    for name, part, alone in each_part(source):
        seen = Reading(reading.encoding, 1.0)
        try:
            some = sum(len(text) for piece in alone.pieces(seen) for text in piece.texts)
        except DataError as error:
            facts.failed[name] = error
            continue
        count = sum(seen.broken.values())
        total = sum(path.stat().st_size for path in _paths(part))
        if count > reading.max_broken * total:
            what = f"{count:,} of its {total:,} bytes are not {reading.encoding}"
            hint = "name its encoding, such as data.encoding=cp1252, or allow more with data.max_broken="
            facts.failed[name] = DataError(what, hint)
            continue
        facts.broken[name] += count
        if not some:
            facts.empty.append(name)
            continue
        facts.good.append(part)
        _look_at_ends(facts, name, _paths(part), seen)
    facts.broken += Counter()  # without zeros
    return facts


def _paths(part: Any) -> list[Path]:
    return [path for path in part if isinstance(path, Path)]


def _look_at_ends(facts: FileFacts, name: str, paths: Iterable[Path], reading: Reading) -> None:
    plain = pairs = alone = marks = 0
    for path in paths:
        before = ""
        for text in text_of(path, reading.again()):
            seen = before[-1:] + text
            pairs += seen.count("\r\n")
            plain += text.count("\n")
            alone += text.count("\r")
            marks += text.count("\ufeff")
            before = text
    kinds = sum(count > 0 for count in (plain - pairs, pairs, alone - pairs))
    if kinds > 1:
        facts.mixed.append(name)
    elif alone:
        facts.returns.append(name)
    if marks:
        facts.marks.append(name)
