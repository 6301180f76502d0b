"""Every run that was made here, wherever it lies, and what lists show of each: an index that heals itself.

Beside the runs under ``outputs`` lie two files. ``.places`` names the runs that ``run_dir=`` put elsewhere, a line
each; it only ever grows, so that a disk which is not mounted today loses nothing. ``.index.json`` keeps what was read
of each run, with the times of the files that it was read from: what has changed since is read again, and an index that
is lost or broken costs one slow listing.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from aigc_cli.config.schema import leaves
from aigc_cli.errors import DataError
from aigc_cli.files import read_json, stamp, write_atomically, write_json
from aigc_cli.runs import Run, elsewhere, is_number, last_values, list_runs, read_rows

INDEX, NOTES = ".index.json", "notes.json"
_VERSION = 1
#: What the index reads of a run; when one of these changes, the run is read again.
_READ = ("config.yaml", "status.json", "metrics.jsonl", "checkpoints", "eval", NOTES)

#: What is known of a run, as plain data.
Row = dict[str, Any]


def known_runs(root: Path) -> list[Run]:
    """The runs under `root`, and those that ``run_dir=`` put elsewhere, as far as they are there, the oldest first."""
    runs = {run.path.resolve(): run for run in list_runs(root)}
    for path in elsewhere(root):
        if (path / "config.yaml").is_file():
            runs.setdefault(path.resolve(), Run(path))
    ages = {}
    for run in runs.values():
        with suppress(OSError):  # deleted meanwhile
            ages[run] = (run.path / "config.yaml").stat().st_mtime
    return sorted(ages, key=ages.__getitem__)


def rows_of(root: Path) -> list[Row]:
    """What is known of each run, the oldest first: its name, path, age and status, configuration (flat), metrics,
    scores, notes and tags. A run that cannot be read has the status "broken" and a reason."""
    kept, found = _kept(root), {}
    rows = []
    for run in known_runs(root):
        path = str(run.path.absolute())
        stamp = _stamp(run.path)
        entry = kept.get(path)
        if not (isinstance(entry, dict) and entry.get("stamp") == stamp and _is_row(entry.get("row"))):
            entry = {"stamp": stamp, "row": _read(run)}
        found[path] = entry
        row = {**entry["row"], "name": run.name, "path": path}  # whatever an index says: checkpoints are deleted there
        if row["status"] == "running":  # a kill leaves no trace in any file
            row["status"] = run.status()
        rows.append(row)
    if found != kept and (found or kept):
        with suppress(OSError):  # a folder that cannot be written is listed all the same
            write_atomically(root / INDEX, json.dumps({"version": _VERSION, "runs": found}))
    return rows


def _kept(root: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, TypeError):
        saved = read_json(root / INDEX)
        if isinstance(saved, dict) and saved.get("version") == _VERSION and isinstance(saved.get("runs"), dict):
            return dict(saved["runs"])
    return {}


def _is_row(row: Any) -> bool:
    """Whether a row of an index that may be a stranger's is of the types that lists show."""
    if not isinstance(row, dict) or not is_number(row.get("made")) or not isinstance(row.get("tags"), list):
        return False
    if row.get("status") == "broken":
        return isinstance(row.get("note"), str)
    numbers = [row.get("figures"), row.get("scores")]
    return (
        all(isinstance(row.get(key), str) for key in ("status", "note", "model", "data"))
        and all(isinstance(part, dict) and all(map(is_number, part.values())) for part in numbers)
        and isinstance(row.get("config"), dict)
        and is_number(row.get("seconds"))
    )


def _stamp(path: Path) -> list[list[int] | None]:
    """Changes when a file that the row is read from does; folders change when a file in them is replaced."""
    found: list[list[int] | None] = []
    for name in _READ:
        try:
            found.append([*stamp(os.stat(os.path.join(path, name)))])
        except OSError:
            found.append(None)
    return found


