"""``likelihood`` of text: each target of a split counts once, and its nats are divided by how much text that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aigc_cli.data.base import Extent
from aigc_cli.metrics.likelihood import BOUNDS, HeldOutLikelihood, LikelihoodConfig, no_likelihood, scores_of
from aigc_cli.metrics.passages import Passages
from aigc_cli.metrics.result import Result
from aigc_cli.models.base import Model
from aigc_cli.progress import progress
from aigc_cli.randomness import Noise
from aigc_cli.sampling.generate import in_batches

PER_TOKEN = "_per_token"
#: The scores that are the likelihood of all targets, or bound it, with what the names of their figures begin with.
_OF_ALL_TARGETS = {"nll": "", "nelbo": "", "iw_bound": "iw_"}
#: Scores of one vocabulary that a batch may hold, float32; what it takes besides is a few times that.
_SCORES = {"cpu": 2**24, "cuda": 2**29}


class TextLikelihood(HeldOutLikelihood):
    """``likelihood`` over items of text, of what :meth:`Model.score` gives with ``tokens``, the targets of each item.

    A score named ``<name>`` with ``<name>_per_token`` is in nats and summed. Of all targets, it gives nats per token
    and per character, bits per byte, and the perplexity, exp(nats per token); of some, such as masked ones, nats per
    token. A share of tokens, ``<name>_accuracy``, is one of all tokens; every other score, such as ``kl``, is a mean
    over items.
    """

    def __init__(self, config: LikelihoodConfig, extent: Extent) -> None:
        super().__init__(config)
        self.extent = extent
        self._summed: set[str] = set()

    def update(self, scores: Mapping[str, Tensor]) -> None:
        """Adds scores of the same items, (n,) each."""
        tokens = scores["tokens"]
        super().update(
            {
                name: values * tokens if name.endswith("_accuracy") else values
                for name, values in scores.items()
                if not name.endswith(PER_TOKEN)
            }
        )
        self._summed |= {name.removesuffix(PER_TOKEN) for name in scores if name.endswith(PER_TOKEN)}

    def compute(self) -> dict[str, Tensor]:
        """The figures, float64 scalars by name."""
        tokens, extent = self._total("tokens"), self.extent
        figures: dict[str, Tensor] = {}
        for name in (name for name in self._names if name != "tokens"):
            total = self._total(name)
            if name in self._summed and name in _OF_ALL_TARGETS:
                assert int(tokens) == extent.targets, "every target counts once"
                each = total / tokens
                values = (each, total / extent.characters, each.exp(), total / extent.bytes / math.log(2))
                figures |= dict(zip(_figures_of(name), values, strict=True))
            else:
                figures[name] = total / (tokens if name in self._summed or name.endswith("_accuracy") else self.count)
        return figures

    def _total(self, name: str) -> Tensor:
        total: Tensor = getattr(self, f"total_{name}")
        return total

    def bounds(self) -> dict[str, str]:
        """All figures of a score that is a bound."""
        bounded = [name for name in self._names if name in BOUNDS and name in self._summed]
        return {figure: "<=" for name in bounded for figure in _figures_of(name)}

    def facts(self, figures: Sequence[str]) -> dict[str, Any]:
        """The unit, and which figures depend on the tokenizer."""
        per_token = [figure for figure in figures if not figure.endswith(("_per_character", "bits_per_byte"))]
        return {"unit": "nats, but bits_per_byte; perplexity is exp(nll_per_token)", "per_token": per_token}


def _figures_of(name: str) -> list[str]:
    prefix = _OF_ALL_TARGETS[name]
    return [prefix + figure for figure in ("nll_per_token", "nll_per_character", "perplexity", "bits_per_byte")]


def measure_text_likelihood(
    model: Model,
    passages: Passages,
    config: Mapping[str, Any],
    *,
    seed: int,
    device: torch.device,
    batch_size: int | None = None,
) -> Result:
    """The likelihood of passages, one pass over them, items of like length together.

    Args:
        model: In evaluation mode, on `device`.
        passages: What is predicted.
        config: The metric's, with ``samples``.
        seed: Of the noise; item ``i``'s depends on ``(seed, i)`` alone.
        device: Where the model is.
        batch_size: Items at a time; None suits their length and the vocabulary, and is halved where memory runs out.

    Raises:
        ConfigError: the model has no likelihood.
        DataError: a figure is not finite.
        ResourceError: a batch does not fit in memory.
    """
    if "score" not in model.can:
        raise no_likelihood(model, "distinct,self_bleu")
    samples = int(config["samples"])
    metric = TextLikelihood(LikelihoodConfig(name="likelihood", samples=samples), passages.extent)
    metric.distributed_available_fn = lambda: False
    dataset, longest = passages.dataset, int(passages.lengths.max())
    order = [passages.rows[place] for place in (-passages.lengths).argsort(kind="stable").tolist()]
    size = batch_size or max(1, _SCORES[device.type] // (longest * passages.codec.tokenizer.vocab_size * samples))

    def score(rows: Any) -> int:
        metric.update(scores_of(model, dataset, rows, Noise(seed, rows, device), samples))
        return len(rows)

    with progress(len(order), "held-out text", "items") as bar:
        for done in in_batches(score, order, longest, device, min(size, len(order))):
            bar.advance(done)
    return metric.result(passages.units, config, _notes(passages))


def _notes(passages: Passages) -> list[str]:
    if not passages.running:
        return []
    context = passages.dataset.spec.shape[0] - 1
    return [
        f"the text is read in windows of {context} tokens that do not overlap: a token is predicted from its own alone"
    ]
