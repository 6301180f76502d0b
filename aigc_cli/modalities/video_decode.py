"""Video files to frames of one rate and one size, whatever they hold: GIF and WebP by Pillow, all else by PyAV.

A file is read from its beginning to its end, a frame at a time: what its header says of its length is not believed, and
nothing seeks. Frames are taken by their timestamps, since the rate of many files varies: at each time the one that is
to be seen then. The file is turned as its header says, its sound is passed over, and its middle square is kept.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_cli.modalities.image_decode import MODES, opened, pillow_errors, plain, planes, square
from aigc_cli.modalities.unreadable import Unreadable, decoding

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".gif", ".webp")
#: What the package of :data:`EXTRA` reads.
OTHERS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ogv")
EXTRA = "'aigc-cli[video]'"
NAMED = "mp4, mov, webm, mkv, avi, gif or animated webp"  # for messages
DECODED = 4  # the version of what becomes of a file here, for what is remembered of it
#: What a file of each of FFmpeg's formats begins with, and where. No other is opened: a playlist, which is a text, may
#: name files and addresses of its own.
_BEGINNINGS = (
    (4, (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"), "mov"), (0, (b"\x1a\x45\xdf\xa3",), "matroska"),
    (8, (b"AVI ",), "avi"), (0, (b"\x00\x00\x01\xba",), "mpeg"), (0, (b"OggS",), "ogg"),
)  # fmt: skip
_CLOSE = 2e-3  # seconds by which a frame may come late and still be in time
_CLOSE_GIF = 6e-3  # where time is told in hundredths of a second
_GAP = 3600.0  # seconds between two frames that no video has
_PIXELS = 1 << 26  # of a frame, at most
_CUT = 0.9  # the share of the length in its header that a file must have, where that may be a guess


@cache
def video_suffixes() -> tuple[str, ...]:
    """The suffixes of files that can be read here, in lower case."""
    return SUFFIXES if missing_packages() else (*SUFFIXES, *OTHERS)


def is_video(name: str) -> bool:
    """Whether a file's name says that it is a video that can be read here, and not a hidden file."""
    base = name.rsplit("/", 1)[-1]
    return not base.startswith(".") and base.lower().endswith(video_suffixes())


@cache
def missing_packages() -> dict[str, str]:
    """The suffixes of videos that cannot be read here, each with the package that would read them."""
    return {} if find_spec("av") else dict.fromkeys(OTHERS, EXTRA)


