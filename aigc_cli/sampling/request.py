"""What is asked for when a model is sampled, and what becomes of it: a set of samples, and how it is drawn.

Sample ``i`` of a plan depends on the seed and ``i`` alone, so that a plan of more samples begins with those of one of
fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.open import chosen_rows, items_at
from aigc_cli.errors import too_many, warn
from aigc_cli.modalities.base import Batch, Codec
from aigc_cli.modalities.prompts import Prompt
from aigc_cli.modalities.samples import Arrangement
from aigc_cli.models.base import Model, Prompts
from aigc_cli.sampling.generate import decoded, generate, in_batches

#: Maps a batch size, None for one that suits, to all samples in order, raw content (b, ...) on the CPU.
Batches = Callable[[int | None], Iterator[Tensor]]


@dataclass(frozen=True)
class Plan:
    """A set of samples, and how it is drawn."""

    arrangement: Arrangement
    batches: Batches
    #: What of the data the samples show.
    source: Mapping[str, Any] = field(default_factory=dict)


class HeldOut(NamedTuple):
    """Some items that the model was not trained on, raw, and where they come from."""

    split: Split
    dataset: Dataset
    rows: list[int]
    batch: Batch

    @property
    def source(self) -> dict[str, Any]:
        """Which data it is."""
        return {"split": self.split, "fingerprint": self.dataset.spec.fingerprint}

    def __str__(self) -> str:
        return f"{len(self.rows)} {'item' if len(self.rows) == 1 else 'items'} of the {self.split} split"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be sampled, and what with."""

    model: Model
    codec: Codec
    #: Of ``model.controls``.
    controls: Any
    #: Samples, or what a mode counts in their place; None is as many as suit it.
    n: int | None
    seed: int
    device: torch.device
    #: Open the items that the model was trained on, and those that it was not; called only where they are needed.
    train: Callable[[], Dataset]
    held_out: Callable[[], tuple[Split, Dataset]]
    #: How many samples a person looks at together.
    usual: int
    #: What to begin from; samples take turns in them.
    prompts: Sequence[Prompt] = ()
    #: Whether fewer will do, where there are not `n`.
    at_most: bool = False

    def counted(self, usual: int, most: int, what: str) -> int:
        """How many are asked for.

        Raises:
            ConfigError: more than there are.
        """
        if self.n is not None and self.n > most and not self.at_most:
            raise too_many(self.n, most, what)
        return min(usual if self.n is None else self.n, most)

    def warn_of_n(self) -> None:
        """Warns where prompts say how many samples there are."""
        if self.n is not None:
            warn("n= has no effect here: each prompt is decoded once")

    def items(self, usual: int) -> HeldOut:
        """As many held-out items as are asked for; the seed decides which.

        Raises:
            ConfigError: there are fewer.
            DataError: they cannot be read.
        """
        split, dataset = self.held_out()
        n = self.counted(usual, len(dataset), f"items in the {split} split")
        rows = chosen_rows(dataset, self.seed)[:n]
        return HeldOut(split, dataset, rows, items_at(dataset, rows))

    def drawn(self, n: int, prompts: Prompts | None = None) -> Batches:
        """The batches of `n` samples, drawn from `prompts` if there are any."""

        def batches(batch_size: int | None) -> Iterator[Tensor]:
            return generate(
                self.model, self.codec, range(n), seed=self.seed, device=self.device, batch_size=batch_size,
                controls=self.controls, prompts=prompts,
            )  # fmt: skip

        return batches

    def decoded(
        self, n: int, latents: Callable[[Sequence[int]], Tensor], labels: Sequence[int] | None = None
    ) -> Batches:
        """The batches of the `n` samples that `latents`, of some of their numbers in order, are decoded to."""

        def draw(some: Sequence[int]) -> Tensor:
            own = None if labels is None else torch.tensor([labels[index] for index in some], device=self.device)
            what = f"samples {some[0]} to {some[-1]} (seed {self.seed})"
            return decoded(self.model.decode(latents(some), own), self.codec, what)

        def batches(batch_size: int | None) -> Iterator[Tensor]:
            return in_batches(draw, range(n), self.model.held(), self.device, batch_size)

        return batches
