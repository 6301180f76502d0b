"""What variational autoencoders share, whatever they encode: the posterior, the bound's terms, curves and warnings."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, ModelConfig
from aigc_cli.models.latent import EncodingControls, LatentModel
from aigc_cli.nn.collective import averaged
from aigc_cli.nn.couplings import CouplingFlow
from aigc_cli.nn.mixture import LatentMixture
from aigc_cli.randomness import Noise

SETTLED = 500  # steps after which a posterior that says nothing has collapsed, and is not just young
ACTIVE = 0.01  # variance of a latent's posterior mean from which it is in use (Burda et al. 2016, section 5.2)


@dataclass(config=STRICT, frozen=True, kw_only=True)
class VariationalConfig(ModelConfig):
    """The keys of every variational autoencoder with one latent vector."""

    latent: Annotated[int, Field(ge=1)]
    beta: Annotated[float, Field(ge=0)]
    kl_warmup: Annotated[int, Field(ge=0)]
    free_bits: Annotated[float, Field(ge=0)]
    prior: Literal["normal", "flow"] = "normal"  # runs from before it was there have that
    prior_layers: Annotated[int, Field(ge=1)] = 8
    prior_hidden: Annotated[int, Field(ge=1)] = 64


class Posterior(NamedTuple):
    """The diagonal Gaussian q(z|x), each (n, d)."""

    mean: Tensor
    log_variance: Tensor

    def at(self, normal: Tensor) -> Tensor:
        """The latents (..., n, d) that standard normal draws (..., n, d) stand for (equation 10's z)."""
        return self.mean + torch.exp(0.5 * self.log_variance) * normal

    def kl(self) -> Tensor:
        """KL(q(z|x) || N(0, 1)) of each dimension, nats, (n, d) (Kingma and Welling 2014, equation 10)."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance)

    def log_prob(self, normal: Tensor) -> Tensor:
        """log q(z|x), nats, (..., n), at the latents that `normal` stands for."""
        return -0.5 * (normal.square() + self.log_variance + math.log(2 * math.pi)).sum(-1)

    def log_ratio(self, normal: Tensor) -> Tensor:
        """log p(z) - log q(z|x) with p(z) = N(0, 1), nats, (..., n), at the latents that `normal` stands for."""
        return 0.5 * (normal.square() - self.at(normal).square() + self.log_variance).sum(-1)


class Draw(NamedTuple):
    """What one draw of the latents says of each item, nats, (n,)."""

    reconstruction: Tensor  # -log p(x|z)
    kl: Tensor  # of the posterior and the prior
    log_ratio: Tensor  # log p(z) - log q(z|x)


@dataclass(config=STRICT, frozen=True, kw_only=True)
class PriorControls(EncodingControls):
    """What ``sample`` takes of a model that draws its latents from a prior."""

    #: Scales the deviation of what is drawn from the prior: below 1, less variety and more typical samples.
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    #: Where latents, or the coarsest of them, are drawn: the prior of training, or a Gaussian mixture fitted on the
    #: encoded training set.
    prior: Literal["normal", "gmm"] = "normal"


class VariationalModel(LatentModel):
    """Base of the variational autoencoders: latents are drawn from N(0, 1), or from a mixture fitted afterwards."""

    can = frozenset({"sample", "latents", "decode", "encode", "score"})
    controls: ClassVar[type] = PriorControls
    #: Of one latent.
    dimensions: int
    mixture: LatentMixture | None = None
    #: The control that scales the deviations of latents.
    scaled_by: ClassVar[str] = "temperature"

    @property
    def coarsest(self) -> int:
        """How many dimensions of a latent, the leading ones, a mixture is of; the rest are drawn from N(0, 1)."""
        return self.dimensions

    def latents(self, noise: Noise, controls: Any) -> Tensor:
        """Latents (n, d) from the prior, or the mixture of :meth:`prepare`; see :class:`PriorControls`."""
        temperature: float = getattr(controls, self.scaled_by)
        if controls.prior == "normal":
            return temperature * noise.normal(self.dimensions)
        if self.mixture is None:
            raise RuntimeError("prior=gmm is fitted by prepare() first")
        coarsest = self.mixture.sample(noise, temperature, self.labels(noise.indices, controls, noise.device))
        return torch.cat([coarsest, temperature * noise.normal(self.dimensions - self.coarsest)], dim=1)

    def prepare(self, items: Iterable[Batch], controls: Any) -> None:
        """Fits the mixture on the encoded `items` if ``prior="gmm"``; a mixture for each class if conditional."""
        if controls.prior == "gmm":
            with torch.no_grad():
                found = [(self.encode(batch)[:, : self.coarsest], self.labels_of(batch)) for batch in items]
            means, labels = zip(*found, strict=True)
            known = [part for part in labels if part is not None]
            self.mixture = LatentMixture.fit(torch.cat(means), torch.cat(known) if known else None, self.classes)

    @abstractmethod
    def inference(self, batch: Batch) -> Callable[[Tensor], Draw]:
        """What maps standard normal draws (n, d), which the posterior moves and scales, to what they say of items."""

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, Tensor]:
        """The negative ELBO and its terms, or with `samples` the importance-weighted bound; see :meth:`Model.score`."""
        inference = self.inference(batch)
        draws = [inference(noise.normal(self.dimensions)) for _ in range(samples)]
        if samples == 1:
            reconstruction, kl, _ = draws[0]
            return {**self.bounds("nelbo", reconstruction + kl, batch), "kl": kl, "reconstruction": reconstruction}
        log_weights = torch.stack([draw.log_ratio - draw.reconstruction for draw in draws])
        return self.bounds("iw_bound", importance_bound(log_weights), batch)

    def bounds(self, name: str, nats: Tensor, batch: Batch) -> dict[str, Tensor]:
        """A bound on each item's negative log-likelihood, (n,), as itself and in the unit that compares."""
        return {name: nats, **self.bits(nats)}


class FlatVAE(VariationalModel):
    """Base of those with a diagonal Gaussian posterior over one latent vector."""

    can = frozenset({"sample", "latents", "decode", "encode", "posterior", "score", "examine"})
    config: VariationalConfig
    #: What to do where the decoder does without the latent.
    advice: ClassVar[str] = (
        "lower model.beta, set model.kl_warmup= to a tenth of the steps, or set model.free_bits=0.05"
    )

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        #: A density of latents that is learnt with the rest, in the place of N(0, 1). What :meth:`encode` gives and
        #: :meth:`decode` takes is then its noise, which is N(0, 1) again.
        self.prior: CouplingFlow | None = None

    def learn_prior(self) -> None:
        """Sets :attr:`prior` where the configuration asks for one, of :attr:`dimensions`."""
        if self.config.prior == "flow":
            self.prior = CouplingFlow(
                self.dimensions, layers=self.config.prior_layers, hidden=self.config.prior_hidden, classes=self.classes
            )

    def placed(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """The latents (n, d) that noise of the prior stands for."""
        return noise if self.prior is None else self.prior.from_noise(noise, labels)

    @abstractmethod
    def posterior(self, batch: Batch) -> Posterior:
        """q(z|x) of encoded items, (n, d)."""

    @abstractmethod
    def reconstruction(self, batch: Batch, latents: Tensor) -> Tensor:
        """-log p(x|z), nats, (n,), of encoded items given latents (n, d)."""

    def encode(self, batch: Batch) -> Tensor:
        """The posterior's means (n, d), as noise of the prior where it is learnt."""
        mean = self.posterior(batch).mean
        return mean if self.prior is None else self.prior.to_noise(mean.float(), self.labels_of(batch))[0]

    def log_ratio(self, batch: Batch, posterior: Posterior, normal: Tensor) -> Tensor:
        """log p(z) - log q(z|x), nats, (..., n), at the latents that `normal` (..., n, d) stands for."""
        if self.prior is None:
            return posterior.log_ratio(normal)
        latents, labels = posterior.at(normal).float(), self.labels_of(batch)
        if labels is not None:
            labels = labels.expand(latents.shape[:-1]).flatten()
        prior = self.prior.log_prob(latents.flatten(0, -2), labels).view(latents.shape[:-1])
        return prior - posterior.log_prob(normal).float()

    def inference(self, batch: Batch) -> Callable[[Tensor], Draw]:
        """See :meth:`VariationalModel.inference`; the KL is exact whatever is drawn, or on average where the prior is
        learnt."""
        posterior = self.posterior(batch)

        def drawn(normal: Tensor) -> Draw:
            nats = self.reconstruction(batch, posterior.at(normal))
            ratio = self.log_ratio(batch, posterior, normal).to(nats)
            return Draw(nats, -ratio if self.prior is not None else posterior.kl().to(nats).sum(1), ratio)

        return drawn

    # training

    @property
    def kl_weight(self) -> float:
        """`beta`, reached linearly over `kl_warmup` steps (Bowman et al. 2016; Sonderby et al. 2016)."""
        warmup = self.config.kl_warmup
        return self.config.beta * (min(1.0, self._step * self.pace / warmup) if warmup else 1.0)

    def kl_of(self, batch: Batch, posterior: Posterior, normal: Tensor) -> Tensor:
        """KL(q(z|x) || p(z)), nats, a mean over the batch: of each dimension (d,), which has free bits of its own, or
        of the whole (1,), at the latents that `normal` (n, d) stands for, where the prior is learnt."""
        if self.prior is None:
            return posterior.kl().mean(0)
        return -self.log_ratio(batch, posterior, normal).mean(0, keepdim=True)

    def paid(self, kl: Tensor) -> Tensor:
        """The objective's term, nats, of the KL of each dimension (d,), a mean over the batch, or of the whole (1,).

        Each counts as `free_bits` a dimension at least, so that less gains nothing (Kingma et al., Improved Variational
        Inference with Inverse Autoregressive Flow, 2016, appendix C.8).
        """
        free = self.config.free_bits * self.dimensions / len(kl)
        if free:
            # Which dimensions are below is decided on the mean over all processes, so that all leave out the same ones.
            kl = torch.where(averaged(kl.detach().clone()) >= free, kl, free)
        return self.kl_weight * kl.sum()

    # figures

    def examine(self, train: Batch, held_out: Batch | None) -> Losses:
        """How many latent dimensions are in use, and how the KL, nats per item, is spread over them."""
        posterior = self.posterior(train)
        if self.prior is not None:  # whose latents have any scale
            whole = posterior.mean.var(0) + posterior.log_variance.exp().mean(0)
            return {"active_units": (posterior.mean.var(0) > ACTIVE * whole).sum().double()}
        kl = posterior.kl().mean(0).double()
        quantiles = kl.quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], device=kl.device, dtype=kl.dtype))
        names = [f"kl_dim_{name}" for name in ("min", "lower_quartile", "median", "upper_quartile", "max")]
        active = (posterior.mean.var(0) > ACTIVE).sum()
        return {"active_units": active.double(), **dict(zip(names, quantiles, strict=True))}

    def warnings(self, figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        """Of posterior collapse: a decoder that does without the latent."""
        if self._step < SETTLED or self._step * self.pace < self.config.kl_warmup:
            return
        active = figures.get("examine/active_units")
        if active is not None and active < 0.05 * self.dimensions:
            says = f"only {active:.0f} of {self.dimensions} latent dimensions are in use"
        elif figures.get("main/kl", math.inf) < 0.5:
            says = f"the latent tells {figures['main/kl']:.2g} nats about an item"
        else:
            return
        yield "posterior collapse", f"{says}: the decoder does without the latent; {self.advice}"


def importance_bound(log_weights: Tensor) -> Tensor:
    """The negative importance-weighted bound (n,) of k draws' log weights (k, n) (Burda et al. 2016, equation 8)."""
    return math.log(len(log_weights)) - log_weights.logsumexp(0)
