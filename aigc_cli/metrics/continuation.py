"""``continuation``: how close a model's continuations of held-out prompts come to the true ones, and how varied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.text import ROUGE, BLEUConfig, CorpusBLEU, ROUGEConfig, TextMetric
from aigc_cli.metrics.text_diversity import Distinct, DistinctConfig
from aigc_cli.registry import register


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ContinuationConfig:
    """Where a passage is cut."""

    name: Literal["continuation"]
    prompt: Annotated[float, Field(gt=0, lt=1)]


@register("metric", "continuation", ContinuationConfig)
class Continuation(TextMetric):
    """``continuation``: BLEU, ROUGE and distinct-2 of texts against the true continuations, told together.

    There are many ways to go on, so the first two are low for everyone, and a copy of the prompt may win: they say
    something beside the figures of such a copy, and of text that has nothing to do with the prompt.
    """

    reference = "aligned"
    figures: ClassVar[dict[str, str]] = dict.fromkeys(
        ("continuation_bleu", "continuation_rouge1", "continuation_rougeL", "continuation_distinct2"), "higher"
    )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._parts: tuple[TextMetric, ...] = (
            CorpusBLEU(BLEUConfig(name="bleu", tokenize="13a", lowercase=False)),
            ROUGE(ROUGEConfig(name="rouge", stemmer=False)),
            Distinct(DistinctConfig(name="distinct")),
        )

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """BLEU in [0, 100], the others in [0, 1]."""
        found: dict[str, float] = {}
        for part in self._parts:
            found |= part.measured(fake, real)
        return {name: found[name.removeprefix("continuation_")] for name in self.figures}

    def facts(self) -> dict[str, Any]:
        """The signatures of its parts."""
        return {"signature": "; ".join(part.facts()["signature"] for part in self._parts if part.facts())}
