"""The encoders and decoders of the VAE: ``mlp``, of images ``conv`` and ``resnet``, and of clips ``conv3d``.

Every encoder maps images (n, c, h, w) to the means and log variances of their latents, (n, d) each; every decoder maps
latents (n, d) to what the likelihood needs for each place, (n, width, h, w). A class, where there is one, adds an
embedding to the encoder's last features and to the decoder's first, before an activation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from aigc_cli.errors import ConfigError
from aigc_cli.models.vae.config import VAEConfig
from aigc_cli.models.vae.volumes import narrower, strides, wider
from aigc_cli.nn.blocks import FLAT_NORMS, LEAK, NORMS, WEIGHTED, FromMap, Residual, ToMap, init_variance
from aigc_cli.nn.likelihoods import Likelihood

SMALLEST = 4  # the shorter side of the smallest feature map, at least; twice that is the first that is halved
LARGEST = 128
_LIMIT = 10.0  # of a log variance: deviations from 0.0067 to 148, so that no step of training makes one infinite
MLP_VALUES = 64 * 64  # of an item, at most, for which `auto` takes the mlp


class Encoder(nn.Module):
    """A trunk, the class, and a head that gives the parameters of the posterior."""

    def __init__(self, trunk: nn.Module, embedding: ClassEmbedding, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.embedding, self.head = trunk, embedding, head

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images (n, c, h, w) to means and log variances, (n, d) each."""
        statistics = self.head(self.embedding(self.trunk(images), labels))
        mean, log_variance = statistics.float().chunk(2, dim=1)
        return _flat(mean), _LIMIT * torch.tanh(_flat(log_variance) / _LIMIT)


class Decoder(nn.Module):
    """A stem that takes the latent, the class, and a trunk that gives the image's parameters."""

    def __init__(self, stem: nn.Module, embedding: ClassEmbedding, trunk: nn.Module) -> None:
        super().__init__()
        self.stem, self.embedding, self.trunk = stem, embedding, trunk

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Latents (n, d) to the likelihood's parameters (n, width, h, w)."""
        parameters: Tensor = self.trunk(self.embedding(self.stem(latents), labels))
        return parameters


#: An encoder and the decoder that goes with it.
Networks = tuple[Encoder, Decoder]


class ClassEmbedding(nn.Module):
    """Adds an embedding of the class to features, at every place alike; without classes, nothing."""

    def __init__(self, classes: int, features: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, features) if classes else None

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """(n, features) or (n, features, h, w), and labels (n,), to the shape of x."""
        if self.embedding is None:
            return x
        vectors: Tensor = self.embedding(labels)
        return x + vectors.view(*vectors.shape, *[1] * (x.ndim - 2))


def mlp(config: VAEConfig, shape: tuple[int, ...], likelihood: Likelihood, classes: int) -> Networks:
    """Two hidden layers each (Kingma and Welling 2014 has one), for items of any shape. The likelihood has its
    parameters at each place of an item, whether that is a pixel or a moment."""
    if not config.hidden:
        raise ConfigError("model.hidden=0: the mlp, which suits this data, needs hidden units", "give it some: 256")
    units, norm, parameters = config.hidden, config.norm, (likelihood.width, *shape[1:])
    trunk = (nn.Flatten(), nn.Linear(math.prod(shape), units), *_flat_active(units, norm), nn.Linear(units, units))
    encoder = Encoder(
        nn.Sequential(*trunk),
        ClassEmbedding(classes, units),
        nn.Sequential(*_flat_active(units, norm), nn.Linear(units, 2 * config.latent)),
    )
    stem, embedding = nn.Linear(config.latent, units), ClassEmbedding(classes, units)
    layers = [*_flat_active(units, norm), nn.Linear(units, units), *_flat_active(units, norm)]
    ends = nn.Linear(units, math.prod(parameters)), nn.Unflatten(1, parameters)
    return _started(encoder, Decoder(stem, embedding, nn.Sequential(*layers, *ends)), likelihood)


