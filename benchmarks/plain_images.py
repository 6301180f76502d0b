"""Training loops of images as one writes them the usual way: for ``image_step.py`` to be held against.

A DataLoader over PIL transforms, a discriminator pass over the reals and one over the fakes, fakes detached, losses as
their papers write them and read with `.item()` every step, stock Adam. The networks are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import log_softmax, relu, softplus
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

Turn = Callable[[int], None]


class Pictures(Dataset[tuple[Any, int]]):
    """The usual dataset: an array to a PIL image to a tensor, an item at a time."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        self.pixels, self.labels = pixels, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            ]
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.pixels[index])), int(self.labels[index])


def endless(data: Pictures, batch_size: int, device: torch.device, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    loader = DataLoader(
        data, batch_size, shuffle=True, num_workers=workers, drop_last=True, pin_memory=device.type == "cuda"
    )
    while True:
        for images, labels in loader:
            yield images.to(device), labels.to(device)


def black_and_white(outputs: Tensor, images: Tensor) -> Tensor:
    """The log-likelihood of binarised images, a sum over the batch."""
    return -bce(outputs, (images > 0).float(), reduction="sum")


def mixture(outputs: Tensor, images: Tensor) -> Tensor:
    """The same of the 256 levels under a mixture of logistics (Salimans et al., PixelCNN++, 2017, section 2.1).

    The density stands in for a difference of sigmoids that is too small to tell from 0. Outputs (n, 10k, h, w) are k
    logits, then means, log scales and couplings, k for each of three channels.
    """
    k = outputs.shape[1] // 10
    logits = outputs[:, :k]
    means, log_scales, couplings = (part.unflatten(1, (3, k)) for part in outputs[:, k:].split(3 * k, dim=1))
    log_scales, couplings = log_scales.clamp(min=-7), torch.tanh(couplings)
    x = images.unsqueeze(2).expand(-1, -1, k, -1, -1)
    red = means[:, 0]
    green = means[:, 1] + couplings[:, 0] * x[:, 0]
    blue = means[:, 2] + couplings[:, 1] * x[:, 0] + couplings[:, 2] * x[:, 1]
    centred = x - torch.stack([red, green, blue], dim=1)
    inverse = torch.exp(-log_scales)
    upper, middle, lower = inverse * (centred + 1 / 255), inverse * centred, inverse * (centred - 1 / 255)
    share = torch.sigmoid(upper) - torch.sigmoid(lower)
    density = middle - log_scales - 2 * softplus(middle) - math.log(127.5)
    inside = torch.where(share > 1e-5, torch.log(share.clamp(min=1e-12)), density)
    above = torch.where(x > 0.999, -softplus(lower), inside)
    log_shares = torch.where(x < -0.999, upper - softplus(upper), above)
    return torch.logsumexp(log_shares.sum(dim=1) + log_softmax(logits, dim=1), dim=1).sum()


LIKELIHOODS = {"bernoulli": black_and_white, "logistic_mixture": mixture}


def plain_vae(model: Any, batches: Iterator[tuple[Tensor, Tensor]], adam: dict[str, Any]) -> Turn:
    """The ELBO with one draw of the latent."""
    optimizer = torch.optim.Adam(model.parameters(), lr=adam["lr"], betas=adam["betas"])
    log_likelihood = LIKELIHOODS[model.config.likelihood]

    def turn(steps: int) -> None:
        for _ in range(steps):
            images, _ = next(batches)
            mean, log_variance = model.encoder(images)
            latent = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
            reconstruction = log_likelihood(model.decoder(latent), images)
            divergence = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
            loss = (divergence - reconstruction) / images.numel()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return turn


#: What the discriminator and the generator minimise, from scores of reals and of fakes.
GAN_LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "non_saturating": (
        lambda real, fake: bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake)),
        lambda real, fake: bce(fake, torch.ones_like(fake)),
    ),
    "hinge": (lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(), lambda real, fake: -fake.mean()),
    "wgan": (lambda real, fake: fake.mean() - real.mean(), lambda real, fake: -fake.mean()),
    "relativistic": (lambda real, fake: softplus(fake - real).mean(), lambda real, fake: softplus(real - fake).mean()),
}


def slope(discriminator: nn.Module, x: Tensor, labels: Tensor | None) -> Tensor:
    """The squared norm of each item's gradient."""
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(x, labels).sum(), x, create_graph=True)
    return gradient.flatten(1).pow(2).sum(1)


def penalty(model: Any, real: Tensor, fake: Tensor, labels: Tensor | None, step: int) -> Tensor | float:
    config, discriminator = model.config, model.discriminator
    if config.regularizer == "gradient":
        mix = torch.rand(len(real), 1, 1, 1, device=real.device)
        norm = slope(discriminator, mix * real + (1 - mix) * fake, labels).sqrt()
        return config.gradient_penalty * ((norm - 1) ** 2).mean()
    if config.regularizer == "none" or step % config.r1_every:
        return 0.0
    found = slope(discriminator, real, labels).mean()
    if config.regularizer == "r1r2":
        found = found + slope(discriminator, fake, labels).mean()
    return 0.5 * config.r1_gamma * config.r1_every * found


def plain_gan(model: Any, batches: Iterator[tuple[Tensor, Tensor]], adam: dict[str, Any]) -> Turn:
    """The preset's own loss, penalty and number of discriminator steps."""
    config, generator, discriminator = model.config, model.generator, model.discriminator
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=adam["lr"], betas=adam["betas"])
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=adam["lr"], betas=adam["betas"])
    d_loss_of, g_loss_of = GAN_LOSSES[config.loss]

    def made(real: Tensor, labels: Tensor | None) -> Tensor:
        images: Tensor = generator(torch.randn(len(real), config.latent, device=real.device), labels)
        return images

    counter = count()

    def turn(steps: int) -> None:
        for step in islice(counter, steps):
            for _ in range(config.discriminator_steps):
                real, classes = next(batches)
                told = classes if config.conditional else None
                fake = made(real, told)
                d_optimizer.zero_grad()
                d_loss = d_loss_of(discriminator(real, told), discriminator(fake.detach(), told))
                (d_loss + penalty(model, real, fake.detach(), told, step)).backward()
                d_optimizer.step()
                d_loss.item()
            g_optimizer.zero_grad()
            if config.discriminator_steps > 1:
                fake = made(real, told)
            real_score = discriminator(real, told).detach() if config.loss == "relativistic" else torch.zeros(())
            g_loss = g_loss_of(real_score, discriminator(fake, told))
            g_loss.backward()
            g_optimizer.step()
            g_loss.item()

    return turn
