"""The networks of the GAN: the sizes they make, and what sets each one apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from draws import sampled

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import DataSpec
from aigc_cli.models.gan.config import GANConfig
from aigc_cli.models.gan.gan import GAN
from aigc_cli.nn.blocks import SelfAttention
from aigc_cli.randomness import Noise

TINY = {"latent": 9, "embedding": 3, "hidden": 8, "width": 2, "max_width": 8, "discriminator_width": 2}
PRESETS = {"dcgan": "dcgan", "sngan": "resnet", "wgan_gp": "resnet", "biggan": "biggan", "r3gan_small": "r3gan"}


def build(preset: str, shape: tuple[int, int, int] = (1, 16, 16), **changes: Any) -> GAN:
    torch.manual_seed(0)
    values = {**compose("train", [f"model={preset}", "recipe=null"])["model"], **TINY, **changes}
    return GAN(check("model", GANConfig, values), DataSpec("image", shape, ("a", "b", "c")))


@pytest.mark.parametrize("size", [*((side, side) for side in (8, 16, 32, 64, 128, 256)), (16, 24), (64, 32)])
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_size_and_any_channels(preset: str, size: tuple[int, int]) -> None:
    assert build(preset).config.network == PRESETS[preset]
    for channels in (1, 2, 3):
        model = build(preset, (channels, *size)).eval()
        with torch.no_grad():
            fake = sampled(model, Noise(0, range(2)))
            labels = torch.tensor([0, 2]) if model.conditional else None
            assert model.discriminator(fake, labels).shape == (2,)
        assert fake.shape == (2, channels, *size)
        assert torch.isfinite(fake).all()
        assert PRESETS[preset] == "r3gan" or fake.abs().max() <= 1


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 16, 30), (1, 4, 4), (1, 512, 512)])
def test_sizes_that_cannot_be_made_are_named(preset: str, shape: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match=r"8, 16, 32, 64, 128, 256.*not") as error:
        build(preset, shape)
    assert "data.size=" in error.value.hint


@pytest.mark.parametrize(
    ("preset", "shape", "generator", "discriminator"),
    [
        # Parameters, counted by hand from the layers that the papers name.
        ("sngan", (3, 32, 32), 4_276_739, 1_053_825),
        ("biggan", (3, 32, 32), 9_420_804, 2_415_170),
    ],
)
def test_presets_have_the_papers_sizes(
    preset: str, shape: tuple[int, int, int], generator: int, discriminator: int
) -> None:
    values = compose("train", [f"model={preset}", "recipe=null"])["model"]
    spec = DataSpec("image", shape, tuple("0123456789"))
    model = GAN(check("model", GANConfig, values), spec)
    counts = [sum(p.numel() for p in network.parameters()) for network in (model.generator, model.discriminator)]
    assert counts == [generator, discriminator]


def test_widths_double_from_the_image_to_the_limit() -> None:
    model = build("sngan", (3, 64, 64), width=4, max_width=16, discriminator_width=2)
    assert [block.conv2.out_channels for block in model.generator.blocks] == [16, 16, 8, 4]
    assert [block.conv2.out_channels for block in model.discriminator.blocks] == [2, 4, 8, 8, 8]


def test_biggan_gives_every_block_its_piece_of_the_latent() -> None:
    model = build("biggan", (1, 32, 32), latent=10, conditional=False, generator_norm="group").eval()
    assert model.generator.pieces == [3, 3, 2, 2]
    base = torch.zeros(1, 10)
    changed = torch.zeros(1, 10)
    changed[0, -1] = 1.0  # the last block's piece
    seen: list[torch.Tensor] = []
    model.generator.blocks[1].register_forward_hook(lambda *arguments: seen.append(arguments[-1]))
    with torch.no_grad():
        images = [model.decode(latent) for latent in (base, changed)]
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(images[0], images[1])


def test_attention_sits_on_the_map_of_the_side_asked_for() -> None:
    model = build("biggan", (1, 32, 32), attention=16)
    places = [[isinstance(layer, SelfAttention) for layer in network.attention]
              for network in (model.generator, model.discriminator)]  # fmt: skip
    assert places == [[False, True, False], [True, False, False, False]]


def test_orthogonal_weights_are() -> None:
    weight = build("biggan", generator_spectral_norm=False, width=8).generator.blocks[0].conv1.weight.flatten(1)
    torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), atol=1e-5, rtol=0)


def test_r3gan_begins_as_a_linear_network() -> None:
    """Residual branches add nothing at first: the generator is its basis, resampled and mixed."""
    model = build("r3gan_small", blocks=2)
    z = torch.randn(2, 9)
    with torch.no_grad():
        twice, once = model.decode(2 * z), model.decode(z)
    torch.testing.assert_close(twice, 2 * once)
    for block in model.generator.stages[0]:
        assert block.mix.groups == max(1, block.mix.in_channels // 16)


def test_r3gan_begins_with_the_variance_of_its_latent() -> None:
    """No activation follows the layers that are in use at first, so that a gain for one would add up over them."""
    model = build("r3gan_small", (1, 32, 32), latent=64, width=64, max_width=256)
    linear = [
        layer
        for layer in (model.generator.weights, *model.generator.changes, model.generator.image)
        if not isinstance(layer, torch.nn.Identity)
    ]
    assert len(linear) == 4
    for layer in linear:
        deviation = layer.weight.std() * layer.weight[0].numel() ** 0.5
        torch.testing.assert_close(deviation, torch.tensor(1.0), rtol=0.2, atol=0)


def test_presets_differ_from_the_default_where_their_papers_do() -> None:
    configs = {name: build(name).config for name in PRESETS}
    assert {name for name, config in configs.items() if config.spectral_norm} == {"sngan", "biggan"}
    assert {name: config.loss for name, config in configs.items()} == {
        "dcgan": "non_saturating", "sngan": "hinge", "wgan_gp": "wgan", "biggan": "hinge", "r3gan_small": "relativistic"
    }  # fmt: skip
    assert {name: config.regularizer for name, config in configs.items()} == {
        "dcgan": "none", "sngan": "none", "wgan_gp": "gradient", "biggan": "none", "r3gan_small": "r1r2"
    }  # fmt: skip