class Film:
    """A file of video. What is known of it once its frames were read: how long it is in `seconds`, at what `rate` its
    own frames come at the mean, and why it is `cut`, where it is."""

    def __init__(self, source: bytes | Path) -> None:
        self.source = source
        self.seconds, self.rate, self.cut, self.sound = 0.0, 0.0, "", False
        self._count, self._close = 0, _CLOSE

    def frames(self, fps: float, size: int, channels: int) -> Iterator[np.ndarray]:
        """Frames, uint8 (channels, size, size), `fps` a second from its first on.

        Raises:
            Unreadable: it is not a video of a known format, or holds no frame.
        """
        wanted = 0  # frames given so far
        current: Callable[[], Image] | None = None
        made: np.ndarray | None = None

        def until(second: float) -> Iterator[np.ndarray]:
            nonlocal wanted, made
            while wanted / fps < second - min(self._close, 0.5 / fps):
                if made is None:
                    assert current is not None
                    made = planes(square(plain(current(), MODES[channels]), size))
                yield made
                wanted += 1

        with pillow_errors():
            for start, length, image in self._timed():
                if start - self.seconds > _GAP:
                    raise Unreadable(f"its frames are {start - self.seconds:,.0f} s apart")
                if current is not None:
                    yield from until(start)
                current, made, self._count = image, None, self._count + 1
                self.seconds = start + length
            if current is None:
                raise Unreadable(self.cut or "it holds no frame")
            yield from until(self.seconds)
        self.rate = self._count / self.seconds if self.seconds else 0.0

    def _timed(self) -> Iterator[tuple[float, float, Callable[[], Image]]]:
        """Each frame: when it is to be seen, for how long, in seconds from the first, and what gives its picture."""
        beginning = self._beginning()
        if not beginning:
            raise Unreadable("it is empty")
        if beginning[:4] == b"GIF8" or (beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP"):
            yield from self._by_pillow()
            return
        for place, words, name in _BEGINNINGS:
            if any(beginning[place:].startswith(word) for word in words):
                if find_spec("av") is None:
                    raise Unreadable(f"reading it needs pip install {EXTRA}")
                yield from self._by_av(name)
                return
        raise Unreadable(f"it is not a {NAMED} video")

    def _beginning(self) -> bytes:
        if isinstance(self.source, bytes):
            return self.source[:16]
        try:
            with self.source.open("rb") as file:
                return file.read(16)
        except OSError as error:
            raise Unreadable(error.strerror or str(error)) from error

    def _by_pillow(self) -> Iterator[tuple[float, float, Callable[[], Image]]]:
        start = 0.0
        with opened(self.source) as image:
            several: Any = image
            self._close = _CLOSE_GIF if image.format == "GIF" else _CLOSE
            count = int(getattr(image, "n_frames", 1))
            for place in range(count):
                try:
                    decoding(4 * image.width * image.height)
                    several.seek(place)
                    image.load()
                except (OSError, EOFError, SyntaxError, ValueError) as error:
                    self.cut = f"it is broken after {place} of {count} frames: {error}"
                    return
                length = float(image.info.get("duration") or 100) / 1000
                if image.format == "GIF" and length <= 0.01:  # as browsers play them
                    length = 0.1
                yield start, length, image.copy().copy  # that of this frame, wherever the file is by then
                start += length

    def _by_av(self, name: str) -> Iterator[tuple[float, float, Callable[[], Image]]]:
        import av

        with ExitStack() as stack:  # at once: what is left to the garbage collector keeps files and threads
            try:
                # By the file itself: FFmpeg takes a name with a colon for an address, and only those in UTF-8.
                source = io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")
                given: Any = stack.enter_context(source)
                container: Any = stack.enter_context(av.open(given, format=name, metadata_errors="ignore"))
            except (av.error.FFmpegError, OSError, ValueError) as error:
                raise Unreadable(f"it is broken, or cut: {_reason(error)}") from error
            self.sound = bool(container.streams.audio)
            if not container.streams.video:
                raise Unreadable("it holds no pictures")
            stream = container.streams.video[0]
            if stream.codec_context is None:  # the index that ends an MP4 is there in part
                raise Unreadable("it is broken, or cut")
            stream.thread_count = 1
            if stream.width * stream.height * max(1, stream.sample_aspect_ratio or 1) > _PIXELS:
                raise Unreadable(f"its frames have {stream.width}x{stream.height} pixels")
            decoding(4 * stream.width * stream.height)
            end = yield from self._decoded(av, container, stream)
            expected, exact = _promised(container, stream)
            # A frame may lack: of the last one, few files say how long it is to be seen.
            if not self.cut and end < (expected - 1.5 * end / max(1, self._count) if exact else _CUT * expected - 0.1):
                self.cut = f"it is cut: {end:.3g} of {expected:.3g} s are there"

    def _decoded(
        self, av: Any, container: Any, stream: Any
    ) -> Generator[tuple[float, float, Callable[[], Image]], None, float]:
        usual = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        wide = float(stream.sample_aspect_ratio or 1)
        first, start, length = None, 0.0, usual
        frames = container.decode(stream)
        while True:
            try:
                frame = next(frames)
            except StopIteration:
                break
            except (av.error.FFmpegError, OSError, ValueError) as error:
                self.cut = f"it is broken after {start + length:.2g} s: {_reason(error)}"
                break
            time = None if frame.time is None else float(frame.time)
            first = time if first is None else first
            at = start + length if time is None or first is None else time - first
            start = max(start, at) if self._count else 0.0
            length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else usual
            yield start, length, partial(_upright, frame, wide)
        return max(0.0, first or 0.0) + start + length if self._count else 0.0


def _promised(container: Any, stream: Any) -> tuple[float, bool]:
    """How many seconds of pictures there are by the header, and whether it knows: else they may be of the sound, or a
    guess. FFmpeg passes over an AVI's length, where it is cut, and a tag of Matroska, which alone is of a stream."""
    whole, name = (container.duration or 0) / 1e6, container.format.name
    if "matroska" in name:
        told = re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", ""), re.ASCII)
        hours, minutes, seconds = map(float, told.groups()) if told else (0.0, 0.0, whole)
        return min(whole, 3600 * hours + 60 * minutes + seconds), bool(told) or not container.streams.audio
    if name == "avi" and stream.frames and stream.average_rate:
        return stream.frames / float(stream.average_rate), True
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else whole, False


def _upright(frame: Any, wide: float) -> Image:
    """The picture of a frame, whose pixels are so `wide` for their height, and which is turned as the header says: in
    degrees, against the clock."""
    from PIL import Image

    clear = any(part.is_alpha for part in frame.format.components)
    image = Image.fromarray(frame.to_ndarray(format="rgba" if clear else "rgb24"))
    if wide != 1:
        image = image.resize((max(1, round(image.width * wide)), image.height), Image.Resampling.LANCZOS)
    return Image.fromarray(np.ascontiguousarray(np.rot90(np.asarray(image), round(frame.rotation / 90))))


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).split(":")[0].lower()


def first_frames(source: bytes | Path, fps: int, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """The beginning of a file as a clip of a `shape` (c, t, h, w), whose last frame is repeated where it is shorter;
    and how many frames it has of its own.

    Raises:
        Unreadable: it is not a video, or none of which a frame can be read.
    """
    channels, count, side, _ = shape
    frames = Film(source).frames(fps, side, channels)
    found = [frame for _, frame in zip(range(count), frames, strict=False)]
    with suppress(AttributeError):
        frames.close()  # type: ignore[attr-defined]
    clip = np.stack(found + [found[-1]] * (count - len(found)), axis=1)
    return clip, len(found)
