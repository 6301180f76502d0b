"""The GAN: what its networks accept, what each loss is, and what its phases touch."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from draws import latents_of, sampled
from torch import Tensor

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.gan.config import GANConfig
from aigc_cli.models.gan.gan import GAN, NETWORKS, Controls
from aigc_cli.models.gan.losses import LOSSES
from aigc_cli.randomness import Noise
from aigc_cli.training.optimizers import EMA

SMALL = {"latent": 8, "embedding": 4, "hidden": 16, "width": 8, "max_width": 16}
CLASSES = ("zero", "one", "two")
#: What each network needs beside.
OWN: dict[str, dict[str, Any]] = {"r3gan": {"generator_norm": "none"}, "biggan": {"attention": 8}}


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    """The keys of model=gan without a recipe."""
    return compose("train", ["model=gan", "data=mnist", "recipe=null"])["model"]


def build(defaults: dict[str, Any], shape: tuple[int, ...] = (1, 16, 16), **changes: Any) -> GAN:
    torch.manual_seed(0)
    own = OWN.get(changes.get("network", ""), {})
    config = check("model", GANConfig, {**defaults, "conditional": False, **SMALL, **own, **changes})
    return GAN(config, DataSpec("image", shape, CLASSES))


def images(n: int, shape: tuple[int, ...] = (1, 16, 16)) -> Batch:
    content = torch.rand(n, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Batch(content, torch.arange(n) % len(CLASSES))


def step(model: GAN, batch: Batch, optimizers: dict[str, torch.optim.Optimizer], number: int = 0) -> dict[str, Tensor]:
    """What the trainer does in a step."""
    seen = {}
    for phase in model.phases(number):
        model.requires_grad_(False)
        model.network(phase.name).requires_grad_(True)
        optimizers[phase.name].zero_grad()
        losses = model(phase.name, batch)
        losses["loss"].backward()
        optimizers[phase.name].step()
        seen |= {f"{phase.name}/{name}": value.detach() for name, value in losses.items()}
    return seen


def adam(model: GAN, lr: float = 1e-3) -> dict[str, torch.optim.Optimizer]:
    return {
        phase: torch.optim.Adam(model.network(phase).parameters(), lr, betas=(0.0, 0.99))
        for phase in ("generator", "discriminator")
    }


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 64), (2, 3, 4, 4)])
@pytest.mark.parametrize("changes", [{}, {"conditional": True, "loss": "wgan"}, {"loss": "relativistic", "lecam": 0.1}])
def test_mlp_makes_any_shape(defaults: dict[str, Any], shape: tuple[int, ...], changes: dict[str, Any]) -> None:
    model = build(defaults, shape, network="mlp", **changes)
    optimizers = adam(model)
    for number in range(2):
        figures = step(model, images(8, shape), optimizers, number)
        assert all(math.isfinite(value) for value in figures.values())
    with torch.no_grad():
        assert sampled(model, Noise(0, range(2))).shape == (2, *shape)
        assert all(torch.isfinite(figure) for figure in model.examine(images(8, shape), images(8, shape)).values())


@pytest.mark.parametrize("network", sorted(NETWORKS.keys() - {"mlp", "wavegan", "dcgan3d"}))
def test_networks_of_images_say_so(defaults: dict[str, Any], network: str) -> None:
    with pytest.raises(ConfigError, match=f"model.network={network} makes maps.*the shape 1x64") as error:
        build(defaults, (1, 64), network=network)
    assert "model.network=mlp" in error.value.hint


@pytest.mark.parametrize("changes", [{"augment": ["ada"]}, {"consistency": 1.0}])
def test_changes_of_images_are_refused_elsewhere(defaults: dict[str, Any], changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is for images") as error:
        build(defaults, (1, 64), network="mlp", **changes)
    assert f"model.{next(iter(changes))}=" in error.value.hint


def test_no_tokens(defaults: dict[str, Any]) -> None:
    config = check("model", GANConfig, defaults)
    with pytest.raises(ConfigError, match=r"model=gan cannot model text data\n.*takes items laid out as map"):
        GAN(config, DataSpec("text", (64,), vocab_size=9))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"loss": "wgan", "discriminator_norm": "batch"}, "batch normalisation mixes"),
        ({"network": "mlp", "hidden": 0}, "hidden must be at least 1"),
        ({"dropout": 1.5}, "dropout"),
        ({"loss": "wasserstein"}, "loss"),
        ({"discriminator_steps": 0}, "discriminator_steps"),
        ({"augment": ["mirror"]}, "augment"),
        ({"network": "r3gan"}, "r3gan has no normalisation"),
        ({"network": "resnet", "minibatch_stddev": True}, "minibatch_stddev belongs to network=dcgan"),
        ({"network": "biggan", "dropout": 0.1}, "dropout belongs to"),
        ({"attention": 16}, "attention belongs to"),
        ({"consistency": 1.0, "consistency_augment": []}, "consistency_augment is empty"),
        ({"augment": ["ada"], "ada_transforms": []}, "ada_transforms is empty"),
        ({"widht": 8}, "widht"),
    ],
)
def test_wrong_keys_and_contradictions(defaults: dict[str, Any], changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        check("model", GANConfig, {**defaults, **changes})


@pytest.mark.parametrize("network", sorted(NETWORKS.keys() - {"wavegan", "dcgan3d"}))
@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("conditional", [False, True])
def test_every_loss_trains_all_networks(defaults: dict[str, Any], network: str, loss: str, conditional: bool) -> None:
    model = build(defaults, network=network, loss=loss, conditional=conditional)
    before = copy.deepcopy(model.state_dict())
    optimizers = adam(model)
    for number in range(3):
        figures = step(model, images(8), optimizers, number)
        assert all(math.isfinite(value) for value in figures.values())
        assert all(value.ndim == 0 for value in figures.values())
    curves = {"loss", "real_score", "fake_score", "accuracy"}
    assert {"generator/loss", *(f"discriminator/{name}" for name in curves)} <= set(figures)
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert any(name.startswith("generator") for name in changed)
    assert any(name.startswith("discriminator") for name in changed)


def test_the_penalty_goes_with_the_loss(defaults: dict[str, Any]) -> None:
    penalties = {"discriminator/r1", "discriminator/r2", "discriminator/gradient_penalty"}
    found = {}
    for loss in ("wgan", "hinge", "relativistic"):
        model = build(defaults, loss=loss)
        found[loss] = {
            name.removeprefix("discriminator/") for name in penalties & set(step(model, images(8), adam(model)))
        }
    assert found == {"wgan": {"gradient_penalty"}, "hinge": {"r1"}, "relativistic": {"r1", "r2"}}
    model = build(defaults, penalty="none")
    assert not penalties & set(step(model, images(8), adam(model)))


def test_r1_is_lazy(defaults: dict[str, Any]) -> None:
    model = build(defaults, r1_every=4)
    optimizers = adam(model)
    turns = [number for number in range(9) if "discriminator/r1" in step(model, images(8), optimizers, number)]
    assert turns == [0, 4, 8]


def test_phases_alternate_and_the_generator_sees_no_new_data(defaults: dict[str, Any]) -> None:
    phases = build(defaults, discriminator_steps=3).phases(0)
    assert [phase.name for phase in phases] == ["discriminator"] * 3 + ["generator"]
    assert [phase.new_batch for phase in phases] == [True, True, True, False]


@pytest.mark.parametrize(
    ("term", "changes"),
    [
        ("consistency", {"consistency": 10.0}),
        ("consistency", {"consistency": 10.0, "minibatch_stddev": True, "consistency_augment": ["cutout"]}),
        ("lecam", {"lecam": 0.3}),
    ],
)
def test_a_regulariser_is_in_the_loss(defaults: dict[str, Any], term: str, changes: dict[str, Any]) -> None:
    losses = []
    for weights in (changes, {**changes, term: 2 * changes[term]}):
        model = build(defaults, **weights)
        model.phases(1)
        torch.manual_seed(0)
        losses.append(model("discriminator", images(6)))
    once, twice = losses
    assert once[term] > 0
    torch.testing.assert_close(twice["loss"] - once["loss"], changes[term] * once[term])


def test_lecam_pulls_scores_towards_the_other_sides_mean(defaults: dict[str, Any]) -> None:
    model = build(defaults, lecam=0.3)
    figures = step(model, images(8), adam(model))
    means = torch.stack([figures["discriminator/real_score"], figures["discriminator/fake_score"]])
    torch.testing.assert_close(model.lecam_anchors, means)  # the first step's means are all there is yet
    step(model, images(8), adam(model), 200)
    assert (model.lecam_anchors - means).abs().max() < 0.1 * (means[0] - means[1]).abs().clamp_min(0.1)


def test_ada_grows_where_the_discriminator_is_sure_and_falls_where_it_is_not(defaults: dict[str, Any]) -> None:
    model = build(defaults, augment=["ada"], ada_length=400, generator_norm="group", penalty="none")
    optimizers = adam(model, 5e-3)
    strengths = []
    for number in range(60):  # the discriminator alone, on images that it can learn by heart
        model.phases(number)
        model.requires_grad_(False)
        model.discriminator.requires_grad_(True)
        optimizers["discriminator"].zero_grad()
        losses = model("discriminator", images(16))
        losses["loss"].backward()
        optimizers["discriminator"].step()
        strengths.append(losses["ada_strength"].item())
    assert strengths[-1] > 0.3
    assert strengths[-1] == model.ada_strength.item()
    changes = [number for number in range(1, 60) if strengths[number] != strengths[number - 1]]
    assert all(number % 4 == 0 for number in changes)
    for parameter in model.discriminator.parameters():
        parameter.data.zero_()
    for number in range(60, 100):
        model.phases(number)
        model("discriminator", images(16))
    assert model.ada_strength < strengths[-1]


@pytest.mark.parametrize("augment", [["ada"], ["translation", "color", "cutout", "flip"], ["ada", "cutout"]])
def test_augmentation_lets_gradients_through_to_the_generator(defaults: dict[str, Any], augment: list[str]) -> None:
    model = build(defaults, augment=augment)
    if "ada" in augment:
        model.ada_strength.fill_(1.0)
    gradients = []
    for seed in (0, 0, 1):
        model.phases(1)
        model.zero_grad()
        torch.manual_seed(seed)
        model("generator", images(8))["loss"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.generator.parameters() if p.grad is not None]))
    assert gradients[0].abs().sum() > 0
    assert torch.equal(gradients[0], gradients[1])
    assert not torch.allclose(gradients[0], gradients[2])


def test_a_paired_loss_shows_the_generator_real_scores(defaults: dict[str, Any]) -> None:
    gradients = []
    for shift in (0.0, 3.0):
        model = build(defaults, loss="relativistic", generator_norm="group")
        model.phases(1)
        torch.manual_seed(1)
        batch = images(8)
        model("generator", batch.with_content(batch.content * 0.1 + shift))["loss"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.generator.parameters() if p.grad is not None]))
    assert not torch.allclose(*gradients)


@pytest.mark.parametrize("network", sorted(NETWORKS.keys() - {"wavegan", "dcgan3d"}))
def test_the_class_steers_samples_and_scores(defaults: dict[str, Any], network: str) -> None:
    model = build(defaults, network=network, conditional=True, loss="hinge")
    optimizers = adam(model, 1e-2)
    for number in range(3):  # what tells classes apart may begin as 0
        step(model, images(9), optimizers, number)
    model.eval()
    with torch.no_grad():
        latents = latents_of(model, Noise(0, range(4)))
        ones, twos = model.decode(latents, torch.full((4,), 1)), model.decode(latents, torch.full((4,), 2))
        real = images(4).content
        scores = [model.discriminator(real, torch.full((4,), label)) for label in range(3)]
    assert not torch.allclose(ones, twos)
    assert not torch.allclose(scores[0], scores[1])
    asked = sampled(model, Noise(0, range(4)), class_="one")
    torch.testing.assert_close(asked, ones)


def test_it_is_told_the_class_where_the_data_has_classes(defaults: dict[str, Any]) -> None:
    assert build(defaults, conditional=defaults["conditional"]).conditional
    for classes in ((), ("one",)):
        assert not GAN(
            check("model", GANConfig, {**defaults, **SMALL}), DataSpec("image", (1, 16, 16), classes)
        ).conditional


def test_conditional_needs_labels(defaults: dict[str, Any]) -> None:
    config = check("model", GANConfig, {**defaults, "conditional": True})
    with pytest.raises(ConfigError, match="needs labels"):
        GAN(config, DataSpec("image", (1, 16, 16)))


@pytest.mark.parametrize("steps", [1, 2])
def test_a_phase_moves_its_own_network_alone(defaults: dict[str, Any], steps: int) -> None:
    model = build(defaults, discriminator_steps=steps, generator_norm="group")
    for phase in model.phases(0):
        model.requires_grad_(False)
        model.network(phase.name).requires_grad_(True)
        model.zero_grad()
        model(phase.name, images(8))["loss"].backward()
        other = {"generator": model.discriminator, "discriminator": model.generator}[phase.name]
        assert all(p.grad is None for p in other.parameters())
        assert all(p.grad is not None for p in model.network(phase.name).parameters())


def test_sharing_a_pass_changes_no_gradient(defaults: dict[str, Any]) -> None:
    """The generator's gradient on images kept from the discriminator's phase is that on the same images made anew."""
    gradients = []
    for keep in (True, False):
        model = build(defaults, generator_norm="group")
        model.phases(1)
        torch.manual_seed(3)
        model("discriminator", images(8))["loss"].backward()
        if not keep:
            model.phases(1)
            torch.manual_seed(3)
        model.zero_grad()
        model("generator", images(8))["loss"].backward()
        gradients.append([p.grad.clone() for p in model.generator.parameters() if p.grad is not None])
    for kept, anew in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, anew)


@pytest.mark.parametrize(
    ("changes", "n", "passes"),
    [
        ({}, 8, [16]),
        ({"discriminator_norm": "group"}, 6, [12]),
        ({"minibatch_stddev": True}, 8, [16]),
        ({"minibatch_stddev": True}, 6, [6, 6]),
        ({"discriminator_norm": "batch"}, 8, [8, 8]),
        ({"consistency": 1.0}, 8, [24]),
    ],
)
def test_all_are_scored_in_one_pass_unless_reals_and_fakes_would_see_each_other(
    defaults: dict[str, Any], changes: dict[str, Any], n: int, passes: list[int]
) -> None:
    model, seen = build(defaults, **changes), []
    model.discriminator.register_forward_hook(lambda _, given, scores: seen.append(len(scores)))
    before = copy.deepcopy(model.discriminator)
    scored = model("discriminator", images(n))["real_score"]
    assert seen[: len(passes)] == passes
    torch.testing.assert_close(scored, before(images(n).content).detach().mean())


def test_averaging_weights_keeps_spectral_norms_at_one(defaults: dict[str, Any]) -> None:
    model = build(defaults, network="biggan", generator_spectral_norm=True, generator_norm="none", init="orthogonal")
    average = EMA(model.generator, 0.9)
    optimizers = adam(model, 1e-2)
    for number in range(12):
        step(model, images(8), optimizers, number)
        average.update(100)
    model.eval()
    with average.in_place():
        weight = model.generator.blocks[0].conv1.weight
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


def test_spectral_norm_leaves_checkpoint_and_generator_alone(defaults: dict[str, Any]) -> None:
    model = build(defaults, spectral_norm=True)
    assert not any("parametrizations" in name for name in model.generator.state_dict())
    assert any("parametrizations" in name for name in model.discriminator.state_dict())
    optimizers = adam(model)
    for number in range(2):
        step(model, images(8), optimizers, number)
    twin = build(defaults, spectral_norm=True)
    twin.load_state_dict(model.state_dict())
    real = images(4).content
    torch.testing.assert_close(twin.eval().discriminator(real), model.eval().discriminator(real))


def test_samples_depend_on_their_own_noise_alone(defaults: dict[str, Any]) -> None:
    model = build(defaults).eval()
    with torch.no_grad():
        together = sampled(model, Noise(5, range(6)))
        apart = torch.cat([sampled(model, Noise(5, [index])) for index in range(6)])
    torch.testing.assert_close(together, apart)
    assert not torch.equal(together[0], together[1])


def test_truncated_latents_are_those_drawn_again_until_they_are_inside(defaults: dict[str, Any]) -> None:
    model = build(defaults, latent=64)
    noise = lambda: Noise(0, range(500))  # noqa: E731
    whole, truncated = latents_of(model, noise()), latents_of(model, noise(), truncation=0.8)
    assert truncated.abs().max() <= 0.8
    redrawn = whole[whole.abs() <= 0.8]
    levels = torch.linspace(0.05, 0.95, 19)
    torch.testing.assert_close(truncated.flatten().quantile(levels), redrawn.quantile(levels), atol=0.02, rtol=0)
    assert torch.equal(truncated.argsort(), whole.argsort())  # the same sample, nearer to the typical
    torch.testing.assert_close(latents_of(model, noise(), truncation=30.0), whole, atol=1e-5, rtol=1e-5)


def test_truncation_narrows_what_is_sampled(defaults: dict[str, Any]) -> None:
    model = build(defaults, network="mlp", generator_norm="none").eval()
    with torch.no_grad():
        spreads = [sampled(model, Noise(0, range(64)), truncation=t).std(dim=0).mean() for t in (None, 1.0, 0.1)]
    assert spreads[0] > spreads[1] > spreads[2]


@pytest.mark.parametrize("wrong", [0.0, -1.0, "much"])
def test_truncation_must_be_a_positive_number(wrong: object) -> None:
    with pytest.raises(ConfigError, match="truncation"):
        check("", Controls, {"truncation": wrong})


def test_a_gan_learns_the_mean_of_its_data(defaults: dict[str, Any]) -> None:
    """A few hundred steps bring samples near data that is one grey, each loss alone."""
    data = Batch(torch.full((32, 1, 8, 8), 0.5) + 0.05 * torch.randn(32, 1, 8, 8))
    for loss in LOSSES:
        model = build(defaults, (1, 8, 8), network="mlp", loss=loss)
        optimizers = adam(model, 2e-3)
        for number in range(150):
            step(model, data, optimizers, number)
        with torch.no_grad():
            mean = sampled(model.eval(), Noise(0, range(64))).mean().item()
        assert mean == pytest.approx(0.5, abs=0.25), loss
