"""Files that are decoded once into one array on the disk, and clips that are cut out of it when they are asked for.

The array lies in one file of the cache, mapped to memory, and is written there bit by bit: hours of sound or video need
no more memory than seconds.
"""

from __future__ import annotations

import json
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np

from aigc_cli.data.own import EncodedFiles
from aigc_cli.files import replacing, resource_errors, write_atomically
from aigc_cli.modalities.base import Batch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from aigc_cli.data.base import Gatherer


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What became of a file: where its values lie in the array, or why it cannot be used."""

    start: int = 0  # of all rows
    n: int = 0  # rows, such as frames, at the rate that is wanted
    seconds: float = 0.0
    digest: str = ""  # of its rows
    reason: str = ""  # why it cannot be used, where it cannot


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True)
class DecodedFiles(ABC, Generic[E]):
    """All files of a part, decoded into one array."""

    files: EncodedFiles

    @property
    @abstractmethod
    def row(self) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """The type and the shape of one row of the array."""

    @property
    @abstractmethod
    def path(self) -> Path:
        """Of the array in the cache; its name says which files these are, and how they are decoded."""

    @abstractmethod
    def entry(self, **values: Any) -> E:
        """What became of a file, as it was remembered."""

    @abstractmethod
    def written(self, file: IO[bytes]) -> Iterator[E]:
        """What becomes of each file, in their order; its rows are appended to `file`."""

    @cached_property
    def entries(self) -> dict[Any, E]:
        """What became of each file, by its key; found once, and remembered."""
        kind, shape = self.row
        with suppress(OSError, ValueError, TypeError, AttributeError):
            saved = json.loads(self.path.with_suffix(".json").read_text())
            entries = {key: self.entry(**entry) for key, entry in zip(self.files.keys, saved, strict=True)}
            rows = sum(entry.n for entry in entries.values())
            if self.path.stat().st_size == rows * kind.itemsize * math.prod(shape):
                return entries
        with resource_errors(self.path, "with AIGC_CACHE"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as part, part.open("wb") as file:
                entries = dict(zip(self.files.keys, self.written(file), strict=True))
            write_atomically(self.path.with_suffix(".json"), json.dumps([asdict(each) for each in entries.values()]))
            return entries

    @cached_property
    def content(self) -> np.ndarray:
        """(total, ...), on the disk."""
        (kind, shape), total = self.row, sum(entry.n for entry in self.entries.values())
        return np.memmap(self.path, kind, "r", shape=(total, *shape)) if total else np.zeros((0, *shape), kind)


class Excerpts:
    """Clips of one length out of files that are longer, or shorter: the base of a :class:`Gatherer`.

    A file of n rows has as many clips as fit into it, or one. In order they follow one another from its beginning; in
    training each starts at random within its share of the file, so that all of it is seen.
    """

    def __init__(
        self, content: np.ndarray, entries: Sequence[Entry], length: int, memory_gb: float, *, first_alone: bool = False
    ) -> None:
        """`content` (total, ...) is mapped to memory, in which it is held where the files of `entries` fit in so many
        GB; clips have `length` rows. `first_alone` leaves a file its first one."""
        import torch

        starts, counts = (
            np.array([getattr(each, name) for each in entries], dtype=np.int64) for name in ("start", "n")
        )
        self.held = bool(content[:1].nbytes * counts.sum() <= memory_gb * 1e9)
        if self.held:
            content = np.concatenate([content[start : start + n] for start, n in zip(starts, counts, strict=True)])
            starts = np.cumsum(counts) - counts
        clips = np.ones_like(counts) if first_alone else np.maximum(1, counts // length)
        self.file = np.repeat(np.arange(len(counts)), clips)  # of each clip
        number = np.arange(len(self.file)) - np.repeat(np.cumsum(clips) - clips, clips)
        room = (np.maximum(0, counts - length) + 1)[self.file]  # places in its file at which a clip may start
        low = room * number // clips[self.file]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing writes to it
            self.content = torch.from_numpy(content)
        first = starts[self.file]
        self._tables = torch.from_numpy(np.stack([
            first + number * length, first + low, room * (number + 1) // clips[self.file] - low,
            np.minimum(counts, length)[self.file],
        ]))  # fmt: skip
        self.labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.file)

    @property
    def device(self) -> torch.device:
        """Where it takes item numbers, and where its batches are."""
        return self.content.device

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""
        moved = copy(self)
        moved.content, moved._tables = self.content.to(device), self._tables.to(device)
        moved.labels = None if self.labels is None else self.labels.to(device)
        return moved

    def of_files(self, labels: np.ndarray | None) -> Self:
        """The same with the labels (m,) of the files."""
        import torch

        self.labels = None if labels is None else torch.from_numpy(labels[self.file])
        return self

    def rows(self, index: Tensor, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
        """Where the clips at `index` (n,) begin, and how many rows they have of their files, (n,) each."""
        place, low, room, count = self._tables.index_select(1, index)
        return (place if uniform is None else low + (uniform[:, 0].double() * room).long()), count

    def batch(self, content: Tensor, index: Tensor) -> Batch:
        """Clips with their labels."""
        return Batch(content, None if self.labels is None else self.labels.index_select(0, index))

    @abstractmethod
    def __call__(self, index: Tensor, uniform: Tensor | None = None) -> Batch:
        """The clips at `index`; see :class:`Gatherer`."""


class OfExcerpts:
    """What a dataset of clips that are cut out of files does with them."""

    excerpts: Excerpts

    def __len__(self) -> int:
        return len(self.excerpts)

    def resident(self) -> Batch | None:
        """None: clips are cut out of files when they are asked for."""
        return None

    def read(self, index: int) -> tuple[Tensor, int | None]:
        """One clip and its label."""
        import torch

        batch = self.excerpts(torch.tensor([index]))
        return batch.content[0], None if batch.labels is None else int(batch.labels[0])

    def gatherer(self, device: torch.device | str) -> Gatherer:
        """On the device, where what is decoded is held in memory."""
        return self.excerpts.to(device) if self.excerpts.held else self.excerpts
