"""Autoencoders of discrete codes (van den Oord, Vinyals and Kavukcuoglu, Neural Discrete Representation Learning,
2017)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Model, Phase
from aigc_cli.models.gan.losses import LOSSES
from aigc_cli.models.latent import EncodingControls
from aigc_cli.models.vae.config import VQVAEConfig
from aigc_cli.models.vae.vq_networks import build_adversary, build_networks
from aigc_cli.nn.likelihoods import build_likelihood
from aigc_cli.nn.padding import before_end, end_at, frames_nats
from aigc_cli.nn.quantize import Quantized, Quantizer, ResidualQuantizer, ScalarQuantizer
from aigc_cli.randomness import Noise
from aigc_cli.registry import register

SETTLED = 500  # steps after which a codebook that is hardly used has died, and is not just young
DEAD = 0.1  # share of the codes in use below which it has


@register("model", "vqvae", VQVAEConfig)
class VQVAE(Model):
    """An encoder whose outputs are each replaced by the nearest of a codebook, and a decoder that sees those codes.

    An image is thus a sequence of tokens: :meth:`encode` and :meth:`decode` go there and back, row by row of
    :attr:`token_grid`. It learns no prior over them, and cannot be sampled: a model that trains on its tokens is one.

    Items that end early, such as clips of sound, have one token more, which no code stands for: :attr:`end`, in all
    columns after the one in which the item ends. What comes there costs nothing. Of several codebooks each has tokens
    of its own, those of the first come first.

    Curves of the phase ``"main"`` beside ``"loss"``: ``"reconstruction"``, squared error in units of [-1, 1] or nats
    per dimension; ``"commitment"``; ``"usage"``, the share of the codes that the last window of batches used, and
    ``"perplexity"``, of how many equally frequent codes its entropy is; with a discriminator ``"sharpness"``, its mean
    score of reconstructions; with a likelihood ``"bits_per_dim"``, a bound for tokens that are all alike likely.
    """

    can = frozenset({"encode", "decode", "score", "tokens"})
    layouts = frozenset({"map", "volume"})
    controls = EncodingControls

    def __init__(self, config: VQVAEConfig, spec: DataSpec) -> None:
        super().__init__(spec)
        self.config = config
        self.token_grid = _grid(config, spec.shape)
        self.likelihood = None
        if config.reconstruction != "mse":
            self.likelihood = build_likelihood(config.reconstruction, spec.shape[0], components=config.components)
        outputs = spec.shape[0] if self.likelihood is None else self.likelihood.width
        self.encoder, self.decoder = build_networks(config, spec.shape, outputs)
        self.quantizer = _quantizer(config)
        #: How many tokens stand for each place of the grid; the one of each codebook that stands for what comes after
        #: the end, if items may end early; and how many tokens there are.
        self.codebooks = config.codebooks
        self.end = self.quantizer.codes if spec.padding is not None else None
        self.vocab_size = self.codebooks * self._each
        self.adversary = build_adversary(spec.shape[0], config.width) if config.adversarial else None
        self._made: list[Tensor] = []  # reconstructions of this step, a batch each

    @property
    def _each(self) -> int:
        """How many tokens each codebook has."""
        return self.quantizer.codes + (self.end is not None)

    # training

    def phases(self, step: int) -> Sequence[Phase]:
        """One, and one of the discriminator, on the same batch, if there is one."""
        found = super().phases(step)
        self._made.clear()
        return found if self.adversary is None else (*found, Phase("discriminator", new_batch=False))

    def network(self, phase: str) -> nn.Module:
        """All but the discriminator, or it."""
        if self.adversary is None:
            return self
        if phase == "discriminator":
            return self.adversary
        return nn.ModuleDict({"encoder": self.encoder, "quantizer": self.quantizer, "decoder": self.decoder})

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The losses of equation 3, whose second term the codebook's running means stand for, or a discriminator's."""
        if phase == "discriminator":
            return self._told_apart(batch)
        x = self._target(batch.content)
        plain = self._step * self.pace < self.config.warmup
        quantized, going = self._quantized(x, plain=plain)
        outputs = self.decoder(self._map(quantized.straight_through(), going, len(x)))
        reconstruction = self._reconstruction(outputs, x, going).mean()
        commitment = self._commitment(quantized, going)
        weight = 0.0 if self.config.quantizer == "fsq" else self.config.commitment  # levels are where they are
        losses = {
            "loss": reconstruction + weight * commitment,
            "reconstruction": reconstruction.detach(),
            "commitment": commitment.detach(),
            "usage": self.quantizer.usage,
            "perplexity": self.quantizer.perplexity,
        }
        if self.adversary is not None:
            images = self._images(outputs, going)
            self._made.append(images.detach())
            scores = self.adversary(_frames(images)).float()
            losses["loss"] = losses["loss"] + self.config.adversarial * LOSSES["hinge"].generator(scores, scores)
            losses["sharpness"] = scores.detach().mean()
        if self.likelihood is not None:
            bound = reconstruction.detach() * self.values + self._tokens_cost(going).mean()
            losses |= self.bits(bound)
        return losses

    def _told_apart(self, batch: Batch) -> Losses:
        """The losses of a discriminator of items and of what this step made of them, patch by patch."""
        assert self.adversary is not None, "there is a discriminator"
        made = self._made.pop(0)
        real, fake = self.adversary(_frames(torch.cat([batch.content, made.to(batch.content)]))).float().chunk(2)
        accuracy = torch.cat([real > 0, fake < 0]).float().mean()
        return {"loss": LOSSES["hinge"].discriminator(real, fake), "accuracy": accuracy}

    def _target(self, images: Tensor) -> Tensor:
        return images if self.likelihood is None else self.likelihood.target(images)

    def _going(self, x: Tensor) -> Tensor | None:
        """Which columns of tokens lie before the end, bool (n, columns); None where no item ends early."""
        if self.spec.padding is None:
            return None
        return torch.unflatten(before_end(x, self.spec.padding), 1, (self.token_grid[1], -1)).any(dim=2)

    def _frames(self, going: Tensor) -> Tensor:
        """The same for frames of items."""
        return going.repeat_interleave(self.spec.shape[2] // self.token_grid[1], dim=1)

    def _places(self, going: Tensor) -> Tensor:
        """The same for tokens, (n * rows * columns)."""
        return going[:, None].expand(-1, self.token_grid[0], -1).flatten()

    def _reconstruction(self, outputs: Tensor, x: Tensor, going: Tensor | None) -> Tensor:
        """Of each image, a mean over its values (n,): squared error, or nats."""
        if self.likelihood is None:
            error = (outputs.float() - x.float()).square()
            return (error if going is None else end_at(error, self._frames(going), 0.0)).flatten(1).mean(1)
        if going is not None:
            return -frames_nats(self.likelihood, outputs, x, self._frames(going)).sum(1) / self.values
        log_prob: Tensor = self.likelihood(outputs, x)
        return -log_prob / self.values

    def _commitment(self, quantized: Quantized, going: Tensor | None) -> Tensor:
        """How far, as a mean square, what is quantised lies from its codes."""
        if going is None:
            return mse_loss(quantized.vectors, quantized.nearest)
        squares = (quantized.vectors - quantized.nearest).square().mean(1)
        return torch.where(self._places(going), squares, 0.0).mean()

    def _tokens_cost(self, going: Tensor | None) -> Tensor:
        """Nats of each image's tokens where all are alike likely, (n,) or a scalar; of its end too, if it has one."""
        each = self.codebooks * math.log(self.quantizer.codes)
        if going is None:
            return torch.tensor(math.prod(self.token_grid) * each)
        rows, columns = self.token_grid
        return going.sum(1) * (rows * each) + math.log(columns + 1)

    def _quantized(self, x: Tensor, *, plain: bool = False) -> tuple[Quantized, Tensor | None]:
        """The codes of the encoder's features (n * rows * columns, d), and :meth:`_going`."""
        features: Tensor = self.encoder(x)
        vectors = features.movedim(1, -1).reshape(-1, self.config.dimensions)
        going = self._going(x)
        quantized: Quantized = self.quantizer(vectors, None if going is None else self._places(going), plain=plain)
        return quantized, going

    def _map(self, vectors: Tensor, going: Tensor | None, n: int) -> Tensor:
        """Vectors (n * rows * columns, d), row by row of the grid, as a map (n, d, rows, columns), 0 after the end."""
        codes = vectors.view(n, *self.token_grid, -1).movedim(-1, 1)
        return codes if going is None else end_at(codes, going, 0.0)

    # encoding and decoding

    def encode(self, batch: Batch) -> Tensor:
        """The tokens of encoded images (n, c, h, w), int64 (n, rows * columns) of :attr:`token_grid`; of several
        codebooks those of a place follow one after the other."""
        quantized, going = self._quantized(self._target(batch.content))
        tokens = quantized.tokens.view(-1, self.codebooks)
        if going is not None and self.end is not None:
            tokens = torch.where(self._places(going)[:, None], tokens, self.end)
        tokens = tokens + self._each * torch.arange(self.codebooks, device=tokens.device)
        return tokens.view(len(batch), -1)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """The images in [-1, 1], float32 (n, c, h, w), that tokens (n, rows * columns) stand for; an item ends at the
        first column that is all :attr:`end`."""
        going, tokens = None, latents % self._each
        if self.end is not None:
            held = (tokens != self.end).view(len(latents), *self.token_grid, self.codebooks)
            ended = ~held.any(dim=3).any(dim=1)
            going = ended.long().cumsum(dim=1) == 0  # not cumprod, which ONNX has no operation for
            tokens = torch.where(tokens == self.end, 0, tokens)
        tokens = tokens if self.codebooks == 1 else torch.unflatten(tokens, 1, (-1, self.codebooks))
        outputs = self.decoder(self._map(self.quantizer.lookup(tokens), going, len(latents)))
        return self._images(outputs, going)

    def _images(self, outputs: Tensor, going: Tensor | None) -> Tensor:
        images = outputs.float().clamp(-1, 1) if self.likelihood is None else self.likelihood.mean(outputs)
        if going is None:
            return images
        assert self.spec.padding is not None
        return end_at(images, self._frames(going), self.spec.padding)

    # figures

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, Tensor]:
        """``"mse"`` in units of [-1, 1]; with a likelihood the negative ELBO for tokens that are all alike likely. The
        encoder is sure of its tokens, so that more `samples` tighten nothing."""
        if self.likelihood is None:
            error = self.decode(self.encode(batch)) - batch.content.float()
            return {"mse": error.square().flatten(1).mean(1)}
        x = self._target(batch.content)
        quantized, going = self._quantized(x)
        parameters = self.decoder(self._map(quantized.nearest, going, len(x)))
        reconstruction = self._reconstruction(parameters, x, going) * self.values
        kl = self._tokens_cost(going).to(reconstruction).expand(len(x))
        bound = reconstruction + kl
        if samples > 1:
            return {"iw_bound": bound, **self.bits(bound)}
        return {"nelbo": bound, **self.bits(bound), "kl": kl, "reconstruction": reconstruction}

    def warnings(self, figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        """Of a codebook that has died."""
        usage = figures.get("main/usage", 1.0)
        if self._step >= SETTLED and self._step * self.pace >= self.config.warmup and usage < DEAD:
            says = f"the last batches used {usage:.1%} of {self.quantizer.codes} codes: the codebook has died"
            hint = "raise model.restart_below=, or take fewer codes with model.codes="
            yield "dead codebook", f"{says}; {'take fewer model.levels=' if self.config.quantizer == 'fsq' else hint}"


def _quantizer(config: VQVAEConfig) -> Quantizer | ResidualQuantizer | ScalarQuantizer:
    if config.quantizer == "fsq":
        return ScalarQuantizer(config.levels, window=config.usage_window)
    options: dict[str, Any] = {
        "decay": config.decay, "restart_below": config.restart_below, "window": config.usage_window,
        "cosine": config.cosine, "late": config.warmup > 0,
    }  # fmt: skip
    if config.codebooks > 1:
        return ResidualQuantizer(config.codebooks, config.codes, config.code_dimensions, **options)
    return Quantizer(config.codes, config.code_dimensions, **options)


def _frames(items: Tensor) -> Tensor:
    """Images as they are; of clips each frame as an image of its own."""
    return items if items.ndim == 4 else items.transpose(1, 2).flatten(0, 1)


def _grid(config: VQVAEConfig, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Rows and columns of tokens, of clips for so many times; a ConfigError where they do not divide the item."""
    (_, *times, height, width), factor = shape, config.downsampling
    if times and (times[0] % config.time_downsampling or config.tokens == "time"):
        what = f"model.time_downsampling={config.time_downsampling} does not divide clips of {times[0]} frames"
        what = what if config.tokens == "map" else "model.tokens=time is for sound"
        raise ConfigError(what, "choose 1, 2, 4 or 8 and model.tokens=map, or set data.frames= to a multiple")
    rows = 1 if config.tokens == "time" else height // factor
    if width % factor or (config.tokens == "map" and height % factor):
        what = f"model.downsampling={factor} does not divide items of {height}x{width}"
        sizes = "data.size= of images, or data.codec.bins= of sound,"
        raise ConfigError(what, f"choose another of 2, 4, 8, 16, or set {sizes} to a multiple")
    return *(frames // config.time_downsampling for frames in times), rows, width // factor
