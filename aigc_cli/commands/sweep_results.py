"""What came of a sweep: the words that won, by which score, and the table and the file that say so."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from aigc_cli import errors
from aigc_cli.commands.ls_runs import headline
from aigc_cli.commands.search import pruned_line
from aigc_cli.commands.sweep_words import plainly, typed
from aigc_cli.config.compose import compose
from aigc_cli.config.schema import Options, check
from aigc_cli.errors import AigcError
from aigc_cli.files import resource_errors, write_atomically
from aigc_cli.new_run import point_latest
from aigc_cli.progress import table
from aigc_cli.registry import plugin_words
from aigc_cli.reports.sweep_table import AFTER, BEFORE, DONE, TABLE
from aigc_cli.runs import Run

#: What is known of a job: its number, words, status, exit code, run, metrics and message.
Row = dict[str, Any]
#: The score that an optimizer minimises, whatever curve it is.
OBJECTIVE = "objective"
_SHOWN = 4  # scores in the table


@dataclass
class Group:
    """Jobs that differ in nothing but their seed."""

    words: list[str]
    rows: list[Row] = field(default_factory=list)

    def values(self, score: str) -> list[float]:
        """The score of each job that has it."""
        return [row["figures"][score] for row in self.rows if row["status"] in DONE and score in row["figures"]]

    def shown(self, score: str) -> str:
        """Its mean, with the standard deviation over several seeds."""
        values = self.values(score)
        if not values:
            return ""
        return f"{fmean(values):.4g}{f' ± {stdev(values):.2g}' if len(values) > 1 else ''}"


@dataclass(frozen=True)
class Ranking:
    """By what the jobs are ranked; `score` is None where there is nothing to rank them by, and `why` says so."""

    score: str | None
    higher: bool = False
    why: str = ""

    def order(self, groups: Sequence[Group]) -> list[Group]:
        """The best first; those without the score last, as they were."""
        if self.score is None:
            return [*groups]
        score, sign = self.score, -1 if self.higher else 1
        ranked = [group for group in groups if group.values(score)]
        ranked.sort(key=lambda group: sign * fmean(group.values(score)))
        for group in ranked:
            group.rows.sort(key=lambda row: sign * row["figures"].get(score, math.inf * sign))
        return [*ranked, *(group for group in groups if not group.values(score))]


def finish(
    folder: Path, rows: Sequence[Row], options: Options, objective: str | None, outputs: Path, *, stopped: bool
) -> int:
    """Measures what was asked for, prints the table with the winner, or JSON, and writes ``sweep.csv``; the exit code.

    `objective` is what the jobs are ranked by where a word or an optimizer says so: a curve, or OBJECTIVE. Of a sweep
    that was `stopped` nothing is measured. Otherwise ``latest`` in `outputs`, the last job, becomes the winner.
    """
    code, ranking = errors.EXIT_OK, Ranking(None)
    for row in rows:
        row["steps"] = Run(Path(row["run"])).step if row["run"] else 0
    if options.metric and not stopped:
        code, ranking = _measured(rows, options.metric)
    elif not options.metric:
        ranking = _by_curves(rows, objective)
    groups = ranking.order(_grouped(rows))
    path, unkept, moved = folder / TABLE, None, False
    try:  # before it is shown, which may end at a pipe that nobody reads
        _write(path, rows)
        moved = not stopped and _point_at_winner(outputs / "latest", rows, _winner(groups, ranking))
    except errors.ResourceError as error:
        unkept = error  # what was found out is shown all the same
    if options.json:
        best = _best_json(groups, ranking)
        plain = [{**row, "job": row["job"] + 1} for row in rows]
        print(json.dumps({"sweep": str(path), "best": best, "jobs": plain}, indent=2, ensure_ascii=False), flush=True)
    else:
        print("\n".join(_report(folder, groups, ranking, moved)), flush=True)
    return code if unkept is None else errors.report(unkept)


# what the jobs are ranked by


def asked_metrics(metrics: Sequence[str], *words: str) -> tuple[dict[str, Any], Options]:
    """What ``aigc eval`` makes of some metrics and further words; a :class:`ConfigError` where one is not there."""
    overrides = (f"metric=[{','.join(metrics)}]", *words)
    return compose("eval", overrides), Options(overrides=overrides)


def _measured(rows: Sequence[Row], metrics: Sequence[str]) -> tuple[int, Ranking]:
    """Adds the scores of `metrics` to the rows of the jobs that are done, as ``aigc eval`` measures them.

    Gives an exit code and what the jobs are ranked by, after Ctrl-C those that have been measured.
    """
    code = errors.EXIT_OK
    from aigc_cli.commands.eval import evaluated
    from aigc_cli.metrics.asked import EvalConfig
    from aigc_cli.metrics.record import difference
    from aigc_cli.metrics.report import Keeper

    done, records, keeper = [row for row in rows if row["status"] in DONE], [], Keeper()
    for number, row in enumerate(done, start=1):
        errors.say(f"measuring {', '.join(metrics)}: run {number} of {len(done)}")
        try:
            run = Run(Path(row["run"]))
            config, options = asked_metrics(metrics, f"device={run.config['trainer']['device']}")
            ((_, found),) = evaluated(check("", EvalConfig, {**config, "data": {}}), options, [run], keeper)
        except KeyboardInterrupt:
            errors.say("stopped measuring; the same command again measures the rest")
            code = errors.EXIT_INTERRUPTED
            break
        except Exception as error:
            row["code"] = errors.report(error, prefix=f"job {row['job'] + 1}: ")
            row["message"] = " ".join(str(error).split())
            continue
        for record in found.values():
            row["figures"] = {**row["figures"], **record["figures"]}
        records.append(next(iter(found.values())))
    code = code if keeper.failed is None else errors.report(keeper.failed)
    if not records:
        return code, Ranking(None, why=f"{', '.join(metrics)} could not be measured")
    for other in records[1:]:
        if (apart := difference(records[0], other)) is not None:
            return code, Ranking(None, why=f"the runs are not comparable: {apart[0]} is {apart[1]} and {apart[2]}")
    return code, _by_record(metrics[0], records[0])


def _by_record(metric: str, record: Mapping[str, Any]) -> Ranking:
    better: dict[str, str] = {label: way for label, way in record["better"].items() if way in ("lower", "higher")}
    named = [label for label in better if label.partition("[")[0] == metric]
    if not better:
        return Ranking(None, why=f"{metric} is neither better where it is higher nor where it is lower")
    score = [*named, *better][0]
    return Ranking(score, higher=better[score] == "higher")


def _by_curves(rows: Sequence[Row], objective: str | None) -> Ranking:
    """The objective that was named, or the first held-out score; a loss in training says nothing of the samples."""
    done = [row for row in rows if row["status"] in DONE]
    if not done:
        return Ranking(None)
    for row in done if objective == OBJECTIVE else ():
        row["figures"] = {OBJECTIVE: row["objective"], **row["figures"]}
    held_out = (name for row in done for name in row["figures"] if name.startswith("val/"))
    score = objective or next(held_out, None)
    if score is None:
        again = f"the same command with --metric {_usual_metric(done[0])} measures them, and trains nothing again"
        return Ranking(None, why=f"the runs have no held-out score; {again}")
    apart = [word for word in _swept(rows) if word.startswith("data") and not word.startswith("data.augment")]
    if apart:
        return Ranking(None, why=f"{score} of runs on different data does not compare ({apart[0].partition('=')[0]})")
    return Ranking(score)


def _usual_metric(row: Row) -> str:
    """The first of the metrics that ``aigc eval`` measures of such a run."""
    from aigc_cli.metrics.base import usual_metrics
    from aigc_cli.sampling.controls import model_class

    try:
        run = Run(Path(row["run"]))
        can = model_class(run.config["model"]["name"]).can
        return next(iter(usual_metrics(run.spec.modality, run.spec.source is not None, can)), "fd")
    except AigcError:
        return "fd"


# how it is shown


def common(jobs: Sequence[Sequence[str]]) -> set[str]:
    """The words that all of several jobs share; the others tell them apart."""
    return set.intersection(*map(set, jobs)) if len(jobs) > 1 else set()


def _swept(rows: Sequence[Row]) -> list[str]:
    shared = common([row["overrides"] for row in rows])
    return list(dict.fromkeys(word for row in rows for word in row["overrides"] if word not in shared))


def _grouped(rows: Sequence[Row]) -> list[Group]:
    """The jobs in groups that differ in their seed alone."""
    found: dict[tuple[str, ...], Group] = {}
    for row in rows:
        words = [word for word in row["overrides"] if not word.startswith("run_dir=")]  # which is taken by now
        settings = [word for word in words if not word.startswith("seed=")]
        group = found.setdefault(tuple(settings), Group(words))
        group.words = settings if group.rows else words
        group.rows.append(row)
    return list(found.values())


def _best_json(groups: Sequence[Group], ranking: Ranking) -> dict[str, Any] | None:
    values = [] if ranking.score is None or not groups else groups[0].values(ranking.score)
    if not values:
        return None
    spread = stdev(values) if len(values) > 1 else None
    return {
        "words": groups[0].words, "score": ranking.score, "mean": fmean(values), "spread": spread, "n": len(values),
        "jobs": sorted(row["job"] + 1 for row in groups[0].rows),
    }  # fmt: skip


def _winner(groups: Sequence[Group], ranking: Ranking) -> Run | None:
    """The best run of the best words; None where the jobs are not ranked."""
    rows = [] if ranking.score is None or not groups else groups[0].rows
    won = (row for row in rows if row["status"] in DONE and ranking.score in row["figures"])
    return next((Run(Path(row["run"])) for row in won), None)


def _point_at_winner(latest: Path, rows: Sequence[Row], winner: Run | None) -> bool:
    """Makes the latest run the winner, unless it is a run that this sweep did not make."""
    if winner is None or str(latest.resolve()) not in [str(Path(row["run"]).resolve()) for row in rows if row["run"]]:
        return False
    with resource_errors(latest):
        point_latest(latest, winner.path)
    return True


def _report(folder: Path, groups: Sequence[Group], ranking: Ranking, moved: bool) -> list[str]:
    rows = [row for group in groups for row in group.rows]
    lines = table(_table_rows(groups, ranking.score))
    swept = _swept(rows)
    for row in sorted(rows, key=lambda row: int(row["job"])):
        if row["message"]:
            own = plainly(word for word in row["overrides"] if word in swept)
            lines.append(
                f"{row['status'] + ':':<12} job {row['job'] + 1}{f' ({own})' if own else ''}: {row['message']}"
            )
    lines += _unequal(rows)
    lines.append(f"sweep:       {os.path.relpath(folder / TABLE)}")
    lines += pruned_line(rows)
    best = _best_json(groups, ranking)
    if best is not None:
        over = f" over {best['n']} seeds" if best["n"] > 1 else ""
        lines.append(f"best:        aigc train {typed(best['words'])}".rstrip() + plugin_words())
        lines.append(f"             {ranking.score} {groups[0].shown(best['score'])}{over}")
    elif ranking.why:
        lines.append(f"best:        not known: {ranking.why}")
    if (winner := _winner(groups, ranking)) is not None:
        lines += ["latest:      latest is the winner"] if moved else []
        lines.append(f"next:        aigc sample run={winner.word}")
        return lines
    runs = list(dict.fromkeys(Run(Path(row["run"])).named for row in rows if row["status"] in DONE))[:8]
    if len(runs) > 1 and not any(word.startswith("data") for word in swept):  # others' data would be refused
        lines.append(f"next:        aigc eval compare run={','.join(runs)}{plugin_words()}")
    return lines


def _unequal(rows: Sequence[Row]) -> list[str]:
    """Says so where jobs of the same minutes had unequal steps: how busy the machine was is no merit of their words."""
    steps = {row["steps"] for row in rows if row["status"] in DONE}
    if len(steps) < 2 or any(word.startswith(("trainer.steps=", "trainer.minutes=")) for word in _swept(rows)):
        return []
    if not any(word.startswith("trainer.minutes=") for row in rows for word in row["overrides"]):
        return []  # they stopped early, say
    fair = f"trainer.steps={min(steps)} in place of trainer.minutes= gives all the same"
    return [f"note:        the jobs were trained for unequal steps, {min(steps):,} to {max(steps):,}; {fair}"]


def _table_rows(groups: Sequence[Group], score: str | None) -> list[list[str]]:
    """The groups with the words in which they differ, and some scores, below the names of columns."""
    names = list(dict.fromkeys(name for group in groups for row in group.rows for name in row["figures"]))
    scores = list(dict.fromkeys([*([score] if score else []), *headline(names)]))[:_SHOWN]
    shared, seeds = common([group.words for group in groups]), any(len(group.rows) > 1 for group in groups)
    unequal = bool(_unequal([row for group in groups for row in group.rows]))
    found = [["job", "words", "status", *(["n"] if seeds else []), *(["steps"] if unequal else []), *scores, "run"]]
    for group in groups:
        words = plainly(word for word in group.words if word not in shared) or "-"
        jobs = ",".join(str(job) for job in sorted(row["job"] + 1 for row in group.rows))
        counts = Counter(row["status"] for row in group.rows)
        status = ", ".join(f"{count} {name}" if len(counts) > 1 else name for name, count in counts.items())
        n = [str(sum(row["status"] in DONE for row in group.rows))] if seeds else []
        runs = [os.path.relpath(row["run"]) for row in group.rows if row["run"]]
        run = f"{runs[0]}{', ...' if len(runs) > 1 else ''}" if runs else ""
        steps = [",".join(str(row["steps"]) for row in group.rows)] if unequal else []
        found.append([jobs, words, status, *n, *steps, *(group.shown(name) for name in scores), run])
    return found


def _write(path: Path, rows: Sequence[Row]) -> None:
    """A row for each job, whole or not at all."""
    figures = list(dict.fromkeys(key for row in rows for key in row["figures"]))
    writer = csv.writer(text := io.StringIO())
    writer.writerow([*BEFORE, *figures, *AFTER])
    for row in rows:
        values = [row["figures"].get(key, "") for key in figures]
        about = [row["job"] + 1, plainly(row["overrides"]), row["status"], row["run"], row["steps"]]
        writer.writerow([*about, *values, row["message"]])
    with resource_errors(path):
        write_atomically(path, text.getvalue())
