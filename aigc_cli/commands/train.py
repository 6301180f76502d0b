"""``aigc train``: a configuration becomes a run; ``--resume`` continues one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aigc_cli.commands.train_result import TrainResult, result_of
from aigc_cli.config.origins import origins_file
from aigc_cli.config.schema import Options
from aigc_cli.data.base import Dataset
from aigc_cli.data.loader import Loader
from aigc_cli.data.open import absolute_paths
from aigc_cli.errors import ConfigError, GivenUp, Interrupted, Terminated, say, tell, warn
from aigc_cli.files import shown
from aigc_cli.modalities.base import modality
from aigc_cli.monitor import Monitor
from aigc_cli.new_run import create_run
from aigc_cli.registry import name_of, plugin_words
from aigc_cli.runs import OUTPUTS, Run, find_by_identity, find_run
from aigc_cli.sampling.controls import model_class
from aigc_cli.sampling.modes import modes_of
from aigc_cli.training.batch_size import fitting_data, naming_the_batch
from aigc_cli.training.build import Parts, Settings, build, check_config, set_up_torch
from aigc_cli.training.distributed import Processes, join, launched, share_of
from aigc_cli.training.judge import Judge
from aigc_cli.training.launch import train_until_done
from aigc_cli.training.plan import cut_short, enough, plan_lines
from aigc_cli.training.restore import changed_config, refuse_less, warn_of_jump
from aigc_cli.training.settings import TrainerConfig
from aigc_cli.training.tokenizer import with_tokenizer
from aigc_cli.training.trainer import Trainer
from aigc_cli.training.warm_start import with_source


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
        _report_end(result.run, skipped=result.status == "skipped")
    return 0


def run_training(config: dict[str, Any], options: Options) -> TrainResult:
    """Trains a new run, or continues the one that `options.resume` names, in as many processes as it is to have.

    A job of a sweep whose configuration has a complete run is skipped; one whose run was stopped is resumed.

    Raises:
        ConfigError: a word is wrong, or would change what a resumed run keeps.
    """
    if options.resume is not None:
        run = find_run(options.resume, Path(config["outputs"]), trained=False)
        if (launched() or Processes()).main:
            say(f"resuming {run.name} ({run.status()}, {run.step} steps done)")
        config = changed_config(run.config, options.overrides)
        if options.given & {"trainer.steps", "trainer.minutes"} == {"trainer.steps"}:
            config["trainer"]["minutes"] = None
        options = replace(options, resume=str(run.path))  # another run may be the latest by the time of a restart
        # What it has a copy of may be gone where it came from.
        config = {**config, "data": absolute_paths(config["data"])}
    else:
        config = settled(config, options)
    return train_until_done(train, config, options, check_config(config).trainer)


def settled(config: dict[str, Any], options: Options) -> dict[str, Any]:
    """The configuration with the paths under ``data``, the run that it starts from, and that of its tokenizer, as they
    are from any folder."""
    return with_tokenizer(with_source({**config, "data": absolute_paths(config["data"])}, options.given))


def train(config: dict[str, Any], options: Options, note: Path | None) -> TrainResult:
    """Trains in this process, one of several perhaps; `note` is a file that tells others where the run is.

    A new run has a directory only once its data and model stand: until then anything may turn out not to fit.
    """
    run, settings = None if options.resume is None else Run(Path(options.resume)), check_config(config)
    device = set_up_torch(settings.trainer, options.job)
    with join(device) as processes, ExitStack() as locks, ExitStack() as starting:
        if run is None and options.job is not None and (run := processes.from_main(lambda: _earlier(config))):
            config, settings = run.config, check_config(run.config)
        starting.enter_context(_stopped_early(run, processes))
        resumed = run is not None
        judge = _judge(config, options, settings)
        if run is not None:
            run = own = Run(run.path, writes=processes.main)
            locks.enter_context(run.lock())
            # The main one alone: to look at a status takes the lock for a moment, at which it could not be had.
            given_up = judge is not None and processes.from_main(lambda: judge.again(own))
            if processes.from_main(lambda: _is_done(own, settings.trainer)):
                return result_of(run, config)
            if given_up:
                raise GivenUp(f"{run.name} is given up once more at step {run.step}")

        parts, monitor = processes.in_turn(partial(build_all, config, settings, device, run, options))
        if run is None:  # one that is resumed keeps its batch, which may be from before there was such a bound
            asked, config = config, fitting_data(config, len(parts.dataset), processes)
            settings = check_config(config)
            begin = partial(_begin, locks, config, parts.dataset, asked, options)
            run = processes.from_main(lambda: create_run(config, begin))
            run.writes = processes.main
            starting.enter_context(_stopped_early(run, processes))

        trainer = trainer_of(run, parts, settings, device, processes)
        if resumed:
            if not trainer.restore():
                say(f"{run.name} has no checkpoint yet; it starts from step 0")
            if trainer.finished:
                refuse_less(run, settings.trainer, trainer.state.step, trainer.state.seconds)
                run.set_status("complete", trainer.state.step, trainer.why_early)
                return result_of(run, config)
            warn_of_jump(run, settings.optimizer, settings.trainer, trainer.state)
            if config != run.config:
                run.save_config(config, run.spec)
        processes.from_main(lambda: _report_start(trainer, parts, note, options))
        starting.close()  # from here on the trainer answers
        with naming_the_batch(config, device):
            found = partial(plan_lines, config=config, on_cpu=device.type == "cpu", new=not resumed)
            figures = trainer.fit(replace(monitor.hooks(run.path / "samples"), plan=found, judge=judge))
    return result_of(run, config, figures)


def _judge(config: Mapping[str, Any], options: Options, settings: Settings) -> Judge | None:
    """What tells a search of a job's held-out scores; None where there are none, or where it minimises another."""
    every = settings.trainer.validate_every
    if options.search is None or options.job is None or every is None or config["sweep"]["objective"] is not None:
        return None
    return Judge(Path(options.search), options.job, every)


