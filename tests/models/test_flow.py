"""Flow matching: the path that it follows, there and back, its likelihood, and what a class and guidance do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from fitting import fit
from torch import Tensor, nn

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Prompts
from aigc_cli.models.flow import Flow, FlowConfig, FlowControls
from aigc_cli.nn.masking import in_region
from aigc_cli.randomness import Noise

SMALL = {"width": 8, "max_width": 16}
MEAN, DEVIATION = 0.3, 0.5


class _OfGaussian(nn.Module):
    """The velocity of the straight paths from N(0, 1) to N(MEAN, DEVIATION^2), in closed form."""

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        time = time.view(-1, *[1] * (x.ndim - 1))
        variance = (1 - time) ** 2 + time**2 * DEVIATION**2
        return MEAN + (time * DEVIATION**2 - (1 - time)) / variance * (x - time * MEAN)


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    """The keys of model=flow without a recipe."""
    model: dict[str, Any] = compose("train", ["model=flow", "data=mnist", "recipe=null"])["model"]
    return model


def build(defaults: dict[str, Any], shape: tuple[int, ...] = (1, 8, 8), classes: tuple[str, ...] = ()) -> Flow:
    torch.manual_seed(0)
    return Flow(check("model", FlowConfig, {**defaults, **SMALL}), DataSpec("image", shape, classes))


def known(defaults: dict[str, Any]) -> Flow:
    model = build(defaults, (1, 4, 4))
    model.net = _OfGaussian()
    return model


def stirred(model: Flow) -> Flow:
    """The same model with weights that are not those of the identity."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
def test_samples_follow_the_distribution_whose_velocity_it_knows(defaults: dict[str, Any], solver: Any) -> None:
    controls = FlowControls(steps=64, solver=solver)
    samples = known(defaults).sample(Noise(0, range(400)), controls)
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert samples.std().item() == pytest.approx(DEVIATION, abs=0.02)


