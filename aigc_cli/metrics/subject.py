"""What is measured: files here, a run's model in :mod:`aigc_cli.metrics.run_subject`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from aigc_cli.errors import ConfigError
from aigc_cli.metrics.base import Stream, View, kind_of
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
