"""Variational autoencoders (Kingma and Welling, Auto-Encoding Variational Bayes, 2014)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config import STRICT
from aigc_cli.data.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Phase
from aigc_cli.models.latent import LatentControls, LatentModel, check_conditional
from aigc_cli.models.vae_networks import build_networks
from aigc_cli.nn.likelihoods import LIKELIHOODS, bits_per_dim, gaussian_kl
from aigc_cli.nn.mixture import LatentMixture
from aigc_cli.randomness import Noise
from aigc_cli.registry import register

SETTLED = 500  # steps after which a posterior that says nothing has collapsed, and is not just young
ACTIVE = 0.01  # variance of a latent's posterior mean from which it is in use (Burda et al. 2016, section 5.2)
MIXTURE_ITEMS = 20_000  # encoded items, at most, that prior=gmm is fitted on


@dataclass(config=STRICT, frozen=True, kw_only=True)
class VAEConfig:
    """The keys of ``model=vae``; configs/model/vae.yaml explains them."""

    name: Literal["vae"]
    network: Literal["auto", "mlp", "conv", "resnet"]
    likelihood: Literal["bernoulli", "gaussian", "gaussian_fixed", "gaussian_pixel", "logistic", "logistic_mixture"]
    deviation: Annotated[float, Field(gt=0)]
    components: Annotated[int, Field(ge=1)]
    latent: Annotated[int, Field(ge=1)]
    latent_side: Annotated[int, Field(ge=0)]
    hidden: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(ge=1)]
    max_width: Annotated[int, Field(ge=1)]
    blocks: Annotated[int, Field(ge=1)]
    norm: Literal["batch", "group", "none"]
    conditional: bool
    beta: Annotated[float, Field(ge=0)]
    kl_warmup: Annotated[int, Field(ge=0)]
    free_bits: Annotated[float, Field(ge=0)]
    importance_samples: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _consistent(self) -> VAEConfig:
        if self.network == "mlp" and not self.hidden:
            raise ValueError("the mlp needs hidden units: hidden must be at least 1")
        if self.network == "mlp" and self.latent_side:
            raise ValueError("the mlp has a flat latent: latent_side must be 0")
        if self.importance_samples > 1 and self.free_bits:
            raise ValueError("free_bits is of the ELBO: with importance_samples above 1 it must be 0")
        return self


@dataclass(config=STRICT, frozen=True, kw_only=True)
class VAEControls(LatentControls):
    """What ``sample`` takes."""

    #: Scales the deviation of what is drawn from the prior: below 1, less variety and more typical samples.
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    #: Where latents are drawn: the prior of training, or a Gaussian mixture fitted on the encoded training set.
    prior: Literal["normal", "gmm"] = "normal"


class Posterior(NamedTuple):
    """The diagonal Gaussian q(z|x), each (n, d)."""

    mean: Tensor
    log_variance: Tensor

    def at(self, normal: Tensor) -> Tensor:
        """The latents (..., n, d) that standard normal draws (..., n, d) stand for (equation 10's z)."""
        return self.mean + torch.exp(0.5 * self.log_variance) * normal

    def kl(self) -> Tensor:
        """KL(q(z|x) || N(0, 1)), nats, (n, d)."""
        return gaussian_kl(self.mean, self.log_variance)

    def log_ratio(self, normal: Tensor) -> Tensor:
        """log p(z) - log q(z|x), nats, (..., n), at the latents that `normal` stands for."""
        return 0.5 * (normal.square() - self.at(normal).square() + self.log_variance).sum(-1)


@register("model", "vae", VAEConfig)
class VAE(LatentModel):
    """An encoder and a decoder that together maximise a lower bound on the likelihood.

    The phase ``"main"`` minimises nats per dimension, so that rates and clipping mean the same at every size of image.
    Its curves beside ``"loss"`` are the two terms of the exact negative ELBO, ``"reconstruction"`` and ``"kl"`` in nats
    per item, and ``"bits_per_dim"`` of the bound, whatever `beta`, warm-up and free bits make of it.
    """

    modalities = ("image",)
    controls: ClassVar[type] = VAEControls
    modes = ("sample", "reconstruct", "interpolate", "traverse")

    def __init__(self, config: VAEConfig, spec: DataSpec) -> None:
        super().__init__(spec)
        self.config = config
        self.conditional = check_conditional(config.conditional, spec)
        self.likelihood = LIKELIHOODS[config.likelihood](
            spec.shape[0], deviation=config.deviation, components=config.components
        )
        classes = len(spec.classes) if self.conditional else 0
        self.encoder, self.decoder = build_networks(config, spec.shape, self.likelihood, classes)
        #: Of one latent.
        self.dimensions = config.latent * max(1, config.latent_side) ** 2
        self.mixture: LatentMixture | None = None
        self._step = 0

    # training

    def phases(self, step: int) -> Sequence[Phase]:
        """One, whose KL weight depends on the step."""
        self._step = step
        return super().phases(step)

    @property
    def kl_weight(self) -> float:
        """`beta`, reached linearly over `kl_warmup` steps (Bowman et al. 2016; Sonderby et al. 2016)."""
        warmup = self.config.kl_warmup
        return self.config.beta * (min(1.0, self._step / warmup) if warmup else 1.0)

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The losses on encoded images (n, c, h, w)."""
        x, labels = self._seen(batch)
        posterior = self._posterior(x, labels)
        objective = self._elbo if self.config.importance_samples == 1 else self._importance_weighted
        return objective(x, labels, posterior)

    def _elbo(self, x: Tensor, labels: Tensor | None, posterior: Posterior) -> Losses:
        """The negative ELBO, with the KL's weight and free bits."""
        reconstruction = self._reconstruction(x, labels, posterior.at(torch.randn_like(posterior.mean))).mean()
        kl = posterior.kl().mean(0)  # of each dimension
        paid = kl.clamp(min=self.config.free_bits) if self.config.free_bits else kl
        return {
            "loss": (reconstruction + self.kl_weight * paid.sum()) / self._values,
            **self._terms(reconstruction, kl.sum()),
            "bits_per_dim": bits_per_dim((reconstruction + kl.sum()).detach(), self._values),
        }

    def _importance_weighted(self, x: Tensor, labels: Tensor | None, posterior: Posterior) -> Losses:
        """The negative importance-weighted bound (Burda et al. 2016, equation 8); the KL's weight scales log p/q."""
        k, n = self.config.importance_samples, len(x)
        normal = torch.randn(k, *posterior.mean.shape, device=x.device)
        many = None if labels is None else labels.repeat(k)
        latents = posterior.at(normal).flatten(0, 1)
        reconstruction = self._reconstruction(x.repeat(k, 1, 1, 1), many, latents).view(k, n)
        ratio = posterior.log_ratio(normal)
        loss = importance_bound(self.kl_weight * ratio - reconstruction).mean()
        with torch.no_grad():
            bound = importance_bound(ratio - reconstruction).mean()
        return {
            "loss": loss / self._values,
            **self._terms(reconstruction.mean(), posterior.kl().sum(1).mean()),
            "bits_per_dim": bits_per_dim(bound, self._values),
        }

    def _terms(self, reconstruction: Tensor, kl: Tensor) -> Losses:
        return {"reconstruction": reconstruction.detach(), "kl": kl.detach()}

    # encoding and decoding

    @property
    def _values(self) -> int:
        return math.prod(self.spec.shape)

    def _seen(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """What is modelled of a batch: its content as the likelihood has it, and its labels if they matter."""
        assert batch.labels is not None or not self.conditional, "a conditional model is given labels"
        return self.likelihood.target(batch.content), batch.labels if self.conditional else None

    def _posterior(self, x: Tensor, labels: Tensor | None) -> Posterior:
        return Posterior(*self.encoder(x, labels))

    def _reconstruction(self, x: Tensor, labels: Tensor | None, latents: Tensor) -> Tensor:
        """-log p(x|z), nats, (n,)."""
        log_prob: Tensor = self.likelihood(self.decoder(latents, labels), x)
        return -log_prob

    def encode(self, batch: Batch) -> Tensor:
        """The posterior's means (n, d)."""
        return self._posterior(*self._seen(batch)).mean

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """The expected images in [-1, 1], (n, c, h, w)."""
        return self.likelihood.mean(self.decoder(latents, labels if self.conditional else None))

    # sampling

    def latents(
        self, noise: Noise, *, temperature: float = 1.0, prior: Literal["normal", "gmm"] = "normal", **controls: Any
    ) -> Tensor:
        """Latents (n, d) from the prior; see :class:`VAEControls`."""
        if prior == "normal":
            return temperature * noise.normal(self.dimensions)
        if self.mixture is None:
            raise RuntimeError("prior=gmm is fitted by prepare() first")
        labels = self.labels(noise.indices, controls.get("class_"), noise.device)
        return self.mixture.sample(noise, temperature, labels)

    def prepare(self, items: Iterable[Batch], **controls: Any) -> None:
        """Fits the mixture on the encoded `items` if ``prior="gmm"``; a mixture for each class if conditional."""
        if controls.get("prior", "normal") != "gmm":
            return
        means: list[Tensor] = []
        labels: list[Tensor] = []
        count = 0
        with torch.no_grad():
            for batch in items:
                means.append(self.encode(batch))
                if self.conditional and batch.labels is not None:
                    labels.append(batch.labels)
                count += len(batch)
                if count >= MIXTURE_ITEMS:
                    break
        classes = len(self.spec.classes) if self.conditional else 0
        self.mixture = LatentMixture(torch.cat(means), torch.cat(labels) if labels else None, classes)

    # figures

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, Tensor]:
        """The negative ELBO and its terms, or with `samples` the importance-weighted bound; see :meth:`Model.score`."""
        x, labels = self._seen(batch)
        posterior = self._posterior(x, labels)
        if samples == 1:
            reconstruction = self._reconstruction(x, labels, posterior.at(noise.normal(self.dimensions)))
            kl = posterior.kl().sum(1)
            nelbo = reconstruction + kl
            return {
                "nelbo": nelbo, "bits_per_dim": bits_per_dim(nelbo, self._values), "kl": kl,
                "reconstruction": reconstruction,
            }  # fmt: skip
        log_weights = []
        for _ in range(samples):
            normal = noise.normal(self.dimensions)
            log_weights.append(posterior.log_ratio(normal) - self._reconstruction(x, labels, posterior.at(normal)))
        bound = importance_bound(torch.stack(log_weights))
        return {"iw_bound": bound, "bits_per_dim": bits_per_dim(bound, self._values)}

    def examine(self, train: Batch, held_out: Batch | None) -> Losses:
        """How many latent dimensions are in use, and how the KL, nats per item, is spread over them."""
        posterior = self._posterior(*self._seen(train))
        kl = posterior.kl().mean(0).double()
        quantiles = kl.quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], device=kl.device, dtype=kl.dtype))
        names = [f"kl_dim_{name}" for name in ("min", "lower_quartile", "median", "upper_quartile", "max")]
        active = (posterior.mean.var(0) > ACTIVE).sum()
        return {"active_units": active.double(), **dict(zip(names, quantiles, strict=True))}

    def warnings(self, figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        """Of posterior collapse: a decoder that does without the latent."""
        if self._step < max(SETTLED, self.config.kl_warmup):
            return
        active = figures.get("examine/active_units")
        if active is not None and active < 0.05 * self.dimensions:
            says = f"only {active:.0f} of {self.dimensions} latent dimensions are in use"
        elif figures.get("main/kl", math.inf) < 0.5:
            says = f"the latent tells {figures['main/kl']:.2g} nats about an image"
        else:
            return
        advice = "lower model.beta, set model.kl_warmup= to a tenth of the steps, or set model.free_bits=0.05"
        yield "posterior collapse", f"{says}: the decoder does without the latent; {advice}"


def importance_bound(log_weights: Tensor) -> Tensor:
    """The negative importance-weighted bound (n,) of k draws' log weights (k, n) (Burda et al. 2016, equation 8)."""
    return math.log(len(log_weights)) - log_weights.logsumexp(0)
