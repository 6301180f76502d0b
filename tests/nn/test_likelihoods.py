"""Likelihoods are probabilities of levels, with usable gradients; divergences are their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from aigc_cli.nn.likelihoods import HALF_LEVEL, LIKELIHOODS, Gaussian, LogisticMixture, build_likelihood

LEVELS = torch.arange(256) / 127.5 - 1
GRADED = sorted(set(LIKELIHOODS) - {"bernoulli"})


def outputs(width: int, scale: float, shape: tuple[int, int] = (2, 2), n: int = 1) -> Tensor:
    return scale * torch.randn(n, width, *shape, generator=torch.Generator().manual_seed(0))


def every_level(x: Tensor, channel: int) -> Tensor:
    """x (1, c, 1, 1) repeated with each level in one channel: (256, c, 1, 1)."""
    content = x.repeat(256, 1, 1, 1)
    content[:, channel, 0, 0] = LEVELS
    return content


@pytest.mark.parametrize("name", GRADED)
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_probabilities_of_one_channel_sum_to_1(name: str, scale: float) -> None:
    likelihood = build_likelihood(name, 1)
    raw = outputs(likelihood.width, scale, (1, 1))
    total = likelihood(raw.expand(256, -1, -1, -1), every_level(torch.zeros(1, 1, 1, 1), 0)).exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", GRADED)
@pytest.mark.parametrize("offset", [0.0, 0.6, 1.4])  # half levels between a value and the nearest level below it
def test_other_data_is_known_to_within_half_a_level(name: str, offset: float) -> None:
    """So the probabilities of values a level apart, of which an item (c, t) has one at each moment, are at most 1."""
    likelihood = build_likelihood(name, 1)
    raw = outputs(likelihood.width, 1.0, (1, 1)).squeeze(-1).expand(256, -1, -1)
    values = (LEVELS + offset * HALF_LEVEL)[:, None, None]
    shares = likelihood(raw, values).exp()
    assert 0 < shares[values.flatten() <= 1].sum().item() <= 1 + 1e-4
    assert torch.isfinite(likelihood(raw, 1.5 + values)).all()
    assert likelihood.mean(raw).shape == values.shape


@pytest.mark.parametrize("name", GRADED)
def test_probabilities_of_the_later_channels_sum_to_1_given_the_first(name: str) -> None:
    """Summed over all greens and blues, what is left is the probability of the red."""
    likelihood = build_likelihood(name, 3)
    raw = outputs(likelihood.width, 1.0, (1, 1)).expand(256, -1, -1, -1)
    first = torch.tensor([0.2, -1.0, 0.0]).view(1, 3, 1, 1)
    of_greens = torch.stack(
        [likelihood(raw, every_level(every_level(first, 1)[g : g + 1], 2)).exp().sum() for g in range(256)]
    )
    alone = build_likelihood(name, 1)
    if isinstance(likelihood, LogisticMixture):
        k = likelihood.components
        parts = raw[:1, :k], raw[:1, k : 2 * k], raw[:1, 4 * k : 5 * k]  # logits, means and log scales of red
        red = alone(torch.cat(parts, 1), first[:, :1])
    else:
        red = alone(raw[:1, ::3] if alone.width == 2 else raw[:1, :1], first[:, :1])
    assert of_greens.sum().item() == pytest.approx(red.exp().item(), rel=1e-3)


def test_a_channel_depends_on_those_before_it_alone() -> None:
    likelihood = LogisticMixture(3, 2)
    raw = outputs(likelihood.width, 1.0, (1, 1))
    x = torch.tensor([0.2, -0.5, 0.3]).view(1, 3, 1, 1)
    sums = [likelihood(raw.expand(256, -1, -1, -1), every_level(x, c)).exp().sum().item() for c in range(3)]
    assert sums[2] < 1  # the probability of red and green
    raw[:, 14:] = 0  # no couplings
    mean = likelihood.mean(raw).flatten()
    weights, means = raw.flatten()[:2].softmax(0), raw.flatten()[2:8].view(3, 2)
    torch.testing.assert_close(mean, (means @ weights).clamp(-1, 1))


def test_bernoulli_is_of_two_levels() -> None:
    likelihood = build_likelihood("bernoulli", 2)
    raw = outputs(2, 2.0)
    black, white = torch.full_like(raw, -1), torch.ones_like(raw)
    expected = torch.sigmoid(raw).log().sum().reshape(1), torch.sigmoid(-raw).log().sum().reshape(1)
    torch.testing.assert_close((likelihood(raw, white), likelihood(raw, black)), expected)
    grey = torch.tensor([-0.9, -0.01, 0.01, 0.9])
    assert likelihood.target(grey).tolist() == [-1, -1, 1, 1]
    torch.testing.assert_close(likelihood.mean(raw), torch.sigmoid(raw) * 2 - 1)


def test_gaussian_is_the_share_of_the_level() -> None:
    likelihood = Gaussian(1, deviation=0.2)
    x = LEVELS[[0, 3, 128, 255]].view(4, 1, 1, 1)
    mean = torch.tensor([-0.9, 0.3, 0.1, 0.5]).view(4, 1, 1, 1)
    normal = Normal(mean.double(), 0.2)
    below = normal.cdf(x.double() - HALF_LEVEL).where(x > -1, 0)
    above = normal.cdf(x.double() + HALF_LEVEL).where(x < 1, 1)
    torch.testing.assert_close(likelihood(mean, x), (above - below).log().flatten().float())


def test_logistic_is_the_share_of_the_level() -> None:
    likelihood = LogisticMixture(1, 1)
    x = LEVELS[[0, 3, 128, 255]].view(4, 1, 1, 1).double()
    mean, log_scale = torch.tensor([-0.9, 0.3, 0.1, 0.5]).view(4, 1, 1, 1), torch.full((4, 1, 1, 1), -2.0)
    raw = torch.cat([torch.zeros_like(mean), mean, log_scale], 1)
    below = torch.sigmoid((x - HALF_LEVEL - mean) / math.exp(-2)).where(x > -1, 0)
    above = torch.sigmoid((x + HALF_LEVEL - mean) / math.exp(-2)).where(x < 1, 1)
    torch.testing.assert_close(likelihood(raw, x), (above - below).log().flatten().float())


@pytest.mark.parametrize("name", sorted(LIKELIHOODS))
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [0.0, 1e2, 1e4])
def test_gradients_are_finite_at_extreme_outputs(name: str, channels: int, scale: float) -> None:
    likelihood = build_likelihood(name, channels)
    raw = outputs(likelihood.width, scale, (8, 8), 4).requires_grad_()
    x = LEVELS[torch.randint(0, 256, (4, channels, 8, 8), generator=torch.Generator().manual_seed(1))]
    x[0], x[1] = -1, 1
    log_prob = likelihood(raw, x)
    assert torch.isfinite(log_prob).all()
    assert (log_prob <= 0).all()
    log_prob.sum().backward()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()
    assert raw.grad.abs().max() > 0
    for parameter in likelihood.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("name", sorted(LIKELIHOODS))
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    likelihood = build_likelihood(name, 3)
    raw = outputs(likelihood.width, 0.5).requires_grad_()
    x = LEVELS[[0, 255, 7, 200]].view(1, 1, 2, 2).expand(1, 3, 2, 2)
    (gradient,) = torch.autograd.grad(likelihood(raw, x).sum(), raw)
    way = torch.randn(raw.shape, generator=torch.Generator().manual_seed(2))
    step = 1e-2
    with torch.no_grad():
        ends = [likelihood(raw + sign * step * way, x).sum().item() for sign in (1, -1)]
    assert (gradient * way).sum().item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-2)


@pytest.mark.parametrize("name", sorted(LIKELIHOODS))
def test_training_finds_the_image(name: str) -> None:
    """The outputs that maximise the probability of one image have it as their mean."""
    likelihood = build_likelihood(name, 3)
    x = likelihood.target(LEVELS[torch.arange(48).view(1, 3, 4, 4) * 5])
    raw = torch.nn.Parameter(outputs(likelihood.width, 0.1, (4, 4)))
    optimizer = torch.optim.Adam([raw, *likelihood.parameters()], 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-likelihood(raw, x).sum()).backward()
        optimizer.step()
    assert (likelihood.mean(raw) - x).abs().mean().item() < 0.05


def test_settings_reach_their_likelihood() -> None:
    assert build_likelihood("logistic_mixture", 3, components=7).width == 70
    assert build_likelihood("logistic", 3, components=7).width == 10
    fixed = build_likelihood("gaussian_fixed", 1, deviation=0.25)
    assert fixed.log_scale.exp().item() == pytest.approx(0.25)
    assert not list(fixed.parameters())
    assert not fixed.state_dict()  # a setting of the configuration, which the checkpoint need not repeat
