"""How samples become files: a writer for each modality and format.

A writer registers itself with a decorator beside its code::

    @register_writer("text", "txt")
    class TextWriter(Writer): ...

Every module of this folder is imported before one is looked up, so a new format is one new file.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import ClassVar, TypeVar

from torch import Tensor

from aigc_cli.errors import ConfigError, suggest
from aigc_cli.modalities.arrangement import Arrangement
from aigc_cli.modalities.base import Codec
from aigc_cli.modalities.provenance import Provenance

#: The format that stands for the usual one of a modality.
AUTO = "auto"


class Writer(ABC):
    """Writes a set of samples into `folder`, in order, a batch at a time, in memory that hardly grows with the set."""

    #: How many samples a person looks at together, and the ending of the file of a :meth:`preview` of them.
    usual: ClassVar[int]
    preview_suffix: ClassVar[str]

    def __init__(self, folder: Path, arrangement: Arrangement, provenance: Provenance, codec: Codec) -> None:
        self.folder, self.arrangement, self.provenance, self.codec = folder, arrangement, provenance, codec

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    @abstractmethod
    def write(self, raw: Tensor) -> None:
        """Writes the next samples, raw content (b, ...) on the CPU, as the codec decodes them."""

    @abstractmethod
    def finish(self) -> tuple[list[str], list[str]]:
        """Ends the files. The names of those that hold the samples, in order; and of those that show some of them."""

    def shown(self) -> str:
        """What a terminal can show of the samples, once they are written; "" where that is nothing."""
        return ""

    @classmethod
    @abstractmethod
    def preview(cls, path: Path, batches: Iterable[Tensor], arrangement: Arrangement, codec: Codec, title: str) -> None:
        """Writes one file that shows all samples, with a title; `path` appears whole or not at all.

        Raises:
            OSError: it cannot be written; nothing is left behind.
        """

    def release(self) -> None:  # noqa: B027 - most writers hold nothing
        """Lets go of what is open, whether or not all was written."""


W = TypeVar("W", bound=type[Writer])
_writers: dict[str, dict[str, type[Writer]]] = {}


def register_writer(modality: str, format: str) -> Callable[[W], W]:
    """Registers a writer; the first of a modality is its usual one."""

    def add(writer: W) -> W:
        _writers.setdefault(modality, {})[format] = writer
        return writer

    return add


def find_writer(modality: str, format: str = AUTO) -> tuple[str, type[Writer]]:
    """The writer of a format, and the format's name, which for "auto" is the modality's usual one.

    Raises:
        ConfigError: the modality has no such format.
    """
    import_siblings()
    formats = _writers.get(modality, {})
    if not formats:
        raise ConfigError(f"there is no writer for {modality}", f"modalities with one: {', '.join(sorted(_writers))}")
    name = next(iter(formats)) if format == AUTO else format
    if name not in formats:
        raise ConfigError(f"format={format}: {modality} samples cannot be written so", suggest(format, formats))
    return name, formats[name]


def import_siblings() -> None:
    """Imports every module of this folder, so that what they register is known."""
    for home in ("aigc_cli.modalities", "aigc_cli.sampling"):
        for module in pkgutil.iter_modules(importlib.import_module(home).__path__):
            importlib.import_module(f"{home}.{module.name}")
