"""``likelihood``: how well a model predicts held-out items, as a bound on their negative log-likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torchmetrics import Metric

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Dataset
from aigc_cli.data.open import encoded, items_at
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.result import Result, Score, finite
from aigc_cli.models.base import Model
from aigc_cli.progress import progress
from aigc_cli.randomness import Noise
from aigc_cli.registry import register

#: The scores that bound the likelihood; every other leading score is taken to be exact.
BOUNDS = {"nelbo", "iw_bound"}


@dataclass(config=STRICT, frozen=True, kw_only=True)
class LikelihoodConfig:
    """How tight the bound is made."""

    name: Literal["likelihood"]
    samples: Annotated[int, Field(ge=1)]


@register("metric", "likelihood", LikelihoodConfig)
class HeldOutLikelihood(Metric):
    """``likelihood``: means over items of what :meth:`Model.score` gives, in nats but for bits per dimension.

    ``nelbo`` and ``elbo``: Kingma and Welling, Auto-Encoding Variational Bayes, 2014, equation 3. ``iw_bound``, with
    more than one sample: Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016, equation 8. Sums are
    in float64, and each item's noise depends on the seed and the item alone.
    """

    is_differentiable = False
    full_state_update = False
    figures: ClassVar[dict[str, str]] = dict.fromkeys(("nelbo", "bits_per_dim", "iw_bound", "iw_bits_per_dim"), "lower")
    figures |= {"elbo": "higher", "kl": "", "reconstruction": ""}
    #: Of text: see :class:`aigc_cli.metrics.text_likelihood.TextLikelihood`.
    figures |= dict.fromkeys(("nll_per_token", "nll_per_character", "perplexity", "bits_per_byte"), "lower")
    figures |= dict.fromkeys(("iw_nll_per_token", "iw_nll_per_character", "iw_perplexity", "iw_bits_per_byte"), "lower")
    figures |= {"masked_nll": "lower", "masked_accuracy": "higher"}
    count: Tensor

    def __init__(self, config: LikelihoodConfig) -> None:
        super().__init__()
        self.config = config
        self._names: list[str] = []
        self.add_state("count", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, scores: Mapping[str, Tensor]) -> None:
        """Adds scores of the same items, (n,) each."""
        for name, values in scores.items():
            state = f"total_{name}"
            if name not in self._names:
                self._names.append(name)
                self.add_state(state, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
            setattr(self, state, getattr(self, state) + values.double().sum().cpu())
        self.count = self.count + len(next(iter(scores.values())))

    def compute(self) -> dict[str, Tensor]:
        """The means over one item or more, float64 scalars by name."""
        means = {name: getattr(self, f"total_{name}") / self.count for name in self._names}
        return {**({"elbo": -means["nelbo"]} if "nelbo" in means else {}), **means}

    def bounds(self) -> dict[str, str]:
        """Which figures bound the quantity that they stand for, and from which side."""
        bounded = {name: "<=" for name in self._names if name in BOUNDS}
        if "nelbo" in bounded:
            bounded |= {"elbo": ">=", "bits_per_dim": "<="}
        if "iw_bound" in bounded:
            bounded["iw_bits_per_dim"] = "<="
        return bounded

    def facts(self, figures: Sequence[str]) -> dict[str, Any]:
        """What a reader of the figures must know."""
        return {"unit": "nats per item, but bits_per_dim"}

    def result(self, n: int, config: Mapping[str, Any], notes: Sequence[str] = ()) -> Result:
        """The figures of all items so far, as those of `n`.

        Raises:
            DataError: one is not finite.
        """
        figures = finite("likelihood", self.compute())
        return Result(
            metric="likelihood",
            extractor=None,
            plain=True,
            better={figure: self.figures.get(figure, "") for figure in figures},
            config=dict(config),
            n_real=n,
            generated=Score(figures, n),
            bounds=self.bounds(),
            facts=self.facts(list(figures)),
            notes=tuple(notes),
        )


def scores_of(model: Model, dataset: Dataset, rows: Sequence[int], noise: Noise, samples: int) -> dict[str, Tensor]:
    """The scores of some items by the names of :class:`HeldOutLikelihood`'s figures, (n,) each.

    Raises:
        ConfigError: the model has no likelihood, or none as it was trained.
    """
    batch = encoded(items_at(dataset, rows).to(noise.device), dataset.codec)
    with torch.inference_mode():
        found = model.score(batch, noise)
        if found is None or found.keys() == {"mse"}:  # an autoencoder's error alone is no likelihood
            raise no_likelihood(model)
        scores = dict(found)
        if samples > 1:
            again = Noise(noise.seed, noise.indices, noise.device)
            tighter = model.score(batch, again, samples)
            assert tighter is not None, "the model has a score"
            names = {"bits_per_dim": "iw_bits_per_dim"}
            scores |= {names.get(name, name): values for name, values in tighter.items()}
    return scores


def no_likelihood(model: Model, others: str = "fd,prdc") -> ConfigError:
    """The error of a model that gives none; `others` are metrics that it may have."""
    return ConfigError(
        f"{type(model).__name__} gives no likelihood, nor a bound on one",
        f"ask for metrics of its samples, such as --metric {others}",
    )


def measure_likelihood(
    model: Model,
    dataset: Dataset,
    rows: Sequence[int],
    config: Mapping[str, Any],
    *,
    seed: int,
    device: torch.device,
    batch_size: int,
) -> Result:
    """The likelihood of items, one pass over them.

    Args:
        model: In evaluation mode, on `device`.
        dataset: Where the items are.
        rows: Which of them.
        config: The metric's, with ``samples``.
        seed: Of the noise; item ``i``'s depends on ``(seed, i)`` alone.
        device: Where the model is.
        batch_size: Items at a time; with several samples each, correspondingly fewer.

    Raises:
        ConfigError: the model has no likelihood.
        DataError: there are no items, or a figure is not finite.
    """
    if "score" not in model.can:
        raise no_likelihood(model)
    if not rows:
        raise DataError("there are no items to measure the likelihood of", "give at least one with n=")
    samples = int(config["samples"])
    metric = HeldOutLikelihood(LikelihoodConfig(name="likelihood", samples=samples))
    metric.distributed_available_fn = lambda: False
    size = max(1, batch_size // min(samples, batch_size))
    with progress(len(rows), "held-out items", "items") as bar:
        for start in range(0, len(rows), size):
            some = list(rows[start : start + size])
            metric.update(scores_of(model, dataset, some, Noise(seed, some, device), samples))
            bar.advance(len(some))
    return metric.result(len(rows), config)
