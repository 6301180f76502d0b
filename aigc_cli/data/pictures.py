"""A person's own images, whatever files they lie in: which split each belongs to, its class, and how they are opened.

A source (a folder, a zip, parquet or arrow files) says what it holds as :class:`Pictures`; all that follows is one rule
for every source: one numbering of classes for all splits, copies on one side of a cut, what is broken left out and
named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aigc_cli.data.base import Split
from aigc_cli.data.cache import digest_of, remembered
from aigc_cli.data.images import EncodedImages, ImageDataset, ImageFilesConfig, StreamedImages, counted
from aigc_cli.data.own import Parts, about_untrained, accept
from aigc_cli.data.raw import offer
from aigc_cli.files import replacing
from aigc_cli.modalities.image_decode import DECODED, decode_all
from aigc_cli.modalities.unreadable import Unreadable

#: The usual names of a column of labels, the likeliest first.
LABEL_NAMES = ("label", "labels", "class", "target", "fine_label", "coarse_label", "category")


Pictures = Parts[EncodedImages]


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
    lines = [*pictures.lines, *about_untrained(untrained), *_about_labels(config)] if split == "train" else []
    offer("image", replace(files, lines=lines))
    about: dict[str, Any] = {"views": config.views, "untrained": untrained, "notes": _notes(pictures, config)}
    about["attributes"] = files.attributes
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
