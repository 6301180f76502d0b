"""What can be measured of pictures one by one, in files or in memory, on all cores."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aigc_cli.data.alike import SIDE, thumbnail
from aigc_cli.data.base import SPLITS, Dataset, Split
from aigc_cli.data.cache import find_root
from aigc_cli.data.images import EncodedImages
from aigc_cli.data.raw import Raw
from aigc_cli.data.report import Look
from aigc_cli.modalities.image_decode import decode_all, is_turned, opened
from aigc_cli.modalities.text_files import printable
from aigc_cli.modalities.unreadable import Unreadable

#: The suffixes that go with what Pillow calls a format.
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"), "MPO": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "BMP": (".bmp",),
    "GIF": (".gif",), "TIFF": (".tif", ".tiff"), "AVIF": (".avif",), "HEIF": (".heic", ".heif"),
}  # fmt: skip
_MARKUP = (b"<!doc", b"<html", b"<?xml", b"<head", b"<svg")
_FLAT = 2  # grey levels between the darkest and the lightest pixel of a picture that shows nothing
_COLOUR = 12.0  # levels that channels differ by in a picture with colour


class HeldImages:
    """A split that is decoded already, as :class:`EncodedImages` are had."""

    def __init__(self, dataset: Dataset, split: str) -> None:
        self._dataset = dataset
        self.names = [f"{split} {index}" for index in range(len(dataset))]
        self.classes, self.shape = dataset.spec.classes, dataset.spec.shape
        labels = [dataset.read(index)[1] for index in range(len(dataset))] if self.classes else []
        self.labels = np.array(labels, dtype=np.int64) if self.classes else None

    def __len__(self) -> int:
        return len(self.names)

    def decode(self, index: int) -> np.ndarray:
        """The pixels of one, uint8 (c, h, w)."""
        pixels: np.ndarray = self._dataset.read(index)[0].numpy()
        return pixels


Pictures = EncodedImages | HeldImages


def pictures_of(raw: Raw, split: Split) -> Pictures:
    """The pictures of a split."""
    return raw.content if isinstance(raw.content, EncodedImages) else HeldImages(raw.content, split)


@dataclass
class Facts:
    """What is known of some pictures, each array in their order; of those that are `failed`, only names and labels."""

    parts: Mapping[Split, Pictures]
    names: list[str]
    of: np.ndarray  # the number of each one's split
    places: np.ndarray  # of each within its split
    labels: np.ndarray | None  # the number of each one's class; -1 where its split has none
    classes: Sequence[str]
    failed: dict[int, str] = field(default_factory=dict)
    sizes: np.ndarray = field(init=False)  # (n, 2) width and height, upright; 0 where they are not files
    digests: np.ndarray = field(init=False)  # of the pixels at data.size=
    thumbnails: np.ndarray = field(init=False)
    mean: np.ndarray = field(init=False)
    contrast: np.ndarray = field(init=False)  # the standard deviation, in grey levels
    blank: np.ndarray = field(init=False)
    colour: np.ndarray = field(init=False)
    modes: list[str] = field(init=False)
    kinds: list[str] = field(init=False)  # as Pillow calls formats
    animated: np.ndarray = field(init=False)
    turned: np.ndarray = field(init=False)

    @property
    def readable(self) -> np.ndarray:
        """The places of those that can be decoded, int64."""
        return np.delete(np.arange(len(self.names)), list(self.failed))

    def decode(self, index: int) -> np.ndarray:
        """The pixels of one as a model gets them, uint8 (c, size, size); raises Unreadable."""
        return self.part(index).decode(int(self.places[index]))

    def part(self, index: int) -> Pictures:
        """Where one comes from."""
        return self.parts[SPLITS[self.of[index]]]

    def encoded(self, index: int) -> bytes | Path | None:
        """What its file holds, or the file; None where it has none; raises Unreadable."""
        part = self.part(index)
        return part.read(part.keys[int(self.places[index])]) if isinstance(part, EncodedImages) else None

    def named(self, mask: np.ndarray) -> list[str]:
        """The names of the readable ones for which `mask` (n,) holds."""
        return [self.names[place] for place in self.readable[mask[self.readable]].tolist()]


def facts_of(look: Look) -> Facts:
    """Looks at all pictures of some data."""
    parts = {split: pictures_of(raw, split) for split, raw in look.splits.items()}
    under = f"{printable(find_root(look.values['root']))}/" if look.values.get("root") else ""
    names = [name.removeprefix(under) for part in parts.values() for name in part.names]
    of = np.repeat([SPLITS.index(split) for split in parts], [len(part) for part in parts.values()])
    places = np.concatenate([np.arange(len(part)) for part in parts.values()])
    known = [part.labels for part in parts.values()]
    unlabelled = (np.full(len(part), -1) for part in parts.values())
    labels = [other if one is None else one for one, other in zip(known, unlabelled, strict=True)]
    classes = next((part.classes for part in parts.values() if part.labels is not None), ())
    facts = Facts(parts, names, of, places, np.concatenate(labels) if classes else None, classes)
    n = len(names)
    facts.sizes, facts.digests = np.zeros((n, 2), dtype=np.int64), np.zeros(n, dtype=np.int64)
    facts.thumbnails = np.zeros((n, SIDE, SIDE), dtype=np.float32)
    facts.mean, facts.contrast = np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.float32)
    facts.blank, facts.colour, facts.animated, facts.turned = (np.zeros(n, dtype=bool) for _ in range(4))
    facts.modes, facts.kinds = [""] * n, [""] * n

    def decode(index: int) -> np.ndarray:
        encoded = facts.encoded(index)
        if encoded is not None:
            _look(facts, index, encoded)
        return facts.decode(index)

    def keep(index: int, pixels: np.ndarray) -> None:
        facts.digests[index] = int.from_bytes(hashlib.sha256(pixels.tobytes()).digest()[:8], "big", signed=True)
        facts.thumbnails[index] = thumbnail(pixels)
        facts.mean[index], facts.contrast[index] = pixels.mean(), pixels.std()
        low, high = pixels.min((1, 2)).astype(int), pixels.max((1, 2)).astype(int)
        facts.blank[index] = bool((high - low <= _FLAT).all())
        facts.colour[index] = bool(np.abs(np.diff(pixels.astype(np.float32), axis=0)).max(initial=0) > _COLOUR)

    facts.failed = decode_all(decode, n, keep, "looking at")
    return facts


def _look(facts: Facts, index: int, encoded: bytes | Path) -> None:
    """What the header of a file says; raises Unreadable where there is nothing of a picture in it."""
    with encoded.open("rb") if isinstance(encoded, Path) else _Held(encoded) as file:
        start = file.read(64)
    if not start:
        raise Unreadable("it is empty")
    if start.lstrip().lower().startswith(_MARKUP):
        raise Unreadable("it is markup, such as a web page, not a picture")
    with opened(encoded) as image:
        facts.modes[index], facts.kinds[index] = image.mode, image.format or ""
        facts.animated[index] = bool(getattr(image, "is_animated", False))
        facts.turned[index] = is_turned(image)
        sideways = facts.turned[index] and image.format != "TIFF" and image.getexif()[0x0112] >= 5
        facts.sizes[index] = image.size[::-1] if sideways else image.size  # Pillow gives that of a TIFF upright


class _Held:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def __enter__(self) -> _Held:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read(self, count: int) -> bytes:
        """The first bytes."""
        return self._content[:count]


def misnamed(name: str, kind: str) -> bool:
    """Whether the suffix of a file's name is of another format than what is in it."""
    suffix = os.path.splitext(name)[1].lower()
    return (
        kind in _SUFFIXES and suffix not in _SUFFIXES[kind] and any(suffix in others for others in _SUFFIXES.values())
    )


