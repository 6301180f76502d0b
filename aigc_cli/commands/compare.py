"""``aigc eval compare``: several runs on the same reference, or records that were saved before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aigc_cli.commands.eval_config import EvalConfig, with_usual_metrics
from aigc_cli.commands.eval_setting import open_setting
from aigc_cli.config.schema import Options
from aigc_cli.errors import ConfigError
from aigc_cli.files import path_of
from aigc_cli.metrics.items import has_text
from aigc_cli.metrics.record import Record, read_record, saved
from aigc_cli.metrics.report import Records, check_comparable, describe_comparison, differences, write
from aigc_cli.runs import Run, find_run

SEEDS = 3  # fewer show no spread worth the name


def compare(asked: EvalConfig, options: Options) -> int:
    """Evaluates the runs, or reads the records, that ``run=A,B`` names, and prints what differs and by how much.

    Raises:
        ConfigError: fewer than two, or conditions under which their scores do not compare.
        DataError: a run or a record that cannot be trusted.
    """
    words = list(dict.fromkeys(word.strip() for word in asked.run.split(",") if word.strip()))
    if len(words) < 2:
        found = f"run={asked.run} names one run" if words else "no run is named"
        raise ConfigError(f"aigc eval compare needs several runs: {found}", "name others, such as run=A,B")
    if asked.fake is not None:
        raise ConfigError("aigc eval compare is for runs", "leave fake= out")
    files = [word for word in words if word.endswith(".json")]
    named: list[tuple[str, Records]] = []
    if files:
        if len(files) < len(words):
            raise ConfigError("records and runs cannot be mixed", "name runs alone, or .json files alone")
        idle = ("out", "n", "seed", "seeds", "split", "step", "real", "reference", "held_out")
        replace(asked, metric={}).warn_of_idle(*idle)
        for file in files:
            record = read_record(path_of(file))
            named.append((Path(file).name, {record["metric"]: record}))
    else:
        named = _evaluated(replace(asked, seeds=asked.seeds or SEEDS), options, [find_run(word) for word in words])
    check_comparable(named)
    rows = differences(named)
    if options.json:
        runs = [{"name": name, "records": list(records.values())} for name, records in named]
        print(json.dumps({"compared": runs, "differences": rows}, ensure_ascii=False))
    else:
        print(describe_comparison(named, rows))
    return 0


def _evaluated(asked: EvalConfig, options: Options, runs: list[Run]) -> list[tuple[str, Records]]:
    """The records of each run: those saved under the very same conditions, and fresh ones for the rest."""
    asked = with_usual_metrics(asked, options, runs)
    first, needs_data = runs[0], not has_text(runs[0].spec) and not isinstance(asked.data.get("name"), str)
    for run in runs[1:] if needs_data and asked.compares_with_data() else []:
        for what in ("fingerprint", "shape"):
            own, other = getattr(first.spec, what), getattr(run.spec, what)
            if own != other:
                raise ConfigError(
                    f"{first.name} and {run.name} cannot be compared: the {what} of their data is {own} and {other}",
                    "compare runs on the same data, or name a common reference with data= or real=",
                )
    named: list[tuple[str, Records]] = []
    for run in runs:
        setting = open_setting(asked, options, run)
        folder = setting.records_folder()
        assert folder is not None, "a run has one"
        found: dict[str, Mapping[str, Any]] = {}

        def known(record: Record, folder: Path = folder, found: dict[str, Mapping[str, Any]] = found) -> bool:
            kept = saved(record.plain_json(), folder)
            found |= {} if kept is None else {record.metric: kept}
            return kept is not None

        for record in setting.records(known):
            found[record.metric] = record.plain_json()
            write(record, folder)
        named.append((run.name, {name: found[name] for name in asked.metric}))
    return named
