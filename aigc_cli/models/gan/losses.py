"""What each side of a GAN minimises, from the discriminator's scores (n,) before any sigmoid.

With D = sigmoid(score), log D = -softplus(-score) and log(1 - D) = -softplus(score).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from aigc_cli.nn.collective import averaged, draw

#: The discriminator's scores (n,) as a function of images alone.
Scores = Callable[[Tensor], Tensor]


class AdversarialLoss:
    """One game between discriminator and generator."""

    #: Whether the generator's loss needs the scores of real items as well.
    paired: ClassVar[bool] = False

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the discriminator minimises, a scalar."""

    @abstractmethod
    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """What the generator minimises, a scalar; `real` is given where the loss is paired."""

    def margins(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """How far each score, of real and of fake (n,), is on the right side of the boundary between the two."""
        return real, -fake


class Minimax(AdversarialLoss):
    """The saturating original: min_G max_D E log D(x) + E log(1 - D(G(z))) (Goodfellow et al. 2014, equation 1)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Cross-entropy of real against fake."""
        return softplus(-real).mean() + softplus(fake).mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """E log(1 - D(G(z))), whose gradient vanishes where the discriminator is sure."""
        return -softplus(fake).mean()


class NonSaturating(Minimax):
    """The generator maximises E log D(G(z)) instead (Goodfellow et al. 2014, end of section 3)."""

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-E log D(G(z))."""
        return softplus(-fake).mean()


class Hinge(AdversarialLoss):
    """Hinge loss (Lim and Ye 2017; Miyato et al. 2018, equations 16 and 17)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z)))."""
        return relu(1 - real).mean() + relu(1 + fake).mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-E D(G(z))."""
        return -fake.mean()


class LeastSquares(AdversarialLoss):
    """Least squares with targets 0 for fake, 1 for real, 1 for the generator (Mao et al. 2017, equation 9)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """1/2 E (D(x) - 1)^2 + 1/2 E D(G(z))^2."""
        return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """1/2 E (D(G(z)) - 1)^2."""
        return 0.5 * (fake - 1).square().mean()

    def margins(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The boundary is half way between the targets."""
        return real - 0.5, 0.5 - fake


class Wasserstein(AdversarialLoss):
    """The Wasserstein distance's dual; needs a 1-Lipschitz critic (Arjovsky et al. 2017, equations 2 and 3)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """E D(G(z)) - E D(x)."""
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-E D(G(z))."""
        return -fake.mean()

    def margins(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """A critic's scores mean nothing but in comparison, so each real is held against a fake."""
        return real - fake, real - fake


class Relativistic(AdversarialLoss):
    """Each real against a fake (Jolicoeur-Martineau 2019, as R3GAN pairs them: Huang et al. 2024, equation 2)."""

    paired = True

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """E softplus(-(D(x) - D(G(z))))."""
        return softplus(fake - real).mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """E softplus(-(D(G(z)) - D(x)))."""
        assert real is not None
        return softplus(real - fake).mean()

    def margins(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """As in the loss, in pairs."""
        return real - fake, real - fake


LOSSES: dict[str, AdversarialLoss] = {
    "minimax": Minimax(),
    "non_saturating": NonSaturating(),
    "hinge": Hinge(),
    "lsgan": LeastSquares(),
    "wgan": Wasserstein(),
    "relativistic": Relativistic(),
}


def squared_gradient_norm(scores: Scores, x: Tensor) -> Tensor:
    """||grad_x D(x)||^2 per item, (n,), with a graph of its own; in float32 at least, whatever the autocast."""
    with torch.autocast(x.device.type, enabled=False), torch.enable_grad():
        x = _exact(x.detach()).requires_grad_(True)
        (gradient,) = torch.autograd.grad(scores(x).sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def _exact(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def r1_penalty(scores: Scores, real: Tensor) -> Tensor:
    """1/2 E ||grad D(x)||^2 on real data (Mescheder et al. 2018, equation 9, without its gamma); a scalar.

    On samples it is R2 (their equation 10).
    """
    return 0.5 * squared_gradient_norm(scores, real).mean()


def gradient_penalty(scores: Scores, real: Tensor, fake: Tensor) -> Tensor:
    """E (||grad D(x)|| - 1)^2 between real and fake (Gulrajani et al. 2017, equation 3, without its lambda)."""
    real, fake = _exact(real), _exact(fake)
    mix = draw(torch.rand, real.shape[0], *[1] * (real.ndim - 1), device=real.device).to(real.dtype)
    between = torch.lerp(fake, real, mix)
    return ((squared_gradient_norm(scores, between) + 1e-12).sqrt() - 1).square().mean()


def lecam_penalty(real: Tensor, fake: Tensor, anchors: Tensor) -> Tensor:
    """E (D(x) - a_F)^2 + E (D(G(z)) - a_R)^2 (Tseng et al., Regularizing GANs under Limited Data, 2021, equation 3).

    Args:
        real: Scores (n,).
        fake: Scores (n,).
        anchors: The moving averages a_R and a_F of the scores of real and of fake, (2,).
    """
    return (real - anchors[1]).square().mean() + (fake - anchors[0]).square().mean()


def move_anchors(anchors: Tensor, real: Tensor, fake: Tensor, step: int) -> None:
    """Takes the mean scores into LeCam's anchors: the mean so far, then a moving average of decay 0.99."""
    means = torch.stack([real.detach().mean(), fake.detach().mean()])
    anchors.lerp_(averaged(means), max(0.01, 1 / (step + 1)))
