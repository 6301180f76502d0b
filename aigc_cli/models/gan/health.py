"""How a GAN in training does: curves that its losses do not show, and what they say in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aigc_cli.modalities.base import Batch
from aigc_cli.models.base import Losses
from aigc_cli.models.gan.config import GANConfig
from aigc_cli.randomness import Noise

if TYPE_CHECKING:
    from aigc_cli.models.gan.gan import GAN

#: Beyond these a run is in trouble; those that went well stayed below 0.95, above 0.8 and below 0.6.
WINNING, COLLAPSED, OVERFITTED = 0.98, 0.4, 0.8


def examine(gan: GAN, train: Batch, held_out: Batch | None) -> Losses:
    """``diversity``, ``real_score``, ``fake_score`` and, with held-out items, ``held_out_score`` and ``overfitting``.

    Diversity is the mean distance between two samples relative to that between two training items, within a class where
    conditional. Overfitting is r_v of Karras et al. 2020, equation 1: 0 where held-out items score as training items
    do, 1 where they score as samples.
    """
    labels = gan.labels_of(train)
    fake = gan.decode(gan.latents(Noise(0, range(len(train)), train.content.device), gan.controls()), labels)
    figures = {
        "diversity": spread(fake, labels) / spread(train.content, labels).clamp_min(1e-6),
        "real_score": gan.discriminator(train.content, labels).float().mean(),
        "fake_score": gan.discriminator(fake, labels).float().mean(),
    }
    if held_out is not None:
        figures["held_out_score"] = gan.discriminator(held_out.content, gan.labels_of(held_out)).float().mean()
        lead = figures["real_score"] - figures["fake_score"]
        lost = figures["real_score"] - figures["held_out_score"]
        figures["overfitting"] = torch.where(lead > 1e-3, lost / lead, 0.0)
    return figures


def spread(images: Tensor, labels: Tensor | None = None) -> Tensor:
    """The mean distance between two different images of (n, c, h, w), as root mean square over pixels; a scalar.

    With labels (n,), two of the same class: a generator that knows the class may give each but one image.
    """
    flat = images.float().flatten(1)
    distances = torch.cdist(flat, flat) / flat.shape[1] ** 0.5
    pairs = ~torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    if labels is not None:
        pairs &= labels[:, None] == labels
    mean: Tensor = (distances * pairs).sum() / pairs.sum().clamp_min(1)
    return mean


def warnings(gan: GAN, figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """What is going wrong, from the first figures of :func:`examine` on: until then nothing is expected to be right."""
    if "examine/diversity" not in figures:
        return
    config, accuracy = gan.config, figures.get("discriminator/accuracy", 0.0)
    diversity, overfitting = figures["examine/diversity"], figures.get("examine/overfitting", 0.0)
    if accuracy > WINNING and config.loss != "wgan":  # a critic should be as sure as it can be
        yield (
            "discriminator winning",
            f"the discriminator is right about {accuracy:.1%} of images, so the generator learns little from it: "
            f"{_weaken(config)}, or lower optimizer.discriminator.lr",
        )
    if diversity < COLLAPSED:
        yield (
            "mode collapse",
            f"samples differ from each other only {diversity:.0%} as much as real images do (mode collapse): "
            f"{_weaken(config)}, or lower optimizer.lr and start again",
        )
    if overfitting > OVERFITTED:
        yield (
            "overfitting",
            f"held-out images score {overfitting:.0%} of the way from training images down to samples, so the "
            f"discriminator knows its training images by heart: {_ease(config)}, or use more data",
        )


def _weaken(config: GANConfig) -> str:
    """The key that holds the discriminator back."""
    if config.discriminator_steps > 1 and config.loss != "wgan":
        return f"try model.discriminator_steps={config.discriminator_steps // 2}"
    kind = config.regularizer
    if kind == "gradient":
        return f"try model.gradient_penalty={2 * config.gradient_penalty:g}"
    return "try model.penalty=r1" if kind == "none" else f"try model.r1_gamma={10 * config.r1_gamma:g}"


def _ease(config: GANConfig) -> str:
    """The key that makes little data last longer."""
    if not config.augment:
        return "try model.augment=[ada] (or [translation,color,cutout])"
    if not config.lecam:
        return "try model.lecam=0.1"
    return f"try model.ada_target={config.ada_target / 2:g}" if "ada" in config.augment else "try model.augment=[ada]"