def _begin(
    locks: ExitStack, config: dict[str, Any], dataset: Dataset, asked: dict[str, Any], options: Options, run: Run
) -> None:
    """Locks a new run, and writes what it is, while nobody sees it yet."""
    locks.enter_context(run.lock())
    dataset.codec.keep(run.path)
    run.save_config(config, dataset.spec, {**dataset.codec.files(), **origins_file(options)}, asked)
    run.set_status("running", 0)


@contextmanager
def _stopped_early(run: Run | None, processes: Processes) -> Iterator[None]:
    """Says on Ctrl-C before the first step what there is, which nobody could guess; of several, their launcher does."""
    try:
        yield
    except KeyboardInterrupt:
        if not processes.alone:
            raise
        where = ", and there is no run of it" if run is None else f" in {shown(run.path)}"
        hint = f"{'the same command' if run is None else f'`aigc train --resume {run.word}`'} starts it again"
        raise Interrupted(f"stopped before a step was done: nothing new was saved{where}", hint) from None


def _is_done(run: Run, trainer: TrainerConfig) -> bool:
    """Whether a run is complete, and nothing more is asked of it."""
    if run.status() != "complete":
        return False
    if run.stopped_early:  # more steps would not help; another patience may
        return bool(run.config["trainer"]["early_stop"] == trainer.early_stop)
    if trainer.minutes is not None:
        return bool(run.config["trainer"].get("minutes") == trainer.minutes)
    refuse_less(run, trainer, run.step, 0.0)
    return run.step >= trainer.steps


def _earlier(config: dict[str, Any]) -> Run | None:
    """The run of an earlier sweep that the same job is done with, or was stopped in."""
    run = find_by_identity(config)
    return run if run is not None and run.status() in ("complete", "stopped") else None


def build_all(
    config: dict[str, Any], settings: Settings, device: torch.device, run: Run | None, options: Options
) -> tuple[Parts, Monitor]:
    """What is trained, and what looks at it; `run` is one to resume."""
    try:
        parts = build(config, settings, device, run.path if run is not None else None)
    except ConfigError as error:  # it names the component, which a preset such as dcgan is typed for
        raise ConfigError(options.as_typed(error.message, "model", config["model"]["name"]), error.hint) from error
    return parts, Monitor(parts.model, parts.splits, settings.trainer, device)


def trainer_of(run: Run, parts: Parts, settings: Settings, device: torch.device, processes: Processes) -> Trainer:
    """What trains this process's share of it, into a run."""
    config, seed = settings.trainer, settings.seed
    loader = Loader(
        parts.dataset, batch_size=share_of(config.batch_size, processes.world_size), seed=seed, device=device,
        rank=processes.rank, world_size=processes.world_size, workers=config.workers,
        mixed=parts.model.mixed_lengths,
    )  # fmt: skip
    return Trainer(
        model=parts.model, loader=loader, optimizer=settings.optimizer, config=config, seed=seed, run=run,
        device=device, processes=processes,
    )  # fmt: skip


# what it says


def _report_start(trainer: Trainer, parts: Parts, note: Path | None, options: Options) -> None:
    """Records and says what is about to train; raises ResourceError where the disk has no room for its checkpoints."""
    trainer.check_space()
    run = trainer.run
    run.record_command()
    if problems := parts.dataset.problems():
        (run.path / "bad_files.txt").write_text("\n".join(problems) + "\n")
        problem = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        warn(f"{problem} with the data, listed in {run.path}/bad_files.txt")
    start = [] if parts.taken is None else [f"start:       {parts.taken.sentence()}"]
    where = f"run:         {shown(run.path)}"
    tell("\n".join([*described(trainer, parts.dataset, options), *_ceiling(trainer, parts), where, *start]))
    if note is not None:
        note.write_text(str(run.path))


