"""How a decoder's outputs give the probability of an image: distributions over the levels of its pixels.

Every image is in [-1, 1] with the 256 levels of 8 bits (two for ``bernoulli``), and every probability is of a level,
not a density, so that log-probabilities are at most 0 and make honest bits per dimension whatever the distribution.

Items of another kind, such as (c, t) for sound, are taken as known to the same precision: the probability is of the
value to within half a level either way. So no decoder gains without bound by being sure of a value, and figures of one
kind of data can be compared whatever the distribution; beyond [-1, 1] a value counts as one of its ends.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

HALF_LEVEL = 1 / 255  # half the distance between neighbouring levels of 256 in [-1, 1]
_LOG_SCALES = (-7.0, 7.0)  # from a seventh of a level to far beyond the image
_BEGIN = -2.0  # the log scales of an untrained decoder
_FAR = 1e6  # beyond any tail, and finite: the gradient of an infinity times 0 would be NaN


class Likelihood(nn.Module):
    """p(x | outputs) for items of `channels` channels, independent from place to place. The shapes are those of images;
    (n, c, t) or (n, c, t, h, w) are served alike.

    ``width`` is the number of outputs that a decoder must give for each place. It is a module so that it can be
    compiled: it is one long chain of small operations.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels, self.width = channels, width

    def forward(self, outputs: Tensor, x: Tensor) -> Tensor:
        """Nats per image (n,), at most 0, of x (n, c, h, w) under outputs (n, width, h, w); computed in float32."""
        return self._nats(outputs.float(), x).flatten(1).sum(1)

    def mean(self, outputs: Tensor) -> Tensor:
        """The expected image, (n, c, h, w) in [-1, 1]."""
        return self._mean(outputs.float())

    @abstractmethod
    def _nats(self, outputs: Tensor, x: Tensor) -> Tensor:
        """Of each place, or value, (n, ...)."""

    def _mean(self, outputs: Tensor) -> Tensor:
        return outputs[:, : self.channels].clamp(-1, 1)

    def target(self, x: Tensor) -> Tensor:
        """The image that the probability is of: x itself, but for what reduces its levels."""
        return x

    def begin(self, bias: Tensor) -> None:
        """Sets the bias (..., width) of a decoder's last layer to outputs that suit images before anything is learned.
        From deviations as wide as the image, Adam takes hundreds of steps to those that tell shades apart."""
        bias.zero_()


class Bernoulli(Likelihood):
    """Black or white pixels, after binarisation at the middle grey; one logit each."""

    def target(self, x: Tensor) -> Tensor:
        """x with every pixel -1 or 1."""
        return (x > 0).to(x.dtype) * 2 - 1

    def _nats(self, outputs: Tensor, x: Tensor) -> Tensor:
        return -binary_cross_entropy_with_logits(outputs, (x > 0).float(), reduction="none")

    def _mean(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid() * 2 - 1


class Gaussian(Likelihood):
    """A Gaussian's share of each level, with a fixed standard deviation in units of [-1, 1]; None learns one, shared by
    all pixels and images (Rybkin et al., Simple and Effective VAE Training with Calibrated Decoders, 2021)."""

    def __init__(self, channels: int, deviation: float | None = None) -> None:
        super().__init__(channels, channels)
        start = torch.tensor(math.log(0.3 if deviation is None else deviation))
        if deviation is None:
            self.log_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start, persistent=False)

    def _nats(self, outputs: Tensor, x: Tensor) -> Tensor:
        return _gaussian_share(outputs, self.log_scale.clamp(*_LOG_SCALES), x.float())


class PixelGaussian(Likelihood):
    """A Gaussian's share of each level, with a standard deviation of its own for every pixel and channel."""

    def _nats(self, outputs: Tensor, x: Tensor) -> Tensor:
        means, log_scales = outputs.chunk(2, dim=1)
        return _gaussian_share(means, log_scales.clamp(*_LOG_SCALES), x.float())

    def begin(self, bias: Tensor) -> None:
        """See :meth:`Likelihood.begin`."""
        bias.zero_()[..., self.channels :] = _BEGIN


