"""Tones of ten timbres, made when they are asked for: sound that needs no download, and whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import SPLITS, Split
from aigc_cli.data.sounds import SoundDataset, SoundsConfig
from aigc_cli.modalities.audio_decode import leveled
from aigc_cli.randomness import generator
from aigc_cli.registry import register

RECIPE = 1  # the version of how tones are made
HELD_OUT: Mapping[Split, int] = {"val": 200, "test": 400}  # tones, however many there are to train on
LOWEST, OCTAVES = 110.0, 3.0  # pitches lie between 110 and 880 Hz
Wave = NDArray[np.float64]  # (n,)
_PERIOD = 2048  # samples of a table that holds one period


@dataclass(config=STRICT, frozen=True, kw_only=True)
class TonesConfig(SoundsConfig):
    """See ``configs/data/tones.yaml``."""

    name: Literal["tones"]
    items: Annotated[int, Field(ge=10, le=1_000_000)]


class Tones(SoundDataset):
    """Tones, with the pitch of each: `f0` is float64 (n,), in Hz, and 0 where there is none."""

    def __init__(self, config: TonesConfig, split: Split) -> None:
        counts = {part: HELD_OUT.get(part, config.items) for part in SPLITS}
        content, self.f0 = _made(config, split, counts[split])
        super().__init__(
            config,
            content,
            np.arange(len(content)) % len(TIMBRES),
            classes=list(TIMBRES),
            train=lambda: _made(config, "train", config.items)[0],
            # What makes them and not what they are: the last bit of a sine differs between machines.
            identity=json.dumps(["tones", RECIPE, split, len(content), config.normalize]),
            notes=[", ".join(f"{part} {count:,}" for part, count in counts.items())],
        )

    def truth(self, index: int) -> dict[str, float]:
        """What is known of a tone: ``f0``, its pitch in Hz, unless it has none."""
        return {"f0": float(self.f0[index])} if self.f0[index] else {}


@register("data", "tones", TonesConfig)
def tones(config: TonesConfig, split: Split) -> Tones:
    """Ten timbres in equal parts; each tone is a pure function of its split and its number."""
    return Tones(config, split)


@lru_cache(maxsize=3)
def _made(config: TonesConfig, split: Split, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first tones of a split, int16 (n, channels, samples), and their pitches (n,)."""
    content = np.zeros((count, config.channels, config.samples), dtype=np.int16)
    pitches = np.zeros(count)
    for index in range(count):
        wave, pitches[index] = tone(split, index, config.sample_rate, config.samples)
        content[index, :, : len(wave)] = leveled(wave[:, None], config.normalize)[:, 0]
    return content, pitches


def tone(split: Split, index: int, rate: int, samples: int) -> tuple[np.ndarray, float]:
    """A tone as float64 (n,) in [-1, 1], of at most so many `samples`, and its pitch in Hz; 0 where it has none."""
    random = generator("tones", RECIPE, split, index)
    name = list(TIMBRES)[index % len(TIMBRES)]
    f0, loudness = LOWEST * 2 ** random.uniform(0, OCTAVES), 10 ** (random.uniform(-14, -1) / 20)
    seconds = samples / rate * random.uniform(0.35, 1)
    wave = TIMBRES[name](Note(random, f0, np.arange(int(seconds * rate)) / rate, rate))
    fade = np.minimum(1, np.arange(len(wave), 0, -1) / (0.005 * rate))  # no click at its end
    wave = wave * fade
    return wave * (loudness / np.abs(wave).max()), 0.0 if name in UNPITCHED else f0


