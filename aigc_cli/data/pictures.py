"""A person's own images, whatever files they lie in: which split each belongs to, its class, and how they are opened.

A source (a folder, a zip, parquet or arrow files) says what it holds as :class:`Pictures`; all that follows is one rule
for every source: one numbering of classes for all splits, copies on one side of a cut, what is broken left out and
named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from aigc_cli.data.base import SPLITS, Split
from aigc_cli.data.cache import digest_of, remembered
from aigc_cli.data.images import EncodedImages, ImageDataset, ImageFilesConfig, StreamedImages, counted
from aigc_cli.data.raw import offer
from aigc_cli.data.splits import NO_COPIES, Cut, part_for
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.files import equal_contents, replacing, some_of
from aigc_cli.modalities.image_decode import DECODED, Unreadable, decode_all

#: The usual names of a column of labels, the likeliest first.
LABEL_NAMES = ("label", "labels", "class", "target", "fine_label", "coarse_label", "category")
NAMED = 5  # how many unreadable files, or classes, a message names


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The encoded images of a source, by the part of it that each lies in."""

    parts: Mapping[Split, EncodedImages]  # "train" alone where nothing says otherwise
    cut: Cut
    #: Which rows of the training part are of a split; the last argument has each copy with what it copies.
    rows: Callable[[Split, EncodedImages, Cut, Mapping[int, int]], np.ndarray]
    broken: Mapping[Split, DataError] = field(default_factory=dict)  # held-out parts that cannot be read
    lines: Sequence[str] = ()  # what a person should know of, such as files that were passed over

    def __getitem__(self, split: Split) -> EncodedImages:
        """The images of a split; raises ConfigError where the fractions leave it nothing, and DataError where it cannot
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
    def splits(self) -> dict[Split, EncodedImages]:
        """The images of every split that has any."""
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


def numbered(
    words: Mapping[Split, Sequence[str] | None], *, key: Callable[[str], Any] | None = None
) -> tuple[dict[Split, np.ndarray | None], tuple[str, ...]]:
    """The labels (n,) of each part by the word of each item, and the classes: those of the training part in order (by
    `key`), and then those that only others have; so a part that is missing renumbers nothing. A part of None has no
    labels."""
    trained = set(words["train"] or ())
    others = {word for part in words.values() for word in part or ()} - trained
    classes = (*sorted(trained, key=key), *sorted(others, key=key))
    number = {word: place for place, word in enumerate(classes)}
    labels = {
        split: None if part is None else np.array([number[word] for word in part], dtype=np.int64)
        for split, part in words.items()
    }
    return labels, classes


def open_pictures(pictures: Pictures, config: ImageFilesConfig, split: Split) -> ImageDataset | StreamedImages:
    """Decodes all images of a split once, to hold them or to know which are unreadable, and leaves those out; raises
    ConfigError where the fractions leave the split empty, and DataError where more than ``data.max_bad`` images are
    unreadable, or all; the message names them."""
    files = pictures[split]
    untrained = pictures.untrained if files.classes else []
    lines = [*pictures.lines, *_about_untrained(untrained), *_about_labels(config)] if split == "train" else []
    offer("image", replace(files, lines=lines))
    about: dict[str, Any] = {"views": config.views, "untrained": untrained, "notes": _notes(pictures, config)}
    if len(files) * int(np.prod(files.shape)) > config.memory_gb * 1e9:
        failed, content = _checked(files)
        lines += accept(files, failed, config.max_bad)
        with suppress(Unreadable):
            files.read(files.keys[0])  # a column of images is read once, before there are workers to read it again
        readable = files.take(np.delete(np.arange(len(files)), list(failed))) if failed else files
        return StreamedImages(readable, content, problems=lines, **about)
    import torch

    pixels = np.empty((len(files), *files.shape), dtype=np.uint8)
    failed = decode_all(files.decode, len(files), pixels.__setitem__, "decoding")
    lines += accept(files, failed, config.max_bad)
    labels = files.labels
    if failed:
        pixels = np.delete(pixels, list(failed), axis=0)
        labels = None if labels is None else np.delete(labels, list(failed))
    held = None if labels is None else torch.from_numpy(labels)
    return ImageDataset(torch.from_numpy(pixels), held, files.classes, problems=lines, **about)


def _about_untrained(classes: Sequence[str]) -> list[str]:
    """A line about classes that no training item has."""
    return [f"no training item has the class{'es' * (len(classes) > 1)} {some_of(classes, NAMED)}"] if classes else []


def _about_labels(config: ImageFilesConfig) -> list[str]:
    """A line about a column that is named and not read."""
    named = config.label_column is not None and not config.labels
    return [f"data.label_column={config.label_column} has no effect with data.labels=false"] if named else []


def _notes(pictures: Pictures, config: ImageFilesConfig) -> list[str]:
    counts = counted({split: len(files) for split, files in pictures.splits.items()})
    hint = "data.flip=true would add mirror images, where left and right do not matter"
    return [counts, *([hint] if config.channels == 3 and "flip" not in config.views else [])]


def decode_once(files: EncodedImages, memory: Path) -> np.ndarray:
    """All pixels of `files`, uint8 (n, c, h, w), remembered in the file `memory`; raises DataError where one is
    unreadable."""
    shape = (len(files), *files.shape)
    try:
        pixels: np.ndarray = np.load(memory, mmap_mode="r", allow_pickle=False)
        if pixels.shape == shape and pixels.dtype == np.uint8:
            return pixels
    except (OSError, ValueError, EOFError):
        pass
    pixels = np.empty(shape, dtype=np.uint8)
    accept(files, decode_all(files.decode, len(files), pixels.__setitem__, "decoding"), 0)
    with suppress(OSError):  # a full disk costs time at the next start, nothing else
        memory.parent.mkdir(parents=True, exist_ok=True)
        with replacing(memory) as part, part.open("wb") as file:
            np.save(file, pixels, allow_pickle=False)
    return pixels


def accept(files: EncodedImages, failed: Mapping[int, str], max_bad: int) -> list[str]:
    """The line for each unreadable file; raises DataError where there are more than `max_bad`, or no others."""
    lines = [f"{files.names[index]}: {reason}" for index, reason in failed.items()]
    named = "; ".join(lines[:NAMED]) + (f"; and {len(lines) - NAMED} more" if len(lines) > NAMED else "")
    if failed and len(failed) == len(files):
        raise DataError(f"none of {len(files)} images can be read: {named}", "point data.root= at images that open")
    if len(failed) > max_bad:
        raise DataError(
            f"{len(failed)} of {len(files)} images cannot be read: {named}",
            f"replace or remove them, or leave them out with data.max_bad={len(failed)}",
        )
    return lines


def _checked(files: EncodedImages) -> tuple[dict[int, str], str]:
    """What is unreadable among files that are not held, and a digest of all other pixels; found once."""

    def found() -> dict[str, Any]:
        digests = np.zeros((len(files), 32), dtype=np.uint8)

        def keep(index: int, pixels: np.ndarray) -> None:
            digests[index] = np.frombuffer(hashlib.sha256(pixels.data).digest(), dtype=np.uint8)

        failed = decode_all(files.decode, len(files), keep, "checking")
        return {"failed": failed, "content": hashlib.sha256(np.delete(digests, list(failed), axis=0).data).hexdigest()}

    def restored(saved: Any) -> tuple[dict[int, str], str]:  # the keys of JSON are text
        return {int(index): str(reason) for index, reason in saved["failed"].items()}, str(saved["content"])

    return remembered("checked", digest_of([files.identity, DECODED, *files.shape]), found, restored)