def convolutional(
    config: VAEConfig, shape: tuple[int, ...], likelihood: Likelihood, classes: int, *, residual: bool
) -> Networks:
    """Convolutions that halve the image down to the latent, and back, with or without residual blocks at each size."""
    blocks = config.blocks if residual else 0
    sides = _sides(config, shape)
    smallest = shape[1] >> len(sides), shape[2] >> len(sides)
    widths = [min(config.width << i, config.max_width) for i in range(len(sides))]
    norm, deep = config.norm, widths[-1]

    def at(channels: int) -> list[nn.Module]:
        return [_residual(channels, norm) for _ in range(blocks)]

    def between(channels: int) -> list[nn.Module]:
        # A residual stream goes on as it is; without blocks, the activation is between the convolutions.
        return [] if blocks else _active(channels, norm)

    down: list[nn.Module] = [nn.Conv2d(shape[0], widths[0], 4, stride=2, padding=1), *at(widths[0])]
    for inputs, outputs in pairwise(widths):
        down += [*between(inputs), nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), *at(outputs)]
    up: list[nn.Module] = at(deep)
    for inputs, outputs in pairwise(widths[::-1]):
        up += [*between(inputs), nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), *at(outputs)]
    up += [*_active(widths[0], norm), nn.ConvTranspose2d(widths[0], likelihood.width, 4, stride=2, padding=1)]
    ends = _map_ends if config.latent_side else _flat_ends
    head, stem, bridge = ends(config, smallest, deep)
    first = config.hidden if bridge else deep
    encoder = Encoder(nn.Sequential(*down), ClassEmbedding(classes, deep), nn.Sequential(*_active(deep, norm), *head))
    decoder = Decoder(nn.Sequential(*stem), ClassEmbedding(classes, first), nn.Sequential(*bridge, *up))
    return _started(encoder, decoder, likelihood)


def volumetric(config: VAEConfig, shape: tuple[int, ...], likelihood: Likelihood, classes: int) -> Networks:
    """Convolutions over the frames and pixels of clips (c, t, h, w), down to one latent vector, and back."""
    if len(shape) != 4 or config.latent_side or not config.hidden:
        what = "model.network=conv3d is for clips of video, with model.latent_side=0 and model.hidden= above 0"
        raise ConfigError(what, "leave model.network=auto, which suits the data")
    frames, sides, times = shape[1], _halves(*shape[2:]), 0
    if not sides:
        what = f"model.network=conv3d needs clips whose sides halve down to 4 to 7, and these are {shape[2]}x{shape[3]}"
        raise ConfigError(what, "set data.size= to 16, 32, 48 or 64")
    while times < len(sides) and frames % 2 == 0 and frames > 2:
        frames, times = frames // 2, times + 1
    halved = strides(2 ** len(sides), 2**times)
    smallest = frames, shape[2] >> len(sides), shape[3] >> len(sides)
    widths = [min(config.width << level, config.max_width) for level in range(len(sides))]
    units, values = config.hidden, math.prod(smallest) * widths[-1]
    active = _flat_active(units, "none")
    down: list[nn.Module] = []
    for (inputs, outputs), stride in zip(pairwise([shape[0], *widths]), halved, strict=True):
        down += [narrower(inputs, outputs, stride), nn.LeakyReLU(LEAK)]
    up: list[nn.Module] = [*active, nn.Linear(units, values), nn.Unflatten(1, (widths[-1], *smallest))]
    for (inputs, outputs), stride in zip(pairwise([*widths[::-1], likelihood.width]), halved[::-1], strict=True):
        up += [nn.LeakyReLU(LEAK), wider(inputs, outputs, stride)]
    trunk = nn.Sequential(*down, nn.Flatten(), nn.Linear(values, units))
    head = nn.Sequential(*_flat_active(units, "none"), nn.Linear(units, 2 * config.latent))
    stem, embedding = nn.Linear(config.latent, units), ClassEmbedding(classes, units)
    encoder = Encoder(trunk, ClassEmbedding(classes, units), head)
    return _started(encoder, Decoder(stem, embedding, nn.Sequential(*up)), likelihood)


def _map_ends(config: VAEConfig, size: tuple[int, int], features: int) -> tuple[list[nn.Module], ...]:
    """The encoder's head, and the decoder's stem, of a latent at each place of a map."""
    latent = config.latent
    return [nn.Conv2d(features, 2 * latent, 1)], [ToMap(*size), nn.Conv2d(latent, features, 3, padding=1)], []


def _flat_ends(config: VAEConfig, size: tuple[int, int], features: int) -> tuple[list[nn.Module], ...]:
    """The same of one latent vector, and what the decoder has between its hidden layer and the map."""
    values, units, latent = math.prod(size) * features, config.hidden, config.latent
    if not units:
        return [FromMap(), nn.Linear(values, 2 * latent)], [nn.Linear(latent, values), ToMap(*size)], []
    active = _flat_active(units, config.norm)
    head = [FromMap(), nn.Linear(values, units), *active, nn.Linear(units, 2 * latent)]
    bridge = [*_flat_active(units, config.norm), nn.Linear(units, values), ToMap(*size)]
    return head, [nn.Linear(latent, units)], bridge


