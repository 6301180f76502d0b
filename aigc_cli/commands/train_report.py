"""What ``aigc train`` says at its start: what trains on what, where, and what is wrong with the data."""

from __future__ import annotations

import sys

import torch

from aigc_cli.data.base import Dataset
from aigc_cli.errors import warn
from aigc_cli.files import shown
from aigc_cli.models.base import Model
from aigc_cli.runs import Run
from aigc_cli.training.precision import resolve_precision
from aigc_cli.training.settings import TrainerConfig


def describe(
    run: Run, model: Model, dataset: Dataset, settings: TrainerConfig, device: torch.device, processes: int = 1
) -> None:
    """A summary on stderr: what trains on what, where."""
    spec = dataset.spec
    shape = "x".join(map(str, spec.shape))
    parts = [f"{name} {_count(part)}" for name, part in model.named_children()]
    classes = f", {len(spec.classes)} classes" if spec.classes else ""
    precision = resolve_precision(settings.precision, device)
    frozen = any(not parameter.requires_grad for parameter in model.parameters())
    trained = f", {_count(model, trained=True)} of them trained" if frozen else ""
    print(f"model:       {type(model).__name__}, {_count(model)} parameters ({', '.join(parts)}){trained}",
          file=sys.stderr)  # fmt: skip
    print(f"data:        {len(dataset)} items of {shape} {spec.kind}{classes}", file=sys.stderr)
    for line in dataset.describe():
        print(f"             {line}", file=sys.stderr)
    where = device if processes == 1 else f"{processes} processes, {device.type}"
    print(f"training:    {settings.steps} steps of {settings.batch_size * settings.accumulate} items on {where}, "
          f"{precision}", file=sys.stderr)  # fmt: skip
    print(f"run:         {shown(run.path)}", file=sys.stderr, flush=True)


def _count(module: torch.nn.Module, *, trained: bool = False) -> str:
    count = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trained)
    return f"{count / 1e6:.2f}M" if count >= 100_000 else f"{count:,}"


def write_problems(run: Run, dataset: Dataset) -> None:
    """Lists what is wrong with the data in the run, and says so on stderr."""
    problems = dataset.problems()
    if problems:
        (run.path / "bad_files.txt").write_text("\n".join(problems) + "\n")
        warn(f"{len(problems)} problems with the data, listed in {run.path}/bad_files.txt")
