"""``aigc ls``: what there is to name on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from aigc_cli.commands import ls_runs
from aigc_cli.config.folders import choices_of, declared, header, keys_of, options
from aigc_cli.config.recipes import title_of
from aigc_cli.config.words import LISTS
from aigc_cli.errors import ConfigError, no_such
from aigc_cli.progress import table

Row = dict[str, Any]
#: The keys that say what a model minimises.
_LOSSES = ("loss", "likelihood", "reconstruction", "objective")
#: What `aigc ls` lists where nothing is named.
_USUAL = tuple(LISTS)[:4]


def main(names: Sequence[str], *, as_json: bool = False, words: Sequence[str] = ()) -> int:
    """Prints the lists in `names`, or the usual ones; `words` say which runs, see :func:`ls_runs.selected`.

    Raises:
        ConfigError: there is no such list, no run has a key, or words are given where no runs are listed.
    """
    for name in names:
        if name not in LISTS:
            raise no_such("list", name, LISTS)
    about_runs = [word for word in words if not word.startswith("outputs=")]
    if about_runs and "runs" not in names:
        raise ConfigError(f"aigc ls does not take {about_runs[0]}", f"write aigc ls runs {about_runs[0]}")
    found: dict[str, list[Row]] = {}
    columns: list[str] = []
    for name in names or _USUAL:
        if name == "runs":
            rows, columns = ls_runs.selected(words)
            found[name] = ls_runs.as_json(rows) if as_json else rows
        else:
            found[name] = _LISTED[name]()
    if as_json:
        print(json.dumps(found[names[0]] if len(names) == 1 else found, indent=2, ensure_ascii=False))
        return 0
    for position, (name, rows) in enumerate(found.items()):
        if len(found) > 1:
            print(f"{chr(10) if position else ''}{name}")
        cells = ls_runs.shown(rows, columns) if name == "runs" else _shown(rows)
        none = "none" if name != "runs" else "no run has that" if about_runs else "no runs yet; `aigc train` makes one"
        for line in table(cells) or [none]:
            print(f"  {line}" if len(found) > 1 else line)
    if not names:
        print(f"\nmore: aigc ls {'|'.join(name for name in LISTS if name not in _USUAL)}")
    return 0


def _options(group: str) -> list[Row]:
    return [
        {"name": name, "description": next(iter(header(path)), ""), "file": str(path)}
        for name, path in options(group).items()
    ]


def _recipes() -> list[Row]:
    return [
        {"name": name, "description": title_of(path), "file": str(path), "when": declared(path, "when:")}
        for name, path in options("recipe").items()
    ]


def _choices(group: str, *keys: str) -> list[Row]:
    """The choices that the comments of `keys` list, with the components that have them."""
    found: dict[tuple[str, str], Row] = {}
    read = [(name, keys_of(path)) for name, path in options(group).items()]
    named = [(own["name"].value if "name" in own else name, name, own) for name, own in read]
    for component, _, own in sorted(named, key=lambda each: each[0] != each[1]):  # presets of a component come after it
        for key in filter(own.__contains__, keys):
            for choice in choices_of(own[key].comment)[0]:
                row: Row = {"name": choice.name, "description": choice.what, "key": f"{group}.{key}", "of": []}
                row = found.setdefault((key, choice.name), row)
                row["of"] += [component] if component not in row["of"] else []
    return list(found.values())


def _shown(rows: Sequence[Row]) -> list[list[str]]:
    """The rows as a person reads them."""
    if rows and "of" in rows[0]:
        several = len({*map(tuple, (row["of"] for row in rows))}) > 1
        return [
            [f"{row['key']}={row['name']}", *([f"{', '.join(row['of'])}"] if several else []), row["description"]]
            for row in rows
        ]
    return [[row["name"], *([row["when"]] if row.get("when") else []), row["description"]] for row in rows]


_LISTED: dict[str, Callable[[], list[Row]]] = {
    "models": lambda: _options("model"),
    "data": lambda: _options("data"),
    "metrics": lambda: _options("metric"),
    "optimizers": lambda: _options("optimizer"),
    "networks": lambda: _choices("model", "network"),
    "losses": lambda: _choices("model", *_LOSSES),
    "schedules": lambda: _choices("optimizer", "schedule"),
    "experiments": lambda: _options("experiment"),
    "recipes": lambda: _recipes(),
}
