"""How a subject is measured: one pass over each stream serves all metrics that take it.

A score means little alone. So what metrics say of generated items is always shown beside a baseline: held-out real
items in their place, which neither model nor reference has seen and no model should beat; of texts, others that say
nothing, such as a source that is copied. Those are further streams through the same metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from aigc_cli.errors import DataError
from aigc_cli.metrics.evaluation import Configs, Evaluation
from aigc_cli.metrics.items import DatasetItems, SampledItems
from aigc_cli.metrics.record import Record, averaged
from aigc_cli.metrics.subject import Source, Subject
from aigc_cli.metrics.views import Views
from aigc_cli.modalities.base import Items


class Sides(NamedTuple):
    """What is measured, and all that it is held against."""

    #: A run's model, or files.
    subject: Subject
    #: What samples are compared with; of text, where copies are looked for.
    reference: Items | None = None
    #: Real items for the baseline, and `judges`, as in :class:`Evaluation`.
    held_out: Items | None = None
    judges: Items | None = None
    #: Held-out items that a model is asked about, and makes others of.
    items: DatasetItems | None = None
    #: How many samples there are; None is as many as suit the subject.
    drawn: int | None = None


def evaluate(
    sides: Sides, metrics: Configs, views: Views, *, n: int | None = None, seed: int = 0, seeds: int = 1,
    known: Callable[[Record], bool] | None = None, failed: list[DataError] | None = None,
) -> list[Record]:  # fmt: skip
    """The records of metrics on all that a subject is asked for, each stream drawn once for all that take it.

    Args:
        sides: What is measured, and what it is held against.
        metrics, views: As of :class:`Evaluation`.
        n: Of ``sides.items``, those that are taken; None is all, or as many as suit what is made of them.
        seed: Of the first set of samples.
        seeds: How many sets are drawn, where anything is.
        known: Whether a record without scores is known already; a set of which all are is not drawn.
        failed: Takes what went wrong with some metrics, such as a model that writes nothing, where others have scores.

    Raises:
        ConfigError: a metric that does not suit the subject.
        DataError: items, weights or data that are missing or cannot be trusted.
    """
    subject, items = sides.subject, sides.items
    found: dict[str, Record] = {}
    errors: list[DataError] = []
    for source, names in sources_of(metrics, subject).items():
        own = {name: metrics[name] for name in names}
        count = n or source.usual
        some = items if items is None or count is None else items.take(count)
        try:
            if source.stream == "items":
                assert some is not None, "a model is asked about items"
                records = Evaluation(own, views).ask(subject, some, seed)
            else:
                records = _made(sides, own, views, source, some, range(seed, seed + seeds), known)
        except DataError as error:
            if failed is None:
                raise
            errors.append(error)
            continue
        found |= {record.metric: record for record in records}
    if errors and not found:
        raise errors[0]
    if failed is not None:
        failed += errors
    return [found[name] for name in metrics if name in found]


def _made(
    sides: Sides, metrics: Configs, views: Views, source: Source, some: DatasetItems | None, seeds: range,
    known: Callable[[Record], bool] | None,
) -> list[Record]:  # fmt: skip
    """The records of metrics on what a subject makes: a set for each of the seeds, where anything is drawn."""
    # Held-out items take the place of samples; in the place of pairs stand others, which come with those.
    beside = (sides.held_out, sides.judges) if source.stream == "fake" else (None, None)
    evaluation = Evaluation(metrics, views, sides.reference, *beside)
    sets: list[list[Record]] = []
    for seed in seeds if source.drawn else seeds[:1]:
        if source.stream == "fake":
            made = sides.subject.fake(sides.drawn, seed)
        else:
            made = sides.subject.pairs(source.kind, some, seed, **evaluation.options())
        made.facts |= {"seeds": len(seeds)} if source.drawn and len(seeds) > 1 else {}
        # What a model has still to draw is not drawn where all that would be said of it is known.
        announced = not sets and known is not None and isinstance(made, SampledItems)
        if announced and all(map(known, evaluation.announced(made, source.stream))):  # type: ignore[arg-type]
            return []
        sets.append(evaluation.of(made, source.stream))
    return averaged(sets)


def sources_of(metrics: Iterable[str], subject: Subject) -> dict[Source, list[str]]:
    """The metrics by where a subject takes from what they look at.

    Raises:
        ConfigError: one that does not suit the subject.
    """
    found: dict[Source, list[str]] = {}
    for name in metrics:
        found.setdefault(subject.source(name), []).append(name)
    return found