def _ceiling(trainer: Trainer, parts: Parts) -> list[str]:
    """What the tokenizer allows of a new run on codes: else a night's training may show that it was too poor."""
    if parts.dataset.plain is parts.dataset or trainer.state.step:
        return []
    from aigc_cli.metrics.ceiling import ceiling  # what measures is not for all that trains

    return [f"ceiling:     {line}" for line in ceiling(parts.splits, trainer.device, brief=trainer.config.brief)]


def described(trainer: Trainer, dataset: Dataset, options: Options) -> list[str]:
    """The lines that say what is trained, on what, and how long."""
    model, config, spec = trainer.model, trainer.config, dataset.spec
    name = options.named("model", name_of(type(model)))
    parts = [f"{name} {count(part)}" for name, part in model.named_children()]
    frozen = any(not parameter.requires_grad for parameter in model.parameters())
    trained = f", {count(model, trained=True)} of them trained" if frozen else ""
    shape, classes = "x".join(map(str, spec.raw)), f", {len(spec.classes)} classes" if spec.classes else ""
    processes = trainer.processes
    length = f"{config.steps} steps" if config.minutes is None else f"{config.minutes:g} minutes, in steps"
    where = trainer.device if processes.alone else f"{processes.world_size} processes, {trainer.device.type}"
    return [
        f"model:       {name} ({type(model).__name__}), {count(model)} parameters ({', '.join(parts)}){trained}",
        f"data:        {len(dataset)} items of {shape} {spec.kind}{classes}",
        *(f"             {line}" for line in dataset.describe()),
        f"training:    {length} of {config.batch_size * config.accumulate} items on {where}, {trainer.precision.name}",
        *([f"recipe:      {', '.join(options.recipe)}"] if options.recipe else []),
    ]


def count(module: nn.Module, *, trained: bool = False) -> str:
    """How many parameters it has, in words."""
    found = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trained)
    return f"{found / 1e6:.2f}M" if found >= 100_000 else f"{found:,}"


def _report_end(run: Run, *, skipped: bool) -> None:
    """Says what a run has written, and what to type next."""
    if skipped:
        print(f"{run.name} is complete: it has done {run.step} steps{f'; {run.why}' if run.why else ''}")
        print(f"to continue: {to_continue(run)}")
        return
    print(f"run:         {shown(run.path)}")
    found = sorted((run.path / "samples").glob(f"step-{run.step}[.-]*"), key=lambda path: (len(path.stem), path.name))
    for number, path in enumerate(found):
        print(f"{'' if number else 'samples:':<13}{shown(path)}")
    if not found:
        print(f"checkpoint:  {shown(run.checkpoints)}/step-{run.step}")
    if run.stopped_early:
        print(f"end:         {run.why}")
    if short := cut_short(run):
        print(f"end:         {short}")
    print(f"curves:      {shown(run.path / 'curves.png')}")
    latest = OUTPUTS / "latest"
    is_latest = latest.is_dir() and latest.resolve() == run.path.resolve()
    named = (" step=best" if run.stopped_early else "") + (plugin_words() if is_latest else f" run={run.word}")
    lines = [*(f"{line}{named}" for line in _next(run)), *([to_continue(run)] if short else [])]
    print(f"next:        {'    or    '.join(lines)}")


def to_continue(run: Run) -> str:
    """What to type to train a run on: to its end, or where it has come to that, for as long again, or in minutes that
    were too few, for those that have time for all its steps."""
    trainer = run.config["trainer"]
    minutes = trainer.get("minutes")
    longer = f" trainer.steps={2 * run.step}" if minutes is None else f" trainer.minutes={2 * minutes:g}"
    longer = f" {enough(trainer, run.step / trainer['steps'])}" if cut_short(run) else longer
    longer = " trainer.early_stop=null" if run.stopped_early else longer
    return f"aigc train --resume {run.word}{longer if run.status() == 'complete' else ''}"


def _next(run: Run) -> list[str]:
    """What to type next, by what the model can be asked for."""
    model = run.config["model"]
    kind = model_class(model["name"])
    modes = modes_of(kind)
    prompts = run.spec.source is None and "prompt" in kind.can
    lines = [f"aigc sample{_prompt(run, 'The ') if prompts else ''}"]
    if "infill" in modes:
        lines.append("aigc sample mode=infill" + (_prompt(run, "The ____ of") if run.spec.layout == "tokens" else ""))
    if "reconstruct" in modes[1:]:
        lines.append("aigc sample mode=reconstruct")
    if model.get("conditional") and len(run.spec.classes) > 1:
        trained = next(name for name in run.spec.classes if name not in run.spec.untrained)
        lines.append(f"aigc sample {shlex.quote(f'class={trained}')}")
    return [*lines, "aigc eval"]


def _prompt(run: Run, text: str) -> str:
    """A prompt in English, where the vocabulary has its characters."""
    kind = modality(run.spec.modality)
    try:
        kind.parse(text.replace("_", ""), kind.codec(run.spec, run.path))
    except ConfigError:
        return ""
    return f' prompt="{text}"'