def test_the_likelihood_of_a_gaussian_is_that_of_its_closed_form(defaults: dict[str, Any]) -> None:
    data = MEAN + DEVIATION * torch.randn(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        scores = known(defaults).score(Batch(data), Noise(0, range(20)), samples=2)
    density = -0.5 * ((data - MEAN) / DEVIATION).square() - math.log(DEVIATION * math.sqrt(2 * math.pi))
    density = density.flatten(1).sum(1)
    nats = -density - 16 * math.log(2 / 255)  # of 256 levels; the noise below a level moves it by less than a level
    assert torch.allclose(scores["nll"], nats, atol=0.3)
    assert scores["nll"].mean().item() == pytest.approx(nats.mean().item(), abs=0.05)
    assert scores["bits_per_dim"].mean().item() == pytest.approx(scores["nll"].mean().item() / 16 / math.log(2))
    assert scores["probe_deviation"].max() < 1e-3  # its field has the same slope everywhere


def test_the_way_back_leads_to_the_noise_that_a_sample_began_with(defaults: dict[str, Any]) -> None:
    model = stirred(build(defaults))
    model.prepare([], FlowControls(steps=32))
    noise = torch.randn(3, 64)
    with torch.inference_mode():
        again = model.encode(Batch(model.decode(noise)))
    assert torch.allclose(again, noise, atol=1e-3)


def test_guidance_of_1_is_none_and_more_moves_away_from_any_class(defaults: dict[str, Any]) -> None:
    model = stirred(build(defaults, classes=("dark", "light")))
    plain = model.sample(Noise(0, [0, 1]), FlowControls(steps=1, solver="euler"))
    told, guided, untold = (
        model.sample(Noise(0, [0, 1]), FlowControls(steps=1, solver="euler", guidance=guidance))
        for guidance in (1.0, 3.0, 0.0)
    )
    assert torch.equal(plain, told)
    assert torch.allclose(guided - untold, 3 * (plain - untold), atol=1e-5)
    assert not torch.allclose(plain, untold)


def test_guidance_of_a_model_without_classes_is_refused(defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="guidance=2: this model was trained without classes"):
        build(defaults).prepare([], FlowControls(guidance=2))


def test_a_sample_is_the_same_in_every_batch(defaults: dict[str, Any]) -> None:
    model = stirred(build(defaults, classes=("dark", "light")))
    with torch.inference_mode():
        together = model.sample(Noise(0, range(4)), FlowControls(steps=2, guidance=2))
        alone = model.sample(Noise(0, [3]), FlowControls(steps=2, guidance=2, class_="light"))
    assert torch.allclose(together[3], alone[0], atol=1e-6)


class _OfOneShade(nn.Module):
    """The velocity of the straight paths from N(0, 1) to items of which each has a shade N(0, 1) of its own, and grain
    N(0, 0.1^2) on it, in closed form."""

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        t, n = float(time[0]), x[0].numel()
        shade = x.flatten(1).mean(1).view(-1, *[1] * (x.ndim - 1)).expand_as(x)

        def along(variance: float, part: Tensor) -> Tensor:
            return (t * variance - (1 - t)) / ((1 - t) ** 2 + t**2 * variance) * part

        return along(n + 0.01, shade) + along(0.01, x - shade)


@pytest.mark.parametrize("region", ["lower", "left", "centre"])
def test_what_it_fills_fits_what_is_kept(defaults: dict[str, Any], region: Any) -> None:
    model = build(defaults, (1, 4, 4))
    model.net = _OfOneShade()
    shades = torch.linspace(-2, 2, 20)
    items = shades.view(-1, 1, 1, 1) + 0.1 * torch.randn(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    gap = in_region((4, 4), region)
    filled = model.sample(Noise(0, range(20)), FlowControls(region=region, resample=10), Prompts((), items=items))
    assert torch.equal(filled[..., ~gap], items[..., ~gap])
    assert not torch.equal(filled[..., gap], items[..., gap])
    found = filled[..., gap].mean(-1).flatten()
    assert (found - shades).abs().mean() < 0.25
    assert filled[..., gap].std(-1).mean() == pytest.approx(0.1, abs=0.05)


def test_what_is_filled_is_the_same_in_every_batch_and_of_the_class_of_its_item(defaults: dict[str, Any]) -> None:
    model = stirred(build(defaults, classes=("dark", "light")))
    items = torch.randn(2, 1, 8, 8)
    controls: Any = {"steps": 2, "resample": 2}
    with torch.inference_mode():
        together = model.sample(Noise(0, range(4)), FlowControls(**controls), Prompts((), (), [0, 1], items))
        alone = model.sample(Noise(0, [3]), FlowControls(**controls, class_="light"), Prompts((), items=items))
        untold = model.sample(Noise(0, [3]), FlowControls(**controls), Prompts((), items=items))
    assert torch.allclose(together[3], alone[0], atol=1e-6)
    assert not torch.allclose(together[3], untold[0], atol=1e-6)
    with pytest.raises(ConfigError, match="nothing says of which class the prompt is"):
        model.sample(Noise(0, [3]), FlowControls(**controls, guidance=2), Prompts((), items=items))


@pytest.mark.parametrize("network", ["unet", "dit"])
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 9, 7), (2, 50), (1, 4, 9, 6)])
def test_it_learns_items_of_every_layout(defaults: dict[str, Any], shape: tuple[int, ...], network: str) -> None:
    model = build({**defaults, "network": network}, shape)
    data = Batch(torch.full((8, *shape), 0.5))
    curves = fit(model, data, 20)
    assert curves[-1]["loss"] < 0.7 * curves[0]["loss"]


def test_a_patch_that_does_not_divide_an_item_is_refused(defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="patch=3 does not divide items of 8x8"):
        Flow(check("model", FlowConfig, {**defaults, **SMALL, "patch": 3}), DataSpec("image", (1, 8, 8)))
