"""Variational autoencoders (Kingma and Welling, Auto-Encoding Variational Bayes, 2014)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses
from aigc_cli.models.latent import check_conditional
from aigc_cli.models.vae.config import VAEConfig
from aigc_cli.models.vae.networks import build_networks, latent_side
from aigc_cli.models.variational import FlatVAE, Posterior, importance_bound
from aigc_cli.nn.collective import draw, normal_like
from aigc_cli.nn.likelihoods import build_likelihood
from aigc_cli.nn.padding import ending
from aigc_cli.registry import register


@register("model", "vae", VAEConfig)
class VAE(FlatVAE):
    """An encoder and a decoder that together maximise a lower bound on the likelihood.

    The phase ``"main"`` minimises nats per dimension, so that rates and clipping mean the same at every size of image.
    Its curves beside ``"loss"`` are the two terms of the exact negative ELBO, ``"reconstruction"`` and ``"kl"`` in nats
    per item, and ``"bits_per_dim"`` of the bound, whatever `beta`, warm-up and free bits make of it.
    """

    config: VAEConfig
    layouts = frozenset({"sequence", "map", "volume"})
    #: How a latent lies: channels, and places of a map or a single one.
    latent_shape: tuple[int, ...] = ()

    def __init__(self, config: VAEConfig, spec: DataSpec) -> None:
        super().__init__(spec)
        self.config = config
        self.conditional = check_conditional(config.conditional, spec)
        likelihood = build_likelihood(config.likelihood, spec.shape[0], config.deviation, config.components)
        self.likelihood = ending(likelihood, spec.padding)
        self.encoder, self.decoder = build_networks(config, spec.shape, self.likelihood, self.classes)
        grid: tuple[int, ...] = (1,)
        if shorter := latent_side(config, spec.shape):
            grid = tuple(side * shorter // min(spec.shape[1:]) for side in spec.shape[1:])
        self.latent_shape = (config.latent, *grid)
        self.dimensions = math.prod(self.latent_shape)
        self.learn_prior()

    # training

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The losses on encoded images (n, c, h, w)."""
        posterior = self.posterior(batch)
        if self.config.importance_samples > 1:
            loss, bound, reconstruction, kl = self._importance_weighted(batch, posterior)
        else:
            normal = normal_like(posterior.mean)
            reconstruction = self.reconstruction(batch, posterior.at(normal)).mean()
            each = self.kl_of(batch, posterior, normal)
            kl = each.sum()
            loss, bound = reconstruction + self.paid(each), (reconstruction + kl).detach()
        return {
            "loss": loss / self.values,
            "reconstruction": reconstruction.detach(),
            "kl": kl.detach(),
            **self.bits(bound),
        }

    def _importance_weighted(self, batch: Batch, posterior: Posterior) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The loss, in which the KL's weight scales log p/q, the negative importance-weighted bound (Burda et al. 2016,
        equation 8), the reconstruction and the KL, each a mean."""
        # One pass of the decoder for the k draws of all items; the encoder's pass they share.
        k, x, labels = self.config.importance_samples, batch.content, batch.labels
        normal = draw(torch.randn, k, *posterior.mean.shape, dim=1, device=x.device)
        many = Batch(x.repeat(k, *[1] * (x.ndim - 1)), None if labels is None else labels.repeat(k))
        reconstruction = self.reconstruction(many, posterior.at(normal).flatten(0, 1)).view(k, len(x))
        ratio = self.log_ratio(batch, posterior, normal)
        loss = importance_bound(self.kl_weight * ratio - reconstruction).mean()
        kl = posterior.kl().sum(1) if self.prior is None else -ratio
        return loss, importance_bound((ratio - reconstruction).detach()).mean(), reconstruction.mean(), kl.mean()

    # encoding and decoding

    def posterior(self, batch: Batch) -> Posterior:
        """See :meth:`FlatVAE.posterior`."""
        return Posterior(*self.encoder(self.likelihood.target(batch.content), self.labels_of(batch)))

    def reconstruction(self, batch: Batch, latents: Tensor) -> Tensor:
        """See :meth:`FlatVAE.reconstruction`."""
        parameters = self.decoder(latents, self.labels_of(batch))
        log_prob: Tensor = self.likelihood(parameters, self.likelihood.target(batch.content))
        return -log_prob

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """The expected images in [-1, 1], (n, c, h, w)."""
        labels = labels if self.conditional else None
        return self.likelihood.mean(self.decoder(self.placed(latents, labels), labels))
