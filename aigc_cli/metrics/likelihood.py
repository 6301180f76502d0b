"""``likelihood``: how well a model predicts held-out items, or a bound on that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.base import Figures, Metric, Stream, Takes
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.registry import register

#: Ends the name of a score that is also given per token: it is in nats, and summed over all tokens of all items.
PER_TOKEN = "_per_token"
#: The scores that bound the likelihood; every other leading score is taken to be exact.
_BOUNDS = ("nelbo", "iw_bound")
#: The scores that are the likelihood of all targets of a text, or bound it, with what begins the names of theirs.
_OF_ALL_TARGETS = {"nll": "", "nelbo": "", "iw_bound": "iw_"}
_PER = ("nll_per_token", "nll_per_character", "perplexity", "bits_per_byte")


@dataclass(config=STRICT, frozen=True, kw_only=True)
class LikelihoodConfig(PlainConfig):
    """How tight the bound is made."""

    samples: Annotated[int, Field(ge=1)]


@register("metric", "likelihood", LikelihoodConfig)
class Likelihood(Metric):
    """``likelihood``: means over items of what :meth:`Model.score` gives, in nats but for bits per dimension.

    ``nelbo`` and ``elbo``: Kingma and Welling, Auto-Encoding Variational Bayes, 2014, equation 3. ``iw_bound``, with
    more than one sample: Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016, equation 8. Sums are
    in float64.

    Where items differ in length, scores come with ``tokens``, the targets of each item, and with the ``characters``
    and ``bytes`` that those stand for: every target then counts once. A score ``<name>`` with ``<name>_per_token`` is
    summed. Of all targets, it becomes nats per token and per character, bits per byte, and the perplexity, exp(nats
    per token); of some, such as masked ones, nats per token. A share of tokens, ``<name>_accuracy``, is one of all
    tokens; every other score, such as ``kl``, is a mean over items.
    """

    takes: ClassVar[Takes] = {"items": ("scores",)}
    usual_for: ClassVar[Mapping[str, int]] = {"text": 0, "pairs": 0}
    needs = frozenset({"score"})
    figures: ClassVar[Figures] = {
        **dict.fromkeys(("nelbo", "bits_per_dim", "iw_bound", "iw_bits_per_dim"), "lower"),
        **{"elbo": "higher", "kl": "", "reconstruction": ""},
        **dict.fromkeys((f"{prefix}{name}" for prefix in ("", "iw_") for name in _PER), "lower"),
        **{"masked_nll": "lower", "masked_accuracy": "higher"},
    }
    count: Tensor

    def __init__(self, config: LikelihoodConfig, width: int = 0) -> None:
        super().__init__(config, width)
        self._names: list[str] = []
        self._summed: set[str] = set()
        self.add_state("count", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def options(self) -> dict[str, Any]:
        """How many latents are drawn for each item."""
        return {"samples": self.config.samples}

    def update(self, stream: Stream, scores: Mapping[str, Tensor]) -> None:
        """Adds scores of the same items, (n,) each."""
        self._summed |= {name.removesuffix(PER_TOKEN) for name in scores if name.endswith(PER_TOKEN)}
        for name, values in scores.items():
            if name.endswith(PER_TOKEN):
                continue
            if "tokens" in scores and name.endswith("_accuracy"):
                values = values * scores["tokens"]
            if name not in self._names:
                self._names.append(name)
                self.add_state(f"total_{name}", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
            setattr(self, f"total_{name}", self._total(name) + values.double().sum().cpu())
        self.count = self.count + len(next(iter(scores.values())))

    def _total(self, name: str) -> Tensor:
        total: Tensor = getattr(self, f"total_{name}")
        return total

    def compute(self) -> dict[str, Tensor]:
        """The scores of one item or more, float64 scalars by name."""
        if "tokens" not in self._names:
            means = {name: self._total(name) / self.count for name in self._names}
            return {**({"elbo": -means["nelbo"]} if "nelbo" in means else {}), **means}
        tokens = self._total("tokens")
        found: dict[str, Tensor] = {}
        for name in (name for name in self._names if name not in ("tokens", "characters", "bytes")):
            total = self._total(name)
            if name in self._summed and name in _OF_ALL_TARGETS:
                each, characters, size = total / tokens, self._total("characters"), self._total("bytes")
                values = (each, total / characters, each.exp(), total / size / math.log(2))
                found |= {f"{_OF_ALL_TARGETS[name]}{per}": value for per, value in zip(_PER, values, strict=True)}
            else:
                found[name] = total / (tokens if name in self._summed or name.endswith("_accuracy") else self.count)
        return found

    def bounds(self) -> dict[str, str]:
        """Which scores bound the quantity that they stand for, and from which side."""
        bounding = [name for name in _BOUNDS if name in self._names]
        if "tokens" in self._names:
            of_all = [name for name in bounding if name in self._summed]
            return {f"{_OF_ALL_TARGETS[name]}{per}": "<=" for name in of_all for per in _PER}
        of_each = {"nelbo": {"nelbo": "<=", "elbo": ">=", "bits_per_dim": "<="},
                   "iw_bound": {"iw_bound": "<=", "iw_bits_per_dim": "<="}}  # fmt: skip
        return {figure: side for name in bounding for figure, side in of_each[name].items()}

    def facts(self) -> dict[str, Any]:
        """The unit, and which scores depend on the tokenizer."""
        if "tokens" not in self._names:
            return {"unit": "nats per item, but bits_per_dim"}
        per_token = [name for name in self.compute() if not name.endswith(("_per_character", "bits_per_byte"))]
        return {"unit": "nats, but bits_per_byte; perplexity is exp(nll_per_token)", "per_token": per_token}
