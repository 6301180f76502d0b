"""A person's own videos: files that are decoded once, kept at the wanted rate and size, and cut into clips.

Frames lie in one file of the cache, mapped to memory, and are written there one by one: hours of video need no more
memory than seconds.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as typed

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Dataset, Gatherer, Split
from aigc_cli.data.cache import cache_dir, digest_of
from aigc_cli.data.images import counted
from aigc_cli.data.own import EncodedFiles, Parts, about_untrained, accept
from aigc_cli.data.raw import offer
from aigc_cli.data.splits import CutConfig
from aigc_cli.files import replacing, resource_errors, write_atomically
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.modalities.unreadable import Unreadable
from aigc_cli.modalities.video_codec import VideoCodec
from aigc_cli.modalities.video_decode import DECODED, Film

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NOUN = ("video", "videos")


@typed(config=STRICT, frozen=True, kw_only=True)
class VideoFilesConfig(CutConfig):
    """The keys of a person's own videos."""

    root: str | None
    fps: Annotated[int, Field(ge=1, le=120)]
    frames: Annotated[int, Field(ge=2, le=1024)]
    size: Annotated[int, Field(ge=8, le=1024)]
    stride: Annotated[int, Field(ge=1, le=1000)]
    channels: Literal[1, 3]
    labels: bool
    label_column: str | None
    max_bad: Annotated[int, Field(ge=0)]
    memory_gb: Annotated[float, Field(gt=0)]

    @property
    def span(self) -> int:
        """Frames of a file from the first to the last of a clip."""
        return (self.frames - 1) * self.stride + 1


@dataclass(frozen=True)
class Entry:
    """What became of a file: where its frames lie, or why it cannot be used."""

    start: int = 0  # of all frames
    n: int = 0  # frames, at the rate that is wanted
    rate: float = 0.0  # of the file itself, at the mean
    seconds: float = 0.0
    digest: str = ""  # of its frames
    cut: str = ""  # what is missing of it, where something is
    sound: bool = False
    reason: str = ""  # why it cannot be used, where it cannot


@dataclass(frozen=True)
class Reel:
    """All files of a part, decoded into one array; `identity` says which files these are."""

    files: EncodedFiles
    config: VideoFilesConfig

    @cached_property
    def entries(self) -> dict[Any, Entry]:
        """What became of each file, by its key; found once, and remembered."""
        with suppress(OSError, ValueError, TypeError, AttributeError):
            saved = json.loads(self._path.with_suffix(".json").read_text())
            entries = {key: Entry(**entry) for key, entry in zip(self.files.keys, saved, strict=True)}
            if self._path.stat().st_size == sum(entry.n for entry in entries.values()) * self._frame:
                return entries
        with resource_errors(self._path, "with AIGC_CACHE"):
            return self._decode()

    @property
    def frames(self) -> np.ndarray:
        """uint8 (total, channels, size, size), on the disk."""
        shape = (sum(entry.n for entry in self.entries.values()), self.config.channels, self.config.size)
        if not shape[0]:
            return np.zeros((0, *shape[1:], shape[-1]), np.uint8)
        return np.memmap(self._path, np.uint8, "r", shape=(*shape, shape[-1]))

    @property
    def _frame(self) -> int:
        return self.config.channels * self.config.size**2

    @cached_property
    def _path(self) -> Path:
        config = self.config
        key = digest_of([DECODED, self.files.identity, config.fps, config.size, config.channels])
        return cache_dir() / "data" / "video" / f"{key}.frames"

    def _decode(self) -> dict[Any, Entry]:
        from tqdm import tqdm

        self._path.parent.mkdir(parents=True, exist_ok=True)
        entries: dict[Any, Entry] = {}
        start = 0
        with replacing(self._path) as part, part.open("wb") as file:
            for key in tqdm(self.files.keys, "decoding", unit="file", disable=None, leave=False, delay=1.0):
                entries[key] = self._written(key, file, start)
                start += entries[key].n
        write_atomically(self._path.with_suffix(".json"), json.dumps([asdict(entry) for entry in entries.values()]))
        return entries

    def _written(self, key: Any, file: IO[bytes], start: int) -> Entry:
        """Appends the frames of a file; one that breaks off keeps those before."""
        config, digest, n, reason = self.config, hashlib.sha256(), 0, ""
        try:
            film = Film(self.files.read(key))
            for frame in film.frames(config.fps, config.size, config.channels):
                digest.update(frame.data)
                file.write(frame.data)
                n += 1
        except Unreadable as error:
            reason = str(error)
        if reason:
            file.seek(start * self._frame)
            file.truncate()
            return Entry(reason=reason)
        rate, seconds = round(film.rate, 3), round(film.seconds, 3)
        return Entry(start, n, rate, seconds, digest.hexdigest()[:16], film.cut, film.sound)


