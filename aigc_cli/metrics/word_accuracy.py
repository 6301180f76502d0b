"""``word_accuracy``: how much of what was to be said is understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from aigc_cli.metrics.base import Figures
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.metrics.text import TextMetric
from aigc_cli.metrics.words import errors_of
from aigc_cli.registry import register


@register("metric", "word_accuracy", PlainConfig)
class WordAccuracy(TextMetric):
    """One less the word error rate: the share of the words wanted that are there, less those that are there too much;
    and the share of texts of which every word is right and none too much.

    Of speech, a network that learnt from the same recordings writes down what it hears. That says nothing of how
    natural a voice sounds, nor whether it is the one that was asked for.
    """

    usual_for: ClassVar[Mapping[str, int]] = {"audio from text": 0}
    figures: ClassVar[Figures] = {"word_accuracy": "higher", "all_words_right": "higher"}

    def compute(self) -> dict[str, Tensor]:
        """The scores, float64 scalars by name; of silence they are 0."""
        found = self.measured(self._lines("fake"), self._lines("real"))
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """Shares; the first is below 0 where more is wrong than was wanted."""
        pairs = [(made.split(), wanted.split()) for made, wanted in zip(fake, real, strict=True)]
        wrong = [errors_of(made, wanted) for made, wanted in pairs]
        words = sum(len(wanted) for _, wanted in pairs)
        return {
            "word_accuracy": 1 - sum(wrong) / max(1, words),
            "all_words_right": sum(each == 0 for each in wrong) / max(1, len(wrong)),
        }
