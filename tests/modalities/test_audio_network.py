"""The network of sound: it looks at the waveform, whatever a model sees, and its training views stay the same sound."""

import math

import pytest
import torch
from torch import Tensor

from aigc_cli.modalities.audio_network import AudioNetwork, glance
from aigc_cli.modalities.base import DataSpec, modality

FRAMES = DataSpec("audio", (1, 64, 128), ("low", "high"), content=(1, 8192), rate=8000)


def tone(hertz: float, samples: int = 8192, rate: int = 8000, heard: int | None = None) -> Tensor:
    at = torch.arange(samples) / rate
    wave = 20_000 * torch.sin(2 * math.pi * hertz * at)
    wave[heard or samples :] = 0
    return wave.round().to(torch.int16)[None, None]


def test_it_looks_at_the_waveform_though_a_model_sees_a_spectrogram() -> None:
    network = modality("audio").network(FRAMES).eval()
    assert isinstance(network, AudioNetwork)
    found = network(network.codec.encode(torch.cat([tone(300), tone(2000)])))
    assert found["features"].shape == (2, 128)
    assert found["logits"].shape == (2, 2)


@pytest.mark.parametrize(("rate", "samples"), [(8000, 1024), (16_000, 163_840), (44_100, 45_056), (48_000, 1_440_768)])
def test_clips_of_every_rate_and_length_have_between_32_and_512_frames(rate: int, samples: int) -> None:
    spec = DataSpec("audio", (2, samples), ("one",), content=(2, samples), rate=rate)
    assert 32 <= AudioNetwork(spec).codec.frames <= 512


@pytest.mark.parametrize(("decibels", "least", "most"), [(60, 0.0, 0.01), (20, 0.1, 10.0)])
def test_noise_that_no_person_hears_beside_a_clip_changes_nothing(decibels: float, least: float, most: float) -> None:
    clean = torch.cat([tone(hertz, heard=6000) for hertz in (220, 300, 700)]) // 8
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)) * 2500 * 10 ** (-decibels / 20)
    network = AudioNetwork(FRAMES).eval()
    features, noisy = (
        network(network.codec.encode(clips))["features"] for clips in (clean, (clean + noise).to(torch.int16))
    )
    assert least <= ((noisy - features).norm() / features.norm()).item() <= most


def test_a_part_of_a_clip_ends_where_it_is_no_longer_heard() -> None:
    clip = tone(440, heard=3000) + torch.randint(-3, 4, (1, 1, 8192), generator=torch.Generator().manual_seed(0))
    network = AudioNetwork(FRAMES)
    torch.manual_seed(0)
    views = network.augment(network.codec.encode(clip.to(torch.int16).repeat(64, 1, 1)))
    assert (views.amax(dim=(1, 2, 3)) > 0).all()  # no part of what follows it alone


def test_a_training_view_moves_what_is_heard_and_leaves_silence_silent() -> None:
    network = AudioNetwork(FRAMES)
    mel = network.codec.encode(tone(440, heard=3000).repeat(64, 1, 1))
    torch.manual_seed(0)
    views = network.augment(mel)
    assert views.shape == mel.shape
    assert views.min() >= -1
    assert views.max() <= 1
    assert len(views.flatten(1).unique(dim=0)) > 50
    assert ((views > -0.98).any(dim=2).sum() / (mel > -0.98).any(dim=2).sum()).item() < 1  # a part of it, never more


def test_a_glance_tells_pitches_apart_and_is_small() -> None:
    low, again, high = glance(torch.cat([tone(300), tone(300), tone(2000)])).float()
    assert low.shape == (1, 16, 32)
    assert torch.equal(low, again)
    assert (low - high).abs().mean() > 5
