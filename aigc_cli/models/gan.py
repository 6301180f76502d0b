"""Generative adversarial networks (Goodfellow et al., Generative Adversarial Nets, 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.utils import parametrize

from aigc_cli.config import STRICT
from aigc_cli.data.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Model, Phase
from aigc_cli.models.gan_losses import LOSSES, gradient_penalty, r1_penalty
from aigc_cli.models.gan_networks import NETWORKS
from aigc_cli.nn.augment import augment
from aigc_cli.nn.blocks import MinibatchStddev, add_spectral_norm
from aigc_cli.randomness import Noise
from aigc_cli.registry import register


@dataclass(config=STRICT, frozen=True, kw_only=True)
class GANConfig:
    """The keys of ``model=gan``; configs/model/gan.yaml explains them."""

    name: Literal["gan"]
    network: Literal["dcgan", "mlp"]
    loss: Literal["minimax", "non_saturating", "hinge", "lsgan", "wgan"]
    latent: Annotated[int, Field(ge=1)]
    hidden: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(ge=1)]
    max_width: Annotated[int, Field(ge=1)]
    generator_norm: Literal["batch", "group", "pixel", "none"]
    discriminator_norm: Literal["batch", "group", "none"]
    spectral_norm: bool
    dropout: Annotated[float, Field(ge=0, lt=1)]
    minibatch_stddev: bool
    discriminator_steps: Annotated[int, Field(ge=1)]
    augment: tuple[Literal["translation", "color", "cutout"], ...]
    penalty: Literal["auto", "none", "r1", "gradient"]
    r1_gamma: Annotated[float, Field(gt=0)]
    r1_every: Annotated[int, Field(ge=1)]
    gradient_penalty: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _consistent(self) -> GANConfig:
        if self.network == "mlp" and not self.hidden:
            raise ValueError("the mlp needs hidden units: hidden must be at least 1")
        if self.regularizer == "gradient" and self.discriminator_norm == "batch":
            # Gulrajani et al. 2017, section 4: the penalty is on each item's gradient, batch norm mixes items.
            raise ValueError(
                "a gradient penalty needs discriminator_norm=group or none: batch normalisation mixes the items"
            )
        return self

    @property
    def regularizer(self) -> str:
        """The penalty that applies: "none", "r1" or "gradient"."""
        if self.penalty != "auto":
            return self.penalty
        return "gradient" if self.loss == "wgan" else "r1"


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Controls:
    """What ``sample`` takes."""

    #: Scales the latent, whose mean is 0: below 1, less variety and more typical images (StyleGAN's psi, Karras 2019).
    truncation: Annotated[float, Field(gt=0, le=1)] = 1.0


@register("model", "gan", GANConfig)
class GAN(Model):
    """A generator and a discriminator that learn from each other.

    Phases ``"discriminator"`` and ``"generator"``; curves beside ``"loss"`` are the mean scores of real and fake, and
    the penalty where one applies.
    """

    modalities = ("image",)
    controls: ClassVar[type] = Controls

    def __init__(self, config: GANConfig, spec: DataSpec) -> None:
        super().__init__(spec)
        self.config = config
        networks = NETWORKS[config.network]
        self.generator = networks.generator(config, spec.shape)
        self.discriminator = networks.discriminator(config, spec.shape)
        if config.spectral_norm:
            add_spectral_norm(self.discriminator)
        self.adversarial = LOSSES[config.loss]
        self._step = 0
        self._made: list[Tensor] = []  # images of this step, a batch each, whose graph the generator's phase will use

    def phases(self, step: int) -> Sequence[Phase]:
        """``discriminator_steps`` of the discriminator, then one of the generator on as many images.

        The two alternate. Updating both from the same state would converge more slowly (Gidel et al., Negative Momentum
        for Improved Game Dynamics, 2019): on digits it costs 0.1 of precision at equal steps.
        """
        self._step = step  # a lazy penalty has to know whether this is its turn
        self._made.clear()
        return (*[Phase("discriminator")] * self.config.discriminator_steps, Phase("generator", new_batch=False))

    def network(self, phase: str) -> nn.Module:
        """The generator or the discriminator."""
        return {"generator": self.generator, "discriminator": self.discriminator}[phase]

    def averaged(self) -> nn.Module:
        """The generator."""
        return self.generator

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The losses of ``"discriminator"`` or ``"generator"`` on encoded images (n, c, h, w)."""
        losses = {"generator": self._generator_losses, "discriminator": self._discriminator_losses}[phase]
        with parametrize.cached():  # a spectral norm is the same all through a phase
            return losses(batch.content)

    def _generator_losses(self, real: Tensor) -> Losses:
        fake = self._made.pop(0) if self._made else self._fake(len(real))
        return {"loss": self.adversarial.generator(self.discriminator(self._augment(fake)).float())}

    def _discriminator_losses(self, real: Tensor) -> Losses:
        fake = self._fake_for_both(len(real)) if self.config.discriminator_steps == 1 else self._fake_for_one(len(real))
        real, fake = self._augment(real), self._augment(fake).to(real.dtype)
        real_score, fake_score = self._scores(real, fake)
        losses = {
            "loss": self.adversarial.discriminator(real_score, fake_score),
            "real_score": real_score.detach().mean(),
            "fake_score": fake_score.detach().mean(),
        }
        return self._regularized(losses, real, fake)

    def _scores(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The discriminator's scores, in one pass where that gives the same as two, which is faster."""
        if self._mixes_items(len(real)):
            return self.discriminator(real).float(), self.discriminator(fake).float()
        real_score, fake_score = self.discriminator(torch.cat([real, fake])).float().chunk(2)
        return real_score, fake_score

    def _mixes_items(self, n: int) -> bool:
        """Whether a joint pass would let reals and fakes see each other."""
        if self.config.discriminator_norm == "batch":
            return True
        return self.config.minibatch_stddev and n % MinibatchStddev.group != 0

    def _regularized(self, losses: Losses, real: Tensor, fake: Tensor) -> Losses:
        """Adds the penalty: R1 on the steps whose turn it is, scaled up to make good for the others."""
        config = self.config
        if config.regularizer == "gradient":
            penalty = gradient_penalty(self.discriminator, real, fake)
            losses["loss"] = losses["loss"] + config.gradient_penalty * penalty
            losses["gradient_penalty"] = penalty.detach()
        elif config.regularizer == "r1" and self._step % config.r1_every == 0:
            penalty = r1_penalty(self.discriminator, real)
            losses["loss"] = losses["loss"] + config.r1_gamma * config.r1_every * penalty
            losses["r1"] = penalty.detach()
        return losses

    def _fake_for_one(self, n: int) -> Tensor:
        with torch.no_grad():
            return self._fake(n)

    def _fake_for_both(self, n: int) -> Tensor:
        """Images that the generator's phase takes over with their graph, which saves it a pass.

        It comes right after this one and finds the generator as it was. Of accumulated batches only the first is
        handed over, so that accumulation holds one graph, not all.
        """
        if self._made:
            return self._fake_for_one(n)
        self.generator.requires_grad_(True)  # the trainer leaves gradients on for the current phase's network alone
        fake = self._fake(n)
        self._made.append(fake)
        return fake.detach()

    def _fake(self, n: int) -> Tensor:
        device = next(self.generator.parameters()).device
        images: Tensor = self.generator(torch.randn(n, self.config.latent, device=device))
        return images

    def _augment(self, images: Tensor) -> Tensor:
        return augment(images, self.config.augment)

    def sample(self, noise: Noise, **controls: Any) -> Tensor:
        """Images in [-1, 1], (len(noise), c, h, w); see :class:`Controls`."""
        images: Tensor = self.generator(noise.normal(self.config.latent) * Controls(**controls).truncation)
        return images.float()
