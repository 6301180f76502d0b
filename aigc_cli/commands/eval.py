"""``aigc eval``: figures of a run or of files, each with its conditions and its floor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT, Options, check
from aigc_cli.data.base import Split
from aigc_cli.errors import ConfigError
from aigc_cli.files import path_of

if TYPE_CHECKING:
    from aigc_cli.metrics.report import Sides
    from aigc_cli.metrics.result import Result
    from aigc_cli.runs import Run


#: A word that is left empty names the current folder to Python, which nobody means.
Named = Annotated[str, Field(min_length=1)]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class EvalConfig:
    """See ``configs/eval.yaml``."""

    task: Literal["measure", "compare", "stats"]
    run: Named
    metric: dict[str, dict[str, Any]]
    n: Annotated[int, Field(ge=1)] | None
    seed: Annotated[int, Field(ge=0)]
    seeds: Annotated[int, Field(ge=1)] | None
    split: Split
    step: Annotated[int, Field(ge=0)] | Literal["best"] | None
    reference: Named | None
    extractor: Named | None
    backbone: Named | None
    weights: Named | None
    resize: Literal["tf_bilinear", "clean"] | None
    dtype: Literal["float32", "bfloat16"]
    fake: Named | None
    real: Named | None
    held_out: Named | None
    out: Named | None
    batch_size: Annotated[int, Field(ge=1)] | None
    device: str
    data: dict[str, Any]
    controls: dict[str, Any]


def main(config: dict[str, Any], options: Options) -> int:
    """Evaluates, prints the figures, and writes each metric's to a file of its own.

    Raises:
        ConfigError: words that fit nothing.
        DataError: images, weights or a checkpoint that are missing, too few, or cannot be trusted; no figure is given.
    """
    asked: EvalConfig = check("", EvalConfig, {**config, "data": config["data"] or {}})
    if not asked.metric:
        raise ConfigError("metric= names no metric", "for example --metric fd,prdc")
    if asked.out is not None:
        _check_place(path_of(asked.out), is_file=asked.task == "stats")
    if asked.task == "stats":
        from aigc_cli.commands.eval_stats import write_stats

        return write_stats(asked, options)
    if asked.task == "compare":
        from aigc_cli.commands.eval_compare import compare

        return compare(asked, options)
    return _measure(asked, options)


def _check_place(out: Path, *, is_file: bool) -> None:
    """Refuses an ``out=`` that nothing can be written to, before anything is computed."""
    folder = out.parent if is_file else out
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if not there.is_dir() or (is_file and out.is_dir()):
        what = f"{out} is a folder" if there.is_dir() else f"{there} is no folder"
        raise ConfigError(f"out={out} cannot be written: {what}", "choose another place with out=")


def _measure(asked: EvalConfig, options: Options) -> int:
    from aigc_cli.commands.eval_kinds import by_kind
    from aigc_cli.commands.eval_text import measure_text
    from aigc_cli.commands.eval_text_run import text_run
    from aigc_cli.commands.eval_words import records_folder

    run = text_run(asked)
    if run is not None:
        return _measure_text_run(run, asked, options)
    kinds = by_kind(asked.metric)
    if kinds.fills:
        raise ConfigError(f"{next(iter(kinds.fills))} is for runs of text", "name such a run with run=, and no fake=")
    if kinds.text:
        if kinds.others:
            raise ConfigError(
                f"{kinds.others[0]} measures images and {next(iter(kinds.text))} text", "ask for one of them at a time"
            )
        folder = records_folder(asked)
        return tell(asked, options, [measure_text(asked, kinds.text)], name=None, folder=folder)
    from aigc_cli.commands.eval_model import measure_model
    from aigc_cli.commands.evaluating import measure_features, open_setting

    setting = open_setting(asked, options)
    folder = records_folder(asked, setting.run)
    told = []
    if kinds.features:
        told.append(measure_features(setting, kinds.features))
    if kinds.of_model:
        told += measure_model(setting, kinds)
    return tell(asked, options, told, name=None if setting.run is None else setting.run.name, device=setting.device,
                folder=folder,
                following=None if setting.run is None else f"aigc sample run={setting.run.word}")  # fmt: skip


def _measure_text_run(run: Run, asked: EvalConfig, options: Options) -> int:
    from aigc_cli.commands.eval_kinds import by_kind
    from aigc_cli.commands.eval_text_run import measure_text_run, with_usual_metrics
    from aigc_cli.commands.eval_words import records_folder
    from aigc_cli.commands.evaluating import open_setting

    folder = records_folder(asked, run)
    setting = open_setting(with_usual_metrics([run], asked, options), options, run)
    told = measure_text_run(setting, by_kind(setting.asked.metric))
    return tell(setting.asked, options, told, name=run.name, device=setting.device, folder=folder,
                following=f"aigc sample run={run.word}")  # fmt: skip


def tell(
    asked: EvalConfig,
    options: Options,
    told: list[tuple[list[Result], Sides]],
    *,
    name: str | None,
    device: Any = "cpu",
    folder: Path | None = None,
    following: str | None = None,
) -> int:
    """Prints results with the sides they are of, and writes a file for each where there is a folder for them."""
    from aigc_cli.metrics.report import describe, write
    from aigc_cli.metrics.stamp import record

    records, files, texts = [], [], []
    for results, sides in told:
        own = []
        for result in results:
            made = record(result, sides, str(device), dtype=asked.dtype)
            own += [] if folder is None else write(made, folder, result.gallery)
            records.append(made)
        files += own
        texts.append(describe(results, sides, name, own))
    if options.json:
        print(json.dumps({"results": records, "files": [str(file) for file in files]}, ensure_ascii=False))
        return 0
    print("\n\n".join(texts))
    if following is not None:
        print(f"next: {following}")
    return 0
