"""What came of a sweep: a row from every job, ``sweep.csv``, and the table at the end."""

from __future__ import annotations

import csv
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aigc_cli.commands.ls import headline
from aigc_cli.config.schema import Options
from aigc_cli.errors import EXIT_OK
from aigc_cli.files import resource_errors
from aigc_cli.progress import table

Row = dict[str, Any]


def common_words(jobs: Sequence[Sequence[str]]) -> set[str]:
    """The words that all of several jobs share; the others tell them apart."""
    return set.intersection(*map(set, jobs)) if len(jobs) > 1 else set()


def new_row(number: int, words: Sequence[str], status: str) -> Row:
    """What is known of a job before it has run; `number` counts from 0."""
    return {"job": number, "overrides": list(words), "status": status, "code": EXIT_OK,
            "run": "", "figures": {}, "message": ""}  # fmt: skip


def read_rows(folder: Path) -> list[Row]:
    """The rows that jobs have left in a sweep's folder so far, in order."""
    rows = [json.loads(path.read_text()) for path in (folder / "jobs").glob("*.json")]
    return sorted(rows, key=lambda row: int(row["job"]))


def collect(folder: Path, grid: Sequence[Sequence[str]] | None) -> list[Row]:
    """A row for every job, those that never ran among them."""
    rows = {row["job"]: row for row in read_rows(folder)}
    for number, words in enumerate(grid or ()):
        rows.setdefault(number, new_row(number, words, "not run"))
    return [rows[number] for number in sorted(rows)]


def finish(folder: Path, rows: Sequence[Row], options: Options) -> None:
    """Writes ``sweep.csv`` and prints the table, or JSON."""
    figures = list(dict.fromkeys(key for row in rows for key in row["figures"]))
    path = folder / "sweep.csv"
    with resource_errors(path), path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["job", "overrides", "status", "run", *figures, "message"])
        for row in rows:
            values = [row["figures"].get(key, "") for key in figures]
            writer.writerow(
                [row["job"], shlex.join(row["overrides"]), row["status"], row["run"], *values, row["message"]]
            )
    if options.json:
        print(json.dumps({"sweep": str(path), "jobs": rows}, indent=2, ensure_ascii=False))
        return
    print("\n".join(table(_table_rows(rows, figures))))
    print(f"sweep:       {os.path.relpath(path)}")
    best = folder / "optimization_results.yaml"
    if best.exists():
        print(f"best:        {os.path.relpath(best)}")
    sys.stdout.flush()


def _table_rows(rows: Sequence[Row], figures: Sequence[str]) -> list[list[str]]:
    """The rows with the words in which they differ, and the metrics that matter most, below the names of columns."""
    common = common_words([row["overrides"] for row in rows])
    shown = headline(figures)
    table_rows = [["job", "words", "status", *shown, "run"]]
    for row in rows:
        words = " ".join(word for word in row["overrides"] if word not in common) or "-"
        values = [f"{row['figures'][key]:.4g}" if key in row["figures"] else "" for key in shown]
        run = os.path.relpath(row["run"]) if row["run"] else ""
        table_rows.append([str(row["job"] + 1), words, row["status"], *values, run])
    return table_rows
