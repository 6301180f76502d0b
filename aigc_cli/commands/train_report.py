"""What ``aigc train`` says at its start, and at its end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from aigc_cli.data.base import Dataset
from aigc_cli.errors import ConfigError, warn
from aigc_cli.files import shown
from aigc_cli.modalities.base import modality
from aigc_cli.runs import OUTPUTS, Run
from aigc_cli.sampling.controls import model_class
from aigc_cli.sampling.modes import modes_of
from aigc_cli.training.build import Parts
from aigc_cli.training.trainer import Trainer


def report_start(trainer: Trainer, parts: Parts, note: Path | None, recipe: Sequence[str]) -> None:
    """Records and says what is about to train, if there is room for its checkpoints.

    Args:
        trainer: Of the run.
        parts: What it trains, and on what.
        note: A file for the run's directory, by which a process that started this one finds it.
        recipe: The files that gave values which no word chose.

    Raises:
        ResourceError: the disk has no room for the run's checkpoints.
    """
    trainer.check_space()
    run = trainer.run
    run.record_command()
    if problems := parts.dataset.problems():
        (run.path / "bad_files.txt").write_text("\n".join(problems) + "\n")
        problem = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        warn(f"{problem} with the data, listed in {run.path}/bad_files.txt")
    _describe(trainer, parts.dataset, recipe)
    if parts.taken is not None:
        print(f"start:       {parts.taken.sentence()}", file=sys.stderr, flush=True)
    if note is not None:
        note.write_text(str(run.path))


def _describe(trainer: Trainer, dataset: Dataset, recipe: Sequence[str]) -> None:
    model, config, spec = trainer.model, trainer.config, dataset.spec
    parts = [f"{name} {_count(part)}" for name, part in model.named_children()]
    frozen = any(not parameter.requires_grad for parameter in model.parameters())
    trained = f", {_count(model, trained=True)} of them trained" if frozen else ""
    shape, classes = "x".join(map(str, spec.shape)), f", {len(spec.classes)} classes" if spec.classes else ""
    processes = trainer.processes
    where = trainer.device if processes.alone else f"{processes.world_size} processes, {trainer.device.type}"
    lines = [
        f"model:       {type(model).__name__}, {_count(model)} parameters ({', '.join(parts)}){trained}",
        f"data:        {len(dataset)} items of {shape} {spec.kind}{classes}",
        *(f"             {line}" for line in dataset.describe()),
        f"training:    {config.steps} steps of {config.batch_size * config.accumulate} items on {where}, "
        f"{trainer.precision.name}",
        *([f"recipe:      {', '.join(recipe)}"] if recipe else []),
        f"run:         {shown(trainer.run.path)}",
    ]
    print("\n".join(lines), file=sys.stderr, flush=True)


def _count(module: nn.Module, *, trained: bool = False) -> str:
    count = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trained)
    return f"{count / 1e6:.2f}M" if count >= 100_000 else f"{count:,}"


def report_end(run: Run, *, skipped: bool) -> None:
    """Says what a run has written, and what to type next."""
    if skipped:
        print(f"{run.name} is complete: it has done {run.step} steps")
        print(f"to continue: aigc train --resume {run.word} trainer.steps={2 * run.step}")
        return
    print(f"run:         {shown(run.path)}")
    found = sorted((run.path / "samples").glob(f"step-{run.step}[.-]*"), key=lambda path: (len(path.stem), path.name))
    for number, path in enumerate(found):
        print(f"{'' if number else 'samples:':<13}{shown(path)}")
    if not found:
        print(f"checkpoint:  {shown(run.checkpoints)}/step-{run.step}")
    print(f"curves:      {shown(run.path / 'curves.png')}")
    latest = OUTPUTS / "latest"
    named = latest.is_dir() and latest.resolve() == run.path.resolve()
    word = "" if named else f" run={shlex.quote(str(shown(run.path)))}"
    print(f"next:        {'    or    '.join(f'{line}{word}' for line in _next(run))}")


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