def _sides(config: VAEConfig, shape: tuple[int, ...]) -> list[int]:
    """The shorter sides of the maps, from half the image's down to the latent's, or to 4 to 7 for a vector; a
    ConfigError where it is not an image that halves so, or no map has the side that the latent should have."""
    network = f"model.network={config.network}"
    if len(shape) != 3:
        what = f"{network} and model.latent_side= are for maps, and these items have the shape "
        hint = "set model.network=mlp and model.latent_side=0, which suit items of any shape"
        hint += ", or data.codec.kind=mel, which makes maps of sound"
        raise ConfigError(what + "x".join(map(str, shape)), hint)
    _, height, width = shape
    sides = _halves(height, width)
    if not sides:
        raise ConfigError(
            f"{network} needs maps whose shorter side is 8 to {LARGEST} and halves down to 4 to 7, such as 8, 16, 28, "
            f"32, 48, 64, 96 or {LARGEST}, and the longer one as often; these are {height}x{width}",
            "set data.size= to one of them, or data.codec.bins= of sound to 64, or model.network=mlp",
        )
    chosen = latent_side(config, shape)
    if chosen == 0:
        return sides
    if chosen not in sides:
        what = f"model.latent_side={config.latent_side}: images of {height}x{width} have no map of that side"
        raise ConfigError(what, f"choose 0 for a flat latent, or one of {', '.join(map(str, sides))}")
    return sides[: sides.index(chosen) + 1]


def latent_side(config: VAEConfig, shape: tuple[int, ...]) -> int:
    """The shorter side of the map that a latent is, 0 for a vector."""
    return config.latent_side if config.latent_side != "auto" else max(min(shape[1:]) // 4, 4)


def _halves(height: int, width: int) -> list[int]:
    """Half of the shorter side, a quarter, ... down to 4 to 7; nothing where that is not to be had."""
    shorter = side = min(height, width)
    sides = []
    while side % 2 == 0 and side // 2 >= SMALLEST:
        side //= 2
        sides.append(side)
    fits = side < 2 * SMALLEST and shorter <= LARGEST and max(height, width) % 2 ** len(sides) == 0
    return sides if fits else []


def _residual(channels: int, norm: str) -> Residual:
    """Two 3x3 convolutions, each after its activation, beside the identity (He et al., Identity Mappings, 2016). It
    begins as the identity, so that no depth needs a normalisation (Zhang et al., Fixup, 2019)."""
    convolutions = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
    return Residual(*(layer for each in convolutions for layer in (*_active(channels, norm), each)))


def _active(channels: int, norm: str, norms: Mapping[str, Callable[[int], nn.Module]] = NORMS) -> list[nn.Module]:
    """The normalisation, if there is one, and the activation."""
    return [*([] if norm == "none" else [norms[norm](channels)]), nn.LeakyReLU(LEAK)]


_flat_active = partial(_active, norms=FLAT_NORMS)


def _flat(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x


def _started(encoder: Encoder, decoder: Decoder, likelihood: Likelihood) -> Networks:
    """The two with weights that keep the variance of activations, a posterior near the prior, and a fair likelihood."""
    init_variance(encoder)
    init_variance(decoder)
    for part in (*encoder.modules(), *decoder.modules()):
        if isinstance(part, Residual):
            nn.init.zeros_(_last(part).weight)
    with torch.no_grad():
        ends = _last(encoder.head), _last(decoder.trunk)
        for end in ends:
            end.weight.mul_(0.1)
        assert ends[1].bias is not None
        likelihood.begin(ends[1].bias.view(likelihood.width, -1).T)
    return encoder, decoder


def _last(part: nn.Module) -> Any:
    """The last layer with weights."""
    return [layer for layer in part.modules() if isinstance(layer, WEIGHTED)][-1]


def build_networks(config: VAEConfig, shape: tuple[int, ...], likelihood: Likelihood, classes: int) -> Networks:
    """The networks for items of a `shape` that `config` names, or that suit it; `classes` is 0 if none are told.

    Raises:
        ConfigError: items of a shape that the network does not serve.
    """
    name, image, sides = config.network, len(shape) == 3, shape[1:]
    if name == "auto":
        if config.latent_side or (image and _halves(*sides)):
            name = "conv"
        elif len(shape) == 4 and _halves(*sides[1:]):
            name = "conv3d"
        elif math.prod(shape) <= MLP_VALUES:
            name = "mlp"
        else:
            smaller = f"set data.size= to a square such as 32, 64 or {LARGEST}"
            smaller = smaller if image else "make them smaller, or maps of sound with data.codec.kind=mel"
            what = f"no network of model=vae suits {'images' if image else 'items'} of {'x'.join(map(str, sides))}"
            raise ConfigError(what, f"{smaller}, or insist on model.network=mlp")
    return NETWORKS[name](config, shape, likelihood, classes)


NETWORKS: dict[str, Callable[[VAEConfig, tuple[int, ...], Likelihood, int], Networks]] = {
    "mlp": mlp,
    "conv": partial(convolutional, residual=False),
    "resnet": partial(convolutional, residual=True),
    "conv3d": volumetric,
}
