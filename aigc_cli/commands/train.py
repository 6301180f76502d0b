"""``aigc train``: a configuration becomes a run; ``--resume`` goes on with one."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass as typed

from aigc_cli.commands.launching import run_together, starts_processes
from aigc_cli.commands.resuming import changed_config
from aigc_cli.commands.train_parts import Parts, Settings, Work, build, prepare
from aigc_cli.commands.train_report import describe, write_problems
from aigc_cli.commands.watching import preview
from aigc_cli.config.schema import STRICT, Options, check
from aigc_cli.data import absolute_paths
from aigc_cli.data.loader import Loader
from aigc_cli.errors import ConfigError, Interrupted, Terminated, say
from aigc_cli.files import shown
from aigc_cli.modalities.base import modality
from aigc_cli.models.base import keys_of
from aigc_cli.registry import find
from aigc_cli.runs import OUTPUTS, Run, create_run, find_by_identity, find_run
from aigc_cli.sampling.controls import model_class
from aigc_cli.sampling.modes import modes_of
from aigc_cli.training.distributed import join, own_device, share_of
from aigc_cli.training.meeting import place
from aigc_cli.training.memory import BatchTooLarge, may_shrink, naming_the_batch, shrink_batch
from aigc_cli.training.preflight import check_space
from aigc_cli.training.settings import Hooks, TrainerConfig
from aigc_cli.training.trainer import Trainer
from aigc_cli.training.warm_start import with_source


@typed(config=STRICT, frozen=True, kw_only=True)
class SweepConfig:
    """The section `sweep`."""

    objective: str | None


@typed(config=STRICT, frozen=True, kw_only=True)
class TrainConfig:
    """The top level of a configuration; each section is checked against its own component's."""

    model: dict[str, Any]
    data: dict[str, Any]
    optimizer: dict[str, Any]
    trainer: dict[str, Any]
    seed: Annotated[int, Field(ge=0)]
    run_dir: str | None
    outputs: str
    sweep: SweepConfig


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    run: Run
    figures: dict[str, float]
    status: str  # "complete", or "skipped" where it was complete before
    objective: float | None


def main(config: dict[str, Any], options: Options) -> int:
    """Trains, and says what was written and what to type next."""
    where = place()
    try:
        result = run_training(config, options)
    except (Interrupted, Terminated) as error:
        if where is not None and where.rank:
            return error.exit_code  # the main process says it
        raise
    run = result.run
    if where is not None and where.rank:
        return 0
    if result.status == "skipped":
        print(f"{run.name} is complete: it has done {run.step} steps")
        print(f"to go on:    aigc train --resume {run.word} trainer.steps={2 * run.step}")
        return 0
    print(f"run:         {shown(run.path)}")
    found = sorted((run.path / "samples").glob(f"step-{run.step}[.-]*"), key=lambda path: (len(path.stem), path.name))
    for number, path in enumerate(found):
        print(f"{'' if number else 'samples:':<13}{shown(path)}")
    if not found:
        print(f"checkpoint:  {shown(run.checkpoints)}/step-{run.step}")
    print(f"curves:      {shown(run.path / 'curves.png')}")
    word = "" if _is_latest(run) else f" run={shlex.quote(str(shown(run.path)))}"
    print(f"next:        {'    or    '.join(f'{line}{word}' for line in _next(run))}")
    return 0


def _next(run: Run) -> list[str]:
    """What to type next, by what the model can be asked for."""
    model = run.config["model"]
    kind = model_class(model["name"])
    modes = modes_of(kind)
    prompts = run.spec.source is None and "prompt" in kind.can
    lines = [f"aigc sample{_prompt(run, 'The ') if prompts else ''}"]
    if "infill" in modes:
        lines.append(f"aigc sample mode=infill{_prompt(run, 'The ____ of')}")
    if "reconstruct" in modes[1:]:
        lines.append("aigc sample mode=reconstruct")
    if model.get("conditional") and run.spec.classes:
        lines.append(f"aigc sample {shlex.quote(f'class={run.spec.classes[0]}')}")
    return [*lines, "aigc eval"]


def _prompt(run: Run, text: str) -> str:
    """A prompt in English, where the vocabulary has its characters."""
    kind = modality(run.spec.modality)
    try:
        kind.parse(text.replace("_", ""), kind.codec(run.spec, run.path))
    except ConfigError:
        return ""
    return f' prompt="{text}"'


def _is_latest(run: Run) -> bool:
    link = OUTPUTS / "latest"
    return link.is_dir() and link.resolve() == run.path.resolve()


def run_training(config: dict[str, Any], options: Options, note: Path | None = None) -> TrainResult:
    """Trains a new run, or goes on with the one that `options.resume` names.

    A job of a sweep whose configuration has a complete run is skipped; one whose run was stopped goes on. With
    ``trainer.auto_batch``, one that runs out of memory goes on with a smaller batch. `note` is a file to which the
    run's directory is written, once there is one.
    """
    while True:
        try:
            return _run_training(config, options, note)
        except BatchTooLarge as error:
            run = error.run
            if run is None or place() is not None or not may_shrink(run):
                raise  # of several processes, whoever started them starts them again
        shrink_batch(run)  # here, where the error no longer holds what was in memory
        options = replace(options, resume=str(run.path), overrides=())


