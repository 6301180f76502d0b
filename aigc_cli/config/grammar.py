"""A user's key=value words, in the grammar that Hydra reads.

People type prompts and paths as they are. Hydra's grammar gives a meaning to commas, parentheses, ``=`` and more, so
what is meant as text is quoted before it gets there. Which keys are text, their YAML files declare.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from aigc_cli.config.folders import command_keys, declared, groups, keys_of, options, top_level_keys
from aigc_cli.config.words import split_key
from aigc_cli.errors import ConfigError

#: The commands that draw samples: keys that are not their own are controls of the model.
SAMPLING = ("sample", "eval")


def prepare(command: str, overrides: Sequence[str], *, multirun: bool = False) -> list[str]:
    """The words in Hydra's grammar, each quoted where it must be.

    For ``sample`` and ``eval``, keys that are not their own become ``controls.<key>``; ``metric=a,b`` is a list.

    Raises:
        ConfigError: a word that is not key=value, or a value that is broken.
    """
    return [_prepare(command, word, multirun) for word in overrides]


def parse(word: str) -> Override | None:
    """The word as Hydra's parser sees it; None where it makes no sense of it."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def quote(text: str) -> str:
    """Text that Hydra's grammar reads back as it is."""
    return QuotedString(text, Quote.single).with_quotes()


def _prepare(command: str, word: str, multirun: bool) -> str:
    sign, key, value = split_key(word)
    if value is None or key.startswith("hydra/"):
        return word
    root = key.split(".")[0].split("@")[0].split("/")[0]
    control = False
    if command == "eval" and key == "model":  # the network of extractor=torchvision; a run has its own model
        root = key = "backbone"
    if command in SAMPLING and root != "hydra" and (root == "controls" or root not in top_level_keys(command)):
        sign, key, control = "++", f"controls.{key.removeprefix('controls.')}", True
    elif command == "eval" and root == "data" and "." in key:  # the dataset itself says which keys it has
        sign = sign or "++"
    elif command == "eval" and key == "metric":
        names = filter(None, re.split(r"[\s,]+", value.strip("[] ")))
        value = f"[{','.join(dict.fromkeys(map(_metric_of, names)))}]"
    return f"{sign}{key}={_value(command, key, value, control=control, multirun=multirun)}"


def _metric_of(name: str) -> str:
    """A metric's name; people also ask for a score that a metric gives among others, such as precision."""
    metrics = options("metric")
    if name in metrics:
        return name
    return next((metric for metric, path in metrics.items() if name in declared(path, "@gives").split(",")), name)


def _value(command: str, key: str, value: str, *, control: bool, multirun: bool) -> str:
    if not value or value.lower() == "null":
        return value
    parsed = parse(f"key={value}")
    sweeps = parsed is not None and parsed.is_sweep_override()
    if parsed is not None and ((sweeps and multirun) or (not sweeps and value[0] == value[-1] and value[0] in "'\"")):
        return value
    kind = _kind(command, key)
    if parsed is None and not kind and value[0] in "[{'\"":
        raise ConfigError(f"{key}={value} cannot be read", "close all brackets and quotes; quote special characters")
    if kind or parsed is None or (control and (sweeps or isinstance(parsed.value(), str))):
        value = os.path.expanduser(value) if kind not in ("", "TEXT") and value.startswith("~/") else value
        return quote(value.replace("${", "\\${") if control else value)
    return value


def _kind(command: str, key: str) -> str:
    """What a key's YAML file declares its text to be, such as FOLDER; "" where its value is not text, or unknown."""
    group, _, name = key.partition(".")
    found = [command_keys("sample" if group == "controls" else command).get(key)]
    if group in groups(command):
        found += [keys_of(path).get(name) for path in options(group).values()]
    return next((declaration.kind for declaration in found if declaration and declaration.kind), "")
