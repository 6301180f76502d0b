"""The games that a GAN can play, and its penalties, held against their equations and against finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from aigc_cli.models.gan.losses import (
    LOSSES,
    gradient_penalty,
    lecam_penalty,
    move_anchors,
    r1_penalty,
    squared_gradient_norm,
)
from aigc_cli.nn.blocks import SelfAttention, add_spectral_norm


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
        "relativistic": (softplus(-(real - fake)).mean(), softplus(-(fake - real)).mean()),
    }
    assert set(expected) == set(LOSSES)
    for name, (discriminator, generator) in expected.items():
        torch.testing.assert_close(LOSSES[name].discriminator(real, fake), discriminator)
        torch.testing.assert_close(LOSSES[name].generator(fake, real), generator)


def test_minimax_saturates_where_non_saturating_does_not() -> None:
    gradients = {}
    for name in ("minimax", "non_saturating"):
        score = torch.tensor([-10.0], requires_grad=True)  # the discriminator is sure
        LOSSES[name].generator(score, score).backward()
        gradients[name] = score.grad.item()
    assert abs(gradients["minimax"]) < 1e-4
    assert gradients["non_saturating"] == pytest.approx(-1, abs=1e-3)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_margins_are_positive_on_the_right_side(name: str) -> None:
    """Where reals score at their target and fakes at theirs, both are on the right side; exchanged, on the wrong."""
    reals, fakes = torch.tensor([1.0, 0.9]), torch.tensor([-0.1, -1.0])
    for margin in LOSSES[name].margins(reals, fakes):
        assert (margin > 0).all()
    for margin in LOSSES[name].margins(fakes, reals):
        assert (margin < 0).all()


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


def critic(kind: str) -> nn.Module:
    """A small smooth critic of (n, 2, 4, 4), in float64."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(2, 8, 3, padding=1), nn.Softplus()]
    if kind == "attention":
        layers.append(SelfAttention(8))
    layers += [nn.Conv2d(8, 4, 2, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(16, 1), nn.Flatten(0)]
    network = nn.Sequential(*layers)
    if kind == "attention":
        network[2].gain.data.fill_(0.7)
    network.double()
    if kind == "spectral":
        add_spectral_norm(network)
        for _ in range(300):  # to where the power iteration stands still, so that the norm's gradient is exact
            network(images(1))
        network.eval()
    return network


def images(n: int) -> Tensor:
    return torch.randn(n, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_squared_gradient_norm_is_that_of_finite_differences() -> None:
    network, x, step = critic("plain"), images(2), 1e-5
    with torch.no_grad():
        moves = torch.eye(32, dtype=torch.float64).view(32, 1, 2, 4, 4) * step
        slopes = torch.stack([(network(x + move) - network(x - move)) / (2 * step) for move in moves])
    torch.testing.assert_close(squared_gradient_norm(network, x), slopes.square().sum(0), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["plain", "attention", "spectral"])
@pytest.mark.parametrize("penalty", ["r1", "r2", "gradient"])
def test_gradients_of_penalties_are_those_of_finite_differences(kind: str, penalty: str) -> None:
    """In every parameter's direction, chosen at random, for the gradient that training steps along."""
    network, real, fake = critic(kind), images(3), images(6)[3:] * 0.5

    def value() -> Tensor:
        torch.manual_seed(7)  # the gradient penalty draws where it looks
        kinds: dict[str, Callable[[], Tensor]] = {
            "r1": lambda: r1_penalty(network, real),
            "r2": lambda: r1_penalty(network, fake),
            "gradient": lambda: gradient_penalty(network, real, fake),
        }
        return kinds[penalty]()

    parameters = list(network.parameters())
    gradients = torch.autograd.grad(value(), parameters, allow_unused=True)
    step, checked = 1e-5, 0
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            parameter.data.add_(direction, alpha=sign * step)
            values.append(value().item())
            parameter.data.add_(direction, alpha=-sign * step)
        slope = (values[0] - values[1]) / (2 * step)
        along = 0.0 if gradient is None else (gradient * direction).sum().item()
        assert along == pytest.approx(slope, rel=1e-4, abs=1e-7)
        checked += abs(slope) > 1e-6
    assert checked >= 3  # biases at the end do not move a gradient


def test_lecam_is_its_equation_and_its_anchors_forget() -> None:
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -2.0])
    anchors = torch.zeros(2)
    move_anchors(anchors, real, fake, 0)
    assert anchors.tolist() == [2.0, -1.5]
    expected = ((real + 1.5) ** 2).mean() + ((fake - 2.0) ** 2).mean()
    torch.testing.assert_close(lecam_penalty(real, fake, anchors), expected)
    move_anchors(anchors, real + 1, fake, 1)
    torch.testing.assert_close(anchors, torch.tensor([2.5, -1.5]))  # the mean of two
    move_anchors(anchors, real + 98, fake, 5000)
    torch.testing.assert_close(anchors, torch.tensor([2.5 + 0.975, -1.5]))  # a hundredth of the way
