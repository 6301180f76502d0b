"""Recipes: settings that make a model good on a kind of data, chosen by what is known before training.

A file ``recipe/NAME.yaml`` states in its head when it applies, such as

    # when: model=gan modality=image side<=32 channels=1 device=cpu

and all that apply are composed, those with fewer conditions first and the user's own last. A dataset whose results are
published or shown has recipes of its own (``data=digits``): these replace the ones for its kind, and join those of the
model's paper, whose only condition is the model. A file without conditions is taken when it is named: ``recipe=NAME``.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from aigc_cli.config import folders
from aigc_cli.config.schema import check, own_keys
from aigc_cli.errors import ConfigError, DataError, suggest
from aigc_cli.registry import find, is_imported, load

#: What conditions may ask: the first few are known from the words alone, those from ``items`` on need a look at the
#: data, and ``device`` at the machine.
FACTS = (
    "model", "data", "modality", "latents", "side", "channels", "items", "classes", "characters", "line", "script",
    "device",
)  # fmt: skip
_WORDS = frozenset({"model", "data", "modality", "latents", "script", "device"})  # the others are numbers
_CONDITION = re.compile(r"(?P<fact>\w+)(?P<sign><=|>=|!=|=|<|>)(?P<value>[\w.|]+)")
_COMPARED: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}  # fmt: skip


class Condition(NamedTuple):
    """One condition of a recipe, such as ``side<=32``, or ``modality=image|text`` for either."""

    fact: str
    sign: str
    value: str

    def holds(self, known: Any) -> bool:
        """Whether it holds of a fact; not where the fact is unknown (None)."""
        if known is None:
            return False
        if self.sign in _COMPARED:
            return _COMPARED[self.sign](float(known), float(self.value))
        return (str(known) in self.value.split("|")) == (self.sign == "=")


class Recipe(NamedTuple):
    """A file of settings, with the conditions under which it applies by itself."""

    name: str
    title: str
    conditions: tuple[Condition, ...]
    own: bool = False  # of the user or of a plugin

    @property
    def of_a_dataset(self) -> bool:
        """Whether it is for one dataset, by its name."""
        return any(condition.fact == "data" and condition.sign == "=" for condition in self.conditions)

    @property
    def of_a_kind(self) -> bool:
        """Whether it is for a kind of data, which other data may be of too."""
        return not self.of_a_dataset and any(condition.fact != "model" for condition in self.conditions)


class Facts:
    """What is known before training; `look` is asked, once, only where a condition depends on its answer."""

    def __init__(self, known: Mapping[str, Any], look: Callable[[], Mapping[str, Any]], device: Callable[[], str]):
        self._known, self._look, self._device = dict(known), look, device
        self._looked = False

    def __getitem__(self, fact: str) -> Any:
        if fact == "device" and fact not in self._known:
            self._known[fact] = self._device()
        elif fact not in self._known and not self._looked:
            self._looked = True
            self._known = {**self._look(), **self._known}
        return self._known.get(fact)


def facts_of(data: Mapping[str, Any], chosen: Mapping[str, Any], device: str) -> Facts:
    """What is known before training on a `data` section, where `chosen` are the files by their groups: a preset such
    as ``dcgan`` has recipes of its own, whatever component it configures. `device` is ``trainer.device``."""
    name, files = str(chosen["data"]), folders.options("data")
    stated = folders.declared(files[name], "facts:") if name in files else ""
    known: dict[str, Any] = {fact: int(value) for fact, _, value in (word.partition("=") for word in stated.split())}
    known |= {fact: data[key] for fact, key in (("side", "size"), ("channels", "channels")) if data.get(key)}
    known |= {"model": chosen["model"], "data": name, "modality": folders.modality_of(name)}
    known["latents"] = "yes" if data.get("latents") else "no"
    return Facts(known, lambda: {} if stated else _surveyed(json.dumps(data)), lambda: _device(device))


@functools.cache  # a sweep asks for each of its jobs
def _surveyed(data: str) -> dict[str, Any]:
    """What a dataset's survey tells of a `data` section; of one that has none, or that cannot be read, nothing: what is
    wrong with it is said when it is opened."""
    values = json.loads(data)
    load("survey")
    if not is_imported("survey", str(values["name"])):
        return {}
    component = find("survey", values["name"])
    try:
        return dict(component.build(check("data", component.config, own_keys(values))))
    except (ConfigError, DataError, OSError, ValueError):
        return {}


def _device(word: str) -> str:
    if word != "auto":
        return word.partition(":")[0]
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def recipes() -> Iterator[Recipe]:
    """All recipes there are, the user's own among them; raises ConfigError where a condition cannot be read."""
    for name, path in folders.options("recipe").items():
        own = not path.is_relative_to(folders.packaged_configs().resolve())
        yield Recipe(name, title_of(path), conditions_of(path), own)


def conditions_of(path: Path) -> tuple[Condition, ...]:
    """What a recipe's file states after ``# when:``, in the order of :data:`FACTS`; raises ConfigError where it cannot
    be read."""
    found = []
    for word in folders.declared(path, "when:").split():
        match = _CONDITION.fullmatch(word)
        if match is None or match["fact"] not in FACTS:
            hint = "a condition is a fact, a sign and a value, such as side<=32"
            fact = re.split(r"\W", word)[0]
            hint = hint if fact in FACTS else suggest(fact, FACTS)
            raise ConfigError(f"{path} has a condition that cannot be read: {word}", hint)
        if match["sign"] in _COMPARED and (match["fact"] in _WORDS or not _is_number(match["value"])):
            raise ConfigError(f"{path} has a condition that compares no numbers: {word}", "use = or != for words")
        found.append(Condition(**match.groupdict()))
    return tuple(sorted(found, key=lambda condition: FACTS.index(condition.fact)))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def title_of(path: Path) -> str:
    """What a recipe is for, in a few words: its description up to a colon."""
    return next(iter(folders.header(path)), "").partition(": ")[0]


def matching(facts: Facts) -> list[str]:
    """The names of the recipes that apply, in the order in which they are composed."""
    # Those of a dataset come first, and those that fail on the model's name are gone before anyone looks at data or
    # machine: what nothing depends on is not asked.
    stated = [recipe for recipe in recipes() if recipe.conditions]
    found: list[Recipe] = []
    for recipe in sorted(stated, key=lambda recipe: not recipe.of_a_dataset):
        replaced = recipe.of_a_kind and any(other.of_a_dataset for other in found)
        if not replaced and all(each.holds(facts[each.fact]) for each in recipe.conditions):
            found.append(recipe)
    return [recipe.name for recipe in sorted(found, key=lambda each: (each.own, len(each.conditions), each.name))]
