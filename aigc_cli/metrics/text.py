"""What metrics of text share. Sentences are kept as bytes, so that processes can hand them to each other."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from aigc_cli.errors import DataError
from aigc_cli.metrics.base import Metric, Stream, Takes, joined

#: A word, in any script, or one other character that is no space.
WORD = re.compile(r"\w+|[^\w\s]")


class TextMetric(Metric):
    """A metric over lines of text: of a stream alone, or of pairs, each beside what it should have been."""

    takes: ClassVar[Takes] = {"pairs": ("text",)}

    def __init__(self, config: Any, width: int = 0) -> None:
        super().__init__(config, width)
        for side in ("fake", "real"):
            self.add_state(f"{side}_bytes", default=[], dist_reduce_fx="cat")
            self.add_state(f"{side}_lengths", default=[], dist_reduce_fx="cat")

    def update(self, stream: Stream, lines: Sequence[str], references: Sequence[str] = ()) -> None:
        """Adds items, and of pairs their references."""
        made, wanted = (references, lines) if stream == "real" else (lines, references)
        for side, some in (("fake", made), ("real", wanted)):
            coded = [line.encode() for line in some]
            if coded:
                content = np.frombuffer(b"".join(coded), dtype=np.uint8).copy()  # which may be empty
                getattr(self, f"{side}_bytes").append(torch.from_numpy(content))
                getattr(self, f"{side}_lengths").append(torch.tensor([len(line) for line in coded]))

    def _lines(self, side: str) -> list[str]:
        whole = joined(getattr(self, f"{side}_bytes"), 1, torch.uint8).flatten().numpy().tobytes()
        ends = joined(getattr(self, f"{side}_lengths"), 1, torch.int64).flatten().cumsum(0).tolist()
        return [whole[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]

    def compute(self) -> dict[str, Tensor]:
        """The scores, float64 scalars by name.

        Raises:
            DataError: there are too few items, or references that do not fit them.
        """
        fake, real = self._lines("fake"), self._lines("real")
        if not any(line.strip() for line in fake):
            raise DataError("there is no text to measure", "give a file with an item a line")
        if "pairs" in self.takes and len(fake) != len(real):
            raise DataError(
                f"{len(fake)} items and {len(real)} references do not pair up", "give one for each, in order"
            )
        if "real" in self.takes and not any(line.strip() for line in real):
            raise DataError("there is no text to look in", "name it with real=")
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in self.measured(fake, real).items()}

    @abstractmethod
    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """The scores of items, which are not all empty."""


def ngrams(words: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    """Every run of `n` words."""
    return zip(*(words[start:] for start in range(n)), strict=False)
