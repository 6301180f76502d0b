"""The folders that hold configurations: the packaged one, the user's, and those of plugins."""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path
from typing import Any

from aigc_cli.registry import plugin_configs, plugin_entry_points

PACKAGE = Path(__file__).resolve().parents[1]


@functools.cache
def packaged_configs() -> Path:
    """Our own configurations: beside the package in a wheel, at the repository's root in an editable install."""
    beside = PACKAGE / "configs"
    return beside if beside.is_dir() else PACKAGE.parent / "configs"


def config_folders() -> list[Path]:
    """Every folder there is, in order of precedence: a file in an earlier one replaces its namesake in a later one.

    ``./configs``, ``~/.config/aigc``, the ``configs`` folders of plugins, and last the packaged one.
    """
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    wanted = [Path.cwd() / "configs", home / "aigc", *plugin_configs(), *_entry_point_configs(), packaged_configs()]
    unique = {folder.resolve(): None for folder in reversed(wanted) if folder.is_dir()}
    return list(reversed(unique))


def _entry_point_configs() -> list[Path]:
    """The `configs` folders of installed plugins, found without importing what may take a while."""
    folders = []
    for point in plugin_entry_points():
        root, *inner = point.value.split(":")[0].split(".")
        spec = importlib.util.find_spec(root)
        for location in (spec.submodule_search_locations or []) if spec else []:
            module = Path(location, *inner)
            folders.append((module if module.is_dir() else module.parent) / "configs")
        if spec and spec.origin and not spec.submodule_search_locations:
            folders.append(Path(spec.origin).parent / "configs")
    return folders


def options(group: str) -> dict[str, Path]:
    """The options of a group over all folders: names, with the file that each one comes from."""
    found: dict[str, Path] = {}
    for folder in config_folders():
        for path in sorted((folder / group).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def describe(path: Path) -> str:
    """The first comment of a YAML file, which says in one sentence what it is; "" where there is none."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            text = line.strip()
            if text.startswith("#") and not text.lstrip("# ").startswith("@package"):
                return text.lstrip("# ")
            if text and not text.startswith("#"):
                return ""
    return ""


@functools.cache
def defaults(command: str) -> dict[str, Any]:
    """A command's packaged YAML, as it is written."""
    import yaml

    return dict(yaml.safe_load((packaged_configs() / f"{command}.yaml").read_text(encoding="utf-8")) or {})


@functools.cache
def groups(command: str) -> tuple[str, ...]:
    """The groups that a command chooses from, such as ``model``."""
    entries = [next(iter(entry)) for entry in defaults(command).get("defaults", []) if isinstance(entry, dict)]
    return tuple(dict.fromkeys(entry.removeprefix("optional ").split("@")[0] for entry in entries))


@functools.cache
def top_level_keys(command: str) -> frozenset[str]:
    """The keys that a command's composed configuration has at the top."""
    return frozenset({*defaults(command), *groups(command)} - {"defaults", "experiment", "paper", "recipe"})
