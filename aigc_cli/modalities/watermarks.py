"""Marks in pictures and sound that are neither seen nor heard, and that whoever has the key can measure.

The key gives a sign to each wave of the middle of the spectrum: of a picture's cosines, of the lapped cosines of sound
(Princen, Johnson and Bradley 1987). Waves of the content that are weak are given that sign, as that costs least; strong
ones stay, and say nothing when the mark is looked for. So what is added is far below what it hides in, and yet outlasts
being packed and resized: dirty paper coding (Costa 1983) in its simplest form. It does not outlast being cropped,
turned or shifted, nor somebody who sets out to remove it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from aigc_cli.errors import ConfigError, unreadable
from aigc_cli.modalities.base import Codec
from aigc_cli.modalities.likeness import texts_of
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.tokenizers import FIRST
from aigc_cli.nn.watermark import Key, Score, normal_tail, text_score
from aigc_cli.randomness import derive

#: Pixels of the shorter side from which a mark outlasts JPEG at quality 75.
LEAST = 64
_BAND = (5, 30)  # half waves along a side, as the root of the sum of both squares
_WEAK = 6.0  # what a weak wave of a picture is raised to: about what JPEG at quality 75 rounds to
_PSNR = 43.0  # decibels that all of it stays below the content
_LOWEST, _HIGHEST = 200.0, 6000.0  # Hz
_HOP_S = 0.032  # seconds from one block of waves to the next, about
_WEAK_SHARE = 0.35  # of the loudness around it that a weak wave of sound is raised to
_SNR, _SNR_S = 19.0, 0.5  # decibels in a clip of so many seconds; more in longer ones, which need less
_FLOOR = 2.0  # of 32,768 levels: what is weaker says nothing
_RATES = 2000, 96_000  # Hz, between which there are waves to mark, and not too many for the memory
_LOOKED_S = 120  # seconds of a clip in which the mark is looked for
_AROUND = 8  # waves to either side that make up the loudness around one


class Marker:
    """Marks contents of a modality, and looks for the mark."""

    #: Whether the mark is lost where a label for people is put on top.
    hidden_by_words: ClassVar[bool] = False

    def __init__(self, key: Key) -> None:
        self.key = key

    def mark(self, content: np.ndarray, rate: int) -> np.ndarray:
        """One raw item (channels, ...) with the mark; `rate` is of sound."""
        raise NotImplementedError

    def score(self, path: Path, about: Mapping[str, object]) -> Score | None:
        """How much it stands out in a file with a claim `about` it; None where it holds no such content, or too little
        of it; raises DataError where it cannot be read."""
        raise NotImplementedError

    def _signs(self, use: str, *shape: int) -> np.ndarray:
        bits = np.random.Generator(np.random.Philox(derive(self.key.of(use).hex()))).integers(2, size=shape)
        return 2.0 * bits - 1


def cheapest(waves: np.ndarray, signs: np.ndarray, weak: float, budget: float) -> np.ndarray:
    """What to add to waves (n,) so that the cheapest of those without their sign have it, at least `weak`; the sum of
    its squares is at most `budget`."""
    short = np.maximum(0, weak - signs * waves)
    costs = short**2
    order = np.argsort(costs, kind="stable")
    taken = order[: np.searchsorted(np.cumsum(costs[order]), budget, side="right")]
    added = np.zeros_like(waves)
    added[taken] = (signs * short)[taken]
    return added


def standing_out(waves: np.ndarray, signs: np.ndarray) -> Score:
    """How much the signs of waves, in units of what weak ones were raised to, are those of the key."""
    say = waves * np.exp(-(waves**2) / 2)
    total = float(np.sqrt((say**2).sum()))
    z = float((say * signs).sum()) / total if total > 0 else 0.0
    return Score(z, normal_tail(z), waves.size)


class PictureMarker(Marker):
    """Of pictures, uint8 (channels, height, width): in their brightness."""

    hidden_by_words = True
    _luma = np.array([0.299, 0.587, 0.114])

    def mark(self, content: np.ndarray, rate: int = 0) -> np.ndarray:
        """See :meth:`Marker.mark`; all colours change alike, and what is not a colour stays."""
        colours = 3 if len(content) in (3, 4) else 1
        inside, signs, down, across = self._waves(*content.shape[1:])
        budget = 255**2 / 10 ** (_PSNR / 10) * content[0].size
        waves = (down @ self._brightness(content) @ across.T)[inside]
        wanted = cheapest(waves, signs, _WEAK, budget)
        added, found = wanted, content
        for _ in range(2):  # the second time what the ends of the scale took away is added again
            change = np.zeros(inside.shape)
            change[inside] = added * min(1.0, math.sqrt(budget / max(budget, float((added**2).sum()))))
            found = content.copy()
            shifted = content[:colours] + down.T @ change @ across
            found[:colours] = np.clip(np.rint(shifted), 0, 255)
            reached = (down @ self._brightness(found) @ across.T)[inside] - waves
            added = added + np.where(wanted != 0, wanted - reached, 0)
        return found

    def score(self, path: Path, about: Mapping[str, object]) -> Score | None:
        """See :meth:`Marker.score`."""
        from PIL import Image

        try:
            with Image.open(path) as image:
                if getattr(image, "n_frames", 1) > 1 or min(image.size) <= max(_BAND):
                    return None
                pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        except Exception as error:  # a stranger's file may break its reader in any way
            raise unreadable(path, error, "it is broken, or is not what its name says") from None
        return self.of(pixels)

    def of(self, pixels: np.ndarray) -> Score:
        """The score of one picture (channels, height, width)."""
        inside, signs, down, across = self._waves(*pixels.shape[1:])
        return standing_out((down @ self._brightness(pixels) @ across.T)[inside] / _WEAK, signs)

    def _waves(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Which waves count, bool (k, k), their signs (n,), and the cosines along both sides, (k, height) and
        (k, width); the same for every size, so that a picture may be made larger or smaller."""
        number = np.arange(_BAND[1])
        distance = np.hypot(number[:, None], number)
        signs = self._signs("image", *distance.shape)
        inside = (distance >= _BAND[0]) & (distance < _BAND[1])
        return inside, signs[inside], _cosines(height), _cosines(width)

    def _brightness(self, pixels: np.ndarray) -> np.ndarray:
        if len(pixels) in (3, 4):
            return np.asarray(np.tensordot(self._luma, pixels[:3].astype(np.float64), 1))
        return np.asarray(pixels[0], np.float64)


