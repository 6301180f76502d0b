import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from aigc_cli.commands.sample import _check_mark
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.watermarks import PictureMarker, SoundMarker, marker, score_of
from aigc_cli.nn.watermark import Key

KEY, OTHER = Key("a secret of mine"), Key("a secret of yours")


def picture(channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Clouds: smooth in the large, rough in the small."""
    draws = np.random.default_rng(seed)
    found = np.zeros((height, width))
    for size in (4, 8, 16, 32):
        small = Image.fromarray(draws.normal(size=(size, size)).astype(np.float32), mode=None)
        found += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) * 120 / size**0.5
    shades = [found * (1 + 0.1 * channel) + 128 for channel in range(channels)]
    return np.stack(shades).clip(0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    image = Image.fromarray(pixels.transpose(1, 2, 0).squeeze())
    image = image if size is None else image.resize(size, Image.Resampling.BICUBIC)
    image.save(packed := io.BytesIO(), "JPEG", quality=75)
    return np.atleast_3d(np.asarray(Image.open(packed))).transpose(2, 0, 1)


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 64, 64), (3, 96, 160), (4, 64, 64)], ids=str)
def test_a_mark_in_a_picture_is_faint_and_outlasts_jpeg_and_resizing(shape: tuple[int, ...]) -> None:
    plain = picture(*shape)
    marked = PictureMarker(KEY).mark(plain)
    assert 10 * np.log10(255**2 / np.mean((marked[:3] - plain[:3].astype(float)) ** 2)) > 42
    for seen in (marked, jpeg(marked[:3]), jpeg(marked[:3], (shape[2] * 3 // 4, shape[1] * 3 // 4))):
        assert PictureMarker(KEY).of(seen).found
    for key, seen in ((OTHER, marked), (KEY, plain)):
        assert abs(PictureMarker(key).of(seen).z) < 4
    if shape[0] == 4:
        assert np.array_equal(marked[3], plain[3])


def test_words_on_a_marked_picture_are_refused_as_the_mark_is_lost() -> None:
    settings: Any = SimpleNamespace(label=True, watermark="a secret of mine")
    mark: Any = PictureMarker(KEY)
    with pytest.raises(ConfigError, match="not found below them"):
        _check_mark(settings, mark)


@pytest.mark.parametrize("value", [0, 255])
def test_a_picture_at_the_end_of_the_scale_has_a_mark_too(value: int) -> None:
    marked = PictureMarker(KEY).mark(np.full((3, 64, 64), value, np.uint8))
    assert PictureMarker(KEY).of(marked).found


def voice(rate: int, seconds: float, channels: int = 1) -> np.ndarray:
    """A gliding tone with overtones that swells, and breath."""
    draws = np.random.default_rng(0)
    time = np.arange(round(rate * seconds)) / rate
    tone = sum(np.sin(2 * np.pi * (120 * k * time + 30 * k * time**2)) / k for k in range(1, 12))
    sound = (tone + draws.normal(size=len(time)) * 0.3) * (0.2 + np.sin(np.pi * time / seconds))
    return np.stack([sound * 3000] * channels).astype(np.int16)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (22050, 2)])
def test_a_mark_in_sound_is_faint_and_outlasts_vorbis(rate: int, channels: int, tmp_path: Path) -> None:
    plain = voice(rate, 1.0, channels)
    marked = SoundMarker(KEY).mark(plain, rate)
    power = np.mean(plain.astype(float) ** 2) / np.mean((marked.astype(float) - plain) ** 2)
    assert 10 * np.log10(power) > 14
    for name, kind in (("a.flac", "FLAC"), ("a.ogg", "OGG")):
        soundfile.write(tmp_path / name, marked.T, rate, format=kind)
        found = score_of(tmp_path / name, KEY, {}, None)
        assert found is not None
        assert found.found
        wrong = score_of(tmp_path / name, OTHER, {}, None)
        assert wrong is not None
        assert abs(wrong.z) < 4
    assert abs(SoundMarker(KEY).of(plain, rate).z) < 4


@pytest.mark.parametrize("rate", [10, 1_000_000])
def test_sound_of_a_rate_that_no_mark_is_made_for_has_none(rate: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(100, np.int16), rate)
    assert score_of(tmp_path / "a.wav", KEY, {}, None) is None
    with pytest.raises(ConfigError, match=f"sound of {rate} Hz"):
        marker("audio", (1, 4000), KEY, rate)


def test_silence_stays_silent() -> None:
    clip = np.concatenate([voice(8000, 0.5), np.zeros((1, 4000), np.int16)], axis=1)
    assert not SoundMarker(KEY).mark(clip, 8000)[:, 4000:].any()


@pytest.mark.parametrize(
    ("modality", "shape"), [("image", (3, 32, 32)), ("image", (3, 64, 48)), ("video", (1, 8, 64, 64))]
)
def test_what_no_mark_holds_in_is_refused(modality: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="watermark="):
        marker(modality, shape, KEY)
