"""Codecs of sound: what a transform loses, what its file keeps, and what statistics are of."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.audio import lengths
from aigc_cli.modalities.audio_codecs import (
    AudioCodec,
    MelCodec,
    SpectrogramCodec,
    WaveformCodec,
    make_codec,
    mel_matrix,
    read_codec,
)
from aigc_cli.modalities.audio_config import AudioCodecConfig

RATE, SAMPLES = 8000, 4096


def clips(n: int, channels: int = 1, samples: int = SAMPLES, seed: int = 0) -> Tensor:
    """Chords that fade, each of another pitch and length, with a little noise, and silence after them."""
    random = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / RATE
    pitch = 150 + 300 * torch.rand(n, channels, 1, generator=random)
    waves = sum(torch.sin(2 * math.pi * part * pitch * time) / part for part in (1, 2, 3, 5))
    waves = 0.4 * waves * torch.exp(-4 * time) + 0.002 * torch.randn(n, channels, samples, generator=random)
    ends = samples * (0.3 + 0.7 * torch.rand(n, 1, 1, generator=random))
    return torch.where(torch.arange(samples) < ends, waves * 32767, 0).to(torch.int16)


def codec_of(kind: str, channels: int = 1, samples: int = SAMPLES, **changes: int) -> AudioCodec:
    codec = make_codec(AudioCodecConfig(kind=kind, **changes), RATE, channels, samples)  # type: ignore[arg-type]
    codec.fit([clips(8, channels, samples), clips(8, channels, samples, seed=1)])
    return codec


KINDS = ("mel", "spectrogram", "waveform")


@pytest.mark.parametrize("samples", [4096, 5120, 8192, 11264])
@pytest.mark.parametrize(("hop", "bins"), [(32, 64), (64, 64), (128, 128)])
def test_the_transform_comes_back_exactly(samples: int, hop: int, bins: int) -> None:
    waves = torch.randn(2, 2, samples, generator=torch.Generator().manual_seed(0))
    for codec in (MelCodec(RATE, 2, samples, hop, bins), SpectrogramCodec(RATE, 2, samples, hop, bins)):
        torch.testing.assert_close(codec.istft(codec.stft(waves)), waves, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_is_the_same_bit_for_bit_in_every_batch(kind: str) -> None:
    codec, content = codec_of(kind), clips(9)
    encoded = codec.encode(content)
    decoded = codec.decode(encoded)
    for row in (0, 4, 8):
        assert torch.equal(codec.encode(content[row : row + 1]), encoded[row : row + 1])
        assert torch.equal(codec.decode(encoded[row : row + 1]), decoded[row : row + 1])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_keeps_all_that_makes_the_same_codec(tmp_path: Path, kind: str, channels: int) -> None:
    codec, content = codec_of(kind, channels), clips(3, channels)
    for name, text in codec.files().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    kept = read_codec(tmp_path / "codec.json")
    encoded = codec.encode(content)
    assert (kept.shape, kept.padding, kept.files()) == (codec.shape, codec.padding, codec.files())
    assert encoded.shape == (3, *codec.shape)
    assert torch.equal(kept.encode(content), encoded)
    assert torch.equal(kept.decode(encoded), codec.decode(encoded))
    again = make_codec(AudioCodecConfig(kind="mel", path=str(tmp_path)), 16000, 1, 1024)
    assert again.files() == codec.files()


@pytest.mark.parametrize("kind", ["mel", "spectrogram"])
def test_what_is_decoded_has_nearly_the_mel_spectrogram_of_the_clip(kind: str) -> None:
    content, judge = clips(8), MelCodec(RATE, 1, SAMPLES, 64, 64)
    codec = codec_of(kind)
    error = (judge.encode(codec.decode(codec.encode(content))) - judge.encode(content)).abs().mean()
    noise = (judge.encode(torch.randint(-99, 100, content.shape, dtype=torch.int16)) - judge.encode(content)).abs()
    assert error < 0.05 < 0.2 * noise.mean()


def test_a_steady_tone_comes_back_without_ripples_beside_its_partials() -> None:
    at = torch.arange(8192) * 2 * math.pi * 330 / 8000
    wave = torch.stack([torch.sin(k * at) / k for k in (1, 2, 3, 4, 6, 8)]).sum(0)
    content, codec = (wave * 12_000).to(torch.int16)[None, None], MelCodec(8000, 1, 8192, 128, 64)
    back = codec.encode(codec.decode(codec.encode(content)))
    assert (back - codec.encode(content))[..., 4:-4].abs().mean() < 0.08  # by the pseudo-inverse it was 0.17


def test_what_is_below_the_depth_is_silence_in_the_file_too(tmp_path: Path) -> None:
    codec = make_codec(AudioCodecConfig(kind="mel", depth=80), 8000, 1, 8192)
    (tmp_path / "codec.json").write_text(codec.files()["codec.json"], encoding="utf-8")
    sine = torch.sin(torch.arange(8192) * 2 * math.pi * 0.1)[None, None]
    for kept in (codec, read_codec(tmp_path / "codec.json")):
        loud, quiet = (kept.encode((sine * level).round().to(torch.int16)) for level in (32767, 3))
        assert quiet.max() < -0.9 < 0.85 < loud.max() < 1  # the sum over a triangle is less than its peak
        assert (loud == -1).float().mean() > 0.5  # what rounding to 16 bits leaves, which the usual depth keeps
        assert kept.encode(torch.zeros(1, 1, 8192, dtype=torch.int16)).unique().tolist() == [-1.0]
    assert read_codec(tmp_path / "codec.json").files() == codec.files()


@pytest.mark.parametrize("depth", [None, 70.0])
def test_what_a_network_draws_just_above_silence_is_silence(depth: float | None) -> None:
    codec = MelCodec(RATE, 1, SAMPLES, 64, 64, depth)
    drawn = codec.encode(clips(1))
    drawn[..., 40:] = -1 + 0.1 * torch.rand(1, 1, 64, 24, generator=torch.Generator().manual_seed(0))
    assert lengths(codec.decode(drawn)).item() <= 42 * 64


def test_a_spectrogram_that_is_too_loud_is_made_quieter_and_not_clipped() -> None:
    codec = MelCodec(RATE, 1, SAMPLES, 64, 64)
    drawn = codec.encode(clips(1))
    usual, louder = (codec.decode(mel).double() for mel in (drawn, torch.where(drawn > -1, drawn + 0.1, -1.0)))
    assert louder.abs().max() == 32767
    ratio = (usual * louder).sum() / usual.square().sum()
    assert (louder - ratio * usual).norm() < 0.05 * louder.norm()


def test_silence_is_the_padding_and_comes_back_as_silence() -> None:
    silent = torch.zeros(2, 1, SAMPLES, dtype=torch.int16)
    for codec in map(codec_of, KINDS):
        encoded = codec.encode(silent)
        assert encoded.unique().tolist() == [codec.padding]
        assert torch.equal(codec.decode(encoded), silent)
    mel, content = codec_of("mel"), clips(4)
    assert isinstance(mel, MelCodec)
    for row, end in zip(mel.encode(content), lengths(content), strict=True):
        after = -(-(int(end) + mel.window_length) // mel.hop)  # the first frame whose window begins after the end
        assert (row[..., after:] == -1).all()
        assert (row[..., : int(end) // mel.hop] > -1).flatten(0, 1).any(0).all()
    constant = torch.full((1, 1, SAMPLES), 12000, dtype=torch.int16)  # no sound, but for where it begins and ends
    assert mel.encode(constant)[..., 4:-4].mean() < -0.9


def test_the_loudest_clip_stays_within_the_range() -> None:
    square = torch.where(torch.arange(SAMPLES) % 16 < 8, 32767, -32768).to(torch.int16).expand(1, 1, -1)
    for kind in KINDS:
        encoded = codec_of(kind).encode(square)
        assert encoded.abs().max() <= 1 + 1e-4
        assert codec_of(kind).decode(encoded * 3).abs().max() <= 32767


def test_statistics_are_of_sound_alone_and_give_each_frequency_mean_0_and_deviation_a_third() -> None:
    codec, content = codec_of("spectrogram"), torch.cat([clips(8), clips(8, seed=1)])
    assert isinstance(codec, SpectrogramCodec)
    heard = torch.arange(codec.frames) * codec.hop < lengths(content)[:, None]
    values = codec.encode(content)[:, 0].transpose(1, 2)[heard]
    assert values.mean(0).abs().max() < 0.05  # not 0: some are cut
    assert (values.abs() == 1).float().mean() < 0.02
    torch.testing.assert_close(values.std(0), torch.full((codec.bins,), 1 / 3), atol=0.05, rtol=0)
    one_by_one = make_codec(AudioCodecConfig(kind="spectrogram"), RATE, 1, SAMPLES)
    one_by_one.fit([clip[None] for clip in content])
    longer = torch.cat([content, torch.zeros_like(content)])  # clips of silence say nothing
    with_silence = make_codec(AudioCodecConfig(kind="spectrogram"), RATE, 1, SAMPLES)
    with_silence.fit([longer])
    for other in (one_by_one, with_silence):
        assert isinstance(other, SpectrogramCodec)
        torch.testing.assert_close(other.statistics, codec.statistics)


def test_a_codec_that_is_not_fitted_encodes_nothing() -> None:
    with pytest.raises(RuntimeError, match="fitted"):
        make_codec(AudioCodecConfig(kind="spectrogram"), RATE, 1, SAMPLES).encode(clips(1))


@pytest.mark.parametrize(
    ("kind", "samples", "shape"),
    [
        ("mel", 8192, (1, 64, 64)), ("mel", 4096, (1, 64, 64)), ("mel", 12288, (1, 64, 96)),
        ("mel", 9216, (1, 64, 80)), ("mel", 16384, (1, 64, 128)), ("mel", 81920, (1, 64, 640)),
        ("spectrogram", 16384, (1, 128, 128)),
        ("spectrogram", 8192, (1, 128, 128)), ("spectrogram", 11264, (1, 128, 176)), ("waveform", 5120, (1, 5120)),
    ],
)  # fmt: skip
def test_shapes_halve_four_times(kind: str, samples: int, shape: tuple[int, ...]) -> None:
    assert codec_of(kind, samples=samples).shape == shape


@pytest.mark.parametrize(
    ("rate", "samples", "frames"), [(16_000, 32_768, 256), (44_100, 45_056, 352), (96_000, 96_256, 752)]
)
def test_spectrograms_of_every_rate_and_length_have_no_gaps(rate: int, samples: int, frames: int) -> None:
    assert make_codec(AudioCodecConfig(kind="spectrogram"), rate, 1, samples).shape == (1, 128, frames)


def test_a_hop_that_leaves_few_frames_or_gaps_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"3 frames of data\.codec\.hop=1024") as error:
        codec_of("mel", hop=1024, samples=3072)
    assert "data.seconds=" in error.value.hint
    with pytest.raises(ConfigError, match="skips samples") as error:
        codec_of("spectrogram", hop=256, bins=64)
    assert "data.codec.bins=" in error.value.hint


def test_mel_triangles_have_a_sum_of_1_and_leave_nothing_out() -> None:
    for bins, mels in ((257, 64), (129, 64), (65, 128)):
        matrix = mel_matrix(RATE, bins, mels)
        torch.testing.assert_close(matrix.sum(1), torch.ones(mels))
        assert (matrix >= 0).all()
        if bins > 2 * mels:
            assert (matrix[:, 1:-1].sum(0) > 0).all()  # each frequency but 0 and the highest is heard


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 9}, {"kind": "opus"}, {"samples": 0}, {"rate": "x"}, {"bins": 9}, {"mean": None},
        {"deviation": [0.0] * 128}, {"mean": [float("nan")] * 128}, {"hop": 4096}, {"hop": 0}, {"rate": float("inf")},
        {"kind": "mel", "bins": -1}, {"kind": "mel", "depth": 0}, {"kind": "mel", "depth": "x"},
    ],
)  # fmt: skip
def test_a_broken_file_is_named(tmp_path: Path, changes: dict[str, object]) -> None:
    saved = json.loads(codec_of("spectrogram").files()["codec.json"])
    path = tmp_path / "codec.json"
    path.write_text(json.dumps({**saved, **changes}), encoding="utf-8")
    with pytest.raises(DataError, match=r"codec\.json is not a codec of sound"):
        read_codec(path)


def test_waveforms_are_within_1_and_come_back_exactly() -> None:
    codec = WaveformCodec(RATE, 1, 3)
    content = torch.tensor([[[-32767, 0, 32767]]], dtype=torch.int16)
    assert codec.encode(content).tolist() == [[[-1, 0, 1]]]
    assert torch.equal(codec.decode(codec.encode(content)), content)
