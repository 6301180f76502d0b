"""Where each value of a configuration came from: typed, from a recipe or an experiment, or a default."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping

from aigc_cli.config.folders import GLOBAL, groups, keys_of, options
from aigc_cli.config.schema import Options
from aigc_cli.config.words import parse, split_key
from aigc_cli.errors import ConfigError

#: The file in a run that keeps them, for keys that are not at their defaults.
ORIGINS = "origins.json"
TYPED, DEFAULT = "typed", "default"


def origins_file(asked: Options) -> dict[str, str]:
    """The file that keeps :func:`origins`, by its name."""
    return {ORIGINS: json.dumps(origins(asked), indent=2) + "\n"}


def origins(asked: Options) -> dict[str, str]:
    """For each key that a recipe, an experiment or a word of the command line set, which it was, the last one of
    several; a word that chooses a file, such as ``model=dcgan``, stands for itself."""
    found: dict[str, str] = {}
    for title in asked.recipe:
        name = title.rpartition(", from ")[2]
        group, _, file = name.partition("/")
        path = options(group).get(file.removesuffix(".yaml")) if group in GLOBAL else None
        found |= {} if path is None else {key.name: name for key in keys_of(path).values() if key.value}
    return found | _typed(asked.overrides)


def _typed(words: Iterable[str]) -> dict[str, str]:
    chosen = groups("train")
    return {key: word if key in chosen else TYPED for word in words for _, key, _ in [split_key(word)]}


def of_command(line: str) -> dict[str, str]:
    """The same of a command line, for runs of before there was a file of them: what no word set is unknown."""
    try:
        return _typed(parse(shlex.split(line)[1:]).overrides)
    except (ConfigError, ValueError):  # edited by hand
        return {}


def origin_of(key: str, found: Mapping[str, str], otherwise: str = DEFAULT) -> str:
    """Where the value of a dotted `key` came from: what is `found` of it, or of the section that holds it."""
    parts = key.split(".")
    whole = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((found[part] for part in whole if part in found), otherwise)
