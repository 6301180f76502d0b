"""The GAN: what its networks accept, what each loss is, and what its phases touch."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aigc_cli.config import check, compose
from aigc_cli.data.base import Batch, DataSpec
from aigc_cli.errors import ConfigError
from aigc_cli.models.gan import GAN, GANConfig
from aigc_cli.models.gan_losses import LOSSES, gradient_penalty, r1_penalty
from aigc_cli.randomness import Noise

SMALL = {"latent": 8, "hidden": 16, "width": 8, "max_width": 16}


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    """The keys of model=gan without a recipe."""
    return compose("train", ["model=gan", "data=mnist"])["model"]


def build(defaults: dict[str, Any], shape: tuple[int, int, int] = (1, 16, 16), **changes: Any) -> GAN:
    torch.manual_seed(0)
    config = check("model", GANConfig, {**defaults, **SMALL, **changes})
    return GAN(config, DataSpec("image", shape))


def images(n: int, shape: tuple[int, ...] = (1, 16, 16)) -> Batch:
    return Batch(torch.rand(n, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1)


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


@pytest.mark.parametrize("size", [8, 16, 32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_dcgan_makes_every_size_and_any_channels(defaults: dict[str, Any], size: int, channels: int) -> None:
    model = build(defaults, (channels, size, size), width=2, max_width=4)
    fake = model.sample(Noise(0, range(2)))
    assert fake.shape == (2, channels, size, size)
    assert fake.abs().max() <= 1
    assert model.discriminator(fake).shape == (2,)


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 16, 32), (1, 4, 4), (1, 512, 512)])
def test_dcgan_names_the_sizes_it_makes(defaults: dict[str, Any], shape: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match=r"8, 16, 32, 64, 128, 256.*not") as error:
        build(defaults, shape)
    assert "data.size=" in error.value.mend


def test_mlp_makes_any_shape(defaults: dict[str, Any]) -> None:
    model = build(defaults, (3, 5, 7), network="mlp")
    assert model.sample(Noise(0, range(2))).shape == (2, 3, 5, 7)


def test_only_images(defaults: dict[str, Any]) -> None:
    config = check("model", GANConfig, defaults)
    with pytest.raises(ConfigError, match="GAN cannot model text data; it serves image"):
        GAN(config, DataSpec("text", (64,)))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"loss": "wgan", "discriminator_norm": "batch"}, "batch normalisation mixes"),
        ({"network": "mlp", "hidden": 0}, "hidden must be at least 1"),
        ({"dropout": 1.5}, "dropout"),
        ({"loss": "wasserstein"}, "loss"),
        ({"discriminator_steps": 0}, "discriminator_steps"),
        ({"augment": ["mirror"]}, "augment"),
        ({"widht": 8}, "widht"),
    ],
)
def test_wrong_keys_and_contradictions(defaults: dict[str, Any], changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        check("model", GANConfig, {**defaults, **changes})


@pytest.mark.parametrize("network", ["mlp", "dcgan"])
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_trains_both_networks(defaults: dict[str, Any], network: str, loss: str) -> None:
    model = build(defaults, network=network, loss=loss)
    before = copy.deepcopy(model.state_dict())
    optimizers = adam(model)
    for number in range(3):
        figures = step(model, images(8), optimizers, number)
        assert all(math.isfinite(value) for value in figures.values())
        assert all(value.ndim == 0 for value in figures.values())
    assert {"discriminator/loss", "discriminator/real_score", "discriminator/fake_score", "generator/loss"} <= set(
        figures
    )
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert any(name.startswith("generator") for name in changed)
    assert any(name.startswith("discriminator") for name in changed)


def test_the_penalty_goes_with_the_loss(defaults: dict[str, Any]) -> None:
    figures = {loss: step(m := build(defaults, loss=loss), images(8), adam(m)) for loss in ("wgan", "hinge")}
    assert "discriminator/gradient_penalty" in figures["wgan"]
    assert "discriminator/r1" not in figures["wgan"]
    assert "discriminator/r1" in figures["hinge"]
    model = build(defaults, penalty="none")
    assert set(step(model, images(8), adam(model))) & {"discriminator/r1", "discriminator/gradient_penalty"} == set()


def test_r1_is_lazy(defaults: dict[str, Any]) -> None:
    model = build(defaults, r1_every=4)
    optimizers = adam(model)
    turns = [number for number in range(9) if "discriminator/r1" in step(model, images(8), optimizers, number)]
    assert turns == [0, 4, 8]


def test_phases_alternate_and_the_generator_sees_no_new_data(defaults: dict[str, Any]) -> None:
    phases = build(defaults, discriminator_steps=3).phases(0)
    assert [phase.name for phase in phases] == ["discriminator"] * 3 + ["generator"]
    assert [phase.new_batch for phase in phases] == [True, True, True, False]


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


@pytest.mark.parametrize("n", [8, 6])
@pytest.mark.parametrize("changes", [{}, {"minibatch_stddev": True}, {"discriminator_norm": "group"}])
def test_one_pass_scores_as_two(defaults: dict[str, Any], n: int, changes: dict[str, Any]) -> None:
    model = build(defaults, **changes)
    real, fake = images(n).content, torch.randn(n, 1, 16, 16)
    joint = model._scores(real, fake)
    torch.testing.assert_close(joint, (model.discriminator(real), model.discriminator(fake)))


def test_batch_norm_sees_reals_and_fakes_apart(defaults: dict[str, Any]) -> None:
    model = build(defaults, discriminator_norm="batch")
    real, fake = images(8).content, torch.randn(8, 1, 16, 16)
    apart = (copy.deepcopy(model.discriminator)(real), copy.deepcopy(model.discriminator)(fake))
    torch.testing.assert_close(model._scores(real, fake), apart)


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
        together = model.sample(Noise(5, range(6)))
        apart = torch.cat([model.sample(Noise(5, [index])) for index in range(6)])
    torch.testing.assert_close(together, apart)
    assert not torch.equal(together[0], together[1])


def test_truncation_narrows_the_latent(defaults: dict[str, Any]) -> None:
    model = build(defaults, network="mlp", generator_norm="none").eval()
    with torch.no_grad():
        spreads = [model.sample(Noise(0, range(64)), truncation=t).std(dim=0).mean().item() for t in (1.0, 0.5, 0.1)]
    assert spreads[0] > spreads[1] > spreads[2]
    for wrong in (0.0, 1.5, "much"):
        with pytest.raises(ValueError, match="truncation"):
            model.sample(Noise(0, range(2)), truncation=wrong)


def test_losses_are_their_equations() -> None:
    real, fake = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([-0.3, 1.2, 0.0])
    d_real, d_fake = real.sigmoid(), fake.sigmoid()
    cross_entropy = -(d_real.log().mean() + (1 - d_fake).log().mean())
    expected = {
        "minimax": (cross_entropy, (1 - d_fake).log().mean()),
        "non_saturating": (cross_entropy, -d_fake.log().mean()),
        "hinge": ((1 - real).clamp_min(0).mean() + (1 + fake).clamp_min(0).mean(), -fake.mean()),
        "lsgan": (((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2, ((fake - 1) ** 2).mean() / 2),
        "wgan": (fake.mean() - real.mean(), -fake.mean()),
    }
    assert set(expected) == set(LOSSES)
    for name, (discriminator, generator) in expected.items():
        torch.testing.assert_close(LOSSES[name].discriminator(real, fake), discriminator)
        torch.testing.assert_close(LOSSES[name].generator(fake), generator)


def test_minimax_saturates_where_non_saturating_does_not() -> None:
    gradients = {}
    for name in ("minimax", "non_saturating"):
        score = torch.tensor([-10.0], requires_grad=True)  # the discriminator is sure
        LOSSES[name].generator(score).backward()
        gradients[name] = score.grad.item()
    assert abs(gradients["minimax"]) < 1e-4
    assert gradients["non_saturating"] == pytest.approx(-1, abs=1e-3)


def test_penalties_of_a_linear_critic() -> None:
    """The gradient of w.x is w, whatever x."""
    weight = torch.tensor([[3.0, 4.0]])
    critic = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Flatten(0))
    critic[0].weight.data = weight.clone()
    real, fake = torch.randn(5, 2), torch.randn(5, 2)
    assert r1_penalty(critic, real).item() == pytest.approx(25 / 2)
    penalty = gradient_penalty(critic, real, fake)
    assert penalty.item() == pytest.approx((5 - 1) ** 2)
    penalty.backward()
    torch.testing.assert_close(critic[0].weight.grad, 2 * (5 - 1) * weight / 5)


def test_a_gan_learns_the_mean_of_its_data(defaults: dict[str, Any]) -> None:
    """A few hundred steps bring samples near data that is one grey, each loss alone."""
    data = Batch(torch.full((32, 1, 8, 8), 0.5) + 0.05 * torch.randn(32, 1, 8, 8))
    for loss in LOSSES:
        model = build(defaults, (1, 8, 8), network="mlp", loss=loss)
        optimizers = adam(model, 2e-3)
        for number in range(150):
            step(model, data, optimizers, number)
        with torch.no_grad():
            mean = model.eval().sample(Noise(0, range(64))).mean().item()
        assert mean == pytest.approx(0.5, abs=0.25), loss
