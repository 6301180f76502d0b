"""What is asked for when a model is sampled, and how that becomes a set of samples.

The ways to sample are functions from a :class:`Request` to a :class:`Plan`, registered beside their code by what they
are sampled from and the word that users type::

    @register_mode("text", "infill")
    def infilled(request: Request) -> Plan: ...

Every module of this folder is imported before one is looked up, so a new mode is one new function. Sample ``i`` of a
plan depends on the seed and ``i`` alone, so that a plan of more samples begins with those of one of fewer.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from aigc_cli.data.base import Dataset, Split
from aigc_cli.errors import ConfigError, warn
from aigc_cli.modalities.base import Codec
from aigc_cli.modalities.prompts import Prompt
from aigc_cli.modalities.samples import Arrangement
from aigc_cli.models.base import Model
from aigc_cli.sampling.controls import modes_of, usual_controls


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
    #: Opens the items that the model was not trained on; called only where they are needed.
    held_out: Callable[[], tuple[Split, Dataset]]
    #: Texts to begin from, which samples take turns in.
    prompts: Sequence[Prompt] = ()
    #: Whether fewer will do, where there are not `n`.
    at_most: bool = False

    def counted(self, usual: int, most: int, what: str) -> int:
        """How many are asked for.

        Raises:
            ConfigError: more than there are.
        """
        if self.n is not None and self.n > most and not self.at_most:
            raise ConfigError(f"n={self.n}: there are {most} {what}", f"choose n={most} or fewer")
        return min(usual if self.n is None else self.n, most)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A set of samples, and how it is drawn."""

    arrangement: Arrangement
    #: Maps a batch size, None for one that suits, to all samples in order, raw content (b, ...) on the CPU.
    batches: Callable[[int | None], Iterator[Tensor]]
    #: What of the data the samples show.
    source: Mapping[str, Any] = field(default_factory=dict)


def source_of(split: Split, dataset: Dataset) -> dict[str, Any]:
    """Which items samples were made from."""
    return {"split": split, "fingerprint": dataset.spec.fingerprint}


Make = Callable[[Request], Plan]


@dataclass(frozen=True)
class _Mode:
    make: Make
    hears: Collection[str] | None
    ignores: Collection[str]

    def heeds(self, control: str) -> bool:
        return control not in self.ignores and (self.hears is None or control in self.hears)


_modes: dict[tuple[str, str], _Mode] = {}


def register_mode(
    modality: str, mode: str, *, hears: Collection[str] | None = None, ignores: Collection[str] = ()
) -> Callable[[Make], Make]:
    """Registers a way to sample.

    Args:
        modality: what it samples.
        mode: the word for it.
        hears: the controls that change something in it; None is all that it does not ignore.
        ignores: controls that change nothing in it, which users are told of.
    """

    def add(make: Make) -> Make:
        _modes[modality, mode] = _Mode(make, hears, ignores)
        return make

    return add


def plan(request: Request) -> Plan:
    """How the samples that are asked for are drawn and arranged.

    Raises:
        ConfigError: the model has no such mode or class, a prompt that it cannot read, or there are fewer than `n`.
        DataError: held-out items are needed, and cannot be read.
    """
    modes = modes_of(request.model)
    mode = getattr(request.controls, "mode", None) or next(iter(modes), "sample")
    if modes and mode not in modes:
        raise ConfigError(f"mode={mode}: this model has no such mode", f"choose from: {', '.join(modes)}")
    way, modality = _find(request.model, mode), request.model.spec.kind
    if way is None:
        raise ConfigError(f"mode={mode} is not for models of {modality}", f"choose from: {', '.join(modes)}")
    idle = ignored(request.model, request.controls, mode)
    warn_of_changed(request.model, request.controls, idle, f"with mode={mode}")
    return way.make(request)


def _find(model: Model, mode: str) -> _Mode | None:
    home = "aigc_cli.sampling"
    for module in pkgutil.iter_modules(importlib.import_module(home).__path__):
        importlib.import_module(f"{home}.{module.name}")
    return _modes.get((model.spec.kind, mode))


def ignored(model: Model, controls: Any, mode: str) -> list[str]:
    """The controls, fields of ``model.controls``, that change nothing in a mode."""
    way = _find(model, mode)
    return [] if way is None else [field.name for field in fields(controls) if not way.heeds(field.name)]


def warn_of_changed(model: Model, controls: Any, names: Collection[str], where: str) -> None:
    """Warns of those of the controls `names` that somebody has set, although they change nothing `where` they are."""
    usual = usual_controls(model)
    for name in names:
        if getattr(controls, name) != getattr(usual, name):
            warn(f"{name.rstrip('_')}= changes nothing {where}")
