"""What each side of a GAN minimises, from the discriminator's scores (n,) before any sigmoid.

With D = sigmoid(score), log D = -softplus(-score) and log(1 - D) = -softplus(score).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus


class AdversarialLoss(Protocol):
    """One game between discriminator and generator."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the discriminator minimises, a scalar."""

    def generator(self, fake: Tensor) -> Tensor:
        """What the generator minimises, a scalar."""


class Minimax:
    """The saturating original: min_G max_D E log D(x) + E log(1 - D(G(z))) (Goodfellow et al. 2014, equation 1)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Cross-entropy of real against fake."""
        return softplus(-real).mean() + softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        """E log(1 - D(G(z))), whose gradient vanishes where the discriminator is sure."""
        return -softplus(fake).mean()


class NonSaturating(Minimax):
    """The generator maximises E log D(G(z)) instead (Goodfellow et al. 2014, end of section 3)."""

    def generator(self, fake: Tensor) -> Tensor:
        """-E log D(G(z))."""
        return softplus(-fake).mean()


class Hinge:
    """Hinge loss (Lim and Ye 2017; Miyato et al. 2018, equations 16 and 17)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z)))."""
        return relu(1 - real).mean() + relu(1 + fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        """-E D(G(z))."""
        return -fake.mean()


class LeastSquares:
    """Least squares with targets 0 for fake, 1 for real, 1 for the generator (Mao et al. 2017, equation 9)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """1/2 E (D(x) - 1)^2 + 1/2 E D(G(z))^2."""
        return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()

    def generator(self, fake: Tensor) -> Tensor:
        """1/2 E (D(G(z)) - 1)^2."""
        return 0.5 * (fake - 1).square().mean()


class Wasserstein:
    """The Wasserstein distance's dual; needs a 1-Lipschitz critic (Arjovsky et al. 2017, equations 2 and 3)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """E D(G(z)) - E D(x)."""
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        """-E D(G(z))."""
        return -fake.mean()


LOSSES: dict[str, AdversarialLoss] = {
    "minimax": Minimax(),
    "non_saturating": NonSaturating(),
    "hinge": Hinge(),
    "lsgan": LeastSquares(),
    "wgan": Wasserstein(),
}


def squared_gradient_norm(discriminator: nn.Module, x: Tensor) -> Tensor:
    """||grad_x D(x)||^2 per item, (n,), with a graph of its own; computed in float32 whatever the autocast."""
    with torch.autocast(x.device.type, enabled=False), torch.enable_grad():
        # `forward` passes by what torch.compile made of the module, which has no double backward.
        x = x.detach().float().requires_grad_(True)
        (gradient,) = torch.autograd.grad(discriminator.forward(x).sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def r1_penalty(discriminator: nn.Module, real: Tensor) -> Tensor:
    """1/2 E ||grad D(x)||^2 on real data (Mescheder et al. 2018, equation 9, without its gamma); a scalar."""
    return 0.5 * squared_gradient_norm(discriminator, real).mean()


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """E (||grad D(x)|| - 1)^2 between real and fake (Gulrajani et al. 2017, equation 3, without its lambda)."""
    mix = torch.rand(real.shape[0], *[1] * (real.ndim - 1), device=real.device)
    between = torch.lerp(fake.float(), real.float(), mix)
    return ((squared_gradient_norm(discriminator, between) + 1e-12).sqrt() - 1).square().mean()
