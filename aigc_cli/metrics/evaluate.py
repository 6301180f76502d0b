"""What is measured, a run's model or files, and how: one pass over each stream serves all metrics that take it.

A score means little alone. So what metrics say of generated items is always shown beside a baseline: held-out real
items in their place, which neither model nor reference has seen and no model should beat; of texts, others that say
nothing, such as a source that is copied. Those are further streams through the same metrics.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from aigc_cli.errors import ConfigError
from aigc_cli.metrics.base import Stream, View, kind_of
from aigc_cli.metrics.evaluation import Configs, Evaluation
from aigc_cli.metrics.items import DatasetItems, SampledItems
from aigc_cli.metrics.record import Record, averaged
from aigc_cli.metrics.views import Views
from aigc_cli.modalities.base import Items
from aigc_cli.modalities.text import Texts


class Source(NamedTuple):
    """Where a subject takes from what a metric looks at."""

    stream: Stream
    #: How a model makes them of others: "reconstruct", "translate" or "continue"; "" where it does not.
    kind: str = ""
    #: Whether anything is drawn, so that several seeds give several sets.
    drawn: bool = False
    #: How many items are taken where nobody says; None is all.
    usual: int | None = None


class Subject(ABC):
    """What :func:`aigc_cli.metrics.evaluate.evaluate` measures."""

    @abstractmethod
    def source(self, name: str) -> Source:
        """Where it takes from what the metric `name` looks at.

        Raises:
            ConfigError: it has nothing that the metric measures.
        """

    @abstractmethod
    def fake(self, n: int | None, seed: int) -> Items:
        """`n` items in question, or as many as suit."""

    @abstractmethod
    def pairs(self, kind: str, items: Items | None, seed: int, **options: Any) -> Items:
        """What was made of `items`, each with its source in its batch or its texts."""

    def look(self, view: View, items: Items, seed: int, **options: Any) -> Iterator[dict[str, Any]]:
        """What a model says of some items, a batch at a time: that itself under "", and by name what stands beside."""
        raise ConfigError(f"{view} need a model", "name a run with run=")

    def asked(self, view: View, items: Items, seed: int) -> Items:
        """Those items as a stamp and a headline have them where the model is asked about them."""
        return items


def check_files_suit(names: Iterable[str]) -> bool:
    """Refuses metrics that files cannot be measured with, or not together; whether they are metrics of text.

    Raises:
        ConfigError: one needs a model, or another modality.
    """
    kinds = {name: kind_of(name) for name in names}
    text = next((name for name, kind in kinds.items() if kind.of_text()), None)
    for name, kind in kinds.items():
        if text is not None and not kind.of_text():
            raise ConfigError(f"{text} measures text, and {name} does not", "ask for one of them at a time")
        if text is None and "fake" not in kind.takes:
            raise ConfigError(f"{name} needs a model, and fake= gives only files", "name a run with run=")
    return text is not None


class FilesSubject(Subject):
    """Items from files; of text also `references`, what each should have been."""

    def __init__(self, items: Items, references: Items | None = None) -> None:
        self.items, self.references = items, references

    def source(self, name: str) -> Source:
        """The items, of text with their references."""
        kind = kind_of(name)
        if check_files_suit([name]) != isinstance(self.items, Texts):  # statistics do not say of what they are
            raise ConfigError(f"{name} does not measure {self.items.modality.noun[1]}", "ask for one kind at a time")
        if "pairs" in kind.takes and self.references is None:
            raise ConfigError(f"{name} needs a reference text", "name one with real=")
        return Source("pairs" if "pairs" in kind.takes else "fake")

    def fake(self, n: int | None, seed: int) -> Items:
        """The items."""
        return self.items

    def pairs(self, kind: str, items: Items | None, seed: int, **options: Any) -> Items:
        """Texts with their references."""
        assert self.references is not None, "source() has said so"
        return Texts(self.items.texts(), self.items.facts, called=self.items.called, sources=self.references.texts())


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
    sides: Sides,
    metrics: Configs,
    views: Views,
    *,
    n: int | None = None,
    seed: int = 0,
    seeds: int = 1,
    known: Callable[[Record], bool] | None = None,
) -> list[Record]:
    """The records of metrics on all that a subject is asked for, each stream drawn once for all that take it.

    Args:
        sides: What is measured, and what it is held against.
        metrics, views: As of :class:`Evaluation`.
        n: Of ``sides.items``, those that are taken; None is all, or as many as suit what is made of them.
        seed: Of the first set of samples.
        seeds: How many sets are drawn, where anything is.
        known: Whether a record without scores is known already; a set of which all are is not drawn.

    Raises:
        ConfigError: a metric that does not suit the subject.
        DataError: items, weights or data that are missing or cannot be trusted.
    """
    subject, items = sides.subject, sides.items
    found: dict[str, Record] = {}
    for source, names in sources_of(metrics, subject).items():
        own = {name: metrics[name] for name in names}
        count = n or source.usual
        some = items if items is None or count is None else items.take(count)
        if source.stream == "items":
            assert some is not None, "a model is asked about items"
            found |= {record.metric: record for record in Evaluation(own, views).ask(subject, some, seed)}
            continue
        # Held-out items take the place of samples; in the place of pairs stand others, which come with those.
        beside = (sides.held_out, sides.judges) if source.stream == "fake" else (None, None)
        evaluation = Evaluation(own, views, sides.reference, *beside)
        sets = []
        for k in range(seeds if source.drawn else 1):
            if source.stream == "fake":
                made = subject.fake(sides.drawn, seed + k)
            else:
                made = subject.pairs(source.kind, some, seed + k, **evaluation.options())
            made.facts |= {"seeds": seeds} if source.drawn and seeds > 1 else {}
            # What a model has still to draw is not drawn where all that would be said of it is known.
            if k == 0 and known is not None and isinstance(made, SampledItems):
                announced = evaluation.announced(made, source.stream)
                if all(map(known, announced)):
                    break
            sets.append(evaluation.of(made, source.stream))
        found |= {record.metric: record for record in averaged(sets)}
    return [found[name] for name in metrics if name in found]


def sources_of(metrics: Iterable[str], subject: Subject) -> dict[Source, list[str]]:
    """The metrics by where a subject takes from what they look at.

    Raises:
        ConfigError: one that does not suit the subject.
    """
    found: dict[Source, list[str]] = {}
    for name in metrics:
        found.setdefault(subject.source(name), []).append(name)
    return found
