"""``aigc eval``: scores of a run or of files, each with its conditions and its baseline."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from aigc_cli.commands.compare import compare
from aigc_cli.commands.eval_config import (
    EvalConfig,
    check_no_controls,
    records_folder,
    run_of,
    warn_of_idle,
)
from aigc_cli.commands.eval_setting import Setting, open_setting, with_usual_metrics
from aigc_cli.commands.eval_sides import Sides, evaluated
from aigc_cli.commands.stats import write_stats
from aigc_cli.config.schema import Options, check
from aigc_cli.errors import ConfigError, too_many
from aigc_cli.files import path_of
from aigc_cli.metrics.base import kind_of
from aigc_cli.metrics.report import describe, write
from aigc_cli.metrics.subject import FilesSubject
from aigc_cli.modalities.base import modality
from aigc_cli.training.precision import resolve_device

_EXAMPLE = "for example --metric bleu fake=translations.txt real=references.txt"


def main(config: dict[str, Any], options: Options) -> int:
    """Evaluates, prints the scores, and writes each metric's to a file of its own.

    Raises:
        ConfigError: words that fit nothing.
        DataError: items, weights or a checkpoint that are missing, too few, or cannot be trusted; no score is given.
    """
    asked: EvalConfig = check("", EvalConfig, {**config, "data": config["data"] or {}})
    if not asked.metric:
        raise ConfigError("metric= names no metric", "for example --metric fd,prdc")
    if asked.out is not None:
        _check_place(path_of(asked.out), is_file=asked.task == "stats")
    if asked.task == "stats":
        return write_stats(asked, options)
    if asked.task == "compare":
        return compare(asked, options)
    return _measure(asked, options)


def _check_place(out: Path, *, is_file: bool) -> None:
    """Refuses an ``out=`` that nothing can be written to, before anything is computed."""
    folder = out.parent if is_file else out
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if not there.is_dir() or (is_file and out.is_dir()):
        what = f"{out} is a folder" if there.is_dir() else f"{there} is not a folder"
        raise ConfigError(f"out={out} cannot be written: {what}", "choose another place with out=")


def _measure(asked: EvalConfig, options: Options) -> int:
    run = None if asked.fake is not None else run_of(asked)
    asked = with_usual_metrics(asked, options, [] if run is None else [run])
    if run is None and any(kind_of(name).of_text() for name in asked.metric):
        setting, sides = _texts(asked)
    else:
        setting, sides = open_setting(asked, options, run), None
    folder = records_folder(asked, setting.run)
    records = evaluated(setting, sides)
    files = [] if folder is None else [file for record in records for file in write(record, folder)]
    if options.json:
        plain = [record.plain_json() for record in records]
        print(json.dumps({"results": plain, "files": [str(file) for file in files]}, ensure_ascii=False))
        return 0
    print(describe(records, files))
    if setting.run is not None:
        print(f"next: aigc sample run={setting.run.word}")
    return 0


def _texts(asked: EvalConfig) -> tuple[Setting, Sides]:
    """The lines of ``fake=``, against those of ``real=`` where a metric needs them.

    Raises:
        ConfigError: a file is not named, or not there, or has fewer lines than ``n=``.
        DataError: a file is not UTF-8 text, or is empty.
    """
    other = next((name for name in asked.metric if not kind_of(name).of_text()), None)
    name = next(name for name in asked.metric if kind_of(name).of_text())
    if other is not None:
        raise ConfigError(f"{name} measures text, and {other} does not", "ask for one of them at a time")
    if asked.fake is None:
        raise ConfigError(f"{name} measures text: name a file of it with fake=", _EXAMPLE)
    needing = next((name for name in asked.metric if set(kind_of(name).takes) != {"fake"}), None)
    if needing is not None and asked.real is None:
        raise ConfigError(f"{needing} needs a reference text: name one with real=", _EXAMPLE)
    check_no_controls(asked)
    idle = ("run", "data", "step", "seed", "seeds", "split", "reference", "held_out")
    warn_of_idle(asked, *idle, *([] if needing else ["real"]))
    text = modality("text")
    fake = text.read(path_of(asked.fake))
    real = None if asked.real is None else text.read(path_of(asked.real))
    if asked.n is not None:
        if asked.n > len(fake):
            raise too_many(asked.n, len(fake), f"lines in {asked.fake}")
        fake = fake.take(asked.n)
    setting = Setting(replace(asked, seed=0), resolve_device("cpu"), None, None, False)
    references = real if real is None or asked.n is None else real.take(asked.n)
    return setting, Sides(FilesSubject(fake, references), real)