@dataclass(frozen=True, kw_only=True)
class VideoFiles(EncodedFiles):
    """Video files that are not decoded yet, and the reel that they are in once they are."""

    reel: Reel

    @property
    def entries(self) -> list[Entry]:
        """What becomes of each file; they are decoded when this is first asked for. One that has too few frames for a
        clip cannot be used."""
        config, found = self.reel.config, []
        for key in self.keys:
            entry = self.reel.entries[key]
            if not entry.reason and entry.n < config.span:
                short = f"it has {entry.n} frames at {config.fps} a second, and a clip takes {config.span}"
                entry = replace(entry, reason=f"{short}; {entry.cut}" if entry.cut else short)
            found.append(entry)
        return found


def video_files(config: VideoFilesConfig, **common: Any) -> VideoFiles:
    """Files as an :class:`EncodedFiles` has them in `common`, to be decoded as a configuration says."""
    return VideoFiles(**common, reel=Reel(EncodedFiles(**common), config))


class Clips:
    """Clips out of files that are as long or longer: a :class:`Gatherer`.

    In training a file has as many as fit into it, which start at random within their shares of it, so that all of it
    is seen; of held-out files the first one is taken.
    """

    def __init__(
        self, frames: np.ndarray, entries: list[Entry], config: VideoFilesConfig, *, first_alone: bool
    ) -> None:
        import torch

        span, stride = config.span, config.stride
        counts = np.array([entry.n for entry in entries], dtype=np.int64)
        starts = np.array([entry.start for entry in entries], dtype=np.int64)
        clips = np.ones_like(counts) if first_alone else counts // span
        self.file = np.repeat(np.arange(len(counts)), clips)  # of each clip
        number = np.arange(len(self.file)) - np.repeat(np.cumsum(clips) - clips, clips)
        room = (counts - span + 1)[self.file]  # places in its file at which a clip may start
        low = room * number // clips[self.file]
        self.held = int(counts.sum()) * frames[:1].nbytes <= config.memory_gb * 1e9
        if self.held:
            frames = np.concatenate([frames[start : start + n] for start, n in zip(starts, counts, strict=True)])
            starts = np.cumsum(counts) - counts
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing writes to it
            self._frames = torch.from_numpy(frames)
        first = starts[self.file]
        high = room * (number + 1) // clips[self.file]
        self._tables = torch.from_numpy(np.stack([first + number * span, first + low, high - low]))
        self._places = torch.arange(0, span, stride)
        self.labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.file)

    @property
    def device(self) -> torch.device:
        """Where it takes item numbers, and where its batches are."""
        return self._frames.device

    def to(self, device: torch.device | str) -> Clips:
        """The same on a device."""
        moved = copy(self)
        moved._frames, moved._tables, moved._places = (
            tensor.to(device) for tensor in (self._frames, self._tables, self._places)
        )
        moved.labels = None if self.labels is None else self.labels.to(device)
        return moved

    def __call__(self, index: Tensor, uniform: Tensor | None = None) -> Batch:
        """uint8 (n, c, t, size, size) of the clips at `index`; see :class:`Gatherer`."""
        place, low, room = self._tables.index_select(1, index)
        if uniform is not None:
            place = low + (uniform[:, 0].double() * room).long()
        rows = place[:, None] + self._places
        found = self._frames.index_select(0, rows.flatten()).view(*rows.shape, *self._frames.shape[1:])
        labels = None if self.labels is None else self.labels.index_select(0, index)
        return Batch(found.transpose(1, 2).contiguous(), labels)