class LogisticMixture(Likelihood):
    """A mixture of discretised logistics; each channel's means move linearly with the channels before it.

    Salimans et al., PixelCNN++, 2017, sections 2.1 and 2.2. With ``components=1`` the discretised logistic of
    Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow, 2016.
    """

    def __init__(self, channels: int, components: int) -> None:
        couplings = channels * (channels - 1) // 2
        super().__init__(channels, components * (1 + 2 * channels + couplings))
        self.components, self.couplings = components, couplings

    def begin(self, bias: Tensor, log_scale: float = _BEGIN) -> None:
        """See :meth:`Likelihood.begin`; the components lie apart, because those that begin alike stay so for long."""
        k, c = self.components, self.channels
        bias.zero_()
        bias[..., k : k + k * c] = torch.linspace(-1, 1, k + 2)[1:-1].repeat(c)
        bias[..., k + k * c : k + 2 * k * c] = log_scale

    def _parts(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log weights (n, k, h, w), means and log scales (n, c, k, h, w), couplings (n, c (c - 1) / 2, k, h, w)."""
        n, _, *places = outputs.shape
        # Plane after plane: what follows is elementwise on some of them, and twice as fast for the copy.
        rows = outputs.contiguous().view(n, -1, self.components, *places)
        kinds = [1, self.channels, self.channels, self.couplings]
        logits, means, log_scales, couplings = torch.split(rows, kinds, 1)
        return log_softmax(logits.squeeze(1), 1), means, log_scales.clamp(*_LOG_SCALES), couplings.tanh()

    def _nats(self, outputs: Tensor, x: Tensor) -> Tensor:
        weights, means, log_scales, couplings = self._parts(outputs)
        x = x.float().contiguous()
        if self.couplings:  # each channel's means given the true channels before it
            means = torch.stack([self._move(means, couplings, x.unbind(1), c) for c in range(self.channels)], dim=1)
        shares: Tensor = _LogisticShare.apply(means, log_scales, x.unsqueeze(2))
        return torch.logsumexp(weights + shares.sum(1), dim=1)

    def _mean(self, outputs: Tensor) -> Tensor:
        """Each channel given the means of those before it."""
        weights, means, _, couplings = self._parts(outputs)
        shares = weights.exp()
        image: list[Tensor] = []
        for channel in range(self.channels):
            moved = self._move(means, couplings, image, channel)
            image.append((shares * moved).sum(1).clamp(-1, 1))
        return torch.stack(image, 1)

    def _move(self, means: Tensor, couplings: Tensor, image: Sequence[Tensor], channel: int) -> Tensor:
        """One channel's means (n, k, h, w), given the values (n, h, w) of the channels before it."""
        moved = means[:, channel]
        first = channel * (channel - 1) // 2
        for earlier in range(channel):
            moved = torch.addcmul(moved, couplings[:, first + earlier], image[earlier].unsqueeze(1))
        return moved


def _edges(x: Tensor) -> tuple[Tensor, Tensor]:
    """The upper and lower ends of each level; the outermost levels take all that is beyond them."""
    return torch.where(x > 1 - HALF_LEVEL, _FAR, x + HALF_LEVEL), torch.where(x < HALF_LEVEL - 1, -_FAR, x - HALF_LEVEL)


class _LogNormalCDF(torch.autograd.Function):
    """The logarithm of the normal distribution function, with a gradient that is finite thousands of deviations out.
    PyTorch's own gradient is the exponential of a difference of squares, which float32 loses there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        logarithm: Tensor = torch.special.log_ndtr(x)
        return logarithm

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # The density over the distribution function, by the scaled complementary error function.
        (x,) = ctx.saved_tensors
        return torch.div(gradient * math.sqrt(2 / math.pi), torch.special.erfcx(x * -math.sqrt(0.5)))


def _gaussian_share(means: Tensor, log_scales: Tensor, x: Tensor) -> Tensor:
    """The logarithm of a Gaussian's share of the level of `x`, elementwise."""
    upper, lower = _edges(x)
    inverse = torch.exp(-log_scales)
    mirrored = x > means  # so that the level lies below the mean, where the logarithm of both its ends is exact
    high: Tensor = _LogNormalCDF.apply(inverse * torch.where(mirrored, means - lower, upper - means))
    low = _LogNormalCDF.apply(inverse * torch.where(mirrored, means - upper, lower - means))
    return high + torch.log(-torch.expm1((low - high).clamp(max=-1e-6)))


class _LogisticShare(torch.autograd.Function):
    """The logarithm of a logistic's share of the level of `x`, elementwise; `means` and `log_scales` have one shape.

    For its sigmoid s, s(b) - s(a) = (1 - exp(a - b)) s(b) s(-a), which is exact in both tails. By hand it takes one
    logarithm instead of three, and no softplus or expm1, ten times as slow on a CPU as exp.
    """

    @staticmethod
    def forward(ctx: Any, means: Tensor, log_scales: Tensor, x: Tensor) -> Tensor:
        upper, lower = _edges(x)
        inverse = torch.exp(-log_scales)
        width = inverse * (upper - lower)
        above, below = inverse * (means - upper), inverse * (lower - means)
        half = torch.tanh(0.5 * width)
        within = 2 * half / (1 + half)  # 1 - exp(-width)
        ends = torch.exp(-above.abs()).add_(1).mul_(torch.exp(-below.abs()).add_(1))
        ctx.save_for_backward(inverse, width, above, below, within)
        return torch.log(within / ends).sub_(above.relu()).sub_(below.relu())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        inverse, width, above, below, within = ctx.saved_tensors
        over, under = torch.sigmoid(above), torch.sigmoid(below)
        spread = over * above + under * below - width * (1 - within) / within
        return gradient * inverse * (under - over), gradient * spread, None


#: name -> a likelihood for so many channels, of the deviation and the mixture's components that are set.
LIKELIHOODS: dict[str, Callable[[int, float, int], Likelihood]] = {
    "bernoulli": lambda channels, deviation, components: Bernoulli(channels, channels),
    "gaussian": lambda channels, deviation, components: Gaussian(channels),
    "gaussian_fixed": lambda channels, deviation, components: Gaussian(channels, deviation),
    "gaussian_pixel": lambda channels, deviation, components: PixelGaussian(channels, 2 * channels),
    "logistic": lambda channels, deviation, components: LogisticMixture(channels, 1),
    "logistic_mixture": lambda channels, deviation, components: LogisticMixture(channels, components),
}


def build_likelihood(name: str, channels: int, deviation: float = 0.5, components: int = 5) -> Likelihood:
    """One of :data:`LIKELIHOODS`."""
    return LIKELIHOODS[name](channels, deviation, components)
