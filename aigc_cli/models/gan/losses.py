"""What each side of a GAN minimises, from the discriminator's scores (n,) before any sigmoid.

With D = sigmoid(score), log D = -softplus(-score) and log(1 - D) = -softplus(score).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from aigc_cli.nn.collective import averaged, draw

#: The discriminator's scores (n,) as a function of images alone.
Scores = Callable[[Tensor], Tensor]


def _in_pairs(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    return real - fake, real - fake


@dataclass(frozen=True, kw_only=True)
class AdversarialLoss:
    """One game: what each side minimises, scalars. Only where it is `paired` does the generator's look at reals."""

    discriminator: Callable[[Tensor, Tensor], Tensor]  # of the scores of reals, and of fakes
    generator: Callable[[Tensor, Tensor], Tensor]  # of the scores of fakes, and of reals
    paired: bool = False
    #: How far each score, of real and of fake (n,), is on the right side of the boundary between the two.
    margins: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda real, fake: (real, -fake)

    def judged(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The ``"loss"`` of the discriminator, from scores (n,), and its curves: the mean scores, and ``"accuracy"``,
        the share of scores on the right side."""
        margins = self.margins(real.detach(), fake.detach())
        return {
            "loss": self.discriminator(real, fake),
            "real_score": real.detach().mean(),
            "fake_score": fake.detach().mean(),
            "accuracy": (torch.cat(margins) > 0).float().mean(),
        }


def _cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    """-E log D(x) - E log(1 - D(G(z)))."""
    return softplus(-real).mean() + softplus(fake).mean()


LOSSES = {
    # min_G max_D E log D(x) + E log(1 - D(G(z))) (Goodfellow et al. 2014, equation 1), the saturating original: the
    # generator's gradient vanishes where the discriminator is sure.
    "minimax": AdversarialLoss(discriminator=_cross_entropy, generator=lambda fake, _: -softplus(fake).mean()),
    # The generator maximises E log D(G(z)) instead (Goodfellow et al. 2014, end of section 3).
    "non_saturating": AdversarialLoss(discriminator=_cross_entropy, generator=lambda fake, _: softplus(-fake).mean()),
    # Scores beyond 1 on the right side gain nothing (Lim and Ye 2017; Miyato et al. 2018, equations 16 and 17).
    "hinge": AdversarialLoss(
        discriminator=lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(),
        generator=lambda fake, _: -fake.mean(),
    ),
    # Targets 0 for fake, 1 for real, 1 for the generator (Mao et al. 2017, equation 9); the boundary is half way.
    "lsgan": AdversarialLoss(
        discriminator=lambda real, fake: 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean(),
        generator=lambda fake, _: 0.5 * (fake - 1).square().mean(),
        margins=lambda real, fake: (real - 0.5, 0.5 - fake),
    ),
    # The Wasserstein distance's dual, for a 1-Lipschitz critic (Arjovsky et al. 2017, equations 2 and 3). Its scores
    # mean nothing but in comparison, so that each real is held against a fake.
    "wgan": AdversarialLoss(
        discriminator=lambda real, fake: fake.mean() - real.mean(),
        generator=lambda fake, _: -fake.mean(),
        margins=_in_pairs,
    ),
    # Each real against a fake (Jolicoeur-Martineau 2019, as R3GAN pairs them: Huang et al. 2024, equation 2).
    "relativistic": AdversarialLoss(
        discriminator=lambda real, fake: softplus(fake - real).mean(),
        generator=lambda fake, real: softplus(real - fake).mean(),
        paired=True,
        margins=_in_pairs,
    ),
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
    """1/2 E ||grad D(x)||^2 on real data (Mescheder et al. 2018, equation 9, without its gamma); a scalar. On samples
    it is R2 (their equation 10)."""
    return 0.5 * squared_gradient_norm(scores, real).mean()


def gradient_penalty(scores: Scores, real: Tensor, fake: Tensor) -> Tensor:
    """E (||grad D(x)|| - 1)^2 between real and fake (Gulrajani et al. 2017, equation 3, without its lambda)."""
    real, fake = _exact(real), _exact(fake)
    mix = draw(torch.rand, real.shape[0], *[1] * (real.ndim - 1), device=real.device).to(real.dtype)
    squared = squared_gradient_norm(scores, torch.lerp(fake, real, mix))
    norm = (squared + 1e-12).sqrt()  # the gradient of a root is infinite at 0
    return (norm - 1).square().mean()


def lecam_penalty(real: Tensor, fake: Tensor, anchors: Tensor) -> Tensor:
    """E (D(x) - a_F)^2 + E (D(G(z)) - a_R)^2 (Tseng et al., Regularizing GANs under Limited Data, 2021, equation 3). Of
    scores (n,) each; the anchors a_R and a_F, (2,), are the moving averages of those of real and of fake."""
    return (real - anchors[1]).square().mean() + (fake - anchors[0]).square().mean()


def move_anchors(anchors: Tensor, real: Tensor, fake: Tensor, step: int) -> None:
    """Takes the mean scores into LeCam's anchors: the mean so far, then a moving average of decay 0.99."""
    means = torch.stack([real.detach().mean(), fake.detach().mean()])
    anchors.lerp_(averaged(means), max(0.01, 1 / (step + 1)))
