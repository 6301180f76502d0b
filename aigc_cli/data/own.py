"""A person's own files, whatever they hold: which split each belongs to, its class, and what cannot be read of them.

A source (a folder, a zip, files with columns) says what it holds as :class:`Parts`; all that follows is one rule for
every source: copies are on one side of a cut, and what is broken is left out and named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np

from aigc_cli.data.base import SPLITS, Attributes, Split
from aigc_cli.data.cache import digest_of, remembered
from aigc_cli.data.splits import NO_COPIES, Cut, part_for
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.files import equal_contents, some_of
from aigc_cli.modalities.unreadable import Unreadable

NAMED = 5  # how many unreadable files, or classes, a message names


@dataclass(frozen=True, kw_only=True)
class EncodedFiles:
    """Files that are not decoded yet."""

    read: Callable[[Any], bytes | Path]  # what is in a file, by its key; picklable, raises Unreadable
    keys: Sequence[Any]  # one for each file, such as its name
    names: Sequence[str]  # one for each file, for messages
    identity: str  # changes when a file may have, or what is read of it
    labels: np.ndarray | None = None  # int64 (n,)
    classes: Sequence[str] = ()
    attributes: Attributes = ()
    sizes: Callable[[], Sequence[int]] | None = None  # bytes of each file, where copies may be looked for by them
    lines: Sequence[str] = ()  # what a person should know of what was not taken

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: np.ndarray) -> Self:
        """Some of them."""
        return replace(
            self,
            sizes=None,
            keys=[self.keys[row] for row in rows.tolist()],
            names=[self.names[row] for row in rows.tolist()],
            identity=f"{self.identity} {hashlib.sha256(rows.tobytes()).hexdigest()}",
            labels=None if self.labels is None else self.labels[rows],
        )


Files = TypeVar("Files", bound=EncodedFiles)


@dataclass(frozen=True, kw_only=True)
class Parts(Generic[Files]):
    """What a source holds, by the part of it that each file lies in."""

    parts: Mapping[Split, Files]  # "train" alone where nothing says otherwise
    cut: Cut
    #: Which rows of the training part are of a split; the last argument has each copy with what it copies.
    rows: Callable[[Split, Files, Cut, Mapping[int, int]], np.ndarray]
    broken: Mapping[Split, DataError] = field(default_factory=dict)  # held-out parts that cannot be read
    lines: Sequence[str] = ()  # what a person should know of, such as files that were passed over

    def __getitem__(self, split: Split) -> Files:
        """The files of a split; raises ConfigError where the fractions leave it nothing, and DataError where it cannot
        be read."""
        if split in self.broken:
            raise self.broken[split]
        part, cut = part_for(split, {*self.parts, *self.broken}, self.cut)
        files = self.parts[part]
        return files.take(self.rows(split, files, cut, self._same)) if part == "train" else files

    @cached_property
    def _same(self) -> Mapping[int, int]:
        """The copies that go with what they copy; none where that would leave nothing to train on."""
        _, cut = part_for("train", {*self.parts, *self.broken}, self.cut)
        if any(cut):
            with suppress(ConfigError):
                self.rows("train", self.parts["train"], cut, self._copies)
                return self._copies
        return NO_COPIES

    @cached_property
    def splits(self) -> dict[Split, Files]:
        """The files of every split that has any."""
        found = {}
        for split in SPLITS:
            with suppress(ConfigError, DataError):
                found[split] = self[split]
        return found

    @cached_property
    def untrained(self) -> list[str]:
        """The classes that no training item has."""
        files = self.splits.get("train")
        if files is None or files.labels is None:
            return []
        counts = np.bincount(files.labels, minlength=len(files.classes))
        return [name for name, count in zip(files.classes, counts, strict=True) if not count]

    @cached_property
    def _copies(self) -> Mapping[int, int]:
        """The rows of the training part that are copies, each with the first of the same bytes; found once."""
        files = self.parts["train"]

        def content(row: int) -> object:
            try:
                found = files.read(files.keys[row])
                return hashlib.sha256(found if isinstance(found, bytes) else found.read_bytes()).digest()
            except (Unreadable, OSError):
                return row  # it is like no other; that it is broken is found when it is decoded

        def found() -> list[tuple[int, int]]:
            return list(equal_contents(files.sizes() if files.sizes else (), content).items())

        return remembered("copies", digest_of(files.identity), found, lambda pairs: {int(a): int(b) for a, b in pairs})


def about_untrained(classes: Sequence[str]) -> list[str]:
    """A line about classes that no training item has."""
    return [f"no training item has the class{'es' * (len(classes) > 1)} {some_of(classes, NAMED)}"] if classes else []


def accept(files: EncodedFiles, failed: Mapping[int, str], max_bad: int, noun: str = "images") -> list[str]:
    """The line for each unreadable file; raises DataError where there are more than `max_bad`, or no others."""
    lines = [f"{files.names[index]}: {reason}" for index, reason in failed.items()]
    named = "; ".join(lines[:NAMED]) + (f"; and {len(lines) - NAMED} more" if len(lines) > NAMED else "")
    if failed and len(failed) == len(files):
        raise DataError(f"none of {len(files)} {noun} can be read: {named}", f"point data.root= at {noun} that open")
    if len(failed) > max_bad:
        raise DataError(
            f"{len(failed)} of {len(files)} {noun} cannot be read: {named}",
            f"replace or remove them, or leave them out with data.max_bad={len(failed)}",
        )
    return lines
