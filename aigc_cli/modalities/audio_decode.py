"""Sound files to int16 waveforms of one rate, whatever they hold.

A file is read from its beginning to its end, a block at a time: what its header says of its length is not believed, and
nothing seeks, as libsndfile lands in wrong places in Opus and FLAC. soxr's filter (HQ) brings it to the rate that is
wanted, with images below -100 dB. What a model must not see is refused with the reason.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from aigc_cli.errors import ResourceError
from aigc_cli.files import hint_for
from aigc_cli.modalities.audio_by_av import opened_by_av
from aigc_cli.modalities.audio_config import FULL
from aigc_cli.modalities.mp3 import is_mp3, with_length
from aigc_cli.modalities.ogg import fault_of, is_ogg
from aigc_cli.modalities.unreadable import Unreadable, decoding

Normalize = Literal["peak", "rms", "none"]

SUFFIXES = (
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd", ".w64",
    ".rf64",
)  # fmt: skip
#: What the package of :data:`EXTRA` reads.
OTHERS = (".m4a", ".aac", ".mp4", ".webm", ".mka", ".mkv", ".wma")
EXTRA = "'aigc-cli[video]'"
NAMED = "wav, flac, ogg, opus, mp3, aiff or caf"  # for messages
DECODED = 4  # the version of what becomes of a file here, for what is remembered of it
SHORTEST = 0.02  # seconds
SILENCE = 1e-3  # the largest sample of a file that holds nothing to hear: -60 dBFS
CLIPPED = 0.01  # the share of samples at full scale from which on a file counts as clipped
PEAK, RMS = 0.95, 0.1  # that clips are brought to
_BLOCK = 1 << 16  # frames that are read at a time
_HELD = 1 << 26  # bytes of a file that are held in memory, before a temporary file takes them
_UNKNOWN = 1 << 40  # frames that no header means
#: Bytes in a header whose writer, a pipe behind it, did not know how many: FFmpeg's, and from half of that those of SoX
#: and arecord.
_PIPED = (range(2**32 - 2**16, 2**32), range(2**31 - 2**12, 2**31 + 2**8))
_SHOULD = re.compile(r"^ *(?:data|SSND|Data Size|RIFF|riff|Riff size|FORM) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
#: Errors of the machine: no file is to be called broken, and left out for good, because the disk was full.
_SPENT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)
_CUT = 0.98  # the share of the frames in its header that a file must have: encoders pad, and estimate


@dataclass(frozen=True)
class Decoded:
    """What a file holds."""

    samples: np.ndarray  # int16 (n, channels)
    rate: int  # of the file itself
    channels: int  # of the file itself
    seconds: float
    clipped: bool


@cache
def sound_suffixes() -> tuple[str, ...]:
    """The suffixes of files that can be read here, in lower case."""
    return SUFFIXES if missing_packages() else (*SUFFIXES, *OTHERS)


def is_sound(name: str) -> bool:
    """Whether a file's name says that it is sound that can be read here, and not a hidden file."""
    base = name.rsplit("/", 1)[-1]
    return not base.startswith(".") and base.lower().endswith(sound_suffixes())


@cache
def missing_packages() -> dict[str, str]:
    """The suffixes of sound that cannot be read here, each with the package that would read it."""
    return {} if find_spec("av") else dict.fromkeys(OTHERS, EXTRA)


def decode_sound(source: bytes | Path, rate: int, channels: int, normalize: Normalize) -> Decoded:
    """The whole of a file at `rate` with `channels`, without a constant part, and as loud as `normalize` says.

    Raises Unreadable where it is not sound of a known format, is broken or cut, shorter than 20 ms, silent, or holds
    values that are not numbers; and ResourceError where a disk is full.
    """
    try:
        with _opened(source) as file, tempfile.SpooledTemporaryFile(_HELD) as spool:
            sums = _Sums(channels, np.inf if normalize == "none" else file.loudest)
            resampled = _resampled(sums.watched(file.blocks), file.rate, rate, channels)
            for block in resampled:
                sums.add(block)
                spool.write(np.ascontiguousarray(block).data)
            sums.check(file)
            spool.seek(0)
            samples = _scaled(spool, sums, normalize)
    except (MemoryError, Unreadable):
        raise
    except Exception as error:  # a broken file may make a decoder raise anything
        if isinstance(error, OSError) and error.errno in _SPENT:
            where = f"cannot write to {tempfile.gettempdir()}: {error.strerror}"
            raise ResourceError(where, hint_for(error, "with TMPDIR=")) from error
        raise Unreadable(str(error) or type(error).__name__) from error
    seconds = sums.frames / file.rate
    return Decoded(samples, file.rate, file.channels, seconds, sums.loud > CLIPPED * sums.frames * file.channels)