def _read(run: Run) -> Row:
    row: Row = {"made": _made(run.path)}
    try:
        config = run.config
        row |= {"model": config["model"]["name"], "data": config["data"]["name"], "step": run.step}
        by_time = config["trainer"].get("minutes") is not None
        row["steps"] = None if by_time else config["trainer"]["steps"]
        metrics = read_rows(run.path / "metrics.jsonl")
        row |= {"status": run.recorded_status(), "figures": last_values(metrics) or _unwritten(run)}
        row["seconds"] = max((_number(each.get("seconds")) for each in metrics), default=0)
        row["scores"] = scores_of(run.path)
        row["config"] = leaves(config)
    except (DataError, KeyError, TypeError, AttributeError) as error:
        row |= {"status": "broken", "reason": (str(error).splitlines() or [""])[0]}
    return {**row, **notes_of(run.path)}


def _made(path: Path) -> float:
    with suppress(OSError):
        return (path / "config.yaml").stat().st_mtime
    return 0.0


def _number(value: Any) -> float:
    return float(value) if is_number(value) and math.isfinite(value) else 0.0


def _unwritten(run: Run) -> dict[str, float]:
    """Of a run that was stopped before its first row of metrics: the means that its checkpoint keeps for that."""
    found: dict[str, float] = {}
    with suppress(OSError, ValueError, KeyError, TypeError, ArithmeticError):  # a file that is broken tells nothing
        newest = max(run.checkpoints.glob("step-*/state.json"), key=lambda path: path.stat().st_mtime)
        for part in read_json(newest)["tally"]:
            found |= {
                name: float(total) / part["count"] for name, total in zip(part["names"], part["sums"], strict=True)
            }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def records_of(path: Path) -> list[dict[str, Any]]:
    """The records of evaluations that a run holds, the oldest first; those that cannot be read are left out."""
    records = []
    for file in (path / "eval").glob("*.json"):
        with suppress(OSError, ValueError, RecursionError):
            if (record := _record(read_json(file))) is not None:
                records.append(record)
    return sorted(records, key=lambda record: str(record.get("time")))


def _record(saved: Any) -> dict[str, Any] | None:
    """A record as it was written; None where it is none. A run may be a stranger's: only numbers are scores."""
    if not isinstance(saved, dict) or not isinstance(saved.get("metric"), str):
        return None
    parts = [saved.get(key) or {} for key in ("figures", "spread", "better", "bounds", "generated", "floor")]
    if not all(isinstance(part, dict) for part in parts) or not isinstance(saved.get("notes") or [], list):
        return None
    if not isinstance(parts[-1].get("figures") or {}, dict):
        return None
    figures, spread = ({name: value for name, value in part.items() if is_number(value)} for part in parts[:2])
    return {**saved, "figures": figures, "spread": spread} if figures else None


def scores_of(path: Path) -> dict[str, float]:
    """The newest value of each score that ``aigc eval`` has kept in a run, by its full name."""
    found: dict[str, float] = {}
    for record in records_of(path):
        found |= record["figures"]
    return found


def notes_of(path: Path) -> Row:
    """The note and the tags that a person gave a run."""
    saved: Any = None
    with suppress(OSError, ValueError):
        saved = read_json(path / NOTES)
    saved = saved if isinstance(saved, dict) else {}
    tags = saved.get("tags") if isinstance(saved.get("tags"), list) else []
    return {"note": str(saved.get("note") or ""), "tags": [str(tag) for tag in tags or ()]}


def write_notes(path: Path, *, note: str, tags: list[str]) -> None:
    """Keeps a note and tags in a run."""
    write_json(path / NOTES, {"note": note, "tags": tags})


def disk_use(path: Path) -> int:
    """The bytes of all files below a folder; links are not followed."""
    total = 0
    with suppress(OSError):
        for entry in os.scandir(path):
            with suppress(OSError):
                is_folder = entry.is_dir(follow_symlinks=False)
                total += disk_use(Path(entry.path)) if is_folder else entry.stat(follow_symlinks=False).st_size
    return total
