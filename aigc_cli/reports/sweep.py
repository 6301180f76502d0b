"""What a report says of a sweep: its jobs as lines through what was swept and their score, and the best of them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path

from aigc_cli.errors import DataError, unreadable
from aigc_cli.reports.sections import table
from aigc_cli.reports.svg import number_of, parallel
from aigc_cli.reports.sweep_table import AFTER, BEFORE, DONE, TABLE
from aigc_cli.run_index import records_of
from aigc_cli.runs import Run

_LISTED = 20


@dataclass(frozen=True)
class Sweep:
    """A sweep, by the table that it left."""

    folder: Path

    @cached_property
    def jobs(self) -> list[dict[str, str]]:
        """The rows of its table; raises DataError where that cannot be read."""
        path = self.folder / TABLE
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except (OSError, ValueError, csv.Error) as error:
            raise unreadable(path, error) from None
        if not rows or any(
            None in (*row, *row.values()) or not {"job", "overrides", "status"} <= row.keys() for row in rows
        ):
            raise DataError(f"{path} is not the table of a sweep", "name the folder of a sweep that ended")
        return rows

    @cached_property
    def words(self) -> list[dict[str, str]]:
        """What each job was given, by key."""
        return [dict(word.partition("=")[::2] for word in job["overrides"].split()) for job in self.jobs]

    @cached_property
    def swept(self) -> list[str]:
        """The keys in which the jobs differ."""
        keys = dict.fromkeys(key for each in self.words for key in each)
        return [key for key in keys if len({each.get(key) for each in self.words}) > 1]

    @cached_property
    def score(self) -> str | None:
        """What the jobs are ranked by: an optimizer's objective, what was measured, a held-out score, or a loss."""
        names = [name for name in self.jobs[0] if name not in (*BEFORE, *AFTER)]
        measured = [name for name in names if "/" not in name]
        held_out = [name for name in names if name.startswith("val/")]
        losses = [name for name in names if name.endswith("loss")]
        return next(iter([*measured, *held_out, *reversed(losses)]), None)

    @cached_property
    def values(self) -> list[float | None]:
        """The score of each job; None where it has none."""
        return [number_of(job.get(self.score or "")) for job in self.jobs]

    @cached_property
    def higher(self) -> bool:
        """Whether more is better, as an evaluation of one of the runs says; else less is."""
        for run in filter(None, self.runs):
            for record in records_of(run.path):
                way = (record.get("better") or {}).get(self.score)
                if way:
                    return bool(way == "higher")
        return False

    @cached_property
    def runs(self) -> list[Run | None]:
        """The run of each job, where it is still there."""
        paths = (Path(job["run"]) if job.get("run") else None for job in self.jobs)
        return [Run(path) if path is not None and (path / "config.yaml").is_file() else None for path in paths]

    @cached_property
    def order(self) -> list[int]:
        """The jobs that came to their end with a score, the best first."""
        ended = (number for number, job in enumerate(self.jobs) if job["status"] in DONE)
        scored = [(value, number) for number in ended if (value := self.values[number]) is not None]
        return [number for _, number in sorted(scored, reverse=self.higher)]

    def best(self) -> Run | None:
        """The run of the best job."""
        return self.runs[self.order[0]] if self.order else None


def section(sweep: Sweep, anchors: Mapping[str, str]) -> str:
    """The sweep as HTML; `anchors` are the runs that the page shows, by name."""
    way = "higher is better" if sweep.higher else "lower is better"
    done = sum(job["status"] in DONE for job in sweep.jobs)
    said = f"{len(sweep.jobs)} jobs, {done} of them complete, over {', '.join(sweep.swept) or 'nothing'}"
    if sweep.score is None or not sweep.order:
        return f"<p>{escape(said)}. No job has a score to rank them by.</p>"
    best = sweep.order[0]
    axes = [*sweep.swept, sweep.score]
    drawn = [(f"job {sweep.jobs[number]['job']}: {_words(sweep, number)}, {sweep.score} {sweep.values[number]:.4g}",
              [*(sweep.words[number].get(key) for key in sweep.swept), sweep.values[number]])
             for number in sweep.order]  # fmt: skip
    rows = "".join(_row(sweep, number, anchors, won=number == best) for number in sweep.order[:_LISTED])
    more = len(sweep.jobs) - min(_LISTED, len(sweep.order))
    command = f"aigc train {' '.join(sweep.jobs[best]['overrides'].split())}"
    head = "".join(f"<th>{escape(cell)}</th>" for cell in ("job", *sweep.swept, f"{sweep.score} ({way})", "run"))
    return (
        f"<p>{escape(said)}. Ranked by {escape(sweep.score)}: {way}.</p>{parallel(axes, drawn)}"
        f'<h3>The best</h3><pre>{escape(command)}</pre><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        + (f"<p class='soft'>{more} others are in {escape(TABLE)}.</p>" if more > 0 else "")
        + _failed(sweep)
    )


def _words(sweep: Sweep, number: int) -> str:
    return " ".join(f"{key}={sweep.words[number].get(key, '')}" for key in sweep.swept)


def _row(sweep: Sweep, number: int, anchors: Mapping[str, str], *, won: bool) -> str:
    run = sweep.runs[number]
    name = "" if run is None else escape(run.name)
    shown = f'<a href="#{anchors[run.name]}">{name}</a>' if run is not None and run.name in anchors else name
    cells = [sweep.jobs[number]["job"], *(escape(sweep.words[number].get(key, "")) for key in sweep.swept),
             f"{sweep.values[number]:.5g}", shown]  # fmt: skip
    kind = ' class="won"' if won else ""
    return f'<tr data-job="{escape(cells[0])}"{kind}>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _failed(sweep: Sweep) -> str:
    rows = [[escape(job["job"]), escape(job["status"]), escape(job.get("message", ""))]
            for job in sweep.jobs if job["status"] not in ("complete", "skipped")]  # fmt: skip
    return f"<h3>Not done</h3>{table(['job', 'status', 'message'], rows)}" if rows else ""
