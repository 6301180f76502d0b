"""Tones: made the same every time, at the pitches that they say."""

import numpy as np
import pytest

from aigc_cli.config.compose import compose
from aigc_cli.data.open import open_dataset
from aigc_cli.data.tones import HELD_OUT, TIMBRES, tone
from aigc_cli.modalities.audio import lengths


def opened(split="test", *words):
    return open_dataset(compose("train", ["data=tones", "data.items=40", *words])["data"], split)


def test_a_tone_depends_on_its_split_and_number_alone():
    few, more = opened("train"), opened("train", "data.items=60")
    assert few.resident().content.equal(more.resident().content[:40])
    assert not opened("val").resident().content[:40].equal(few.resident().content)
    assert len(opened("val")) == HELD_OUT["val"]
    assert few.spec.fingerprint != more.spec.fingerprint


def test_each_timbre_is_as_often_as_another_and_labelled():
    data = opened()
    assert data.spec.classes == tuple(TIMBRES)
    assert np.bincount(data.resident().labels).tolist() == [len(data) // 10] * 10
    assert data.spec.content == (1, 8192)
    assert data.spec.rate == 8000


def test_tones_differ_in_loudness_and_length_and_end_in_silence():
    content = opened().resident().content
    peaks = content.abs().amax(dim=(1, 2)) / 32767
    assert peaks.min() < 0.25
    assert 0.8 < peaks.max() < 1
    heard = lengths(content)
    assert heard.min() < 0.45 * 8192
    assert heard.max() > 0.95 * 8192


@pytest.mark.parametrize("place", [3, 6])  # organ and square, whose lowest partial is the pitch
def test_the_pitch_is_what_the_truth_says(place):
    data = opened()
    for index in range(place, 100, 10):
        wave, f0 = tone("test", index, 8000, 8192)
        assert data.truth(index) == {"f0": f0}
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 16))
        near = np.arange(len(spectrum)) * 8000 / (1 << 16)
        band = (near > f0 * 0.7) & (near < f0 * 1.4)
        found = near[band][spectrum[band].argmax()]
        assert abs(1200 * np.log2(found / f0)) < 10, "cents"


def test_what_has_no_pitch_says_so():
    data = opened()
    assert [bool(data.truth(index)) for index in range(10)] == [
        name not in ("noise", "kick", "sweep") for name in TIMBRES
    ]


@pytest.mark.parametrize("place", [3, 6])  # organ and square, whose partials are multiples of the pitch
def test_no_partial_is_folded_back_from_above_half_the_rate(place):
    for index in range(place, 60, 10):
        wave, f0 = tone("train", index, 8000, 8192)
        spectrum = np.abs(np.fft.rfft(wave[400:-100] * np.blackman(len(wave) - 500)))
        hertz = np.fft.rfftfreq(len(wave) - 500, 1 / 8000)
        between = np.abs(hertz / f0 - np.rint(hertz / f0)) * f0 > 32
        assert 20 * np.log10(spectrum[between].max() / spectrum.max()) < -60


def test_a_tone_is_as_loud_at_any_rate():
    for index in range(7):
        wave, _ = tone("train", index, 48000, 48000)
        low, _ = tone("train", index, 8000, 8000)
        assert np.abs(wave).max() == pytest.approx(np.abs(low).max(), rel=0.01)
