"""A user's key=value words, in the grammar that Hydra reads.

People type prompts and paths as they are. Hydra's grammar gives a meaning to commas, parentheses, ``=`` and more, so
what is meant as text is quoted before it gets there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from aigc_cli.errors import ConfigError
from aigc_cli.folders import top_level_keys
from aigc_cli.words import split_key

#: Keys whose value is text, whatever it looks like.
TEXT_KEYS = {"run", "out", "fake", "real", "held_out", "weights", "run_dir", "outputs", "prompt"}
#: The same for the last part of a dotted key.
TEXT_TAILS = {"root", "path", "file", "dir", "folder", "weights", "prompt"}


def prepare(command: str, overrides: Sequence[str], *, multirun: bool = False) -> list[str]:
    """The words in Hydra's grammar, each quoted where it must be.

    For ``sample``, keys that are none of its own become ``controls.<key>``; for ``eval``, ``metric=a,b`` is a list.

    Raises:
        ConfigError: a word that is not key=value, or a value that is broken.
    """
    return [_prepare(command, word, multirun) for word in overrides]


def parse(word: str) -> Override | None:
    """The word as Hydra's parser sees it; None where it sees nothing in it."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def refuse_sweeps(words: Sequence[str]) -> None:
    """Refuses words that give several values where there is one job.

    Raises:
        ConfigError: the first such word.
    """
    for word in words:
        parsed = parse(word)
        if parsed is not None and parsed.is_sweep_override():
            raise ConfigError(*several_values(word, parsed))


def several_values(word: str, parsed: Override) -> tuple[str, str]:
    """The message and the mend for a word that sweeps where nothing can."""
    key = parsed.key_or_group
    return f"{word} gives several values", f"add -m to sweep over them, or write {key}=[a,b] for a list"


def quote(text: str) -> str:
    """Text that Hydra's grammar reads back as it is."""
    return QuotedString(text, Quote.single).with_quotes()


def _prepare(command: str, word: str, multirun: bool) -> str:
    sign, key, value = split_key(word)
    if value is None or key.startswith("hydra/"):
        return word
    root = key.split(".")[0].split("@")[0].split("/")[0]
    literal = False
    if command == "sample" and root != "hydra":
        if root == "controls" or root not in top_level_keys("sample"):
            sign, key, literal = "++", f"controls.{key.removeprefix('controls.')}", True
    elif command == "eval" and key == "metric" and not value.startswith("["):
        value = f"[{value}]"
    return f"{sign}{key}={_value(key, value, literal=literal, multirun=multirun)}"


def _value(key: str, value: str, *, literal: bool, multirun: bool) -> str:
    if not value or value.lower() == "null":
        return value
    parsed = parse(f"key={value}")
    if parsed is not None and (_is_quoted(value, parsed) or (multirun and parsed.is_sweep_override())):
        return value
    if _is_text(key):
        if value.startswith("~/"):
            value = os.path.expanduser(value)
        return quote(value.replace("${", "\\${") if literal else value)
    if parsed is None:
        if value[0] in "[{'\"":
            raise ConfigError(f"{key}={value} cannot be read", "close every bracket and quote; quote odd characters")
        return quote(value.replace("${", "\\${") if literal else value)
    if literal and (parsed.is_sweep_override() or isinstance(parsed.value(), str)):
        return quote(value.replace("${", "\\${"))
    return value


def _is_quoted(value: str, parsed: Override) -> bool:
    return value[0] in "'\"" and value[-1] == value[0] and not parsed.is_sweep_override()


def _is_text(key: str) -> bool:
    return key in TEXT_KEYS or key.rsplit(".", 1)[-1] in TEXT_TAILS
