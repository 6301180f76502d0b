"""How a decoder's outputs give the probability of an image: distributions over the levels of its pixels.

Every image is in [-1, 1] with the 256 levels of 8 bits (two for ``bernoulli``), and every probability is of a level,
not a density, so that log-probabilities are at most 0 and make honest bits per dimension whatever the distribution.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, logsigmoid, softplus

HALF_LEVEL = 1 / 255  # half the distance between neighbouring levels of 256 in [-1, 1]
_LOG_SCALES = (-7.0, 7.0)  # from a seventh of a level to far beyond the image


class Likelihood(nn.Module):
    """p(x | outputs) for images of `channels` channels, independent from place to place.

    ``width`` is the number of outputs that a decoder must give for each place.
    """

    width: int

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    @abstractmethod
    def log_prob(self, outputs: Tensor, x: Tensor) -> Tensor:
        """Nats per image (n,), at most 0, of x (n, c, h, w) under outputs (n, width, h, w); computed in float32."""

    @abstractmethod
    def mean(self, outputs: Tensor) -> Tensor:
        """The expected image, (n, c, h, w) in [-1, 1]."""

    def target(self, x: Tensor) -> Tensor:
        """The image that the probability is of: x itself, but for what reduces its levels."""
        return x


class Bernoulli(Likelihood):
    """Black or white pixels, after binarisation at the middle grey; one logit each."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.width = channels

    def target(self, x: Tensor) -> Tensor:
        """x with every pixel -1 or 1."""
        return (x > 0).to(x.dtype) * 2 - 1

    def log_prob(self, outputs: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Likelihood.log_prob`."""
        return -_sum(binary_cross_entropy_with_logits(outputs.float(), (x > 0).float(), reduction="none"))

    def mean(self, outputs: Tensor) -> Tensor:
        """See :meth:`Likelihood.mean`."""
        return outputs.float().sigmoid() * 2 - 1


class Gaussian(Likelihood):
    """A Gaussian's share of each level, with a standard deviation that is fixed or learned.

    Args:
        channels: of the image.
        deviation: fixed, in units of [-1, 1]; None learns one, shared by all pixels and images (Rybkin et al., Simple
            and Effective VAE Training with Calibrated Decoders, 2021).
    """

    def __init__(self, channels: int, deviation: float | None = None) -> None:
        super().__init__(channels)
        self.width = channels
        start = torch.tensor(math.log(0.3 if deviation is None else deviation))
        if deviation is None:
            self.log_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start, persistent=False)

    def log_prob(self, outputs: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Likelihood.log_prob`."""
        x = x.float()
        inverse = torch.exp(-self.log_scale.clamp(*_LOG_SCALES))
        # By symmetry both ends may lie below the mean, where the tail's logarithm is exact.
        distance = (x - outputs.float()).abs()
        upper, lower = inverse * (HALF_LEVEL - distance), inverse * (-HALF_LEVEL - distance)
        inside = torch.special.log_ndtr(upper)
        beyond = torch.special.log_ndtr(lower)
        difference = inside + torch.log(-torch.expm1((beyond - inside).clamp(max=-1e-6)))
        # The outermost levels take all that is beyond them.
        outward = (x - outputs.float()) * x.sign()
        tail = torch.special.log_ndtr(inverse * (HALF_LEVEL - outward))
        return _sum(torch.where(x.abs() > 1 - HALF_LEVEL, tail, difference))

    def mean(self, outputs: Tensor) -> Tensor:
        """See :meth:`Likelihood.mean`."""
        return outputs.float().clamp(-1, 1)


class LogisticMixture(Likelihood):
    """A mixture of discretised logistics; each channel's means move linearly with the channels before it.

    Salimans et al., PixelCNN++, 2017, sections 2.1 and 2.2. With ``components=1`` the discretised logistic of
    Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow, 2016.
    """

    def __init__(self, channels: int, components: int) -> None:
        super().__init__(channels)
        self.components = components
        self.couplings = channels * (channels - 1) // 2
        self.width = components * (1 + 2 * channels + self.couplings)

    def _parts(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (n, k, h, w), means and log scales (n, k, c, h, w), couplings (n, k, c (c - 1) / 2, h, w)."""
        k, c = self.components, self.channels
        logits, rest = outputs.float().split([k, outputs.shape[1] - k], dim=1)
        rest = rest.unflatten(1, (k, 2 * c + self.couplings))
        means, log_scales, couplings = rest.split([c, c, self.couplings], dim=2)
        return log_softmax(logits, 1), means, log_scales.clamp(*_LOG_SCALES), couplings.tanh()

    def log_prob(self, outputs: Tensor, x: Tensor) -> Tensor:
        """See :meth:`Likelihood.log_prob`."""
        weights, means, log_scales, couplings = self._parts(outputs)
        x = x.float().unsqueeze(1)
        inverse = torch.exp(-log_scales)
        centred = x - self._moved(means, couplings, x)
        # s(b) - s(a) = (1 - exp(a - b)) s(b) s(-a) for the logistic sigmoid s: exact in every tail.
        below = logsigmoid(inverse * (centred + HALF_LEVEL))
        above = logsigmoid(inverse * (HALF_LEVEL - centred))
        between = torch.log(-torch.expm1(-2 * HALF_LEVEL * inverse))
        top, bottom = x > 1 - HALF_LEVEL, x < HALF_LEVEL - 1  # which take all that is beyond them
        each = torch.where(top, 0, below) + torch.where(bottom, 0, above) + torch.where(top | bottom, 0, between)
        return _sum(torch.logsumexp(weights + each.sum(2), dim=1))

    def mean(self, outputs: Tensor) -> Tensor:
        """See :meth:`Likelihood.mean`; each channel given the means of those before it."""
        weights, means, _, couplings = self._parts(outputs)
        shares = weights.exp()
        image: list[Tensor] = []
        for channel in range(self.channels):
            moved = means[:, :, channel]
            for earlier in range(channel):
                moved = moved + couplings[:, :, _place(channel, earlier)] * image[earlier].unsqueeze(1)
            image.append((shares * moved).sum(1).clamp(-1, 1))
        return torch.stack(image, 1)

    def _moved(self, means: Tensor, couplings: Tensor, x: Tensor) -> Tensor:
        """Each channel's means given the true channels before it."""
        if not self.couplings:
            return means
        moved = [means[:, :, 0]]
        for channel in range(1, self.channels):
            mean = means[:, :, channel]
            for earlier in range(channel):
                mean = mean + couplings[:, :, _place(channel, earlier)] * x[:, :, earlier]
            moved.append(mean)
        return torch.stack(moved, 2)


def _place(channel: int, earlier: int) -> int:
    return channel * (channel - 1) // 2 + earlier


def _sum(terms: Tensor) -> Tensor:
    return terms.flatten(1).sum(1)


#: name -> a likelihood for so many channels.
LIKELIHOODS: dict[str, Callable[[int], Likelihood]] = {
    "bernoulli": Bernoulli,
    "gaussian": lambda channels: Gaussian(channels),
    "gaussian_fixed": lambda channels: Gaussian(channels, deviation=0.5),
    "logistic": lambda channels: LogisticMixture(channels, 1),
    "logistic_mixture": lambda channels: LogisticMixture(channels, 5),
}


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) of each dimension, nats, elementwise (Kingma and Welling 2014, equation 10)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def gaussian_kl_between(mean: Tensor, deviation: Tensor, other_mean: Tensor, other_deviation: Tensor) -> Tensor:
    """KL(N(mean, deviation^2) || N(other_mean, other_deviation^2)), nats, elementwise."""
    ratio = deviation / other_deviation
    return 0.5 * (ratio.square() + ((mean - other_mean) / other_deviation).square() - 1) - ratio.log()


def bits_per_dim(nats: Tensor, dimensions: int) -> Tensor:
    """Nats per item as bits per dimension."""
    return nats / (dimensions * math.log(2))


def smooth_deviation(raw: Tensor, beta: float = math.log(2)) -> Tensor:
    """A standard deviation from any number: softplus with gradients smoothed by `beta` (VDVAE's successors; 1 at 0)."""
    return softplus(raw, beta=beta)
