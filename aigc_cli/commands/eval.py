"""``aigc eval``: scores of a run or of files, each with its conditions and its baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aigc_cli.commands.compare import compare
from aigc_cli.commands.eval_config import EvalConfig, run_of, with_usual_metrics
from aigc_cli.commands.eval_setting import open_setting
from aigc_cli.commands.stats import write_stats
from aigc_cli.config.schema import Options, check
from aigc_cli.errors import ConfigError
from aigc_cli.files import path_of
from aigc_cli.metrics.report import describe, write


def main(config: dict[str, Any], options: Options) -> int:
    """Evaluates, prints the scores, and writes each metric's to a file of its own.

    Raises:
        ConfigError: words that fit nothing.
        DataError: items, weights or a checkpoint that are missing, too few, or cannot be trusted; no score is given.
    """
    if not config.get("metric"):
        raise ConfigError("metric= names no metric", "for example --metric fd,prdc")
    asked: EvalConfig = check("", EvalConfig, {**config, "data": config["data"] or {}})
    if asked.out is not None:
        _check_place(path_of(asked.out), is_file=asked.task == "stats")
    return {"measure": measure, "compare": compare, "stats": write_stats}[asked.task](asked, options)


def _check_place(out: Path, *, is_file: bool) -> None:
    """Refuses an ``out=`` that nothing can be written to, before anything is computed."""
    folder = out.parent if is_file else out
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if not there.is_dir() or (is_file and out.is_dir()):
        what = f"{out} is a folder" if there.is_dir() else f"{there} is not a folder"
        raise ConfigError(f"out={out} cannot be written: {what}", "choose another place with out=")


def measure(asked: EvalConfig, options: Options) -> int:
    """Measures one run, or files."""
    run = None if asked.fake is not None else run_of(asked)
    setting = open_setting(with_usual_metrics(asked, options, [] if run is None else [run]), options, run)
    folder = setting.records_folder()
    records = setting.records()
    files = [] if folder is None else [file for record in records for file in write(record, folder)]
    if options.json:
        plain = [record.plain_json() for record in records]
        print(json.dumps({"results": plain, "files": [str(file) for file in files]}, ensure_ascii=False))
        return 0
    print(describe(records, files))
    if setting.run is not None:
        print(f"next: aigc sample run={setting.run.word}")
    return 0
