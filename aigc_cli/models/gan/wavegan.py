"""The networks of ``wavegan``: sound as it is, sample by sample (Donahue, McAuley and Puckette, Adversarial Audio
Synthesis, 2019, tables 3 and 4), with a conditional form that the paper does not have."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu

from aigc_cli.errors import ConfigError
from aigc_cli.models.gan.config import GANConfig
from aigc_cli.models.gan.networks import LatentAndClass, ProjectionHead, pyramid
from aigc_cli.nn.blocks import LEAK, init_weights
from aigc_cli.nn.collective import draw, integers

KERNEL, STRIDE = 25, 4
LEVELS = 5  # convolutions: 16 times 4 to the fifth are the paper's 16,384 samples
SHORTEST, LONGEST = 4096, 65536


def base_of(shape: tuple[int, ...]) -> int:
    """The length of the shortest sequence of items (channels, samples); a ConfigError for those it does not serve."""
    if len(shape) != 2:
        what = f"model.network=wavegan makes waveforms, and these items have the shape {'x'.join(map(str, shape))}"
        raise ConfigError(what, "set data.codec.kind=waveform, on data of sound, or choose another model.network=")
    unit = STRIDE**LEVELS  # of the layers together
    if shape[1] % unit or not SHORTEST <= shape[1] <= LONGEST:
        what = f"model.network=wavegan makes {SHORTEST} to {LONGEST} samples, a multiple of {unit}, not {shape[1]}"
        raise ConfigError(what, "set data.seconds= and data.sample_rate= so that their product is one, such as 8192")
    return int(shape[1] // unit)


class PhaseShuffle(nn.Module):
    """Moves each sequence by up to so many steps either way, a draw for each, and mirrors what is missing at its end
    (section 3.3): where the period of a generator's stride lies then tells a discriminator nothing. In training alone.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, t) to the same shape."""
        if not (self.training and self.most):
            return x
        n, _, t = x.shape
        shift = draw(integers(2 * self.most + 1), n, device=x.device)[:, None] - self.most
        at = (torch.arange(t, device=x.device) + shift).abs()
        at = torch.where(at < t, at, 2 * (t - 1) - at)  # mirrored without repeating the end
        return x.gather(2, at[:, None].expand_as(x))


class WaveGANGenerator(nn.Module):
    """A linear layer, then transposed convolutions of 25 steps that each make the sequence four times as long."""

    def __init__(self, config: GANConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        base, widths = base_of(shape), pyramid(config.generator_widths, LEVELS)[::-1]
        self.latent = LatentAndClass(config.latent, classes, config.embedding)
        self.stem = nn.Linear(self.latent.width, widths[0] * base)
        self.shape = widths[0], base
        self.layers = nn.ModuleList(
            nn.ConvTranspose1d(inputs, outputs, KERNEL, STRIDE, padding=11, output_padding=1)
            for inputs, outputs in pairwise([*widths, shape[0]])
        )
        init_weights(self, config.init)

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, latent) to (n, channels, samples) in [-1, 1]."""
        x = self.stem(self.latent(latent, labels)).view(-1, *self.shape)
        for layer in self.layers:
            x = layer(relu(x))
        return torch.tanh(x)


class WaveGANDiscriminator(nn.Module):
    """Convolutions of 25 steps that each make the sequence a quarter as long, with phase shuffle between them."""

    def __init__(self, config: GANConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        base, widths = base_of(shape), pyramid(config.discriminator_widths, LEVELS)
        self.layers = nn.ModuleList(
            nn.Conv1d(inputs, outputs, KERNEL, STRIDE, padding=11) for inputs, outputs in pairwise([shape[0], *widths])
        )
        self.shuffle = PhaseShuffle(config.phase_shuffle)
        self.head = ProjectionHead(widths[-1] * base, classes)
        init_weights(self, config.init)

    def forward(self, waves: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, channels, samples) to (n,)."""
        x = waves
        for number, layer in enumerate(self.layers):
            x = leaky_relu(layer(x if number == 0 else self.shuffle(x)), LEAK)
        scores: Tensor = self.head(x.flatten(1), labels)
        return scores
