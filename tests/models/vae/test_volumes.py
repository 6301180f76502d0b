"""Networks of clips: shapes, and what they refuse."""

import pytest
import torch

from aigc_cli.config.compose import compose
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import build_model
from aigc_cli.models.vae.volumes import strides
from aigc_cli.nn.blocks import lay_out


def model(name, shape, *words):
    return build_model(compose("train", [f"model={name}", "recipe=null", *words])["model"], DataSpec("video", shape))


def test_pixels_are_halved_first_and_frames_last():
    assert strides(4, 2) == [(1, 2, 2), (2, 2, 2)]
    assert strides(2, 8) == [(2, 2, 2), (2, 1, 1), (2, 1, 1)]


@pytest.mark.parametrize(("times", "grid"), [(1, (8, 4, 8)), (2, (4, 4, 8)), (8, (1, 4, 8))])
def test_clips_become_codes_of_a_grid_in_time_and_back(times, grid):
    vqvae = model("vqvae", (3, 8, 16, 32), f"model.time_downsampling={times}", "model.width=8", "model.codes=16")
    clips = torch.rand(2, 3, 8, 16, 32) * 2 - 1
    assert vqvae.token_grid == grid
    codes = vqvae.eval().encode(Batch(clips))
    assert codes.shape == (2, grid[0] * grid[1] * grid[2])
    assert vqvae.decode(codes).shape == clips.shape


def test_of_patches_what_is_alike_has_one_code_wherever_it_is():
    vqvae = model("vqvae", (1, 8, 16, 16), "model.stem=patches", "model.time_downsampling=2", "model.width=8").eval()
    vqvae.quantizer.sums.normal_(generator=torch.Generator().manual_seed(0))
    vqvae.quantizer.sizes.fill_(1)
    clips = torch.full((1, 1, 8, 16, 16), -1.0)
    clips[:, :, 2:4, 4:8, 8:12] = 1
    codes = vqvae.encode(Batch(clips)).view(4, 4, 4)
    odd = codes != codes[0, 0, 0]
    assert odd.nonzero().tolist() == [[1, 1, 2]]
    assert vqvae.decode(codes.view(1, -1)).shape == clips.shape


@pytest.mark.parametrize(
    ("name", "shape", "words", "message"),
    [
        ("vqvae", (1, 6, 16, 16), ["model.time_downsampling=4"], "does not divide clips of 6 frames"),
        ("vqvae", (1, 8, 16, 16), ["model.tokens=time"], r"model\.tokens=time is for sound"),
        ("vae", (1, 8, 18, 18), ["model.network=conv3d"], "sides halve down to 4 to 7"),
        ("vae", (1, 8, 16, 16), ["model.network=conv3d", "model.latent_side=4"], "with model.latent_side=0"),
        ("gan", (1, 8, 20, 20), ["model.network=dcgan3d"], "not 20x20"),
        ("gan", (1, 8, 16, 16), ["model.network=dcgan"], r"model\.network="),
    ],
)
def test_what_a_network_does_not_serve_is_refused(name, shape, words, message):
    with pytest.raises(ConfigError, match=message):
        model(name, shape, *words)


def test_a_memory_format_is_that_of_weights_of_its_rank_alone():
    layers = torch.nn.Sequential(torch.nn.Conv3d(2, 4, 3), torch.nn.Conv2d(2, 4, 3), torch.nn.Linear(2, 2))
    lay_out(layers, torch.channels_last_3d)
    assert layers[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert layers[1].weight.is_contiguous()
    lay_out(layers, None)
