"""``aigc ls``: what there is to name on the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aigc_cli.config.folders import command_keys, header, options
from aigc_cli.errors import DataError, no_such
from aigc_cli.files import path_of
from aigc_cli.progress import table

Row = dict[str, Any]
_SHOWN = 4  # metrics of a run
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def main(names: Sequence[str], *, as_json: bool = False, outputs: str | None = None) -> int:
    """Prints the lists in `names`, or all of them; `outputs` is the folder of the runs, None for the usual one.

    Raises:
        ConfigError: there is no such list.
    """
    for name in names:
        if name not in _LISTS:
            raise no_such("list", name, _LISTS)
    found = {name: _LISTS[name](outputs) for name in names or _LISTS}
    if as_json:
        print(json.dumps(found[names[0]] if len(names) == 1 else found, indent=2, ensure_ascii=False))
        return 0
    for position, (name, rows) in enumerate(found.items()):
        if len(found) > 1:
            print(f"{chr(10) if position else ''}{name}")
        for line in table(_shown(rows)) or ["no runs yet; `aigc train` makes one" if name == "runs" else "none"]:
            print(f"  {line}" if len(found) > 1 else line)
    return 0


def _options(group: str) -> list[Row]:
    return [
        {"name": name, "description": next(iter(header(path)), ""), "file": str(path)}
        for name, path in options(group).items()
    ]


def _runs(outputs: str | None) -> list[Row]:
    from aigc_cli.runs import list_runs

    return [_run_row(run) for run in list_runs(path_of(outputs or command_keys("train")["outputs"].value))]


def _run_row(run: Any) -> Row:
    row: Row = {"name": run.name, "path": str(run.path)}
    try:
        config = run.config
        row["model"], row["data"] = config["model"]["name"], config["data"]["name"]
        row["step"], row["steps"] = run.step, config["trainer"]["steps"]
        row["status"], row["figures"] = run.status(), run.figures()
    except (DataError, KeyError, TypeError) as error:
        row |= {"status": "broken", "reason": str(error).splitlines()[0]}
    row["age"] = time.time() - (run.path / "config.yaml").stat().st_mtime
    return row


def _shown(rows: Sequence[Row]) -> list[list[str]]:
    """The rows as a person reads them; those of runs below the names of their columns."""
    if not rows or "status" not in rows[0]:
        return [[row["name"], row["description"]] for row in rows]
    shown = [["run", "status", "step", "age", "metrics"]]
    for row in rows:
        values = row.get("figures", {})
        last = "  ".join(f"{key} {values[key]:.4g}" for key in headline(values)) or row.get("reason", "")
        step = f"{row['step']}/{row['steps']}" if "step" in row else ""
        shown.append([row["name"], row["status"], step, age(row["age"]), last])
    return shown


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


_LISTS: dict[str, Callable[[str | None], list[Row]]] = {
    "models": lambda _: _options("model"),
    "data": lambda _: _options("data"),
    "metrics": lambda _: _options("metric"),
    "runs": _runs,
}
