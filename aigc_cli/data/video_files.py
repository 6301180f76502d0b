"""A person's own videos: files that are decoded once, kept at the wanted rate and size, and cut into clips.

Frames lie in one file of the cache, mapped to memory, and are written there one by one: hours of video need no more
memory than seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as typed

from aigc_cli.config.schema import STRICT
from aigc_cli.data import decoded_files
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.cache import cache_dir, digest_of
from aigc_cli.data.decoded_files import DecodedFiles, Excerpts, OfExcerpts
from aigc_cli.data.images import counted
from aigc_cli.data.own import EncodedFiles, Parts, about_untrained, accept
from aigc_cli.data.raw import offer
from aigc_cli.data.splits import CutConfig
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.modalities.unreadable import Unreadable
from aigc_cli.modalities.video_codec import VideoCodec
from aigc_cli.modalities.video_decode import DECODED, Film

if TYPE_CHECKING:
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


@dataclass(frozen=True, kw_only=True)
class Entry(decoded_files.Entry):
    """What became of a file: where its frames lie, or why it cannot be used."""

    rate: float = 0.0  # of the file itself, at the mean
    cut: str = ""  # what is missing of it, where something is
    sound: bool = False


@dataclass(frozen=True)
class Reel(DecodedFiles[Entry]):
    """All files of a part, decoded into one array uint8 (total, channels, size, size)."""

    config: VideoFilesConfig

    @property
    def row(self) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """A frame."""
        return np.dtype(np.uint8), (self.config.channels, self.config.size, self.config.size)

    @cached_property
    def path(self) -> Path:
        """See :class:`DecodedFiles`."""
        config = self.config
        key = digest_of([DECODED, self.files.identity, config.fps, config.size, config.channels])
        return cache_dir() / "data" / "video" / f"{key}.frames"

    def entry(self, **values: Any) -> Entry:
        """See :class:`DecodedFiles`."""
        return Entry(**values)

    def written(self, file: IO[bytes]) -> Iterator[Entry]:
        """See :class:`DecodedFiles`."""
        from tqdm import tqdm

        start = 0
        for key in tqdm(self.files.keys, "decoding", unit="file", disable=None, leave=False, delay=1.0):
            yield (found := self._appended(key, file, start))
            start += found.n

    def _appended(self, key: Any, file: IO[bytes], start: int) -> Entry:
        """Appends the frames of a file; one that breaks off keeps those before."""
        config, digest, n, begun = self.config, hashlib.sha256(), 0, file.tell()
        try:
            film = Film(self.files.read(key))
            for frame in film.frames(config.fps, config.size, config.channels):
                digest.update(frame.data)
                file.write(frame.data)
                n += 1
        except Unreadable as error:
            file.seek(begun)
            file.truncate()
            return Entry(reason=str(error))
        rate, seconds = round(film.rate, 3), round(film.seconds, 3)
        return Entry(
            start=start, n=n, rate=rate, seconds=seconds, digest=digest.hexdigest()[:16], cut=film.cut, sound=film.sound
        )


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


class Clips(Excerpts):
    """Clips of so many frames, `stride` apart, out of files that are as long or longer; of held-out files the first."""

    def __init__(
        self, frames: np.ndarray, entries: list[Entry], config: VideoFilesConfig, *, first_alone: bool
    ) -> None:
        super().__init__(frames, entries, config.span, config.memory_gb, first_alone=first_alone)
        self._span, self._stride = config.span, config.stride

    def __call__(self, index: Tensor, uniform: Tensor | None = None) -> Batch:
        """uint8 (n, c, t, size, size) of the clips at `index`; see :class:`Gatherer`."""
        import torch

        place, _ = self.rows(index, uniform)
        rows = place[:, None] + torch.arange(0, self._span, self._stride, device=self.device)
        found = self.content.index_select(0, rows.flatten()).view(*rows.shape, *self.content.shape[1:])
        return self.batch(found.transpose(1, 2).contiguous(), index)


class FolderVideos(OfExcerpts, Dataset):
    """The clips in a person's own videos."""

    def __init__(
        self, files: VideoFiles, config: VideoFilesConfig, split: Split, untrained: list[str], problems: list[str],
        notes: list[str],
    ) -> None:  # fmt: skip
        clips = Clips(files.reel.content, files.entries, config, first_alone=split != "train")
        self.excerpts = clips.of_files(files.labels)
        self.codec = VideoCodec((config.channels, config.frames, config.size, config.size), config.fps)
        known = [(entry.n, entry.digest) for entry in files.entries]
        labels = None if files.labels is None else files.labels.tolist()
        form = [self.codec.shape, config.fps, config.stride, list(files.classes), labels]
        self.spec = DataSpec(
            "video", self.codec.shape, tuple(files.classes), fingerprint=digest_of([known, form]),
            untrained=tuple(untrained), rate=config.fps,
        )  # fmt: skip
        self._problems, self._notes = problems, notes

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