def drawn(pictures: np.ndarray, labels: np.ndarray | None, classes: int, rows: int, across: int) -> list[np.ndarray]:
    """Rows of up to `across` places for a sheet, spread over `pictures`, a row for each class where there are few."""
    if labels is None or not 1 < classes <= 3 * rows:
        some = pictures[np.linspace(0, len(pictures) - 1, min(rows * across, len(pictures))).astype(int)]
        return [some[start : start + across] for start in range(0, len(some), across)]
    each = (pictures[labels[pictures] == label] for label in range(classes))
    return [part[np.linspace(0, len(part) - 1, min(across, len(part))).astype(int)] for part in each]


def plain_facts(facts: Facts) -> dict[str, Any]:
    """What a program gets of sizes, modes and brightness."""
    some = facts.readable
    sizes = facts.sizes[some][facts.sizes[some].min(1) > 0]
    told: dict[str, Any] = {"readable": len(some), "unreadable": len(facts.failed)}
    if len(sizes):
        short, long = sizes.min(1), sizes.max(1)
        told["short_side"] = [int(np.quantile(short, share, method="nearest")) for share in (0, 0.5, 1)]
        told["aspect"] = [round(float(np.quantile(long / short, share)), 2) for share in (0, 0.5, 1)]
    if len(some):
        told["mean"], told["contrast"] = (round(float(part[some].mean()), 1) for part in (facts.mean, facts.contrast))
    return told
