"""What ``--resume`` may change of a run's configuration, and the words that change it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from aigc_cli.config.schema import walk
from aigc_cli.errors import ConfigError, suggest

#: What may differ between a run and its resumption: how far and how closely watched, and where things are.
MAY_CHANGE = frozenset(
    f"trainer.{key}"
    for key in (
        "steps", "device", "devices", "restarts", "sharding", "compile", "log_every", "examine_every",
        "checkpoint_every", "keep",
        "sample_every", "samples", "validate_every", "validate_items", "validate_metric", "workers", "threads",
        "tensorboard",
    )
) | {"data.root", "data.source", "data.target", "outputs", "run_dir", "sweep.objective"}  # fmt: skip


def changed_config(saved: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """A run's configuration with the user's key=value `words` applied.

    Raises:
        ConfigError: a word names no key of the run, or would change what a resumed run keeps.
    """
    config = copy.deepcopy(saved)
    for word in words:
        _apply(config, word)
    before, after = dict(walk(saved)), dict(walk(config))
    changed = sorted(key for key, value in after.items() if not isinstance(value, Mapping) and value != before.get(key))
    refused = [f"{key}: {before.get(key)} -> {after[key]}" for key in changed if key not in MAY_CHANGE]
    if refused:
        allowed = ", ".join(sorted(key for key in MAY_CHANGE if key in before))
        raise ConfigError(
            f"a resumed run keeps its configuration; refused: {'; '.join(refused)}",
            f"drop these words, or start a new run without --resume; what may change: {allowed}",
        )
    return config


def _apply(config: dict[str, Any], word: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(word)
    key, value = override.key_or_group, override.value()
    value = _unquoted(value)
    *sections, last = key.split(".")
    node: Any = config
    for section in sections:
        node = node.get(section) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        raise ConfigError(f"there is no key {key} in this run's configuration", suggest(key, dict(walk(config))))
    if isinstance(node[last], dict):  # a group: model=gan names the component that the section was made of
        value = {**node[last], "name": value}
    node[last] = value


def _unquoted(value: Any) -> Any:
    """A value of Hydra's grammar as plain data."""
    if isinstance(value, list):
        return [_unquoted(item) for item in value]
    if isinstance(value, dict):
        return {str(_unquoted(key)): _unquoted(item) for key, item in value.items()}
    return getattr(value, "text", value)  # a quoted string holds its text
