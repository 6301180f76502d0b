"""``aigc ls runs``: the runs that filters leave, in an order, with the columns that a person asks for."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from aigc_cli.config.folders import command_keys
from aigc_cli.config.schema import differing
from aigc_cli.config.words import split_key
from aigc_cli.errors import ConfigError, namesake, say, suggest
from aigc_cli.files import path_of
from aigc_cli.progress import size
from aigc_cli.run_index import Row, disk_use, rows_of

_SHOWN = 4  # metrics of a run, and words that tell it apart
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
#: The keys that are about the list; all others are filters.
KEYS = ("outputs", "sort", "columns")
_COLUMNS = ("run", "status", "step", "age", "disk", "words", "metrics")
#: What a run can be asked for beside its metrics, scores and configuration.
_ASKED = ("run", "name", "path", "model", "data", "status", "step", "steps", "seconds", "age", "disk", "words",
          "metrics", "tags", "note")  # fmt: skip
#: In what runs are the same whose scores of one name compare: the data that they are scored against.
_COMPARED = ("data", "data.root", "data.size", "data.channels")


def selected(words: Sequence[str], others: Sequence[str] = ()) -> tuple[list[Row], list[str]]:
    """The rows that key=value words leave, in their order, and the names of the columns to show.

    ``outputs=`` is the folder of the runs, ``sort=KEY`` or ``sort=-KEY`` their order, ``columns=A,B`` what to show. All
    other words are filters: ``KEY=A,B`` takes either, ``*`` stands for anything, and numbers may be bounded by
    ``KEY=<1``. A key is a metric, a score, or one of the configuration, of which the last part will do.

    Raises:
        ConfigError: no run has such a key; it may have been meant for one of the `others` that the command takes.
    """
    parsed = [split_key(word) for word in words]
    asked = {key: value or "" for _, key, value in parsed if key in KEYS}
    rows = rows_of(path_of(asked.get("outputs") or command_keys("train")["outputs"].value))
    filters = [(key, value or "") for _, key, value in parsed if key not in KEYS]
    columns = [name.strip() for name in asked.get("columns", "").split(",") if name.strip()]
    order = asked.get("sort", "")
    wanted = {*columns, *([order.removeprefix("-")] if order else []), *(key for key, _ in filters)}
    if rows:
        _check(wanted, rows, (*KEYS, *others))
    for row in rows:
        row["age"] = time.time() - row["made"]
        row["disk"] = disk_use(Path(row["path"]))
    for key, pattern in filters:
        rows = [row for row in rows if _matches(value_of(row, key), pattern)]
    _tell_apart(rows)
    if order:
        rows = _sorted(rows, order)
    if not columns:
        notes = [name for name in ("tags", "note") if any(row[name] for row in rows)]
        ordering = [key for key in [order.removeprefix("-")] if key not in ("", "name", *_COLUMNS, *notes)]
        columns = [_COLUMNS[0], *ordering, *_COLUMNS[1:], *notes]
    return rows, [full for name in columns for full in _full_names(name, rows) or [name]]


def _check(names: Iterable[str], rows: Sequence[Row], others: Sequence[str]) -> None:
    known = {*_ASKED, *(key for row in rows for part in ("figures", "scores", "config") for key in row.get(part, ()))}
    for name in names:
        if name not in known and all(value_of(row, name) is None for row in rows):
            raise ConfigError(f"no run has {name!r}", suggest(name, {*known, *others}))


def value_of(row: Row, key: str) -> Any:
    """What a run has under a key: None where it has nothing of the kind."""
    if key in ("run", "name"):
        return row["name"]
    if key in _ASKED:
        return row.get(key)
    config = row.get("config", {})
    for values in (row.get("scores", {}), row.get("figures", {}), config):
        if key in values:
            return values[key]
    if (full := namesake(key, config)) is not None:
        return config[full]
    scores = (value for name, value in row.get("scores", {}).items() if name.partition("[")[0] == key)
    return next(scores, None)


def _full_names(key: str, rows: Sequence[Row]) -> list[str]:
    """The scores that a key is short for, such as ``fd[digits-cnn]``, that of most runs first; none where it names
    something else."""
    if key in _ASKED or any(key in row.get("figures", {}) or namesake(key, row.get("config", {})) for row in rows):
        return []
    scores = Counter(name for row in rows for name in row.get("scores", {}))
    return [name for name, _ in scores.most_common() if key in (name, name.partition("[")[0])]


def _matches(value: Any, pattern: str) -> bool:
    if pattern[:1] in ("<", ">"):
        try:
            bound = float(pattern[1:])
        except ValueError:
            raise ConfigError(f"{pattern!r} does not bound a number", "write for example 'fd=<10'") from None
        return isinstance(value, (int, float)) and (value < bound if pattern[0] == "<" else value > bound)
    texts = [_text(each) for each in value] if isinstance(value, list) else [_text(value)]
    return any(_same(text, one.strip()) for text in texts for one in pattern.split(","))


def _same(text: str, pattern: str) -> bool:
    if fnmatchcase(text, pattern) or text == pattern:
        return True
    try:
        return float(text) == float(pattern)
    except ValueError:
        return False


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _sorted(rows: list[Row], order: str) -> list[Row]:
    """By a key, the lowest first, or after a minus the highest; runs that have none come last. Scores that do not
    compare, of different features or data, are sorted each among its own, those of most runs first."""
    key, down = order.removeprefix("-"), order.startswith("-")
    names = _full_names(key, rows)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    lacking: list[Row] = []
    for row in rows:
        score = next((name for name in names if name in row.get("scores", {})), key)
        if value_of(row, score) in (None, "", []):
            lacking.append(row)
        else:
            alike = (score, *(value_of(row, each) for each in _COMPARED)) if names else (score,)
            groups.setdefault(alike, []).append(row)
    for (score, *_), having in groups.items():
        values = [value_of(row, score) for row in having]
        numbers = all(isinstance(value, (int, float)) for value in values)
        places = sorted(range(len(having)), key=[v if numbers else _text(v) for v in values].__getitem__, reverse=down)
        having[:] = [having[place] for place in places]
    if len(groups) > 1:
        say(
            f"{key} of different features or data does not compare: runs are sorted within each of {len(groups)} groups"
        )
    return [row for having in sorted(groups.values(), key=len, reverse=True) for row in having] + lacking


def _tell_apart(rows: Sequence[Row]) -> None:
    """Adds to each row in which keys it differs from the others of its model and data."""
    kinds: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["status"] != "broken":
            kinds.setdefault((row["model"], row["data"]), []).append(row)
    for alike in kinds.values():
        for row, words in zip(alike, differing([row["config"] for row in alike]), strict=True):
            row["differs"] = words


def as_json(rows: Sequence[Row]) -> list[Row]:
    """The rows without what only the list itself needs."""
    return [{key: value for key, value in row.items() if key not in ("config", "made")} for row in rows]


def shown(rows: Sequence[Row], columns: Sequence[str]) -> list[list[str]]:
    """The rows as a person reads them, below the names of their columns."""
    return [[*columns], *([_cell(row, column) for column in columns] for row in rows)] if rows else []


def _cell(row: Row, column: str) -> str:
    if column in _CELLS:
        return _CELLS[column](row)
    value = value_of(row, column)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else ", ".join(map(_text, value)) if isinstance(value, list) else _text(value)


def _metrics(row: Row) -> str:
    values = row.get("figures", {})
    return "  ".join(f"{key} {values[key]:.4g}" for key in headline(values)) or row.get("reason", "")


def _words(differs: Mapping[str, Any]) -> str:
    """The first of the words that tell a run apart."""
    words = [f"{key}={_text(value)}" for key, value in differs.items()]
    return " ".join([*words[:_SHOWN], *(["..."] if len(words) > _SHOWN else [])])


def headline(figures: Iterable[str]) -> list[str]:
    """The names of the metrics that say most about a run: held-out ones, else losses, else any."""
    names = list(dict.fromkeys(figures))
    held_out = [name for name in names if name.startswith("val/")]
    return (held_out or [name for name in names if name.endswith("loss")] or names)[:_SHOWN]


def age(seconds: float) -> str:
    """A duration in its largest unit, such as ``3 h``."""
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "0 s"


_CELLS: dict[str, Callable[[Row], str]] = {
    "run": lambda row: str(row["name"]),
    "step": lambda row: "/".join(str(row[key]) for key in ("step", "steps") if row.get(key) is not None),
    "age": lambda row: age(row["age"]),
    "seconds": lambda row: age(row.get("seconds", 0)),
    "disk": lambda row: size(row["disk"]),
    "words": lambda row: _words(row.get("differs", {})),
    "metrics": _metrics,
}
