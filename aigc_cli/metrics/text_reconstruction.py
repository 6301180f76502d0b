"""``reconstruction_bleu``: how much of a text an autoencoder's latent holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.text import BLEUConfig, CorpusBLEU, TextMetric
from aigc_cli.registry import register


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ReconstructionBLEUConfig:
    """It has no choices."""

    name: Literal["reconstruction_bleu"]


@register("metric", "reconstruction_bleu", ReconstructionBLEUConfig)
class ReconstructionBLEU(TextMetric):
    """``reconstruction_bleu``: BLEU of texts' reconstructions against the texts themselves, and the share of texts that
    come back as they were."""

    reference = "itself"
    figures: ClassVar[dict[str, str]] = dict.fromkeys(("reconstruction_bleu", "reconstructed_exactly"), "higher")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._bleu = CorpusBLEU(BLEUConfig(name="bleu", tokenize="13a", lowercase=False))

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """BLEU in [0, 100], and a share in [0, 1]."""
        same = sum(item == text for item, text in zip(fake, real, strict=True)) / len(fake)
        bleu = self._bleu.measured(fake, real)["bleu"]
        return dict(zip(self.figures, (bleu, same), strict=True))

    def facts(self) -> dict[str, Any]:
        """sacrebleu's signature."""
        return {"signature": self._bleu.facts()["signature"].partition(";")[0]}
