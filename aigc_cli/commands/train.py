"""``aigc train``: a configuration becomes a run; ``--resume`` continues one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from aigc_cli.commands.train_report import report_end, report_start
from aigc_cli.config.schema import Options
from aigc_cli.data.loader import Loader
from aigc_cli.data.open import absolute_paths
from aigc_cli.errors import ConfigError, Interrupted, Terminated, say
from aigc_cli.monitor import Monitor
from aigc_cli.runs import Run, create_run, find_by_identity, find_run
from aigc_cli.training.build import Parts, Settings, build, check_config, set_up_torch
from aigc_cli.training.distributed import Processes, join, launched, share_of
from aigc_cli.training.launch import train_until_done
from aigc_cli.training.memory import naming_the_batch
from aigc_cli.training.restore import changed_config
from aigc_cli.training.trainer import Trainer
from aigc_cli.training.warm_start import with_source


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    run: Run
    figures: dict[str, float]
    status: str  # "complete", or "skipped" where it was complete before
    objective: float | None


def main(config: dict[str, Any], options: Options) -> int:
    """Trains, and says what was written and what to type next."""
    processes = launched() or Processes()
    try:
        result = run_training(config, options)
    except (Interrupted, Terminated) as error:
        if processes.main:
            raise
        return error.exit_code  # the main process says it
    if processes.main:
        report_end(result.run, skipped=result.status == "skipped")
    return 0


def run_training(config: dict[str, Any], options: Options) -> TrainResult:
    """Trains a new run, or continues the one that `options.resume` names, in as many processes as it is to have.

    A job of a sweep whose configuration has a complete run is skipped; one whose run was stopped is resumed.
    """
    _, config, settings = parse(config, options)
    return train_until_done(train, config, options, settings.trainer)


def train(config: dict[str, Any], options: Options, note: Path | None) -> TrainResult:
    """Trains in this process, one of several perhaps; `note` is a file that tells others where the run is.

    A new run has a directory only once its data and model stand: until then anything may turn out not to fit.
    """
    run, config, settings = parse(config, options)
    device = set_up_torch(settings.trainer, options.job)
    with join(device) as processes, ExitStack() as locks:
        if run is None and options.job is not None and (run := processes.from_main(lambda: _earlier(config))):
            config, settings = run.config, check_config(run.config)
        resumed = run is not None
        if run is not None:
            run = Run(run.path, writes=processes.main)
            locks.enter_context(run.lock())
            if processes.from_main(partial(_is_done, run, settings)):
                return _result(run, config)

        parts, monitor = processes.in_turn(partial(_build, config, settings, device, run))
        if run is None:
            run = Run(processes.from_main(lambda: create_run(config).path), writes=processes.main)
            locks.enter_context(run.lock())
            run.save_config(config, parts.dataset.spec, parts.dataset.codec.files())

        trainer = _trainer(run, parts, settings, device, processes)
        if resumed:
            if not trainer.restore():
                say(f"{run.name} has no checkpoint yet; it starts from step 0")
            if trainer.state.step >= settings.trainer.steps:
                run.set_status("complete", trainer.state.step)
                return _result(run, config)
            run.save_config(config, run.spec)
        processes.from_main(lambda: report_start(trainer, parts, note, () if resumed else options.recipe))
        with naming_the_batch(config, device):
            figures = trainer.fit(monitor.hooks(run.path / "samples"))
    return _result(run, config, figures)


def parse(config: dict[str, Any], options: Options) -> tuple[Run | None, dict[str, Any], Settings]:
    """The run to resume, if the words name one; the configuration that they make, settled; and the same checked.

    Raises:
        ConfigError: a word is wrong, or would change what a resumed run keeps.
    """
    run = None
    if options.resume is not None:
        run = find_run(options.resume, Path(config["outputs"]))
        config = changed_config(run.config, options.overrides)
    config = settled(config)
    return run, config, check_config(config)


def settled(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the paths under ``data``, and the run that it starts from, as they are from any folder."""
    return with_source({**config, "data": absolute_paths(config["data"])})


def _earlier(config: dict[str, Any]) -> Run | None:
    """The run of an earlier sweep that the same job is done with, or was stopped in."""
    run = find_by_identity(config)
    return run if run is not None and run.status() in ("complete", "stopped") else None


def _is_done(run: Run, settings: Settings) -> bool:
    return run.status() == "complete" and run.step >= settings.trainer.steps


def _build(config: dict[str, Any], settings: Settings, device: torch.device, run: Run | None) -> tuple[Parts, Monitor]:
    parts = build(config, settings, device, run.path if run is not None else None)
    return parts, Monitor(parts.model, parts.splits, settings.trainer, device)


def _trainer(run: Run, parts: Parts, settings: Settings, device: torch.device, processes: Processes) -> Trainer:
    config, seed = settings.trainer, settings.seed
    loader = Loader(
        parts.dataset, batch_size=share_of(config.batch_size, processes.world_size), seed=seed, device=device,
        rank=processes.rank, world_size=processes.world_size, workers=config.workers,
    )  # fmt: skip
    return Trainer(
        model=parts.model, loader=loader, optimizer=settings.optimizer, config=config, seed=seed, run=run,
        device=device, processes=processes,
    )  # fmt: skip


def _result(run: Run, config: Mapping[str, Any], figures: dict[str, float] | None = None) -> TrainResult:
    """The result of a run that trained to its end; without `figures`, of one that had been there before."""
    last = run.figures() if figures is None else figures
    return TrainResult(run, last, "skipped" if figures is None else "complete", _objective(last, config))


def _objective(figures: Mapping[str, float], config: Mapping[str, Any]) -> float | None:
    """What a sweep's optimizer minimises: as configured, else the first held-out score, else the last loss."""
    wanted = (config.get("sweep") or {}).get("objective")
    if wanted is not None:
        if wanted not in figures:
            raise ConfigError(
                f"sweep.objective={wanted} is not a metric of this run", f"choose from: {', '.join(sorted(figures))}"
            )
        return figures[wanted]
    held_out = [value for name, value in figures.items() if name.startswith("val/")]
    losses = [value for name, value in figures.items() if name.endswith("/loss")]
    return next(iter([*held_out, *reversed(losses)]), None)
