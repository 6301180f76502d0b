"""What a metric says, and what it said it on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from aigc_cli.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from aigc_cli.metrics.extractors.base import Extractor


@dataclass(frozen=True)
class Score:
    """The figures of one set of items, and how many those were; None where a file of statistics does not say it."""

    figures: dict[str, float]
    n: int | None


@dataclass(frozen=True)
class Result:
    """What a metric says, with what it said it on."""

    metric: str
    #: None where it looks at no features.
    extractor: Extractor | None
    #: Whether the metric's plain name stands for it, or it takes the extractor's name in brackets.
    plain: bool
    #: For each figure which way is better: "lower", "higher" or "" where neither is.
    better: Mapping[str, str]
    config: Mapping[str, Any]
    #: 0 where it looks at none; None where a file of statistics does not say it.
    n_real: int | None
    #: The figures; their means where there are several sample sets.
    generated: Score
    #: Held-out real items in the place of generated ones; None where there are none.
    floor: Score | None = None
    #: The figures of other things in the place of the generated ones, such as held-out text, by what they are.
    beside: Mapping[str, Score] = field(default_factory=dict)
    #: As many generated items as the floor has, where it has fewer: several figures depend on the number.
    at_floor_n: Score | None = None
    notes: tuple[str, ...] = ()
    #: The figures of each of several independent sample sets.
    each: tuple[Mapping[str, float], ...] = ()
    #: "<=" or ">=" for figures that bound what they stand for.
    bounds: Mapping[str, str] = field(default_factory=dict)
    #: What else a reader must know, such as the signature of a text metric.
    facts: Mapping[str, Any] = field(default_factory=dict)
    #: Whether the reference plays any part in the figures.
    needs_real: bool = True
    #: Whether the figures themselves depend on held-out real items, and not their floor alone.
    needs_held_out: bool = False
    #: Images worth a look, (rows, columns, C, h, w) uint8.
    gallery: Tensor | None = None

    def label(self, figure: str) -> str:
        """The figure's name as it must be shown, such as ``fd[digits-cnn]``."""
        return figure if self.plain or self.extractor is None else f"{figure}[{self.extractor.name}]"

    def labelled(self) -> dict[str, float]:
        """The figures of the generated items by their full names."""
        return {self.label(figure): value for figure, value in self.generated.figures.items()}

    def spread(self) -> dict[str, float] | None:
        """The standard deviation (n - 1) of each figure over the sample sets; None where there is one set."""
        if len(self.each) < 2:
            return None
        return {figure: stdev(one[figure] for one in self.each) for figure in self.generated.figures}


def averaged(sets: Sequence[Sequence[Result]]) -> list[Result]:
    """The results of several sample sets as one result for each metric: means, with every set's own figures."""
    if len(sets) == 1:
        return list(sets[0])
    merged = []
    for results in zip(*sets, strict=True):
        each = tuple(result.generated.figures for result in results)
        matched = [result.at_floor_n for result in results if result.at_floor_n is not None]
        merged.append(
            replace(
                results[0],
                generated=Score(_means(each), results[0].generated.n),
                at_floor_n=Score(_means([score.figures for score in matched]), matched[0].n) if matched else None,
                notes=tuple(dict.fromkeys(note for result in results for note in result.notes)),
                each=each,
            )
        )
    return merged


def _means(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {figure: fmean(one[figure] for one in each) for figure in each[0]}


def finite(name: str, values: Mapping[str, Tensor]) -> dict[str, float]:
    """The figures of a metric as numbers.

    Raises:
        DataError: one is not finite.
    """
    figures = {key: float(value) for key, value in values.items()}
    if not all(math.isfinite(value) for value in figures.values()):
        raise DataError(f"{name} is not finite: {figures}", "look at the items themselves: they are degenerate")
    return figures


def notes_of(results: Sequence[Result]) -> Iterator[str]:
    """Every note once."""
    return iter(dict.fromkeys(note for result in results for note in result.notes))