def _run_training(config: dict[str, Any], options: Options, note: Path | None) -> TrainResult:
    run = None
    if options.resume is not None:
        run = find_run(options.resume, Path(config["outputs"]))
        config = changed_config(run.config, options.overrides)
    config = settled(config)
    checked = check_config(config)
    if starts_processes(checked.trainer):
        return run_together(run_training, config, options, checked.trainer)
    device = prepare(checked.trainer, options)
    with join(device) as processes:
        if run is None and options.job is not None and (run := processes.from_main(lambda: _earlier(config))):
            config = run.config
        work = Work(config, checked, device, processes, note)
        result = _start(work) if run is None else _resume(processes.run(run.path), work)
    return result


def _earlier(config: dict[str, Any]) -> Run | None:
    """The run of an earlier sweep that the same job is done with, or was stopped in."""
    run = find_by_identity(config)
    return run if run is not None and run.status() in ("complete", "stopped") else None


def _start(work: Work) -> TrainResult:
    processes = work.processes
    parts = processes.in_turn(lambda: build(work))
    run = processes.run(processes.from_main(lambda: create_run(work.config).path))
    with run.lock():
        run.save_config(work.config, parts.dataset.spec, parts.dataset.codec.files())
        return _fit(run, work, parts)


def _resume(run: Run, work: Work) -> TrainResult:
    with run.lock():
        if work.processes.from_main(lambda: run.status() == "complete" and run.step >= work.settings.trainer.steps):
            return _skipped(run, work.config)
        parts = work.processes.in_turn(lambda: build(work, run.path))
        return _fit(run, work, parts, resume=True)


def check_config(config: Mapping[str, Any]) -> Settings:
    """Checks every section, with all problems named at once.

    Raises:
        ConfigError: unknown components or keys, wrong types, values out of range, contradictory choices.
    """
    top = check("", TrainConfig, config)
    schemas = {kind: find(kind, _name(config, kind)).config for kind in ("model", "data", "optimizer")}
    checked, problems = {}, []
    for section, schema in {**schemas, "trainer": TrainerConfig}.items():
        try:
            values = keys_of(schema, config[section]) if section == "model" else config[section]
            checked[section] = check(section, schema, values)
        except ConfigError as error:
            problems.append(error)
    if problems:
        hints = [error.hint for error in problems if error.hint]
        raise ConfigError("; ".join(error.message for error in problems), "; ".join(hints))
    own_device(checked["trainer"])
    where = place()
    share_of(checked["trainer"].batch_size, where.world_size if where else checked["trainer"].devices)
    if checked["trainer"].tensorboard and find_spec("tensorboard") is None:
        raise ConfigError(
            "trainer.tensorboard=true needs TensorBoard, which is not installed",
            "pip install 'aigc-cli[tensorboard]'",
        )
    return Settings(checked["optimizer"], checked["trainer"], top.seed)


def _name(config: Mapping[str, Any], kind: str) -> str:
    name = config[kind].get("name")
    if not isinstance(name, str):
        raise ConfigError(f"the section {kind} names no component", f"choose one with {kind}=NAME")
    return name


def settled(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the paths under ``data``, and the run that it starts from, as they are from any folder."""
    return with_source({**config, "data": absolute_paths(config["data"])})


def _fit(run: Run, work: Work, parts: Parts, *, resume: bool = False) -> TrainResult:
    settings, processes, config = work.settings.trainer, work.processes, work.config
    dataset, seed = parts.dataset, work.settings.seed
    loader = Loader(
        dataset, batch_size=share_of(settings.batch_size, processes.count), seed=seed, device=work.device,
        rank=processes.rank, world_size=processes.count, workers=settings.workers,
    )  # fmt: skip
    trainer = Trainer(
        model=parts.model, loader=loader, optimizer=work.settings.optimizer, config=settings, seed=seed, run=run,
        device=work.device, processes=processes,
    )  # fmt: skip
    if resume:
        if not trainer.restore():
            say(f"{run.name} has no checkpoint yet; it starts from step 0")
        if trainer.state.step >= settings.steps:
            run.set_status("complete", trainer.state.step)
            return _skipped(run, config)
        run.save_config(config, run.spec)
    processes.from_main(lambda: _announce(run, work, parts, trainer))
    draw = preview(parts.watched, run) if settings.sample_every else None
    with naming_the_batch(run, config, work.device):
        figures = trainer.fit(Hooks(preview=draw, validate=parts.validate, examine=parts.examine))
    return TrainResult(run, figures, "complete", _objective(figures, config))


def _announce(run: Run, work: Work, parts: Parts, trainer: Trainer) -> None:
    """Writes down and says what is about to train, if there is room for it."""
    check_space(trainer)
    run.record_command()
    write_problems(run, parts.dataset)
    describe(run, parts.model, parts.dataset, work.settings.trainer, work.device, work.processes.count)
    if parts.taken is not None:
        print(f"start:       {parts.taken.sentence()}", file=sys.stderr, flush=True)
    if work.note is not None:
        work.note.write_text(str(run.path))


def _skipped(run: Run, config: Mapping[str, Any]) -> TrainResult:
    figures = run.figures()
    return TrainResult(run, figures, "skipped", _objective(figures, config))


def _objective(figures: Mapping[str, float], config: Mapping[str, Any]) -> float | None:
    """The figure that a sweep's optimizer minimises: as configured, else the first held-out one, else the last loss."""
    wanted = (config.get("sweep") or {}).get("objective")
    if wanted is not None:
        if wanted not in figures:
            raise ConfigError(
                f"sweep.objective={wanted} is not a figure of this run", f"choose from: {', '.join(sorted(figures))}"
            )
        return figures[wanted]
    held_out = [value for name, value in figures.items() if name.startswith("val/")]
    losses = [value for name, value in figures.items() if name.endswith("/loss")]
    return next(iter([*held_out, *reversed(losses)]), None)
