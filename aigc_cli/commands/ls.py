"""``aigc ls``: what there is to name on the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aigc_cli.config.folders import command_keys, header, options
from aigc_cli.errors import ConfigError, DataError, suggest
from aigc_cli.files import path_of

Row = dict[str, Any]
_FIGURES = 4  # in a table
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def main(names: Sequence[str], *, as_json: bool = False, outputs: str | None = None) -> int:
    """Prints the lists in `names`, or all of them; `outputs` is the folder of the runs, null for the usual one.

    Raises:
        ConfigError: there is no such list.
    """
    for name in names:
        if name not in _LISTS:
            raise ConfigError(f"aigc ls: there is no list of {name!r}", suggest(name, _LISTS))
    found = {name: _LISTS[name](outputs) for name in names or _LISTS}
    if as_json:
        print(json.dumps(found[names[0]] if len(names) == 1 else found, indent=2, ensure_ascii=False))
        return 0
    for position, (name, rows) in enumerate(found.items()):
        if len(found) > 1:
            print(f"{chr(10) if position else ''}{name}")
        print(table(_shown(rows), indent="  " if len(found) > 1 else "") or _EMPTY.get(name, "none"))
    return 0


_EMPTY = {"runs": "no runs yet; `aigc train` makes one"}


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


def _shown(rows: Iterable[Row]) -> list[Row]:
    """The rows as a person reads them."""
    shown = []
    for row in rows:
        if "status" not in row:
            shown.append({"name": row["name"], "description": row["description"]})
            continue
        figures = row.get("figures", {})
        last = "  ".join(f"{key} {figures[key]:.4g}" for key in headline(figures))
        shown.append(
            {
                "run": row["name"],
                "status": row["status"],
                "step": f"{row['step']}/{row['steps']}" if "step" in row else "",
                "age": age(row["age"]),
                "figures": last or row.get("reason", ""),
            }
        )
    return shown


def headline(figures: Iterable[str]) -> list[str]:
    """The names of the figures that say most about a run: held-out ones, else losses, else whatever there is."""
    names = list(dict.fromkeys(figures))
    held_out = [name for name in names if name.startswith("val/")]
    return (held_out or [name for name in names if name.endswith("loss")] or names)[:_FIGURES]


def age(seconds: float) -> str:
    """A duration in its largest unit, such as ``3 h``."""
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def table(rows: Sequence[Row], *, header: bool | None = None, indent: str = "") -> str:
    """Rows in aligned columns; with a header where there are more than two columns, unless told."""
    if not rows:
        return ""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [[str(row.get(key, "")) for key in columns] for row in rows]
    if header if header is not None else len(columns) > 2:
        lines.insert(0, columns)
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        indent + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


_LISTS: dict[str, Callable[[str | None], list[Row]]] = {
    "models": lambda _: _options("model"),
    "data": lambda _: _options("data"),
    "metrics": lambda _: _options("metric"),
    "runs": _runs,
}