class FolderVideos(Dataset):
    """The clips in a person's own videos."""

    def __init__(
        self, files: VideoFiles, config: VideoFilesConfig, split: Split, untrained: list[str], problems: list[str],
        notes: list[str],
    ) -> None:  # fmt: skip
        import torch

        self._clips = Clips(files.reel.frames, files.entries, config, first_alone=split != "train")
        if files.labels is not None:
            self._clips.labels = torch.from_numpy(files.labels[self._clips.file])
        self.codec = VideoCodec((config.channels, config.frames, config.size, config.size), config.fps)
        known = [(entry.n, entry.digest) for entry in files.entries]
        labels = None if files.labels is None else files.labels.tolist()
        form = [self.codec.shape, config.fps, config.stride, list(files.classes), labels]
        self.spec = DataSpec(
            "video", self.codec.shape, tuple(files.classes), fingerprint=digest_of([known, form]),
            untrained=tuple(untrained), rate=config.fps,
        )  # fmt: skip
        self._problems, self._notes = problems, notes

    def __len__(self) -> int:
        return len(self._clips)

    def resident(self) -> None:
        """None: clips are cut out of files when they are asked for."""
        return

    def read(self, index: int) -> tuple[Tensor, int | None]:
        """One clip, uint8 (c, t, size, size), and its label."""
        import torch

        batch = self._clips(torch.tensor([index]))
        return batch.content[0], None if batch.labels is None else int(batch.labels[0])

    def gatherer(self, device: torch.device | str) -> Gatherer:
        """On the device, where the frames are held in memory."""
        return self._clips.to(device) if self._clips.held else self._clips

    def problems(self) -> list[str]:
        """The files that were left out or are cut, with the reason."""
        return self._problems

    def describe(self) -> list[str]:
        """How many files each split has, and what became of them."""
        return self._notes


def open_videos(parts: Parts[VideoFiles], config: VideoFilesConfig, split: Split) -> FolderVideos:
    """Decodes all files of a part, unless that was done before, and leaves out those that cannot be used; raises
    ConfigError where the fractions leave the split empty, and DataError where there are more than ``data.max_bad`` of
    those, or no others; the message names them."""
    files = parts[split]
    untrained = parts.untrained if files.classes else []
    lines = [*parts.lines, *about_untrained(untrained)] if split == "train" else []
    offer("video", replace(files, lines=lines))
    entries = files.entries
    failed = {place: entry.reason for place, entry in enumerate(entries) if entry.reason}
    lines += accept(files, failed, config.max_bad, NOUN[1])
    lines += [f"{name}: {e.cut}; what is there is used" for name, e in named(files, entries) if e.cut and not e.reason]
    usable = files.take(np.flatnonzero([not entry.reason for entry in entries]))
    return FolderVideos(usable, config, split, untrained, lines, list(_notes(parts, usable, config)))


def named(files: VideoFiles, entries: list[Entry]) -> list[tuple[str, Entry]]:
    """Each file by its name."""
    return list(zip(files.names, entries, strict=True))


def _notes(parts: Parts[VideoFiles], files: VideoFiles, config: VideoFilesConfig) -> Iterator[str]:
    """How many files each split has, and what becomes of those of this one."""
    used = files.entries
    yield "files: " + counted({split: len(some) for split, some in parts.splits.items()})
    rates = sorted({round(entry.rate, 1) for entry in used})
    told = " to ".join(f"{rate:g}" for rate in dict.fromkeys((rates[0], rates[-1])))
    seconds = sum(entry.seconds for entry in used)
    sound = ", whose sound is passed over" if any(entry.sound for entry in used) else ""
    each = f"{config.frames} frames of {config.size}x{config.size}, {config.frames * config.stride / config.fps:g} s"
    yield (
        f"{len(used):,} videos, {seconds / 60:.1f} min, of {told} frames a second, brought to {config.fps}; a clip is "
        f"{each}{sound}"
    )
