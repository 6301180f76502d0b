"""What a model itself says of held-out items: ``likelihood``, how well it predicts them, or a bound on that;
``infill``, how many masked tokens it finds, from what stands around them or only before them; and ``active_units``, how
many latent dimensions of a variational autoencoder say something about an item."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import DataError
from aigc_cli.metrics.base import Figures, Metric, Stream, Takes
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.modalities.tokenizers import PAD
from aigc_cli.models.variational import ACTIVE
from aigc_cli.nn.masking import Masks, masks_at
from aigc_cli.randomness import Noise
from aigc_cli.registry import register

#: Ends the name of a score that is also given per token: it is in nats, and summed over all tokens of all items.
PER_TOKEN = "_per_token"
#: The scores that bound the likelihood, with the sides of those that follow from each; others are taken to be exact.
_BOUNDS = {
    "nelbo": {"nelbo": "<=", "elbo": ">=", "bits_per_dim": "<="},
    "iw_bound": {"iw_bound": "<=", "iw_bits_per_dim": "<="},
    "nelbo_per_code": {"nelbo_per_code": "<=", "code_bits_per_dim": "<="},
}
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
    usual_for: ClassVar[Mapping[str, int]] = {"text": 0, "pairs": 0, "audio from text": 1}
    needs = frozenset({"score"})
    figures: ClassVar[Figures] = {
        **dict.fromkeys(("nll", "nelbo", "bits_per_dim", "iw_bound", "iw_bits_per_dim"), "lower"),
        **dict.fromkeys(("nats_per_code", "nelbo_per_code", "code_bits_per_dim"), "lower"),
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
        return {figure: side for name in bounding for figure, side in _BOUNDS[name].items()}

    def facts(self) -> dict[str, Any]:
        """The unit, and which scores depend on the tokenizer."""
        if "tokens" not in self._names:
            return {"unit": "nats per item, but bits_per_dim"}
        per_token = [name for name in self.compute() if not name.endswith(("_per_character", "bits_per_byte"))]
        return {"unit": "nats, but bits_per_byte; perplexity is exp(nll_per_token)", "per_token": per_token}


class Fills(NamedTuple):
    """What was guessed for gaps in some items."""

    rows: Sequence[int]  #: The numbers of the items.
    tokens: Tensor  #: As they were, int64 (n, t).
    gaps: Mapping[str, Tensor]  #: Which were masked, bool (n, t), by the score that they are for.
    guesses: Mapping[str, Tensor]  #: (n, t), likewise.
    fills_from: str  #: What the guesses were made from, in words.


@dataclass(config=STRICT, frozen=True, kw_only=True)
class InfillConfig(PlainConfig):
    """How much is masked, and where."""

    seed: Annotated[int, Field(ge=0)]


@register("metric", "infill", InfillConfig)
class Infill(Metric):
    """``infill``: the share of masked tokens that a model fills in as they were, of 15, 30 and 50 % of all.

    The masks are those of an item and a seed alone, the same for every model of the same tokens, and those of a smaller
    share are among those of a larger. An item's first token is never masked, since a writer from the left is given it.
    """

    takes: ClassVar[Takes] = {"items": ("fills",)}
    needs = frozenset({"fill"})
    shares: ClassVar[dict[str, float]] = {"infill_15": 0.15, "infill_30": 0.3, "infill_50": 0.5}
    figures: ClassVar[Figures] = dict.fromkeys(shares, "higher")
    right: Tensor
    masked: Tensor

    def __init__(self, config: InfillConfig, width: int = 0) -> None:
        super().__init__(config, width)
        self._fills_from = ""
        #: What was masked, so that a reader sees whether two models were given the same gaps.
        self._places = {figure: hashlib.sha256() for figure in self.shares}
        for state in ("right", "masked"):
            zeros = torch.zeros(len(self.shares), dtype=torch.int64)
            self.add_state(state, default=zeros, dist_reduce_fx="sum")

    def options(self) -> dict[str, Any]:
        """How much is masked, and the seed of where."""
        return {"shares": self.shares, "mask_seed": self.config.seed}

    def update(self, stream: Stream, fills: Fills) -> None:
        """Adds the guesses for some items."""
        self._fills_from = fills.fills_from
        for place, (figure, gaps) in enumerate(fills.gaps.items()):
            self.right[place] += ((fills.guesses[figure] == fills.tokens) & gaps).sum().cpu()
            self.masked[place] += gaps.sum().cpu()
            for row, gap in zip(fills.rows, gaps.cpu(), strict=True):
                self._places[figure].update(f"{row} {gap.nonzero().flatten().tolist()}".encode())

    def compute(self) -> dict[str, Tensor]:
        """Shares in [0, 1], float64 scalars by name."""
        return dict(zip(self.shares, self.right.double() / self.masked, strict=True))

    def facts(self) -> dict[str, Any]:
        """What was masked, and that all of it counts tokens."""
        masks = {figure: digest.hexdigest()[:8] for figure, digest in self._places.items()}
        return {
            "signature": f"filled in from {self._fills_from}; masks {'-'.join(masks.values())}",
            "masks": masks,
            "masked": dict(zip(self.shares, self.masked.tolist(), strict=True)),
            "per_token": list(self.figures),
        }


def gaps_of(tokens: Tensor, rows: Sequence[int], share: float, seed: int, longest: int) -> Tensor:
    """Which of the tokens (n, t) of some items are masked, bool (n, t), on their device.

    Args:
        tokens: Filled up with `pad`.
        rows: The numbers of the items.
        share: Of the tokens of an item but its first, rounded up.
        seed: Of the choice; with an item's number all that it depends on.
        longest: The most tokens of any item.
    """
    targets = tokens != PAD
    targets[:, 0] = False
    keys = Noise(seed, rows, tokens.device).uniform(longest)[:, : tokens.shape[1]]
    masks: Masks = masks_at([share] * len(tokens), targets, keys)
    gaps = torch.zeros_like(targets)
    gaps[masks.rows[masks.counts], masks.places[masks.counts]] = True
    return gaps


@register("metric", "active_units", PlainConfig)
class ActiveUnits(Metric):
    """``active_units``: the latent dimensions whose posterior mean has a variance above 0.01 over items.

    Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016, section 5.2. Sums are in float64.
    """

    takes: ClassVar[Takes] = {"items": ("codes",)}
    usual_for: ClassVar[Mapping[str, int]] = {"text": 6}
    needs = frozenset({"posterior"})
    figures: ClassVar[Figures] = {"active_units": ""}
    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, config: PlainConfig, width: int = 0) -> None:
        super().__init__(config, width)
        for state in ("total", "squares"):  # of each dimension, once it is known how many there are
            self.add_state(state, default=torch.zeros(1, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, stream: Stream, means: Tensor) -> None:
        """Adds the posterior means (n, d) of items."""
        means = means.double().cpu()
        self.total = self.total + means.sum(0)
        self.squares = self.squares + means.square().sum(0)
        self.count = self.count + len(means)

    def compute(self) -> dict[str, Tensor]:
        """The number, a float64 scalar."""
        if self.count < 2:
            raise DataError("active_units needs at least two items", "give more with n=")
        variance = (self.squares - self.total.square() / self.count) / (self.count - 1)
        if not bool(variance.isfinite().all()):
            raise DataError("active_units: posterior means are not finite", "choose an earlier checkpoint with step=")
        return {"active_units": (variance > ACTIVE).sum().double()}

    def facts(self) -> dict[str, Any]:
        """Of how many dimensions, and what counts."""
        says = f"of {len(self.total)} latent dimensions, those whose posterior mean has a variance above {ACTIVE}"
        return {"signature": says}
