"""A person's own sound: files that are decoded once, kept at the rate that is wanted, and cut into clips.

What is decoded lies in one file of the cache, mapped to memory: hours of sound need no more memory than minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as typed

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Gatherer, Split
from aigc_cli.data.cache import cache_dir, digest_of
from aigc_cli.data.images import counted
from aigc_cli.data.own import EncodedFiles, Parts, about_untrained, accept
from aigc_cli.data.raw import offer
from aigc_cli.data.sounds import Sounds, SoundsConfig
from aigc_cli.data.splits import CutConfig
from aigc_cli.files import replacing, resource_errors, write_atomically
from aigc_cli.modalities.audio_decode import DECODED, Decoded, Normalize, decode_sound, quiet
from aigc_cli.modalities.base import Batch
from aigc_cli.modalities.unreadable import Unreadable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NOUN = ("sound file", "sound files")
_WRITTEN = 1 << 22  # samples that are written at a time


@typed(config=STRICT, frozen=True, kw_only=True)
class SoundFilesConfig(SoundsConfig, CutConfig):
    """The keys of a person's own sound, in files of any layout."""

    root: str | None
    labels: bool
    label_column: str | None
    max_bad: Annotated[int, Field(ge=0)]
    memory_gb: Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Entry:
    """What became of a file: where its samples lie, or why it cannot be used."""

    start: int = 0  # of all samples
    n: int = 0  # samples, at the rate that is wanted
    rate: int = 0  # of the file itself
    channels: int = 0  # of the file itself
    seconds: float = 0.0
    clipped: bool = False
    digest: str = ""  # of its samples
    reason: str = ""  # why it cannot be used, where it cannot


@dataclass(frozen=True)
class Pack:
    """All files of a part, decoded into one array; `identity` says which files these are, and how they are decoded."""

    files: EncodedFiles
    rate: int
    channels: int
    normalize: Normalize

    @cached_property
    def entries(self) -> dict[Any, Entry]:
        """What became of each file, by its key; found once, and remembered."""
        with suppress(OSError, ValueError, TypeError, AttributeError):
            saved = json.loads(self._path.with_suffix(".json").read_text())
            entries = {key: Entry(**entry) for key, entry in zip(self.files.keys, saved, strict=True)}
            if self._path.stat().st_size == 2 * self.channels * sum(entry.n for entry in entries.values()):
                return entries
        with resource_errors(self._path, "with AIGC_CACHE"):
            return self._decode()

    @cached_property
    def samples(self) -> np.ndarray:
        """int16 (total, channels), on the disk."""
        total = sum(entry.n for entry in self.entries.values())
        return np.memmap(self._path, np.int16, "r", shape=(total, self.channels)) if total else np.zeros((0, 1))

    @cached_property
    def _path(self) -> Path:
        key = digest_of([DECODED, self.files.identity, self.rate, self.channels, self.normalize])
        return cache_dir() / "data" / "sound" / f"{key}.pcm"

    def _decode(self) -> dict[Any, Entry]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        entries: dict[Any, Entry] = {}
        start = 0
        with replacing(self._path) as part, part.open("wb") as file:
            for key, found in zip(self.files.keys, self._decoded(), strict=True):
                if isinstance(found, str):
                    entries[key] = Entry(reason=found)
                    continue
                digest = hashlib.sha256()
                for first in range(0, len(found.samples), _WRITTEN):
                    block = np.ascontiguousarray(found.samples[first : first + _WRITTEN])
                    digest.update(block.data)
                    file.write(block.data)
                entries[key] = Entry(
                    start, len(found.samples), found.rate, found.channels, found.seconds, found.clipped,
                    digest.hexdigest()[:16],
                )  # fmt: skip
                start += len(found.samples)
        write_atomically(self._path.with_suffix(".json"), json.dumps([asdict(entry) for entry in entries.values()]))
        return entries

    def _decoded(self) -> Iterator[Decoded | str]:
        """What is in each file, in their order, or the reason why it cannot be used; a few at a time, on all cores."""
        from tqdm import tqdm

        def decode(key: Any) -> Decoded | str:
            try:
                return decode_sound(self.files.read(key), self.rate, self.channels, self.normalize)
            except (Unreadable, OSError) as reason:
                return str(reason)

        cores = os.cpu_count() or 1
        with (
            quiet() as stderr,
            ThreadPoolExecutor(cores) as pool,
            tqdm(total=len(self.files), desc="decoding", unit="file", disable=None, leave=False, delay=1.0, file=stderr)
            as bar,
        ):  # fmt: skip
            for first in range(0, len(self.files), 4 * cores):  # a bound on what is decoded and not yet written
                for found in pool.map(decode, self.files.keys[first : first + 4 * cores]):
                    bar.update()
                    yield found


