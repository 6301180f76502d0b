"""Generative adversarial networks (Goodfellow et al., Generative Adversarial Nets, 2014)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.utils import parametrize

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Phase
from aigc_cli.models.gan.config import GANConfig
from aigc_cli.models.gan.losses import LOSSES, gradient_penalty, lecam_penalty, move_anchors, r1_penalty
from aigc_cli.models.gan.networks import dcgan_discriminator, dcgan_generator, mlp_discriminator, mlp_generator
from aigc_cli.models.gan.resnet import (
    BigGANGenerator,
    R3GANDiscriminator,
    R3GANGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
)
from aigc_cli.models.gan.volumes import VolumeDiscriminator, VolumeGenerator
from aigc_cli.models.gan.wavegan import WaveGANDiscriminator, WaveGANGenerator
from aigc_cli.models.latent import LatentControls, LatentModel, check_conditional
from aigc_cli.nn.augment import ADJUST_EVERY, AUGMENTATIONS, adapt, adaptive
from aigc_cli.nn.blocks import MinibatchStddev, add_spectral_norm
from aigc_cli.nn.collective import draw
from aigc_cli.randomness import Noise
from aigc_cli.registry import register

#: name -> a generator and the discriminator that goes with it.
NETWORKS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "mlp": (mlp_generator, mlp_discriminator),
    "dcgan": (dcgan_generator, dcgan_discriminator),
    "resnet": (ResNetGenerator, ResNetDiscriminator),
    "biggan": (BigGANGenerator, ResNetDiscriminator),
    "r3gan": (R3GANGenerator, R3GANDiscriminator),
    "wavegan": (WaveGANGenerator, WaveGANDiscriminator),
    "dcgan3d": (VolumeGenerator, VolumeDiscriminator),
}
#: Beyond these a run is in trouble; those that went well stayed below 0.95, above 0.8 and below 0.6.
WINNING, COLLAPSED, OVERFITTED = 0.98, 0.4, 0.8
LEAD = 0.2  # of training images' scores over samples': of less, a share is chance
SETTLED = 99  # steps before which a discriminator may well be ahead: it learns faster at first
YOUNG = 200  # steps before which it is fresh weights that draw much the same for any latent, and no collapse


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Controls(LatentControls):
    """What ``sample`` takes."""

    #: Latents as if drawn again until all of their values are within this of 0, in standard deviations: the lower, the
    #: less variety and the more typical the images (Brock et al. 2019, section 3.1). None truncates nothing.
    truncation: Annotated[float, Field(gt=0)] | None = None


@register("model", "gan", GANConfig)
class GAN(LatentModel):
    """A generator and a discriminator that learn from each other.

    Phases ``"discriminator"`` and ``"generator"``; curves beside ``"loss"`` are the mean scores of real and fake, the
    share of scores on the right side, and every regulariser that applies.
    """

    can = frozenset({"sample", "latents", "decode", "examine"})
    layouts = frozenset({"sequence", "map", "volume"})
    controls: ClassVar[type] = Controls
    unbounded = True
    ada_strength: Tensor
    ada_signs: Tensor
    lecam_anchors: Tensor

    def __init__(self, config: GANConfig, spec: DataSpec) -> None:
        super().__init__(spec)
        self.config = config
        self.conditional = check_conditional(config.conditional, spec)
        key = "augment" if config.augment else "consistency"
        if getattr(config, key) and spec.layout != "map":
            what = f"model.{key}={getattr(config, key)} is for images, and this is {spec.modality} data"
            raise ConfigError(what, f"leave it out: model.{key}={'[]' if key == 'augment' else 0}")
        generator, discriminator = NETWORKS[config.network]
        self.generator = generator(config, spec.shape, self.classes)
        self.discriminator = discriminator(config, spec.shape, self.classes)
        if spec.latents:  # they have no bounds
            for part in list(self.generator.modules()):
                for name, _ in [named for named in part.named_children() if isinstance(named[1], nn.Tanh)]:
                    setattr(part, name, nn.Identity())
        if config.generator_spectral_norm:
            add_spectral_norm(self.generator)
        if config.spectral_norm:
            add_spectral_norm(self.discriminator)
        # What training goes by beside weights is in buffers, and so in checkpoints.
        if "ada" in config.augment:
            self.register_buffer("ada_strength", torch.zeros(()))
            self.register_buffer("ada_signs", torch.zeros(2))
        if config.lecam:
            self.register_buffer("lecam_anchors", torch.zeros(2))
        self.adversarial = LOSSES[config.loss]
        self._made: list[Tensor] = []  # images of this step, a batch each, whose graph the generator's phase will use
        self._looked: int | None = None  # the step of the last look

    def phases(self, step: int) -> Sequence[Phase]:
        """``discriminator_steps`` of the discriminator, then one of the generator on as many images.

        The two alternate. Updating both from the same state would converge more slowly (Gidel et al., Negative Momentum
        for Improved Game Dynamics, 2019): on digits it costs 0.1 of precision at equal steps.
        """
        super().phases(step)  # a lazy penalty has to know whether this is its turn
        self._made.clear()
        return (*[Phase("discriminator")] * self.config.discriminator_steps, Phase("generator", new_batch=False))

    def network(self, phase: str) -> nn.Module:
        """The generator or the discriminator."""
        return {"generator": self.generator, "discriminator": self.discriminator}[phase]

    def averaged(self) -> nn.Module:
        """The generator."""
        return self.generator

    # training

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The losses of ``"discriminator"`` or ``"generator"`` on encoded images (n, c, h, w).

        Where conditional, samples are of the classes of the batch: real and fake classes are in equal shares then, and
        a paired loss compares within a class.
        """
        losses = {"generator": self._generator_losses, "discriminator": self._discriminator_losses}[phase]
        with parametrize.cached():  # a spectral norm is the same all through a phase
            return losses(batch.content, self.labels_of(batch))

    def _generator_losses(self, real: Tensor, labels: Tensor | None) -> Losses:
        fake = self._made.pop(0) if self._made else self._fake(len(real), labels)
        fake_score = self.discriminator(self._augment(fake, self.config.augment), labels).float()
        real_score = fake_score
        if self.adversarial.paired:
            with torch.no_grad():
                real_score = self.discriminator(self._augment(real, self.config.augment), labels).float()
        return {"loss": self.adversarial.generator(fake_score, real_score)}

    def _discriminator_losses(self, real: Tensor, labels: Tensor | None) -> Losses:
        config = self.config
        fake = self._fake_for_both(len(real), labels)
        real, fake = self._augment(real, config.augment), self._augment(fake, config.augment).to(real.dtype)
        batches = [real, fake, *([self._augment(real, config.consistency_augment)] if config.consistency else [])]
        if config.discriminator_norm == "batch" or (config.minibatch_stddev and len(real) % MinibatchStddev.group):
            # Reals and fakes of one pass would see each other in its statistics, and tell each other apart by them.
            real_score, fake_score, *changed = [self.discriminator(images, labels).float() for images in batches]
        else:
            repeated = None if labels is None else labels.repeat(len(batches))
            scores = self.discriminator(torch.cat(batches), repeated).float()
            real_score, fake_score, *changed = scores.chunk(len(batches))
        losses = self.adversarial.judged(real_score, fake_score)
        if "ada" in config.augment:
            due = self._step % ADJUST_EVERY == 0
            margins = self.adversarial.margins(real_score.detach(), fake_score.detach())
            target, length = config.ada_target, config.ada_length
            adapt(self.ada_strength, self.ada_signs, margins[0], target=target, length=length, due=due)
            losses["ada_strength"] = self.ada_strength.clone()
        if changed:
            _add(losses, "consistency", config.consistency, (real_score - changed[0]).square().mean())
        if config.lecam:
            move_anchors(self.lecam_anchors, real_score, fake_score, self._step)
            _add(losses, "lecam", config.lecam, lecam_penalty(real_score, fake_score, self.lecam_anchors))
        self._penalize(losses, real, fake, labels)
        return losses

    def _penalize(self, losses: Losses, real: Tensor, fake: Tensor, labels: Tensor | None) -> None:
        """Adds the penalty: R1 and R2 on the steps whose turn it is, scaled up to make good for the others."""
        config, kind = self.config, self.config.regularizer
        # `forward` passes by what torch.compile made of the module, which has no double backward, as this needs.
        scores = partial(self.discriminator.forward, labels=labels)
        if kind == "gradient":
            _add(losses, "gradient_penalty", config.gradient_penalty, gradient_penalty(scores, real, fake))
        elif kind in ("r1", "r1r2") and self._step % config.r1_every == 0:
            weight = config.r1_gamma * config.r1_every
            _add(losses, "r1", weight, r1_penalty(scores, real))
            if kind == "r1r2":
                _add(losses, "r2", weight, r1_penalty(scores, fake))

    def _fake_for_both(self, n: int, labels: Tensor | None) -> Tensor:
        """Samples for the discriminator's phase, which the generator's takes over with their graph if it comes next.

        That saves it a pass: it is on the same batches, and finds the generator as it was. Of accumulated batches only
        the first is handed over, so that accumulation holds one graph, not all.
        """
        if self._made or self.config.discriminator_steps > 1:
            with torch.no_grad():
                return self._fake(n, labels)
        self.generator.requires_grad_(True)  # the trainer leaves gradients on for the current phase's network alone
        self._made.append(self._fake(n, labels))
        return self._made[0].detach()

    def _fake(self, n: int, labels: Tensor | None) -> Tensor:
        device = next(self.generator.parameters()).device
        images: Tensor = self.generator(draw(torch.randn, n, self.config.latent, device=device), labels)
        return images

    def _augment(self, images: Tensor, names: Sequence[str]) -> Tensor:
        for name in names:
            if name == "ada":
                images = adaptive(images, self.ada_strength, self.config.ada_transforms)
            else:
                images = AUGMENTATIONS[name](images)
        return images

    # sampling

    def latents(self, noise: Noise, controls: Controls) -> Tensor:
        """Standard normal latents (n, latent), truncated where asked; see :class:`Controls`.

        Truncation maps each draw to the same quantile of the truncated distribution, so that one sample becomes more
        typical as the threshold falls, and depends on its own draws alone.
        """
        z = noise.normal(self.config.latent)
        if controls.truncation is None:
            return z
        inside = math.erf(controls.truncation / math.sqrt(2))
        return (math.sqrt(2) * torch.erfinv(inside * torch.erf(z.double() / math.sqrt(2)))).float()

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (n, c, h, w), in [-1, 1] but for r3gan, which has no bound."""
        images: Tensor = self.generator(latents, labels)
        return images.float()

    # health

    def examine(self, train: Batch, held_out: Batch | None) -> Losses:
        """``diversity``, ``real_score``, ``fake_score`` and, with held-out items, ``held_out_score``, ``overfitting``.

        Diversity is the mean distance between two samples relative to that between two training items, within a class
        where conditional. Overfitting is r_v of Karras et al. 2020, equation 1: 0 where held-out items score as
        training items do, 1 where they score as samples.
        """
        labels, self._looked = self.labels_of(train), self._step
        # The same latents at every look, so that the curves move with the weights alone.
        fake = self.decode(self.latents(Noise(0, range(len(train)), train.content.device), self.controls()), labels)
        figures = {
            "diversity": spread(fake, labels) / spread(train.content, labels).clamp_min(1e-6),
            "real_score": self.discriminator(train.content, labels).float().mean(),
            "fake_score": self.discriminator(fake, labels).float().mean(),
        }
        if held_out is not None:
            figures["held_out_score"] = self.discriminator(held_out.content, self.labels_of(held_out)).float().mean()
            lead = figures["real_score"] - figures["fake_score"]
            lost = figures["real_score"] - figures["held_out_score"]
            figures["overfitting"] = torch.where(lead > 1e-3, lost / lead, 0.0)
        return figures

    def warnings(self, figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        """What is going wrong; see :meth:`Model.warnings`."""
        if "examine/diversity" not in figures:  # too early for anything to be right
            return
        config, accuracy = self.config, figures.get("discriminator/accuracy", 0.0)
        diversity, overfitting = figures["examine/diversity"], figures.get("examine/overfitting", 0.0)
        sure = accuracy > WINNING and self._step >= SETTLED
        if sure and config.loss != "wgan":  # a critic should be as sure as it can be
            says = f"the discriminator is right about {accuracy:.1%} of images, so the generator learns little from it"
            yield "discriminator winning", f"{says}: {_weaken(config)}, or lower optimizer.discriminator.lr"
        if diversity < COLLAPSED and (self._step if self._looked is None else self._looked) >= YOUNG:
            says = f"samples differ from each other only {diversity:.0%} as much as real images do (mode collapse)"
            hint = f"if it lasts, {_weaken(config)} or a lower optimizer.lr in a new run, or take model=vae"
            yield "mode collapse", f"{says}; {hint}"
        lead = figures.get("examine/real_score", math.inf) - figures.get("examine/fake_score", 0.0)
        if overfitting > OVERFITTED and lead > LEAD:
            says = f"held-out images score {overfitting:.0%} of the way from training images down to samples"
            knows = "so the discriminator knows its training images by heart"
            yield "overfitting", f"{says}, {knows}: {_ease(config)}, or use more data"


def _add(losses: Losses, name: str, weight: float, term: Tensor) -> None:
    """Adds a weighted term to the loss, and the term itself to the curves."""
    losses["loss"] = losses["loss"] + weight * term
    losses[name] = term.detach()


def spread(images: Tensor, labels: Tensor | None = None) -> Tensor:
    """The mean distance between two different images of (n, c, h, w), as root mean square over pixels; a scalar. With
    labels (n,), two of the same class: a generator that knows the class may give each but one image."""
    flat = images.float().flatten(1)
    distances = torch.cdist(flat, flat) / flat.shape[1] ** 0.5
    pairs = ~torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    if labels is not None:
        pairs &= labels[:, None] == labels
    return torch.div((distances * pairs).sum(), pairs.sum().clamp_min(1))


def _weaken(config: GANConfig) -> str:
    """The key that holds the discriminator back."""
    if config.discriminator_steps > 1 and config.loss != "wgan":
        return f"try model.discriminator_steps={config.discriminator_steps // 2}"
    if config.regularizer == "gradient":
        return f"try model.gradient_penalty={2 * config.gradient_penalty:g}"
    return "try model.penalty=r1" if config.regularizer == "none" else f"try model.r1_gamma={10 * config.r1_gamma:g}"


def _ease(config: GANConfig) -> str:
    """The key that makes little data last longer."""
    if not config.augment:
        return "try model.augment=[ada] (or [translation,color,cutout])"
    if not config.lecam:
        return "try model.lecam=0.1"
    return f"try model.ada_target={config.ada_target / 2:g}" if "ada" in config.augment else "try model.augment=[ada]"