class Note:
    """What a timbre is given: a pitch, times (n,) in seconds, and a generator for what is left to chance."""

    def __init__(self, random: np.random.Generator, f0: float, at: Wave, rate: int) -> None:
        self.random, self.f0, self.at, self.rate = random, f0, at, rate
        self.start = random.uniform()  # of a period

    def harmonics(self, strength: Callable[[Wave], Wave], bend: Wave | float = 1.0) -> Wave:
        """A periodic sound (n,) whose k-th harmonic has a `strength` (k,); `bend` (n,) multiplies the pitch."""
        highest = int(min(64, 0.95 * self.rate / 2 / (self.f0 * np.max(bend))))
        spectrum = np.zeros(_PERIOD // 2 + 1, dtype=np.complex128)
        spectrum[1 : highest + 1] = -1j * strength(np.arange(1.0, highest + 1))
        table = np.fft.irfft(spectrum, _PERIOD) * _PERIOD / 2
        turns = self.start + np.cumsum(np.broadcast_to(self.f0 * bend / self.rate, self.at.shape))
        wave: Wave = np.interp(turns % 1 * _PERIOD, np.arange(_PERIOD + 1), np.append(table, table[0]))
        return wave

    def sine(self, frequency: Wave | float) -> Wave:
        """A sine (n,) of a frequency (n,) in Hz."""
        return np.sin(2 * np.pi * (self.start + np.cumsum(np.broadcast_to(frequency / self.rate, self.at.shape))))

    def decay(self, rate: float) -> Wave:
        """An envelope (n,) that falls by e, `rate` times a second."""
        return np.exp(-rate * self.at)

    def attack(self, seconds: float) -> Wave:
        """An envelope (n,) that rises to 1 within so many seconds, and stays."""
        return np.minimum(1, self.at / seconds)

    def noise(self, low: float, high: float) -> Wave:
        """Noise (n,) between two frequencies in Hz, with a deviation of 1."""
        spectrum = np.fft.rfft(self.random.standard_normal(len(self.at)))
        frequencies = np.fft.rfftfreq(len(self.at), 1 / self.rate)
        wave = np.fft.irfft(np.where((frequencies >= low) & (frequencies <= high), spectrum, 0), len(self.at))
        found: Wave = wave / max(wave.std(), 1e-9)
        return found


def _pluck(note: Note) -> Wave:
    bright, dull = note.harmonics(lambda k: 1 / k), note.harmonics(lambda k: 1 / k**2.5)
    return note.attack(0.002) * (bright * note.decay(18) + dull * note.decay(4))


def _bell(note: Note) -> Wave:
    """Partials of a church bell, which are no multiples of its pitch; higher ones die sooner."""
    partials = [(0.5, 0.5), (1.0, 1.0), (1.19, 0.6), (1.5, 0.4), (2.0, 0.8), (2.74, 0.4), (3.76, 0.3), (4.07, 0.25)]
    rings = [
        strength * note.sine(ratio * note.f0) * note.decay(2 + 2 * ratio)
        for ratio, strength in partials
        if ratio * note.f0 < 0.45 * note.rate
    ]
    struck: Wave = note.attack(0.001) * np.sum(rings, axis=0)
    return struck


def _reed(note: Note) -> Wave:
    """Mostly odd harmonics, as a clarinet has them, and a little breath."""
    voice = note.harmonics(lambda k: np.where(k % 2 == 1, 1.0, 0.12) / k**0.8)
    return note.attack(0.05) * (voice + 0.03 * note.noise(500, note.rate / 2))


def _organ(note: Note) -> Wave:
    drawbars = {1: 1.0, 2: 0.8, 3: 0.5, 4: 0.6, 6: 0.3, 8: 0.35}
    return note.attack(0.01) * note.harmonics(lambda k: np.array([drawbars.get(int(each), 0.0) for each in k]))


def _brass(note: Note) -> Wave:
    """Louder is brighter."""
    loud = note.attack(0.12) * (0.7 + 0.3 * note.decay(3))
    return loud * note.harmonics(lambda k: 1 / k**2) + 0.8 * loud**3 * note.harmonics(lambda k: np.exp(-k / 6))


def _string(note: Note) -> Wave:
    vibrato = 1 + 0.008 * note.attack(0.3) * np.sin(2 * np.pi * note.random.uniform(5, 6.5) * note.at)
    return note.attack(0.15) * note.harmonics(lambda k: 1 / k * (1 + 0.5 * np.cos(k)), vibrato)


def _square(note: Note) -> Wave:
    return note.attack(0.003) * note.harmonics(lambda k: np.where(k % 2 == 1, 1 / k, 0.0))


def _noise(note: Note) -> Wave:
    return note.attack(0.002) * note.decay(note.random.uniform(6, 14)) * note.noise(2 * note.f0, 4 * note.f0)


def _kick(note: Note) -> Wave:
    """A drum: a sine that falls to a low pitch, after a click."""
    low = note.f0**0.5 * 4.5
    fall = low * (1 + 4 * note.decay(30))
    return note.sine(fall) * note.decay(7) + 0.15 * note.noise(800, note.rate / 2) * note.decay(150)


def _sweep(note: Note) -> Wave:
    up = note.random.choice([-1, 1]) * note.random.uniform(1, 2)
    glide = note.f0 * 2 ** (up * note.at / max(note.at[-1], 1e-9))
    return note.attack(0.02) * note.sine(glide)


TIMBRES: Mapping[str, Callable[[Note], Wave]] = {
    "pluck": _pluck, "bell": _bell, "reed": _reed, "organ": _organ, "brass": _brass, "string": _string,
    "square": _square, "noise": _noise, "kick": _kick, "sweep": _sweep,
}  # fmt: skip
UNPITCHED = ("noise", "kick", "sweep")
