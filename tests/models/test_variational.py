"""The posterior that variational autoencoders share, and the bounds that it makes."""

from __future__ import annotations

import math

import pytest
import torch

from aigc_cli.models.variational import Posterior, importance_bound


def test_the_kl_is_what_draws_say() -> None:
    posterior = Posterior(torch.tensor([[0.5, -1.0], [2.0, 0.0]]), torch.tensor([[0.2, -2.0], [-1.0, 0.0]]))
    torch.manual_seed(0)
    drawn = posterior.at(torch.randn(200_000, 2, 2))
    q = torch.distributions.Normal(posterior.mean, (0.5 * posterior.log_variance).exp())
    p = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(posterior.kl(), (q.log_prob(drawn) - p.log_prob(drawn)).mean(0), atol=0.02, rtol=0)


def test_the_importance_weighted_bound_is_exact_for_the_true_posterior() -> None:
    """p(z|x) as q(z|x) makes every weight p(x): here x = z + noise, both standard normal."""
    x = torch.tensor([[0.3], [-2.0]])
    posterior = Posterior(x / 2, torch.full((2, 1), math.log(0.5)))
    normal = torch.randn(7, 2, 1)
    z = posterior.at(normal)
    log_prob = -0.5 * (x - z).square().squeeze(-1) - 0.5 * math.log(2 * math.pi)
    evidence = -0.25 * x.flatten().square() - 0.5 * math.log(4 * math.pi)
    torch.testing.assert_close(posterior.log_ratio(normal) + log_prob, evidence.expand(7, 2))
    torch.testing.assert_close(importance_bound(posterior.log_ratio(normal) + log_prob), -evidence)


def test_one_draw_of_the_importance_weighted_bound_is_the_elbo() -> None:
    posterior = Posterior(torch.tensor([[0.5, -1.0]]), torch.tensor([[0.2, -2.0]]))
    torch.manual_seed(0)
    ratio = posterior.log_ratio(torch.randn(200_000, 1, 2)).mean()
    assert -ratio.item() == pytest.approx(posterior.kl().sum().item(), abs=0.02)
