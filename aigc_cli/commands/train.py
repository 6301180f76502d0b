"""``aigc train``: a configuration becomes a run; ``--resume`` goes on with one."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as typed

from aigc_cli.commands.resuming import changed_config
from aigc_cli.commands.train_report import describe, write_problems
from aigc_cli.commands.watching import Watched, examiner, preview, validator, watch
from aigc_cli.config import STRICT, Options, check
from aigc_cli.data import absolute_paths, open_dataset
from aigc_cli.data.base import Dataset
from aigc_cli.data.loader import Loader
from aigc_cli.errors import ConfigError
from aigc_cli.models.base import Model, keys_of
from aigc_cli.registry import find
from aigc_cli.reporting import shown
from aigc_cli.runs import OUTPUTS, Run, create_run, find_by_identity, find_run
from aigc_cli.sampling.controls import model_class, modes_of
from aigc_cli.training.checkpoint import CheckpointFolder, build_model
from aigc_cli.training.memory import BatchTooLarge, keep_freed_memory, may_shrink, naming_the_batch, shrink_batch
from aigc_cli.training.optimizers import OptimizerConfig, check_networks
from aigc_cli.training.precision import resolve_device
from aigc_cli.training.preflight import check_space
from aigc_cli.training.settings import Hooks, TrainerConfig
from aigc_cli.training.trainer import Trainer
from aigc_cli.training.warm_start import Taken, warm_start, with_source


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
class Settings:
    """A configuration that was checked."""

    optimizer: OptimizerConfig
    trainer: TrainerConfig
    seed: int


@dataclass(frozen=True)
class Parts:
    """What a configuration describes, built before a run directory is: until then anything may turn out not to fit."""

    dataset: Dataset
    model: Model
    taken: Taken | None  # of another run's weights
    watched: Watched
    validate: Callable[[], dict[str, float]] | None
    examine: Callable[[], dict[str, float]] | None


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    run: Run
    figures: dict[str, float]
    status: str  # "complete", or "skipped" where it was complete before
    objective: float | None


def main(config: dict[str, Any], options: Options) -> int:
    """Trains, and says what was written and what to type next."""
    result = run_training(config, options)
    run = result.run
    if result.status == "skipped":
        print(f"{run.name} is complete: it has done {run.step} steps")
        print(f"to go on:    aigc train --resume {run.word} trainer.steps={2 * run.step}")
        return 0
    print(f"run:         {shown(run.path)}")
    found = sorted((run.path / "samples").glob(f"step-{run.step}[.-]*"), key=lambda path: (len(path.stem), path.name))
    for place, path in enumerate(found):
        print(f"{'' if place else 'samples:':<13}{shown(path)}")
    if not found:
        print(f"checkpoint:  {shown(run.checkpoints)}/step-{run.step}")
    print(f"curves:      {shown(run.path / 'curves.png')}")
    word = "" if _is_latest(run) else f" run={shlex.quote(str(shown(run.path)))}"
    print(f"next:        {'    or    '.join(f'{line}{word}' for line in _next(run))}")
    return 0


def _next(run: Run) -> list[str]:
    """What to type next, by what the model can be asked for."""
    model = run.config["model"]
    lines = ["aigc sample"]
    if "reconstruct" in modes_of(model_class(model["name"]))[1:]:
        lines.append("aigc sample mode=reconstruct")
    if model.get("conditional") and run.spec.classes:
        lines.append(f"aigc sample {shlex.quote(f'class={run.spec.classes[0]}')}")
    return [*lines, "aigc eval"]


def _is_latest(run: Run) -> bool:
    link = OUTPUTS / "latest"
    return link.is_dir() and link.resolve() == run.path.resolve()


def run_training(config: dict[str, Any], options: Options) -> TrainResult:
    """Trains a new run, or goes on with the one that `options.resume` names.

    A job of a sweep whose configuration has a complete run is skipped; one whose run was stopped goes on. With
    ``trainer.auto_batch``, one that runs out of memory goes on with a smaller batch.
    """
    while True:
        try:
            return _run_training(config, options)
        except BatchTooLarge as error:
            run = error.run
            if run is None or not may_shrink(run):
                raise
        shrink_batch(run)  # here, where the error no longer holds what was in memory
        options = replace(options, resume=str(run.path), overrides=())


def _run_training(config: dict[str, Any], options: Options) -> TrainResult:
    if options.resume is not None:
        run = find_run(options.resume, Path(config["outputs"]))
        return _resume(run, settled(changed_config(run.config, options.overrides)), options)
    config = settled(config)
    checked = check_config(config)
    if options.job is not None:
        earlier = find_by_identity(config)
        if earlier is not None and earlier.status() == "complete":
            return _skipped(earlier, config)
        if earlier is not None and earlier.status() == "stopped":
            return _resume(earlier, earlier.config, options)
    device = _prepare(checked.trainer, options)
    parts = _build(config, checked, device)
    run = create_run(config)
    with run.lock():
        run.save_config(config, parts.dataset.spec, parts.dataset.codec.files())
        return _fit(run, config, checked, parts, device)


def _resume(run: Run, config: dict[str, Any], options: Options) -> TrainResult:
    checked = check_config(config)
    with run.lock():
        if run.status() == "complete" and run.step >= checked.trainer.steps:
            return _skipped(run, config)
        device = _prepare(checked.trainer, options)
        parts = _build(config, checked, device, run.path)
        return _fit(run, config, checked, parts, device, resume=True)


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
        mends = [error.mend for error in problems if error.mend]
        raise ConfigError("; ".join(error.message for error in problems), "; ".join(mends))
    resolve_device(checked["trainer"].device)
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


def _prepare(trainer: TrainerConfig, options: Options) -> torch.device:
    device = resolve_device(trainer.device)
    if device.type == "cuda" and trainer.device in ("auto", "cuda") and options.job is not None:
        device = torch.device("cuda", options.job % torch.cuda.device_count())  # a sweep's jobs spread over the GPUs
    keep_freed_memory()
    if trainer.threads is not None:
        torch.set_num_threads(trainer.threads)
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)  # what asks for no GPU in particular, such as pinned memory, means this one
        if trainer.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may not repeat itself
        torch.backends.cuda.matmul.allow_tf32 = not trainer.deterministic
        torch.backends.cudnn.allow_tf32 = not trainer.deterministic
        torch.backends.cudnn.benchmark = not trainer.deterministic
        torch.use_deterministic_algorithms(trainer.deterministic)
    return device


def _build(config: dict[str, Any], checked: Settings, device: torch.device, folder: Path | None = None) -> Parts:
    """Opens the data and builds the model; `folder` is that of a run which has a tokenizer already."""
    dataset = open_dataset(config["data"], "train", folder)
    for problem in dataset.problems()[:5]:
        print(f"aigc: warning: {problem}", file=sys.stderr)
    # Fresh weights depend on the seed alone, whatever was drawn before.
    torch.manual_seed(config["seed"])
    model = build_model(config["model"], dataset.spec)
    begun = folder is not None and CheckpointFolder(folder / "checkpoints").steps()
    taken = None if begun else warm_start(model, dataset.codec, config)
    check_networks(checked.optimizer, [phase.name for phase in model.phases(0)])
    settings = checked.trainer
    watched = watch(model, dataset, config["data"], settings, device, folder)
    validate = validator(watched) if settings.validate_every is not None else None
    examine = examiner(watched) if settings.examine_every is not None else None
    return Parts(dataset, model, taken, watched, validate, examine)


def _fit(
    run: Run, config: dict[str, Any], checked: Settings, parts: Parts, device: torch.device, *, resume: bool = False
) -> TrainResult:
    settings, dataset, model = checked.trainer, parts.dataset, parts.model
    loader = Loader(dataset, batch_size=settings.batch_size, seed=checked.seed, device=device, workers=settings.workers)
    trainer = Trainer(
        model=model, loader=loader, optimizer=checked.optimizer, config=settings, seed=checked.seed, run=run,
        device=device,
    )  # fmt: skip
    if resume:
        if not trainer.restore():
            print(f"aigc: {run.name} has no checkpoint yet; it starts from step 0", file=sys.stderr)
        if trainer.state.step >= settings.steps:
            run.set_status("complete", trainer.state.step)
            return _skipped(run, config)
        run.save_config(config, run.spec)
    check_space(trainer)
    run.record_command()
    write_problems(run, dataset)
    describe(run, model, dataset, settings, device)
    if parts.taken is not None:
        print(f"start:       {parts.taken.sentence()}", file=sys.stderr, flush=True)
    draw = preview(parts.watched, run) if settings.sample_every else None
    with naming_the_batch(run, config, device):
        figures = trainer.fit(Hooks(preview=draw, validate=parts.validate, examine=parts.examine))
    return TrainResult(run, figures, "complete", _objective(figures, config))


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
