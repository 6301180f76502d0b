"""Autoencoders of discrete codes (van den Oord, Vinyals and Kavukcuoglu, Neural Discrete Representation Learning,
2017)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Model, ModelConfig
from aigc_cli.models.latent import LatentControls
from aigc_cli.nn.blocks import Residual, init_variance
from aigc_cli.nn.likelihoods import bits_per_dim, build_likelihood
from aigc_cli.nn.quantize import Quantized, Quantizer
from aigc_cli.randomness import Noise
from aigc_cli.registry import register

SETTLED = 500  # steps after which a codebook that is hardly used has died, and is not just young
DEAD = 0.1  # share of the codes in use below which it has


@dataclass(config=STRICT, frozen=True, kw_only=True)
class VQVAEConfig(ModelConfig):
    """The keys of ``model=vqvae``; configs/model/vqvae.yaml explains them."""

    name: Literal["vqvae"]
    downsampling: Literal[2, 4, 8, 16]
    width: Annotated[int, Field(ge=2)]
    blocks: Annotated[int, Field(ge=0)]
    codes: Annotated[int, Field(ge=2)]
    code_dimensions: Annotated[int, Field(ge=1)]
    cosine: bool
    commitment: Annotated[float, Field(ge=0)]
    decay: Annotated[float, Field(ge=0, lt=1)]
    restart_below: Annotated[float, Field(ge=0, lt=1)]
    usage_window: Annotated[int, Field(ge=1)]
    reconstruction: Literal["mse", "bernoulli", "gaussian", "gaussian_pixel", "logistic", "logistic_mixture"]
    components: Annotated[int, Field(ge=1)]


@register("model", "vqvae", VQVAEConfig)
class VQVAE(Model):
    """An encoder whose outputs are each replaced by the nearest of a codebook, and a decoder that sees those codes.

    An image is thus a sequence of tokens: :meth:`encode` and :meth:`decode` go there and back, row by row of
    :attr:`token_grid`. It learns no prior over them, and cannot be sampled: a model that trains on its tokens is one.

    Curves of the phase ``"main"`` beside ``"loss"``: ``"reconstruction"``, squared error in units of [-1, 1] or nats
    per dimension; ``"commitment"``; ``"usage"``, the share of the codes that the last window of batches used, and
    ``"perplexity"``, of how many equally frequent codes its entropy is; with a likelihood ``"bits_per_dim"``, a bound
    for tokens that are all alike likely.
    """

    can = frozenset({"encode", "decode", "score", "tokens"})
    layouts = frozenset({"map"})
    controls = LatentControls

    def __init__(self, config: VQVAEConfig, spec: DataSpec) -> None:
        super().__init__(spec)
        self.config = config
        channels = spec.shape[0]
        (_, height, width), factor = spec.shape, config.downsampling
        if height % factor or width % factor:
            what = f"model.downsampling={factor} does not divide images of {height}x{width}"
            raise ConfigError(what, "choose another of 2, 4, 8, 16, or set data.size= to a multiple")
        self.token_grid = height // factor, width // factor
        #: How many tokens there are; and nats of an image's where all are alike likely.
        self.vocab_size = config.codes
        self._tokens_cost = math.prod(self.token_grid) * math.log(config.codes)
        self.likelihood = None
        if config.reconstruction != "mse":
            self.likelihood = build_likelihood(config.reconstruction, channels, components=config.components)
        self.encoder = _encoder(config, channels)
        self.quantizer = Quantizer(
            config.codes, config.code_dimensions, decay=config.decay, restart_below=config.restart_below,
            window=config.usage_window, cosine=config.cosine,
        )  # fmt: skip
        self.decoder = _decoder(config, channels if self.likelihood is None else self.likelihood.width)

    # training

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The losses of equation 3, whose second term the codebook's running means stand for."""
        x = self._target(batch.content)
        quantized = self._quantized(x)
        outputs = self.decoder(self._map(quantized.straight_through(), len(x)))
        reconstruction = self._reconstruction(outputs, x).mean()
        commitment = mse_loss(quantized.vectors, quantized.nearest)
        losses = {
            "loss": reconstruction + self.config.commitment * commitment,
            "reconstruction": reconstruction.detach(),
            "commitment": commitment.detach(),
            "usage": self.quantizer.usage,
            "perplexity": self.quantizer.perplexity,
        }
        if self.likelihood is not None:
            bound = reconstruction.detach() * self.values + self._tokens_cost
            losses["bits_per_dim"] = bits_per_dim(bound, self.values)
        return losses

    def _target(self, images: Tensor) -> Tensor:
        return images if self.likelihood is None else self.likelihood.target(images)

    def _reconstruction(self, outputs: Tensor, x: Tensor) -> Tensor:
        """Of each image, a mean over its values (n,): squared error, or nats."""
        if self.likelihood is None:
            return (outputs.float() - x.float()).square().flatten(1).mean(1)
        log_prob: Tensor = self.likelihood(outputs, x)
        return -log_prob / self.values

    def _quantized(self, x: Tensor) -> Quantized:
        features: Tensor = self.encoder(x)
        quantized: Quantized = self.quantizer(features.permute(0, 2, 3, 1).reshape(-1, self.config.code_dimensions))
        return quantized

    def _map(self, vectors: Tensor, n: int) -> Tensor:
        """Vectors (n * h * w, d), row by row of the grid, as a map (n, d, h, w)."""
        return vectors.view(n, *self.token_grid, -1).permute(0, 3, 1, 2)

    # encoding and decoding

    def encode(self, batch: Batch) -> Tensor:
        """The tokens of encoded images (n, c, h, w), int64 (n, rows * columns) of :attr:`token_grid`."""
        return self._quantized(self._target(batch.content)).tokens.view(len(batch), -1)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """The images in [-1, 1], float32 (n, c, h, w), that tokens (n, rows * columns) stand for."""
        outputs: Tensor = self.decoder(self._map(self.quantizer.lookup(latents), len(latents)))
        return outputs.float().clamp(-1, 1) if self.likelihood is None else self.likelihood.mean(outputs)

    # figures

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, Tensor]:
        """``"mse"`` in units of [-1, 1]; with a likelihood the negative ELBO for tokens that are all alike likely. The
        encoder is sure of its tokens, so that more `samples` tighten nothing."""
        if self.likelihood is None:
            error = self.decode(self.encode(batch)) - batch.content.float()
            return {"mse": error.square().flatten(1).mean(1)}
        x = self._target(batch.content)
        parameters = self.decoder(self._map(self._quantized(x).nearest, len(x)))
        reconstruction = self._reconstruction(parameters, x) * self.values
        kl = torch.full_like(reconstruction, self._tokens_cost)
        bound = reconstruction + kl
        bits = bits_per_dim(bound, self.values)
        if samples > 1:
            return {"iw_bound": bound, "bits_per_dim": bits}
        return {"nelbo": bound, "bits_per_dim": bits, "kl": kl, "reconstruction": reconstruction}

    def warnings(self, figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        """Of a codebook that has died."""
        usage = figures.get("main/usage", 1.0)
        if self._step >= SETTLED and usage < DEAD:
            says = f"the last batches used {usage:.1%} of {self.vocab_size} codes: the codebook has died"
            yield "dead codebook", f"{says}; raise model.restart_below=, or take fewer codes with model.codes="


def _residual(width: int) -> Residual:
    """A 3x3 and a 1x1 convolution, each after its activation, beside the identity (section 4.1)."""
    hidden = width // 2
    return Residual(nn.ReLU(), nn.Conv2d(width, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, width, 1))


def _widths(config: VQVAEConfig) -> list[int]:
    """Channels at half the image's size, a quarter, ...: half the width, but for the last."""
    return [config.width // 2] * (config.downsampling.bit_length() - 2) + [config.width]


def _encoder(config: VQVAEConfig, channels: int) -> nn.Sequential:
    """Images (n, c, h, w) to what is quantised, (n, code_dimensions, rows, columns)."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([channels, *_widths(config)]):
        layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU()]
    width = config.width
    layers += [nn.Conv2d(width, width, 3, padding=1), *(_residual(width) for _ in range(config.blocks))]
    encoder = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(width, config.code_dimensions, 1))
    init_variance(encoder)
    return encoder


def _decoder(config: VQVAEConfig, outputs: int) -> nn.Sequential:
    """Codes (n, code_dimensions, rows, columns) to (n, outputs, h, w)."""
    widths = _widths(config)[::-1]
    layers: list[nn.Module] = [nn.Conv2d(config.code_dimensions, widths[0], 3, padding=1)]
    layers += [_residual(widths[0]) for _ in range(config.blocks)]
    for inputs, narrower in pairwise(widths):
        layers += [nn.ReLU(), nn.ConvTranspose2d(inputs, narrower, 4, stride=2, padding=1)]
    last = nn.ConvTranspose2d(widths[-1], outputs, 4, stride=2, padding=1)
    decoder = nn.Sequential(*layers, nn.ReLU(), last)
    init_variance(decoder)
    with torch.no_grad():
        last.weight.mul_(0.1)  # it begins with grey
    return decoder
