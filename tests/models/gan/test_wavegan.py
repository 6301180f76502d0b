"""The GAN of waveforms: the lengths that it makes, the paper's sizes, and the shuffle of phases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from draws import sampled

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.gan.config import GANConfig
from aigc_cli.models.gan.gan import GAN
from aigc_cli.models.gan.wavegan import PhaseShuffle
from aigc_cli.randomness import Noise

TINY = {"latent": 9, "embedding": 3, "width": 2, "max_width": 8}


def build(shape: tuple[int, ...], **changes: Any) -> GAN:
    torch.manual_seed(0)
    values = {**compose("train", ["model=wavegan", "recipe=null"])["model"], **TINY, **changes}
    spec = DataSpec("audio", shape, ("a", "b", "c"), content=shape, rate=8000, padding=0.0)
    return GAN(check("model", GANConfig, values), spec)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("shape", [(1, 4096), (2, 5120), (1, 8192), (1, 16384)])
def test_it_makes_waveforms_of_many_lengths_and_trains(shape: tuple[int, int], conditional: bool) -> None:
    model = build(shape, conditional=conditional)
    batch = Batch(torch.rand(4, *shape) * 2 - 1, torch.tensor([0, 1, 2, 0]))
    for phase in ("discriminator", "generator"):
        losses = model(phase, batch)
        losses["loss"].backward()
        assert all(torch.isfinite(value) for value in losses.values())
    assert [
        name for name, p in model.named_parameters() if p.grad is None and name != "discriminator.head.score.bias"
    ] == []
    with torch.no_grad():
        waves = sampled(model.eval(), Noise(0, range(3)))
    assert waves.shape == (3, *shape)
    assert 0 < waves.abs().max() <= 1


@pytest.mark.parametrize("shape", [(1, 4000), (1, 3072), (1, 131072)])
def test_other_lengths_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"4096 to 65536 samples, a multiple of 1024, not") as error:
        build(shape)
    assert "data.seconds=" in error.value.hint


def test_spectrograms_are_refused_by_the_word_that_changes_them_and_waveforms_where_maps_are_needed() -> None:
    with pytest.raises(ConfigError, match="waveforms") as error:
        build((1, 64, 64))
    assert "data.codec.kind=waveform" in error.value.hint
    with pytest.raises(ConfigError, match="maps") as error:
        build((1, 8192), network="dcgan", phase_shuffle=0, hidden=8)
    assert "data.codec.kind=mel" in error.value.hint


def test_it_has_the_papers_sizes() -> None:
    values = compose("train", ["model=wavegan", "recipe=null"])["model"]
    model = GAN(check("model", GANConfig, values), DataSpec("audio", (1, 16384)))
    weights = [sum(p.numel() for name, p in part.named_parameters() if "weight" in name)
               for part in (model.generator, model.discriminator)]  # fmt: skip
    d = 64  # tables 3 and 4, whose last layer has one score
    assert weights[0] == 100 * 256 * d + 25 * (16 * 8 + 8 * 4 + 4 * 2 + 2) * d * d + 25 * d
    assert weights[1] == 25 * d + 25 * (2 + 2 * 4 + 4 * 8 + 8 * 16) * d * d + 256 * d


def test_phases_are_shuffled_in_training_alone_and_ends_are_mirrored() -> None:
    shuffle, x = PhaseShuffle(2), torch.arange(8.0).expand(200, 3, 8)
    torch.manual_seed(0)
    moved = shuffle(x)
    rows = {
        (2.0, 1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0), (1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0), tuple(range(8)),
        (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 6.0), (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 6.0, 5.0),
    }  # fmt: skip
    assert {tuple(row) for row in moved[:, 0].tolist()} == rows
    assert torch.equal(moved[:, 0], moved[:, 2])  # all features of a clip move together
    assert torch.equal(shuffle.eval()(x), x)


def test_a_normalisation_that_it_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="generator_norm=none"):
        build((1, 4096), generator_norm="batch")
    with pytest.raises(ConfigError, match="phase_shuffle belongs to network=wavegan"):
        build((1, 4096), network="mlp")


@pytest.mark.parametrize(("preset", "kind"), [("wavegan", "waveform"), ("specgan", "spectrogram"), ("gan", "mel")])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_recipe_chooses_what_the_preset_sees_of_sound(preset: str, kind: str, device: str) -> None:
    config = compose("train", [f"model={preset}", "data=tones", f"trainer.device={device}"])
    assert config["data"]["codec"]["kind"] == kind
    assert compose("train", ["model=wavegan"])["data"]["name"] == "tones"
    typed = compose("train", [f"model={preset}", "data=tones", "data.codec.kind=mel"])
    assert typed["data"]["codec"]["kind"] == "mel"
