"""Whether two files of samples hold the same pixels, sound, numbers or words, whatever else they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aigc_cli.errors import DataError, unreadable
from aigc_cli.modalities.arrays import array_names, read_arrays
from aigc_cli.modalities.samples import LABEL

#: How far apart values of content that is the same may be, by kind of file: networks round differently in batches of
#: other sizes, by one level of a pixel; phases that are worked out, and codecs that lose something, make more of it.
_ROUNDING = {".jpg": 8, ".jpeg": 8, ".mp4": 12, ".wav": 16, ".flac": 16, ".npz": 1}
#: What phases are off by that were found from spectrograms which differ by rounding: a little in many places. Of the
#: power of a clip, at most, and of its values, at least.
_PHASES_POWER, _PHASES_SHARE = 1e-4, 0.01
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")


class Likeness(NamedTuple):
    """Whether the content of two files is the same, and in words how far; if it is not, whether it is so `near` that
    the same phases, found from what was rounded otherwise, could be all there is to it."""

    same: bool
    said: str
    near: bool = False


def compared(given: Path, made: Path) -> Likeness:
    """A file that somebody gives beside one that was made just now; raises DataError where it cannot be read."""
    suffix = made.suffix.lower()
    if suffix in (".txt", ".jsonl"):
        return _texts(given, made)
    try:
        one, other = _READ[suffix](given), _READ[suffix](made)
    except DataError:
        raise
    except Exception as error:  # a stranger's file may break its reader in any way
        raise unreadable(given, error, "it is broken, or is not what its name says") from None
    found = _arrays(one, other, _ROUNDING.get(suffix, 1), _noun(suffix))
    if not found.same and suffix in (".wav", ".flac") and one.shape == other.shape:
        found = found._replace(near=_is_near(one.astype(float), other.astype(float)))
    speeds = [_SPEED[suffix](path) for path in (given, made)] if found.same and suffix in _SPEED else []
    if len({*speeds}) > 1:
        return Likeness(False, f"it is played at {speeds[0]}, and what the run draws at {speeds[1]}")
    return found


def _is_near(given: np.ndarray, made: np.ndarray) -> bool:
    off = given - made
    return bool(np.mean(off != 0) >= _PHASES_SHARE and np.mean(off**2) <= _PHASES_POWER * np.mean(made**2))


def _noun(suffix: str) -> str:
    return "pixels" if suffix in (*_PICTURES, ".mp4") else "values"


def _arrays(given: np.ndarray, made: np.ndarray, rounding: int, noun: str) -> Likeness:
    """Both are (..., channels) of integers."""
    if given.dtype != made.dtype:
        return Likeness(False, f"it holds {given.dtype}, and what the run draws is {made.dtype}")
    if given.shape != made.shape:
        return Likeness(False, f"it is {_sized(given)}, and what the run draws is {_sized(made)}")
    apart = np.abs(given.astype(np.int64) - made.astype(np.int64)).max(axis=-1)
    worst, count = int(apart.max(initial=0)), int((apart > rounding).sum())
    if not worst:
        return Likeness(True, f"all {apart.size:,} {noun} are equal")
    if not count:
        off = int((apart > 0).sum())
        return Likeness(True, f"{off:,} of {apart.size:,} {noun} are off by up to {worst}, no more than rounding")
    first = ", ".join(str(int(place)) for place in np.argwhere(apart > rounding)[0][::-1])
    return Likeness(False, f"{count:,} of {apart.size:,} {noun} differ, by up to {worst}; the first at ({first})")


def _sized(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape[:-1]))


def _picture(path: Path) -> np.ndarray:
    """(frames, height, width, channels), uint8."""
    from PIL import Image, ImageSequence

    with Image.open(path) as image:
        frames = [frame.convert("RGBA") for frame in ImageSequence.Iterator(image)]
    return np.stack([np.asarray(frame) for frame in frames])


def _sound(path: Path) -> np.ndarray:
    """(samples, channels), int16."""
    import soundfile

    found: np.ndarray = soundfile.read(path, dtype="int16", always_2d=True)[0]
    return found


def _rate(path: Path) -> str:
    import soundfile

    return f"{soundfile.info(path).samplerate} Hz"


def _pace(path: Path) -> str:
    from PIL import Image, ImageSequence

    with Image.open(path) as image:
        spans = {frame.info.get("duration") for frame in ImageSequence.Iterator(image)}
    return f"{', '.join(sorted(map(str, spans)))} ms a frame"


def _film(path: Path) -> np.ndarray:
    """(frames, height, width, 3), uint8."""
    try:
        import av
    except ImportError:
        raise DataError(f"{path} needs PyAV to be read", "pip install 'aigc-cli[video]'") from None
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def _archive(path: Path) -> np.ndarray:
    """(values, 1), of its first array."""
    names = [name for name in array_names(path) if name not in ("labels", "classes", "rate")]
    found = read_arrays(path, names[:1], "samples", "name a file that aigc sample wrote")
    if not found:
        raise DataError(f"{path} holds no samples", "name a file that aigc sample wrote")
    return next(iter(found.values())).reshape(-1, 1)


_READ: dict[str, Callable[[Path], np.ndarray]] = {
    **dict.fromkeys(_PICTURES, _picture), ".wav": _sound, ".flac": _sound, ".mp4": _film, ".npz": _archive
}  # fmt: skip
#: What says how fast a file is played.
_SPEED: dict[str, Callable[[Path], str]] = {".wav": _rate, ".flac": _rate, ".gif": _pace, ".webp": _pace}


def _texts(given: Path, made: Path) -> Likeness:
    one, other = texts_of(given), texts_of(made)
    if len(one) > len(other):
        return Likeness(False, f"it has {len(one)} texts, and the run draws {len(other)}")
    apart = [number for number, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]]
    if apart:
        return Likeness(False, f"{len(apart)} of {len(one)} texts differ; the first is number {apart[0]}")
    return Likeness(True, "the text is equal" if len(one) == 1 else f"all {len(one)} texts are equal")


def texts_of(path: Path) -> list[Any]:
    """The texts of a file with a JSON object a line; of one with headings what follows the first line, as one text."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            return [json.loads(line)["text"] for line in text.splitlines() if line.strip()]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise unreadable(path, error, "it is broken, or is not what its name says") from None
    first, _, rest = text.partition("\n")
    return [rest if first.startswith(LABEL) else text]