class _Sums:
    """What is learnt of a file on the way: of its own samples, and of those (n, channels) that it becomes."""

    def __init__(self, channels: int, loudest: float = np.inf) -> None:
        """Full scale reaches to `loudest`: floating-point files may be louder without being clipped, unless nothing
        brings them below it."""
        self.loudest, self.heard = loudest, 0.0
        self.frames = self.loud = self.n = 0
        self.total = np.zeros(channels)
        self.squares = np.zeros(channels)
        self.low, self.high = np.full(channels, np.inf), np.full(channels, -np.inf)

    def watched(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """The file's own blocks, float32 (n, its channels); raises Unreadable where one holds no numbers."""
        for block in blocks:
            if not np.isfinite(block).all():
                raise Unreadable("it holds values that are not finite numbers")
            self.frames += len(block)
            decoding(4 * self.frames * block.shape[1])
            levels = np.abs(block)
            self.heard = max(self.heard, float(np.ptp(block, axis=0).max(initial=0)))
            self.loud += int(((levels >= 0.9999) & (levels <= self.loudest)).sum())
            yield block

    def add(self, block: np.ndarray) -> None:
        """A block of what it becomes."""
        if len(block):
            self.n += len(block)
            decoding(4 * self.n * block.shape[1])
            self.total += block.sum(axis=0, dtype=np.float64)
            self.squares += np.square(block, dtype=np.float64).sum(axis=0)
            self.low, self.high = np.minimum(self.low, block.min(axis=0)), np.maximum(self.high, block.max(axis=0))

    def check(self, file: _File) -> None:
        """Raises Unreadable where the whole cannot be used."""
        if not self.frames:
            raise Unreadable("it holds no sound")
        if self.frames < _CUT * file.expected:
            raise Unreadable(f"it is cut: {self.frames / file.expected:.0%} of what its header says is there")
        if self.frames < SHORTEST * file.rate:
            raise Unreadable(f"it has {1000 * self.frames / file.rate:.0f} ms, and 20 are the least")
        if self.peak < SILENCE:
            cancel = self.heard >= 4 * SILENCE and file.channels > len(self.total)
            raise Unreadable("its channels cancel each other (data.channels=2 keeps two)" if cancel else "it is silent")

    @property
    def mean(self) -> np.ndarray:
        """The constant part of each channel."""
        return self.total / max(1, self.n)

    @property
    def peak(self) -> float:
        """The largest sample, without the constant part."""
        return float(np.maximum(self.high - self.mean, self.mean - self.low).max()) if self.n else 0.0

    def scaled(self, block: np.ndarray, normalize: Normalize) -> np.ndarray:
        """A block as int16, without the constant part of the whole and as loud as `normalize` says."""
        gain = 1.0
        if normalize != "none":
            loudness = float(np.sqrt(np.mean(self.squares / self.n - np.square(self.mean))))
            gain = min(PEAK / self.peak, RMS / loudness if normalize == "rms" else np.inf)
        found: np.ndarray = np.rint((block - self.mean) * (FULL * gain)).clip(-FULL, FULL).astype(np.int16)
        return found


def _scaled(spool: IO[bytes], sums: _Sums, normalize: Normalize) -> np.ndarray:
    """The samples in a file of float32, as int16 (n, channels); what is long lies on the disk."""
    channels = len(sums.total)
    samples: np.ndarray
    if sums.n * channels * 2 <= _HELD:
        samples = np.empty((sums.n, channels), dtype=np.int16)
    else:
        with tempfile.TemporaryFile() as file:  # it goes with the last reference to the array
            samples = np.memmap(file, np.int16, "w+", shape=(sums.n, channels))
    for start in range(0, sums.n, _BLOCK):
        block = np.frombuffer(spool.read(_BLOCK * channels * 4), np.float32).reshape(-1, channels)
        samples[start : start + len(block)] = sums.scaled(block, normalize)
    return samples


def _resampled(blocks: Iterator[np.ndarray], given: int, wanted: int, channels: int) -> Iterator[np.ndarray]:
    """Blocks (n, any channels) at the rate `given` as blocks (m, channels) at the rate that is `wanted`."""
    import soxr

    stream = None if given == wanted else soxr.ResampleStream(given, wanted, channels, dtype="float32", quality="HQ")
    offset: np.ndarray | None = None
    for block in blocks:
        mixed = mix(block, channels)
        if offset is None:  # a filter makes a click of the step from nothing to a constant part
            offset = mixed.mean(axis=0, dtype=np.float64).astype(np.float32)
        mixed = mixed - offset
        yield mixed if stream is None else stream.resample_chunk(mixed)
    if stream is not None:
        yield stream.resample_chunk(np.zeros((0, channels), dtype=np.float32), last=True)


def leveled(wave: np.ndarray, normalize: Normalize) -> np.ndarray:
    """A waveform in memory, floating (n, channels), as :func:`decode_sound` makes those of files: int16."""
    sums = _Sums(wave.shape[1])
    sums.add(wave)
    return sums.scaled(wave, normalize)


def mix(block: np.ndarray, channels: int) -> np.ndarray:
    """Samples (n, any channels) as (n, channels): one is the mean of all; of two, the first two, or one twice."""
    if channels == 1:
        mean: np.ndarray = block.mean(axis=1, keepdims=True, dtype=np.float32)
        return mean
    return np.ascontiguousarray(np.repeat(block, 2, axis=1) if block.shape[1] == 1 else block[:, :channels])


@dataclass(frozen=True)
class _File:
    """An opened file, to be read once, forward."""

    rate: int
    channels: int
    expected: int  # frames by its header; 0 where it does not say
    loudest: float  # what full scale reaches to
    blocks: Iterator[np.ndarray]  # all of it, float32 (n, channels) at a time


@contextmanager
def _opened(source: bytes | Path) -> Iterator[_File]:
    import soundfile

    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
        head = stream.read(16)
        if not head:
            raise Unreadable("it is empty")
        stream.seek(0)
        if head[4:8] == b"ftyp" or head.startswith((b"\x1aE\xdf\xa3", b"0&\xb2u")) or _is_adts(head):
            if not find_spec("av"):
                raise Unreadable(f"it needs pip install {EXTRA}")
            with opened_by_av(stream) as (rate, channels, expected, blocks):
                yield _File(rate, channels, expected, np.inf, blocks)
            return

        class Forward(soundfile.SoundFile):
            """One that is never asked to seek, nor believed about its length."""

            def seekable(self) -> bool:
                return False

        if is_ogg(head) and (fault := fault_of(stream)):
            raise Unreadable(fault)
        given: IO[bytes] = io.BytesIO(with_length(stream.read())) if is_mp3(head) else stream
        try:
            with Forward(given) as opened:
                expected = _expected(opened.frames, opened.extra_info)
                loudest = 1.0 if opened.subtype in ("FLOAT", "DOUBLE") else np.inf
                yield _File(opened.samplerate, opened.channels, expected, loudest, _read(opened))
        except soundfile.LibsndfileError as error:
            raise Unreadable(f"it is broken, or not sound: {_reason(error)}") from error


def _is_adts(head: bytes) -> bool:
    """Whether a file begins as AAC without a container does; an MP3 has other bits of the layer."""
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0


def _read(opened: Any) -> Iterator[np.ndarray]:
    """All of a file, a block at a time."""
    while len(block := opened.read(_BLOCK, dtype="float32", always_2d=True)):
        yield block


def _reason(error: Any) -> str:
    """What libsndfile says, but that a file which is there does not exist."""
    reason = str(error.error_string).removeprefix("Error : ").strip(". ")
    return "its format is not known" if "does not exist" in reason or "not recognised" in reason else reason


def _expected(frames: int, log: str) -> int:
    """The frames that a file should have by its header, of which libsndfile may believe only those that are there: then
    its log says so, such as ``data : 16000 (should be 9582)``. 0 where nothing says, as in what comes out of a pipe."""
    found = _SHOULD.findall(log)
    if not 0 < frames < _UNKNOWN:
        return 0
    told = [(int(said), int(there)) for said, there in found if not any(int(said) in piped for piped in _PIPED)]
    ratios = [said / there for said, there in told if there]
    return round(frames * max([1.0, *ratios]))


@contextmanager
def quiet() -> Iterator[IO[str]]:
    """Drops what libraries in C write to stderr, such as libmpg123's notes; what it gives writes there still."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(kept, "w", encoding=sys.stderr.encoding or "utf-8", closefd=True) as still:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        try:
            yield still
        finally:
            with suppress(ValueError):
                sys.stderr.flush()
            os.dup2(kept, 2)
