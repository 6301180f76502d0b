"""The hierarchical VAE: what its networks accept, what its latents are, and that its bounds are bounds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from draws import latents_of, sampled
from torch import Tensor
from torch.distributions import Normal as TorchNormal
from torch.distributions import kl_divergence

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.latent import slerp
from aigc_cli.models.vae.config import HVAEConfig, Level
from aigc_cli.models.vae.hierarchical import HVAE, from_patches, levels, to_patches
from aigc_cli.models.vae.hierarchical_networks import Latent, Normal
from aigc_cli.nn.blocks import Residual
from aigc_cli.randomness import Noise

SMALL = {"width": 16, "latent": 2, "components": 2}
CLASSES = ("dark", "bright")


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    """The keys of model=hvae without a recipe."""
    return compose("train", ["model=hvae", "data=mnist", "recipe=null"])["model"]


def build(defaults: dict[str, Any], shape: tuple[int, int, int] = (1, 8, 8), **changes: Any) -> HVAE:
    torch.manual_seed(0)
    config = check("model", HVAEConfig, {**defaults, **SMALL, **changes})
    return HVAE(config, DataSpec("image", shape, CLASSES)).to(memory_format=torch.channels_last)


def images(n: int, shape: tuple[int, ...] = (1, 8, 8), seed: int = 1) -> Batch:
    """Images of a few smooth kinds, dark or bright by their label, in the levels of 8 bits."""
    random = torch.Generator().manual_seed(seed)
    _, height, width = shape
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    slopes = torch.randn(n, 2, *[1] * len(shape), generator=random) * 0.4
    labels = torch.arange(n) % 2
    content = slopes[:, 0] * rows + slopes[:, 1] * columns + (labels - 0.5).view(-1, 1, 1, 1)
    content = content + 0.05 * torch.randn(n, *shape, generator=random)
    return Batch(((content.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1, labels)


def train(model: HVAE, steps: int, shape: tuple[int, ...] = (1, 8, 8)) -> list[float]:
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    seen = []
    for number in range(steps):
        torch.manual_seed(number)
        losses = model("main", images(32, shape, seed=number))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        seen.append(losses["bits_per_dim"].item())
    return seen


@pytest.fixture(scope="module")
def trained(defaults: dict[str, Any]) -> HVAE:
    model = build(defaults)
    train(model, 150)
    return model.eval()


@pytest.mark.parametrize("size", [*((side, side) for side in (8, 12, 16, 28, 32, 64, 128)), (16, 24), (64, 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_serves_every_size_and_channel_and_uses_all_its_weights(
    defaults: dict[str, Any], size: tuple[int, int], channels: int
) -> None:
    shape = (channels, *size)
    model = build(defaults, shape, width=4)
    losses = model("main", images(2, shape))
    losses["loss"].backward()
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    with torch.no_grad():
        drawn = sampled(model, Noise(0, range(2)))
    assert drawn.shape == (2, *shape)
    assert drawn.abs().max() <= 1


@pytest.mark.parametrize("shape", [(1, 6, 6), (1, 16, 31), (3, 256, 256), (1, 15, 15)])
def test_other_images_are_refused(defaults: dict[str, Any], shape: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match=r"even sides, the shorter 8 to 128, not") as error:
        build(defaults, shape)
    assert "data.size=" in error.value.hint


def test_a_layout_is_as_written_or_all_halves() -> None:
    assert levels(["1x2", "4x1", "8x3"], (3, 32, 32)) == [Level(1, 2), Level(4, 1), Level(8, 3)]
    assert levels(None, (1, 32, 32)) == [Level(1, 1), Level(4, 2), Level(8, 2), Level(16, 2)]
    assert levels(None, (1, 28, 28)) == [Level(1, 1), Level(7, 2), Level(14, 2)]
    assert levels(["16x1"], (1, 16, 16)) == [Level(16, 1)]
    assert levels(None, (1, 24, 16)) == [Level(1, 1), Level(4, 2), Level(8, 2)]
    assert levels(None, (1, 64, 72)) == [Level(1, 1), Level(8, 2), Level(16, 2), Level(32, 2)]  # 4 has no whole width


@pytest.mark.parametrize("layout", [["8x1", "4x1"], ["4x1", "4x2"], ["3x1", "8x1"], ["32x1"], ["1x1", "6x2"]])
def test_a_layout_that_does_not_fit_is_refused(defaults: dict[str, Any], layout: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"model\.layout=.*does not fit images of 16x16"):
        build(defaults, (1, 16, 16), layout=layout)


@pytest.mark.parametrize("layout", [["8"], ["4x0"], ["ax2"], []])
def test_a_layout_of_other_words_is_refused(defaults: dict[str, Any], layout: list[str]) -> None:
    with pytest.raises(ConfigError, match="layout"):
        build(defaults, layout=layout)


def test_patches_go_there_and_back() -> None:
    whole = torch.arange(2 * 3 * 8 * 8.0).view(2, 3, 8, 8)
    patches = to_patches(whole, 2)
    assert patches.shape == (8, 3, 4, 4)
    torch.testing.assert_close(patches[1], whole[0, :, ::2, 1::2])
    torch.testing.assert_close(from_patches(patches, 2), whole)


def test_curves_add_up(defaults: dict[str, Any]) -> None:
    model = build(defaults, (1, 16, 16))
    losses = {name: value.item() for name, value in model("main", images(4, (1, 16, 16))).items()}
    assert {"kl_1", "kl_4", "kl_8"} <= set(losses)
    assert losses["kl"] == pytest.approx(losses["kl_1"] + losses["kl_4"] + losses["kl_8"], rel=1e-3, abs=1e-3)
    assert losses["loss"] * 256 == pytest.approx(losses["reconstruction"] + losses["kl"], rel=1e-5)
    assert losses["bits_per_dim"] == pytest.approx(losses["loss"] / math.log(2), rel=1e-5)


def test_latents_are_dear_at_first_the_finer_ones_the_most(defaults: dict[str, Any]) -> None:
    model = build(defaults, layout=["1x1", "2x1", "4x1"], coarse_first=100)
    weights = {}
    for step in (0, 50, 100, 1000):
        model.phases(step)
        weights[step] = [model.kl_weight(side) for side in (1, 2, 4)]
    assert weights == {0: [10, 20, 20], 50: [5.5, 10.5, 10.5], 100: [1, 1, 1], 1000: [1, 1, 1]}
    train(model, 20)  # so that there is a divergence to weigh
    model.phases(0)
    losses = {name: value.item() for name, value in model("main", images(8)).items()}
    paid = losses["reconstruction"] + 10 * losses["kl_1"] + 20 * (losses["kl_2"] + losses["kl_4"])
    assert losses["kl"] > 0.05
    assert losses["loss"] * 64 == pytest.approx(paid, rel=1e-5)
    assert losses["bits_per_dim"] * 64 * math.log(2) == pytest.approx(losses["reconstruction"] + losses["kl"], rel=1e-5)


@pytest.mark.parametrize("whole_map", [True, False])
def test_only_a_whole_map_tells_1x1_features_what_lies_where(defaults: dict[str, Any], whole_map: bool) -> None:
    model = build(defaults, layout=["1x1", "4x1"], whole_map=whole_map)
    features = torch.randn(2, 16, 4, 4)
    shrink, grow = model.bottom_up.levels[1][0], model.top_down.levels[1].grow
    with torch.no_grad():
        seen, moved = shrink(features), shrink(features.roll(1, dims=3))
        reached = grow(torch.randn(2, 16, 1, 1))
    assert seen.shape == (2, 16, 1, 1)
    assert reached.shape == features.shape
    assert torch.allclose(seen, moved, atol=1e-6) != whole_map
    assert torch.allclose(reached[..., 0, 0], reached[..., 3, 3], atol=1e-6) != whole_map


def test_a_latent_has_the_divergence_and_the_ratio_of_its_distributions() -> None:
    random = torch.Generator().manual_seed(0)
    means, deviations = torch.randn(2, 3, 2, 4, 4, generator=random), torch.rand(2, 3, 2, 4, 4, generator=random) + 0.3
    z = torch.randn(3, 2, 4, 4, generator=random)
    prior, posterior = TorchNormal(means[0], deviations[0]), TorchNormal(means[1], deviations[1])
    latent = Latent(Normal(means[0], deviations[0]), Normal(means[1], deviations[1]), z)
    torch.testing.assert_close(latent.kl(), kl_divergence(posterior, prior).flatten(1).sum(1))
    torch.testing.assert_close(latent.log_ratio(), (prior.log_prob(z) - posterior.log_prob(z)).flatten(1).sum(1))
    torch.testing.assert_close(Normal(*latent.prior).at(latent.standardised()), means[1])


def test_it_learns(defaults: dict[str, Any]) -> None:
    seen = train(build(defaults), 60)
    assert sum(seen[-5:]) / 5 < 0.9 * seen[0]


def test_decoding_an_encoding_is_the_reconstruction_of_the_posteriors_means(trained: HVAE) -> None:
    batch = images(6, seed=999)
    with torch.no_grad():
        features = trained.bottom_up(batch.content)
        parameters, latents = trained.top_down(features, None, None)
        expected = from_patches(trained.likelihood.mean(parameters), trained.patch)
        drawn = trained.encode(batch)
        decoded = trained.decode(drawn)
    assert drawn.shape == (6, trained.top_down.dimensions)
    assert any((latent.z - latent.prior.mean).abs().max() > 0.1 for latent in latents), "the latents are in use"
    torch.testing.assert_close(decoded, expected, atol=1e-4, rtol=1e-4)
    assert (decoded - batch.content).square().mean() < 0.25 * batch.content.var()


def test_the_topmost_latents_come_first(trained: HVAE) -> None:
    """A draw of the finest block moves what lies around its place alone, one of the topmost moves all."""
    assert trained.top_down.sides == sorted(trained.top_down.sides)
    base = latents_of(trained, Noise(0, [0]))
    moved = base.repeat(2, 1)
    moved[0, 0] += 4
    moved[1, -1] += 4  # the last channel at the lower right
    with torch.no_grad():
        change = (trained.decode(moved) - trained.decode(base)).abs().amax(1)
    assert change[0].gt(0).all()
    assert change[1, 0, 0] < 1e-6
    assert change[1, -1, -1] > 0


def test_flat_latents_go_there_and_back(trained: HVAE) -> None:
    vectors = torch.randn(3, trained.top_down.dimensions)
    torch.testing.assert_close(trained.top_down.flat(trained.top_down._parts(vectors)), vectors)


def test_the_importance_weighted_bound_is_at_least_as_tight(trained: HVAE) -> None:
    batch = images(16, seed=500)
    with torch.no_grad():
        elbo = trained.score(batch, Noise(0, range(16)))
        tight = trained.score(batch, Noise(0, range(16)), samples=100)
    assert list(elbo) == ["nelbo", "bits_per_dim", "kl", "reconstruction"]
    assert list(tight) == ["iw_bound", "bits_per_dim"]
    assert tight["iw_bound"].mean() < elbo["nelbo"].mean()
    torch.testing.assert_close(elbo["nelbo"], elbo["kl"] + elbo["reconstruction"])
    torch.testing.assert_close(elbo["bits_per_dim"], elbo["nelbo"] / (64 * math.log(2)))


def test_one_importance_sample_is_the_bound_on_average(trained: HVAE) -> None:
    """Its expectation is the ELBO, whose KL is in closed form."""
    content = images(1, seed=7).content.repeat(400, 1, 1, 1)
    with torch.no_grad():
        exact = trained.score(Batch(content), Noise(0, range(400)))["nelbo"]
        features = trained.bottom_up(content)
        parameters, latents = trained.top_down(features, None, Noise(1, range(400)).normal(trained.top_down.dimensions))
        ratio = sum(latent.log_ratio() for latent in latents)
        estimate = trained._reconstruction(parameters, content) - ratio
    error = (exact.var() / 400 + estimate.var() / 400).sqrt()
    assert (exact.mean() - estimate.mean()).abs() < 4 * error


def test_scores_and_samples_depend_on_their_own_noise_alone(trained: HVAE) -> None:
    batch = images(6, seed=3)
    with torch.no_grad():
        together = trained.score(batch, Noise(5, range(6)))["nelbo"]
        apart = [trained.score(batch.take(torch.tensor([i])), Noise(5, [i]))["nelbo"] for i in range(6)]
        drawn = sampled(trained, Noise(5, range(6)))
        again = torch.cat([sampled(trained, Noise(5, [i])) for i in range(6)])
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(drawn, again, rtol=1e-4, atol=1e-4)


def test_temperature_scales_the_deviation_of_every_prior(trained: HVAE) -> None:
    noise = [latents_of(trained, Noise(0, range(3)), temperature=t) for t in (1.0, 0.5)]
    torch.testing.assert_close(noise[1], 0.5 * noise[0])
    with torch.no_grad():
        spreads = [sampled(trained, Noise(0, range(64)), temperature=t).std(0).mean() for t in (1.0, 0.5, 0.1)]
    assert spreads[0] > spreads[1] > spreads[2]


def test_a_mixture_stands_for_the_coarsest_latents_alone(trained: HVAE) -> None:
    with pytest.raises(RuntimeError, match="prepare"):
        latents_of(trained, Noise(0, range(4)), prior="gmm")
    batch = images(300, seed=4)
    trained.prepare([batch], trained.controls(prior="gmm"))
    coarsest = trained.top_down.coarsest
    assert coarsest == 2
    with torch.no_grad():
        drawn, encoded = latents_of(trained, Noise(0, range(2000)), prior="gmm"), trained.encode(batch)
        apart = torch.cat([latents_of(trained, Noise(0, [i]), prior="gmm") for i in range(5)])
    torch.testing.assert_close(drawn[:5], apart)
    for mine, theirs in ((drawn.mean(0), encoded.mean(0)), (drawn.std(0), encoded.std(0))):
        torch.testing.assert_close(mine[:coarsest], theirs[:coarsest], atol=0.1, rtol=0.1)
    torch.testing.assert_close(drawn[:, coarsest:].std(0), torch.ones(drawn.shape[1] - coarsest), atol=0.1, rtol=0)


def test_a_walk_between_latents_stays_one_of_images(trained: HVAE) -> None:
    ends = latents_of(trained, Noise(0, range(2)))
    with torch.no_grad():
        walk = trained.decode(slerp(ends[:1], ends[1:], torch.linspace(0, 1, 5))[0])
        torch.testing.assert_close(walk[[0, -1]], trained.decode(ends), rtol=1e-3, atol=1e-3)


def test_a_conditional_model_draws_the_class_that_is_asked_for(defaults: dict[str, Any]) -> None:
    model = build(defaults, conditional=True)
    train(model, 150)
    model.eval()
    with torch.no_grad():
        dark = sampled(model, Noise(0, range(16)), class_="dark").mean()
        bright = sampled(model, Noise(0, range(16)), class_="bright").mean()
    assert bright - dark > 0.5


def test_a_conditional_model_needs_classes(defaults: dict[str, Any]) -> None:
    config = check("model", HVAEConfig, {**defaults, **SMALL, "conditional": True})
    with pytest.raises(ConfigError, match="needs labels"):
        HVAE(config, DataSpec("image", (1, 8, 8)))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "gaussian_fixed", "gaussian_pixel", "logistic"])
def test_every_likelihood_trains(defaults: dict[str, Any], likelihood: str) -> None:
    model = build(defaults, likelihood=likelihood)
    seen = train(model, 25)
    assert all(0 <= value < math.inf for value in seen)
    assert seen[-1] < seen[0]


def test_deeper_networks_begin_with_smaller_branches(defaults: dict[str, Any]) -> None:
    def scales(layout: list[str]) -> Tensor:
        model = build(defaults, (1, 16, 16), layout=layout, width=64)
        found = [part for part in model.top_down.modules() if isinstance(part, Residual)]
        return torch.stack([part.branch[-1][-1].weight.std() for part in found]).mean()

    torch.testing.assert_close(scales(["8x1"]) / scales(["8x9"]), torch.tensor(3.0), rtol=0.1, atol=0)


def test_bf16_keeps_distributions_in_float32(defaults: dict[str, Any]) -> None:
    model = build(defaults)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model("main", images(4))
    assert losses["loss"].dtype == torch.float32
    losses["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_latents_in_use_are_counted(defaults: dict[str, Any], trained: HVAE) -> None:
    with torch.no_grad():
        fresh = build(defaults).examine(images(32), None)
        used = trained.examine(images(32), None)
    assert fresh["active_units"] == 0
    assert 0 < used["active_units"] <= trained.top_down.dimensions
    assert used["active_units"] == used["active_units_1"] + used["active_units_4"]


def test_collapse_is_named_once_training_is_under_way(defaults: dict[str, Any]) -> None:
    model = build(defaults)
    model.phases(10)
    assert list(model.warnings({"main/kl": 0.01})) == []
    model.phases(1000)
    assert list(model.warnings({"main/kl": 30.0})) == []
    [(name, line)] = model.warnings({"main/kl": 0.01})
    assert name == "posterior collapse"
    assert "0.01 nats" in line
    assert "optimizer.lr" in line


def test_the_likelihood_is_called_as_a_module_so_that_it_is_compiled(
    defaults: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calls = build(defaults), []
    model.likelihood.register_forward_hook(lambda *_: calls.append(1))
    model("main", images(4))
    assert calls
