"""A person's own sound: files that are decoded once, kept at the rate that is wanted, and cut into clips.

What is decoded lies in one file of the cache, mapped to memory: hours of sound need no more memory than minutes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as typed

from aigc_cli.config.schema import STRICT
from aigc_cli.data import decoded_files
from aigc_cli.data.base import Split
from aigc_cli.data.cache import cache_dir, digest_of
from aigc_cli.data.decoded_files import DecodedFiles, Excerpts, OfExcerpts
from aigc_cli.data.images import counted
from aigc_cli.data.own import EncodedFiles, Parts, about_untrained, accept
from aigc_cli.data.raw import offer
from aigc_cli.data.sounds import Sounds, SoundsConfig
from aigc_cli.data.splits import CutConfig
from aigc_cli.modalities.audio_decode import DECODED, Decoded, Normalize, decode_sound, quiet
from aigc_cli.modalities.base import Batch
from aigc_cli.modalities.unreadable import Unreadable

if TYPE_CHECKING:
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


@dataclass(frozen=True, kw_only=True)
class Entry(decoded_files.Entry):
    """What became of a file: where its samples lie, or why it cannot be used."""

    rate: int = 0  # of the file itself
    channels: int = 0  # of the file itself
    clipped: bool = False


@dataclass(frozen=True)
class Pack(DecodedFiles[Entry]):
    """All files of a part, decoded into one array int16 (total, channels)."""

    rate: int
    channels: int
    normalize: Normalize

    @property
    def row(self) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """A sample of each channel."""
        return np.dtype(np.int16), (self.channels,)

    @cached_property
    def path(self) -> Path:
        """See :class:`DecodedFiles`."""
        key = digest_of([DECODED, self.files.identity, self.rate, self.channels, self.normalize])
        return cache_dir() / "data" / "sound" / f"{key}.pcm"

    def entry(self, **values: Any) -> Entry:
        """See :class:`DecodedFiles`."""
        return Entry(**values)

    def written(self, file: IO[bytes]) -> Iterator[Entry]:
        """See :class:`DecodedFiles`."""
        start = 0
        for found in self._decoded():
            if isinstance(found, str):
                yield Entry(reason=found)
                continue
            digest = hashlib.sha256()
            for first in range(0, len(found.samples), _WRITTEN):
                block = np.ascontiguousarray(found.samples[first : first + _WRITTEN])
                digest.update(block.data)
                file.write(block.data)
            yield Entry(
                start=start, n=len(found.samples), rate=found.rate, channels=found.channels, seconds=found.seconds,
                clipped=found.clipped, digest=digest.hexdigest()[:16],
            )  # fmt: skip
            start += len(found.samples)

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


class Windows(Excerpts):
    """Clips of so many samples out of files that are longer, or shorter, whose clip is followed by silence."""

    def __init__(self, samples: np.ndarray, entries: list[Entry], config: SoundFilesConfig) -> None:
        super().__init__(samples, entries, config.samples, config.memory_gb)
        self._length = config.samples

    def __call__(self, index: Tensor, uniform: Tensor | None = None) -> Batch:
        """int16 (n, channels, length) of the clips at `index`; see :class:`Gatherer`."""
        import torch

        place, count = self.rows(index, uniform)
        at = torch.arange(self._length, device=self.device)
        heard = at < count[:, None]
        rows = torch.where(heard, place[:, None] + at, 0)
        content = self.content.index_select(0, rows.flatten()).view(len(index), self._length, -1)
        return self.batch((content * heard[..., None]).transpose(1, 2).contiguous(), index)

    def batches(self, size: int = 256) -> Iterator[Tensor]:
        """All clips in order, int16 (n, channels, length) at a time."""
        import torch

        for first in range(0, len(self), size):
            yield self(torch.arange(first, min(first + size, len(self)), device=self.device)).content


def windows_of(files: SoundFiles, config: SoundFilesConfig) -> Windows:
    """The clips in files that can be read: held in memory where they fit, else mapped to it."""
    return Windows(files.pack.content, files.entries, config).of_files(files.labels)


class FolderSounds(OfExcerpts, Sounds):
    """The clips in a person's own files."""

    def __init__(self, files: SoundFiles, config: SoundFilesConfig, train: Callable[[], SoundFiles], **about: Any):
        """`train` gives the files of the training split; `about` are the other arguments of :class:`Sounds`."""
        self.excerpts = windows_of(files, config)
        super().__init__(
            config,
            digest_of([(entry.n, entry.digest) for entry in files.entries]),
            lambda: windows_of(train(), config).batches(),
            labels=files.labels,
            classes=files.classes,
            attributes=files.attributes,
            **about,
        )


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