@dataclass(frozen=True, kw_only=True)
class SoundFiles(EncodedFiles):
    """Sound files that are not decoded yet, and the pack that they are in once they are."""

    pack: Pack

    @property
    def entries(self) -> list[Entry]:
        """What becomes of each file; they are decoded when this is first asked for."""
        return [self.pack.entries[key] for key in self.keys]


def sound_files(config: SoundsConfig, **common: Any) -> SoundFiles:
    """Files as an :class:`EncodedFiles` has them in `common`, to be decoded as a configuration says."""
    pack = Pack(EncodedFiles(**common), config.sample_rate, config.channels, config.normalize)
    return SoundFiles(**common, pack=pack)


class Windows:
    """Clips of one length out of files that are longer, or shorter: a :class:`Gatherer`.

    A file of n samples has as many clips as fit into it, or one. In order they follow one another from its beginning;
    in training each starts at random within its share of the file, so that all of it is heard.
    """

    def __init__(self, samples: np.ndarray, starts: np.ndarray, counts: np.ndarray, length: int, *, held: bool) -> None:
        """`samples` is int16 (total, channels), `held` in memory or mapped to it, in which files start at `starts` (m,)
        and have `counts` (m,); clips have `length` samples."""
        import torch

        clips = np.maximum(1, counts // length)
        self.file = np.repeat(np.arange(len(counts)), clips)  # of each clip
        number = np.arange(len(self.file)) - np.repeat(np.cumsum(clips) - clips, clips)
        room = (np.maximum(0, counts - length) + 1)[self.file]  # places in its file at which a clip may start
        low = room * number // clips[self.file]
        self._length, self.held = length, held
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing writes to it
            self._samples = torch.from_numpy(samples)
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
        return self._samples.device

    def to(self, device: torch.device | str) -> Windows:
        """The same on a device."""
        moved = copy(self)
        moved._samples, moved._tables = self._samples.to(device), self._tables.to(device)
        moved.labels = None if self.labels is None else self.labels.to(device)
        return moved

    def __call__(self, index: Tensor, uniform: Tensor | None = None) -> Batch:
        """int16 (n, channels, length) of the clips at `index`; see :class:`Gatherer`."""
        import torch

        place, low, room, count = self._tables.index_select(1, index)
        if uniform is not None:
            place = low + (uniform[:, 0].double() * room).long()
        at = torch.arange(self._length, device=self.device)
        heard = at < count[:, None]
        rows = torch.where(heard, place[:, None] + at, 0)
        content = self._samples.index_select(0, rows.flatten()).view(len(index), self._length, -1)
        content = (content * heard[..., None]).transpose(1, 2).contiguous()
        return Batch(content, None if self.labels is None else self.labels.index_select(0, index))

    def batches(self, size: int = 256) -> Iterator[Tensor]:
        """All clips in order, int16 (n, channels, length) at a time."""
        import torch

        for first in range(0, len(self), size):
            yield self(torch.arange(first, min(first + size, len(self)), device=self.device)).content


def windows_of(files: SoundFiles, config: SoundFilesConfig) -> Windows:
    """The clips in files that can be read: held in memory where they fit, else mapped to it."""
    import torch

    entries = files.entries
    starts, counts = (np.array([getattr(entry, name) for entry in entries], dtype=np.int64) for name in ("start", "n"))
    samples = files.pack.samples
    held = 2 * config.channels * counts.sum() <= config.memory_gb * 1e9
    if held:
        samples = np.concatenate([samples[start : start + n] for start, n in zip(starts, counts, strict=True)])
        starts = np.cumsum(counts) - counts
    windows = Windows(samples, starts, counts, config.samples, held=held)
    windows.labels = None if files.labels is None else torch.from_numpy(files.labels[windows.file])
    return windows


class FolderSounds(Sounds):
    """The clips in a person's own files."""

    def __init__(self, files: SoundFiles, config: SoundFilesConfig, train: Callable[[], SoundFiles], **about: Any):
        """`train` gives the files of the training split; `about` are the other arguments of :class:`Sounds`."""
        self._windows = windows_of(files, config)
        super().__init__(
            config,
            digest_of([(entry.n, entry.digest) for entry in files.entries]),
            lambda: windows_of(train(), config).batches(),
            labels=files.labels,
            classes=files.classes,
            attributes=files.attributes,
            **about,
        )

    def __len__(self) -> int:
        return len(self._windows)

    def resident(self) -> Batch | None:
        """None: clips are cut out of files when they are asked for."""
        return None

    def read(self, index: int) -> tuple[Tensor, int | None]:
        """One clip, int16 (channels, samples), and its label."""
        import torch

        batch = self._windows(torch.tensor([index]))
        return batch.content[0], None if batch.labels is None else int(batch.labels[0])

    def gatherer(self, device: torch.device | str) -> Gatherer:
        """On the device, where the sound is held in memory."""
        return self._windows.to(device) if self._windows.held else self._windows


def open_sounds(parts: Parts[SoundFiles], config: SoundFilesConfig, split: Split) -> FolderSounds:
    """Decodes all files of a part, unless that was done before, and leaves out those that cannot be used; raises
    ConfigError where the fractions leave the split empty, and DataError where there are more than ``data.max_bad`` of
    those, or no others; the message names them."""
    files = parts[split]
    untrained = parts.untrained if files.classes else []
    lines = [*parts.lines, *about_untrained(untrained)] if split == "train" else []
    offer("audio", replace(files, lines=lines))
    failed = {place: entry.reason for place, entry in enumerate(files.entries) if entry.reason}
    lines += accept(files, failed, config.max_bad, NOUN[1])

    def usable(some: SoundFiles) -> SoundFiles:
        return some.take(np.flatnonzero([not entry.reason for entry in some.entries]))

    return FolderSounds(
        usable(files), config, lambda: usable(parts["train"]),
        untrained=untrained, problems=lines, notes=_notes(parts, files, config),
    )  # fmt: skip


def _notes(parts: Parts[SoundFiles], files: SoundFiles, config: SoundFilesConfig) -> list[str]:
    """How many files each split has, and what becomes of those of this one."""
    used = [entry for entry in files.entries if not entry.reason]
    rates = sorted({entry.rate for entry in used})
    told_rates = " to ".join(f"{rate / 1000:g}" for rate in dict.fromkeys((rates[0], rates[-1])))
    short = sum(entry.n < config.samples for entry in used)
    long = [entry.n // config.samples for entry in used if entry.n > config.samples]
    clipped = sum(entry.clipped for entry in used)
    seconds = config.samples / config.sample_rate
    told = [
        f"{len(used):,} files, {duration(sum(entry.seconds for entry in used))}, at {told_rates} kHz, brought to "
        f"{config.sample_rate / 1000:g} kHz",
        f"shorter than {seconds:g} s, so that silence follows: {short:,}" if short else "",
        f"longer: {len(long):,}, of which come {sum(long):,} clips" if long else "",
        f"clipped: {clipped:,}" if clipped else "",
    ]
    return [
        "files: " + counted({split: len(some) for split, some in parts.splits.items()}),
        "; ".join(filter(None, told)),
    ]


def duration(seconds: float) -> str:
    """A length of time in words."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
