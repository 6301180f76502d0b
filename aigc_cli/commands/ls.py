"""``aigc ls``: what there is to name on the command line."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aigc_cli.config.folders import choices_of, command_keys, declared, header, keys_of, options
from aigc_cli.config.recipes import title_of
from aigc_cli.config.schema import differing
from aigc_cli.config.words import LISTS
from aigc_cli.errors import DataError, no_such
from aigc_cli.files import path_of, read_json
from aigc_cli.progress import table

Row = dict[str, Any]
_SHOWN = 4  # metrics of a run, and words that tell it apart
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
#: The keys that say what a model minimises.
_LOSSES = ("loss", "likelihood", "reconstruction", "objective")
#: What `aigc ls` lists where nothing is named.
_USUAL = tuple(LISTS)[:4]


def main(names: Sequence[str], *, as_json: bool = False, outputs: str | None = None) -> int:
    """Prints the lists in `names`, or the usual ones; `outputs` is the folder of the runs, None for the usual one.

    Raises:
        ConfigError: there is no such list.
    """
    for name in names:
        if name not in LISTS:
            raise no_such("list", name, LISTS)
    found = {name: _LISTED[name](outputs) for name in names or _USUAL}
    if as_json:
        print(json.dumps(found[names[0]] if len(names) == 1 else found, indent=2, ensure_ascii=False))
        return 0
    for position, (name, rows) in enumerate(found.items()):
        if len(found) > 1:
            print(f"{chr(10) if position else ''}{name}")
        for line in table(_shown(rows)) or ["no runs yet; `aigc train` makes one" if name == "runs" else "none"]:
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
    for name, path in options(group).items():
        own = keys_of(path)
        component = own["name"].value if "name" in own else name
        for key in filter(own.__contains__, keys):
            for choice in choices_of(own[key].comment)[0]:
                row: Row = {"name": choice.name, "description": choice.what, "key": f"{group}.{key}", "of": []}
                row = found.setdefault((key, choice.name), row)
                row["of"] += [component] if component not in row["of"] else []
    return list(found.values())


def _runs(outputs: str | None) -> list[Row]:
    from aigc_cli.runs import list_runs

    runs = list_runs(path_of(outputs or command_keys("train")["outputs"].value))
    rows = [_run_row(run) for run in runs]
    kinds: dict[tuple[str, str], list[int]] = {}
    for number, row in enumerate(rows):
        if row["status"] != "broken":
            kinds.setdefault((row["model"], row["data"]), []).append(number)
    for numbers in kinds.values():
        for number, words in zip(numbers, differing([runs[number].config for number in numbers]), strict=True):
            rows[number]["differs"] = words
    return rows


def _run_row(run: Any) -> Row:
    row: Row = {"name": run.name, "path": str(run.path)}
    try:
        config = run.config
        row["model"], row["data"] = config["model"]["name"], config["data"]["name"]
        by_time = config["trainer"].get("minutes") is not None
        row["step"], row["steps"] = run.step, None if by_time else config["trainer"]["steps"]
        row["status"], row["figures"] = run.status(), run.figures() or _unwritten(run)
    except (DataError, KeyError, TypeError) as error:
        row |= {"status": "broken", "reason": str(error).splitlines()[0]}
    row["age"] = time.time() - (run.path / "config.yaml").stat().st_mtime
    return row


def _unwritten(run: Any) -> dict[str, float]:
    """Of a run that was stopped before its first row of metrics: the means that its checkpoint keeps for that."""
    found: dict[str, float] = {}
    with suppress(OSError, ValueError, KeyError, TypeError, ZeroDivisionError):  # a file that is broken tells nothing
        newest = max(run.checkpoints.glob("step-*/state.json"), key=lambda path: path.stat().st_mtime)
        for part in read_json(newest)["tally"]:
            found |= {
                name: float(total) / part["count"] for name, total in zip(part["names"], part["sums"], strict=True)
            }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _shown(rows: Sequence[Row]) -> list[list[str]]:
    """The rows as a person reads them; those of runs below the names of their columns."""
    if rows and "of" in rows[0]:
        several = len({*map(tuple, (row["of"] for row in rows))}) > 1
        return [
            [f"{row['key']}={row['name']}", *([f"{', '.join(row['of'])}"] if several else []), row["description"]]
            for row in rows
        ]
    if not rows or "status" not in rows[0]:
        return [[row["name"], *([row["when"]] if row.get("when") else []), row["description"]] for row in rows]
    shown = [["run", "status", "step", "age", "words", "metrics"]]
    for row in rows:
        values = row.get("figures", {})
        last = "  ".join(f"{key} {values[key]:.4g}" for key in headline(values)) or row.get("reason", "")
        step = "/".join(str(row[key]) for key in ("step", "steps") if row.get(key) is not None)
        shown.append([row["name"], row["status"], step, age(row["age"]), _words(row.get("differs", {})), last])
    return shown


def _words(differs: Mapping[str, Any]) -> str:
    """The first of the words that tell a run apart."""
    words = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in differs.items()]
    return " ".join([*words[:_SHOWN], *(["..."] if len(words) > _SHOWN else [])])


def headline(figures: Iterable[str]) -> list[str]:
    """The names of the metrics that say most about a run: held-out ones, else losses, else any."""
    names = list(dict.fromkeys(figures))
    held_out = [name for name in names if name.startswith("val/")]
    return (held_out or [name for name in names if name.endswith("loss")] or names)[:_SHOWN]


def age(seconds: float) -> str:
    """A duration in its largest unit, such as ``3 h``."""
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


_LISTED: dict[str, Callable[[str | None], list[Row]]] = {
    "models": lambda _: _options("model"),
    "data": lambda _: _options("data"),
    "metrics": lambda _: _options("metric"),
    "runs": _runs,
    "optimizers": lambda _: _options("optimizer"),
    "networks": lambda _: _choices("model", "network"),
    "losses": lambda _: _choices("model", *_LOSSES),
    "schedules": lambda _: _choices("optimizer", "schedule"),
    "experiments": lambda _: _options("experiment"),
    "recipes": lambda _: _recipes(),
}
