"""``aigc train --dry-run``: what a run would be and take, by a few of its steps, and nothing of it is kept."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aigc_cli.commands.train import build_all, described, settled, trainer_of
from aigc_cli.config.schema import Options
from aigc_cli.errors import Interrupted, Terminated
from aigc_cli.files import path_of
from aigc_cli.monitor import MOST_SAMPLES, Monitor
from aigc_cli.progress import clock, size
from aigc_cli.runs import Run
from aigc_cli.training.batch_size import fitting_data, naming_the_batch
from aigc_cli.training.build import Parts, Settings, check_config, set_up_torch
from aigc_cli.training.distributed import Processes, join, launched
from aigc_cli.training.launch import train_until_done
from aigc_cli.training.memory import peak_memory
from aigc_cli.training.pace import WARM_UP
from aigc_cli.training.plan import parts as parts_of
from aigc_cli.training.plan import plan, plan_lines
from aigc_cli.training.trainer import Trainer

SECONDS = 10.0  # of steps that are measured
SCORED = 128  # held-out items that are scored, or samples that are judged, to tell what all of them take
#: The parts of a run's time, and what belongs to each.
_PARTS = {
    "steps": ("first steps", "step"), "previews and curves": ("preview", "examine", "curves"),
    "validations": ("first validate", "validate"), "checkpoints": ("save", "write"),
}  # fmt: skip


def main(config: dict[str, Any], options: Options) -> int:
    """Prints what a run of this configuration would take.

    Raises:
        ConfigError, DataError, ResourceError: what the run would end with too, before or within its first steps.
    """
    config = settled(config, options)
    found = train_until_done(_measured, config, options, check_config(config).trainer)
    if not (launched() or Processes()).main:
        return 0
    if options.json:
        print(json.dumps({key: value for key, value in found.items() if key != "lines"}, indent=2, ensure_ascii=False))
    else:
        print("\n".join([*found["lines"], "nothing was kept: the same words without --dry-run train"]))
    return 0


def _measured(config: dict[str, Any], options: Options, note: Path | None) -> dict[str, Any]:
    """What is known of a run after a few steps in a folder that goes, with one preview, validation and checkpoint."""
    settings = check_config(config)
    device = set_up_torch(settings.trainer)
    with join(device) as processes, TemporaryDirectory(prefix="aigc-") as folder:
        parts, monitor = processes.in_turn(partial(build_all, config, _few_scored(settings), device, None, options))
        config = fitting_data(config, len(parts.dataset), processes)
        settings = check_config(config)
        run = Run(Path(folder), writes=processes.main)
        trainer, began = trainer_of(run, parts, settings, device, processes), time.monotonic()
        about = described(trainer, parts.dataset, options)
        with naming_the_batch(config, device):
            _measure(trainer, monitor, parts)
        disk = trainer.checkpoint_bytes * trainer.saver.most(settings.trainer, 0)
        found = plan(trainer.pace, settings.trainer, 0, memory=peak_memory(device), disk=disk)
        taken = parts_of(trainer.pace, settings.trainer, 0, found.steps)
    start = began - options.began if options.began else 0.0
    by_part = {"start": start} | {name: sum(taken.get(part, 0.0) for part in of) for name, of in _PARTS.items()}
    found = replace(found, seconds=sum(by_part.values()))
    root = path_of(config["outputs"]).absolute()
    free = shutil.disk_usage(next(path for path in (root, *root.parents) if path.exists())).free
    said = plan_lines(found, config, on_cpu=device.type == "cpu", new=True)
    spent = ", ".join(f"{name} {clock(seconds)}" for name, seconds in by_part.items() if seconds >= 0.5)
    room = f"             {size(free)} of disk are free{', too little for its checkpoints' if free < disk else ''}"
    lines = [*about, said[0], f"             {spent}", *said[1:], room]
    spec, trains = parts.dataset.spec, settings.trainer
    return {
        "lines": lines,
        "model": type(parts.model).__name__, "parameters": sum(each.numel() for each in parts.model.parameters()),
        "data": {"items": len(parts.dataset), "shape": list(spec.shape), "kind": spec.kind,
                 "classes": len(spec.classes), "notes": parts.dataset.describe()},
        "batch_size": trains.batch_size * trains.accumulate, "minutes": trains.minutes, "device": str(device),
        "precision": trainer.precision.name, "recipe": list(options.recipe),
        **asdict(found), "parts": by_part, "free_disk": free, "advice": [line.strip() for line in said[1:]],
    }  # fmt: skip


def _few_scored(settings: Settings) -> Settings:
    """Settings with a validation of few items, whose time tells that of all."""
    few = min(SCORED, settings.trainer.validate_items or SCORED)
    return replace(settings, trainer=replace(settings.trainer, validate_items=few))


def _measure(trainer: Trainer, monitor: Monitor, parts: Parts) -> None:
    """Trains for some seconds, with everything once that comes between steps, and leaves what it took in the pace."""
    pace, config, costs = trainer.pace, trainer.config, list[float]()

    def enough() -> bool:
        whole = config.minutes is None and trainer.state.step >= max(config.steps, WARM_UP + 1)
        return whole or pace.measured(SECONDS)

    def validate() -> dict[str, float]:
        """Twice: the first time a metric may learn its features, or read its reference."""
        assert monitor.validate is not None
        times = [time.monotonic()]
        for _ in range(2):
            scores = monitor.validate()
            times.append(time.monotonic())
        costs[:] = [later - earlier for earlier, later in pairwise(times)]
        return scores

    pace.until = enough
    hooks = monitor.hooks(trainer.run.path / "samples")
    try:
        trainer.fit(replace(hooks, validate=validate if hooks.validate is not None else None))
    except (Interrupted, Terminated) as stopped:
        raise type(stopped)("stopped before all was measured", "a dry run keeps nothing") from None
    if costs:
        scored = "score" in parts.model.can and config.validate_metric != "fd"
        most = len(parts.splits["val"]) if scored else min(len(parts.dataset), MOST_SAMPLES)
        items = min(most, config.validate_items or most)
        pace.counts |= {"validate": 1, "first validate": 1}
        first, again = costs
        pace.seconds |= {"validate": again * items / min(SCORED, items), "first validate": max(0.0, first - again)}