class SoundMarker(Marker):
    """Of sound, int16 (channels, samples): in the mean of the channels."""

    def mark(self, content: np.ndarray, rate: int) -> np.ndarray:
        """See :meth:`Marker.mark`; every channel changes alike."""
        whole = content.astype(np.float64)
        hop = _hop(rate)
        waves, loud, inside, signs = self._waves(whole.mean(axis=0), rate)
        decibels = _SNR + 5 * math.log10(max(_SNR_S / 5, content.shape[1] / rate) / _SNR_S)
        relative = np.where(inside, waves / loud, np.inf * signs)  # what lies outside has its sign already
        added = cheapest(relative.ravel(), signs.ravel(), _WEAK_SHARE, int(inside.sum()) * 10 ** (-decibels / 10))
        change = _lapped(hop) @ (added.reshape(waves.shape) * loud)[..., None]
        sound = np.zeros((len(waves) + 1) * hop)
        for place, block in enumerate(change[..., 0]):
            sound[place * hop : (place + 2) * hop] += block
        marked: np.ndarray = np.clip(np.rint(whole + sound[hop : hop + content.shape[1]]), -32768, 32767)
        return np.where(content == 0, 0, marked).astype(content.dtype)  # silence, such as after the end, stays

    def score(self, path: Path, about: Mapping[str, object]) -> Score | None:
        """See :meth:`Marker.score`; the signs that are heard before a labelled clip have no mark."""
        import soundfile

        from aigc_cli.modalities.explicit import announcement

        try:
            with soundfile.SoundFile(path) as file:
                rate = file.samplerate
                if not _RATES[0] <= rate <= _RATES[1]:
                    return None
                sound = file.read(_LOOKED_S * rate, dtype="int16", always_2d=True)
        except Exception as error:  # a stranger's file may break its reader in any way
            raise unreadable(path, error, "it is broken, or is not what its name says") from None
        begin = len(announcement(rate)) if about.get("explicit") else 0
        return self.of(sound[begin:].T, rate) if len(sound) > begin else None

    def of(self, sound: np.ndarray, rate: int) -> Score:
        """The score of one clip (channels, samples)."""
        waves, loud, inside, signs = self._waves(sound.astype(np.float64).mean(axis=0), rate)
        return standing_out((waves / (_WEAK_SHARE * loud))[inside], signs[inside])

    def _waves(self, sound: np.ndarray, rate: int) -> tuple[np.ndarray, ...]:
        """The waves (blocks, hop) of a sound, how loud it is around each, which of them count, and their signs."""
        hop = _hop(rate)
        blocks = -(-len(sound) // hop) + 1
        padded = np.zeros((blocks + 1) * hop)
        padded[hop : hop + len(sound)] = sound
        waves = np.lib.stride_tricks.sliding_window_view(padded, 2 * hop)[::hop] @ _lapped(hop)
        running = np.cumsum(np.pad(waves**2, ((0, 0), (_AROUND + 1, _AROUND)), mode="reflect"), axis=1)
        width = 2 * _AROUND + 1
        loud = np.sqrt((running[:, width:] - running[:, :-width]).clip(0) / width) + _FLOOR
        hertz = (np.arange(hop) + 0.5) * rate / 2 / hop
        inside = np.broadcast_to((hertz >= _LOWEST) & (hertz < min(_HIGHEST, 0.44 * rate)), waves.shape)
        return waves, loud, inside, self._signs(f"audio {hop}", *waves.shape)


@cache
def _cosines(length: int) -> np.ndarray:
    """The first waves along a side (k, length), each of length 1."""
    angles = np.pi / length * np.outer(np.arange(_BAND[1]), np.arange(length) + 0.5)
    return np.cos(angles) * np.sqrt(np.where(np.arange(_BAND[1]) == 0, 1, 2) / length)[:, None]


@cache
def _lapped(hop: int) -> np.ndarray:
    """The waves of a block (2 * hop, hop); those of all blocks are orthonormal."""
    time = np.arange(2 * hop) + 0.5
    window = np.sin(np.pi * time / (2 * hop))
    waves: np.ndarray = np.cos(np.pi / hop * np.outer(time + hop / 2, np.arange(hop) + 0.5))
    return np.asarray(window[:, None] * waves * math.sqrt(2 / hop))


def _hop(rate: int) -> int:
    """A power of two."""
    return int(2 ** round(math.log2(rate * _HOP_S)))


def score_of(path: Path, key: Key, about: Mapping[str, object], codec: Codec | None) -> Score | None:
    """How much the mark of a key stands out in a file of which `about` is known; None where it cannot be looked for, as
    in text whose `codec` nobody knows.

    Raises:
        DataError: the file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in (".txt", ".jsonl"):
        if not isinstance(codec, TextCodec):
            return None
        rows = [codec.tokenizer.encode(text).tolist() for text in texts_of(path) if isinstance(text, str)]
        return text_score(key, codec.tokenizer.vocab_size, range(FIRST), rows)
    kind = next((MARKERS[name] for name, suffixes in _SUFFIXES.items() if suffix in suffixes), None)
    return None if kind is None else kind(key).score(path, about)


#: By modality. Text has its mark where it is drawn, see :mod:`aigc_cli.nn.watermark`.
MARKERS: dict[str, type[Marker]] = {"image": PictureMarker, "audio": SoundMarker}
_SUFFIXES = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"),
    "audio": (".wav", ".flac", ".ogg", ".mp3"),
}


def marker(modality: str, shape: tuple[int, ...], key: Key, rate: int = 0) -> Marker:
    """What marks items of a modality and a raw `shape`; `rate` is of sound.

    Raises:
        ConfigError: no mark would hold there.
    """
    kind = MARKERS.get(modality)
    if kind is None:
        what = f"watermark=: no mark of {modality} was measured, and none is made"
        raise ConfigError(what, "leave watermark= out; label=true and sign= work")
    if kind is PictureMarker and min(shape[1:]) < LEAST:
        what = f"watermark=: in {shape[1]}x{shape[2]} pixels no mark outlasts JPEG, which takes {LEAST} a side"
        raise ConfigError(what, "leave watermark= out; label=true and sign= work")
    if kind is SoundMarker and not _RATES[0] <= rate <= _RATES[1]:
        what = f"watermark=: sound of {rate} Hz gets no mark, which takes {_RATES[0]} to {_RATES[1]}"
        raise ConfigError(what, "leave watermark= out; label=true and sign= work")
    return kind(key)
