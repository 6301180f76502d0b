"""Files of sound that a person names: brought to the form of what they are held against, or refused by name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from aigc_cli.errors import DataError
from aigc_cli.modalities.audio_files import clips_spec, open_clips
from aigc_cli.modalities.audio_writers import spectrograms, trimmed, write_clip
from aigc_cli.modalities.base import modality
from aigc_cli.modalities.mp3 import _size
from aigc_cli.modalities.samples import Arrangement, Provenance, write_record

LIKE = clips_spec((1, 8192), 8000)


def sine(hertz: float, rate: int, seconds: float, loud: float = 0.5) -> np.ndarray:
    return loud * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def test_a_folder_is_brought_to_the_rate_the_channels_and_the_length_of_the_data(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([sine(440, 44_100, 0.5)] * 2, axis=1), 44_100)
    soundfile.write(tmp_path / "b.flac", sine(440, 16_000, 2.0, 0.1), 16_000)
    (tmp_path / "notes.xyz").write_text("not sound")
    clips = open_clips(tmp_path, LIKE)
    content = torch.cat([batch.content for batch in clips.batches(1)])
    assert content.shape == (2, 1, 8192)
    assert content.dtype == torch.int16
    assert clips.notes == ("passed over: 1 x .xyz",) or "xyz" in clips.notes[0]
    assert content.abs().amax(dim=(1, 2)).tolist() == pytest.approx([0.95 * 32767] * 2, rel=0.02)
    assert (content[0, 0, 4020:] == 0).all()  # half a second, and silence
    assert content[1, 0, -100:].abs().max() > 20_000  # two seconds, cut


@pytest.mark.parametrize(("level", "loudest"), [("none", 0.1), ("rms", 0.1 * 2**0.5), ("peak", 0.95), (None, 0.95)])
def test_what_a_person_names_is_as_loud_as_the_data_makes_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str | None, loudest: float
) -> None:
    soundfile.write(tmp_path / "a.wav", sine(440, 8000, 1.0, 0.1), 8000)
    (batch,) = open_clips(tmp_path, clips_spec((1, 8192), 8000, level)).batches(1)
    assert float(batch.content.abs().max()) / 32767 == pytest.approx(loudest, rel=0.02)
    codec = modality("audio").codec(replace(LIKE, level=level))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert torch.equal(modality("audio").parse("~/a.wav", codec).content, batch.content)


def test_without_data_the_longest_says_how_long_clips_are(tmp_path: Path) -> None:
    for place, seconds in enumerate((0.2, 0.5)):
        soundfile.write(tmp_path / f"{place}.wav", sine(440, 16_000, seconds), 16_000)
    clips = open_clips(tmp_path)
    assert (clips.spec.raw, clips.spec.rate) == ((1, 8192), 16_000)
    assert clips.like(LIKE).spec == LIKE
    assert clips.like(LIKE).key != clips.key


def test_the_longest_is_not_what_an_mp3_is_guessed_to_be(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).standard_normal(22_050 * 4) * np.where(np.arange(22_050 * 4) < 22_050, 0.2, 1e-3)
    soundfile.write(tmp_path / "a.mp3", wave, 22_050, bitrate_mode="VARIABLE", compression_level=0.3)
    whole = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(whole[_size(whole, 0) :])  # the frame that counts the others is gone
    assert abs(soundfile.info(tmp_path / "a.mp3").duration - 4) > 0.5, "what libsndfile guesses"
    assert open_clips(tmp_path).spec.raw[1] / 22_050 == pytest.approx(4, abs=0.2)


def test_what_was_sampled_here_is_read_as_it_is_without_originals(tmp_path: Path) -> None:
    clip = torch.from_numpy((sine(440, 8000, 0.5, 0.1) * 32767).astype(np.int16))[None]
    for name in ("000000-original.wav", "000000-reconstruction.wav"):
        write_clip(tmp_path / name, clip, 8000, "WAV", "a title", {"label": "AI-generated"})
    provenance = Provenance(
        modality="audio", format="wav", run="r", model="vae", data="d", step=1, model_checksum="", seed=0, controls={}
    )
    roles = Arrangement(n=2, facts={"role": ["original", "reconstruction"]})
    write_record(tmp_path, provenance.record(roles, ["000000-original.wav", "000000-reconstruction.wav"], []))
    clips = open_clips(tmp_path, LIKE)
    assert len(clips) == 1
    (batch,) = clips.batches(8)
    assert torch.equal(batch.content[0, :, : clip.shape[1]], clip)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"clips": np.zeros((2, 100), np.uint8), "rate": 8000}, "uint8"),
        ({"clips": np.full((2, 100), np.nan, np.float32), "rate": 8000}, "not numbers"),
        ({"clips": np.zeros((2, 3, 100, 4), np.int16), "rate": 8000}, "shape"),
        ({"clips": np.zeros((2, 100), np.int16)}, "how many samples a second"),
        ({"clips": np.zeros((2, 100), np.int16), "rate": np.array([8000, 8000])}, "how many samples a second"),
        ({"clips": np.zeros((2, 100), np.int16), "rate": np.nan}, "how many samples a second"),
        ({"clips": np.zeros((2, 100), np.int16), "rate": "8 kHz"}, "how many samples a second"),
        ({"other": np.zeros(3)}, "no clips"),
    ],
)
def test_arrays_that_are_no_clips_are_refused(arrays: dict[str, np.ndarray], complaint: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=complaint):
        open_clips(tmp_path / "a.npz")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF then nothing")
    with pytest.raises(DataError, match=r"broken\.wav cannot be read as sound"):
        list(open_clips(tmp_path, LIKE).batches(1))
    with pytest.raises(DataError, match="there is nothing at"):
        open_clips(tmp_path / "none")
    (tmp_path / "broken.wav").rename(tmp_path / "broken.txt")
    with pytest.raises(DataError, match="there is no sound in"):
        open_clips(tmp_path)


def test_a_picture_of_a_clip_is_grey_after_its_end_and_light_where_it_is_loud() -> None:
    clips = torch.zeros(1, 1, 8192, dtype=torch.int16)
    clips[0, 0, :4096] = torch.from_numpy((sine(1000, 8000, 0.512) * 32767).astype(np.int16))
    (picture,) = spectrograms(clips, 8000)
    assert picture.shape == (3, 64, 128)
    assert (picture[:, 5:-5, 70:] == 245).all()
    assert picture[0, :, 30].float().argmax() in range(20, 40)  # red, as yellow is, near the middle of the mel scale
    assert trimmed(clips[0], 8000).shape == (1, 4096)
    assert trimmed(torch.zeros(1, 8192, dtype=torch.int16), 8000).shape == (1, 40)
