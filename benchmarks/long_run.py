"""Whether a long run grows: memory and open files over many small steps, and what its saves cost.

    python benchmarks/long_run.py
    python benchmarks/long_run.py --steps 20000 model=vae model.width=4
    python benchmarks/long_run.py --steps 2000 model=gan            # the share of saves at the default size

It trains in this process, looks at /proc every hundred steps, and prints the slope of each curve after the first fifth
of the run, by least squares, and the share of the time that the loop waited for saves at the default interval. The exit
code is 1 if memory grows by more than 100 bytes a step, files stay open, or it waited more than one percent.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aigc_cli.commands.train import run_training
from aigc_cli.config.compose import compose
from aigc_cli.config.schema import Options
from aigc_cli.training.checkpoint import CheckpointFolder
from aigc_cli.training.journal import Journal
from aigc_cli.training.saver import Saver
from aigc_cli.training.trainer import Trainer

EVERY = 100
WORDS = ["model=gan", "data=digits", "data.size=8", "model.network=mlp", "model.hidden=32", "trainer.batch_size=8"]
LARGEST_SLOPE = 100.0  # bytes a step


@dataclass
class Watch:
    """What was seen of a run."""

    steps: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)  # bytes
    device: list[int] = field(default_factory=list)  # bytes
    files: list[int] = field(default_factory=list)
    saving: float = 0.0  # seconds that the loop waited for saves
    writing: float = 0.0  # seconds that they took beside it
    saves: int = 0

    def look(self, step: int) -> None:
        """Reads this process's memory and open files."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.steps.append(step)
        self.resident.append(pages * os.sysconf("SC_PAGE_SIZE"))
        self.device.append(torch.cuda.memory_allocated() if torch.cuda.is_available() else 0)
        self.files.append(len(os.listdir("/proc/self/fd")))

    def slope(self, values: list[int]) -> float:
        """By how much `values` grow a step, once the run has settled."""
        settled = len(values) // 5
        return float(np.polyfit(self.steps[settled:], values[settled:], 1)[0])


def watch() -> Watch:
    """Has every trainer of this process watched."""
    seen = Watch()
    train_step, save, write, wait = Trainer.train_step, Trainer.save, CheckpointFolder.save, Saver.wait

    def stepped(self: Trainer, step: int) -> None:
        train_step(self, step)
        if step % EVERY == 0:
            seen.look(step)

    def saved(self: Trainer) -> None:
        began, before = time.perf_counter(), seen.saving
        save(self)
        seen.saving = before + time.perf_counter() - began  # with what it waited for the save before it
        seen.saves += 1

    def waited(self: Saver) -> None:
        began = time.perf_counter()
        wait(self)
        seen.saving += time.perf_counter() - began

    def written(self: CheckpointFolder, *rest: Any) -> None:
        began = time.perf_counter()
        write(self, *rest)
        seen.writing += time.perf_counter() - began

    Trainer.train_step, Trainer.save = stepped, saved  # type: ignore[method-assign]
    CheckpointFolder.save, Saver.wait = written, waited  # type: ignore[method-assign]
    Journal.draw = lambda _: None  # type: ignore[method-assign]  # once at the end, and no part of a step
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("words", nargs="*", help="key=value words in place of the small GAN's")
    asked = parser.parse_args()
    seen = watch()
    with tempfile.TemporaryDirectory() as folder:
        words = [*(asked.words or WORDS), f"trainer.steps={asked.steps}", f"run_dir={folder}/run", f"outputs={folder}"]
        began = time.perf_counter()
        run_training(compose("train", words), Options())
        took = time.perf_counter() - began
    resident, device = seen.slope(seen.resident), seen.slope(seen.device)
    share = seen.saving / took
    print(f"steps:         {asked.steps} in {took:.1f} s, on {'cuda' if max(seen.device) else 'cpu'}")
    print(f"resident:      {seen.resident[0] / 1e6:.1f} MB at first, {seen.resident[-1] / 1e6:.1f} MB at last, "
          f"{resident:+.2f} bytes a step")  # fmt: skip
    print(f"on the device: {seen.device[-1] / 1e6:.1f} MB at last, {device:+.2f} bytes a step")
    print(
        f"open files:    {min(seen.files[1:])} to {max(seen.files[1:])}, "
        f"{seen.slope(seen.files) * 1e3:+.3f} in 1,000 steps"
    )
    each = 1e3 / max(1, seen.saves)
    print(
        f"saves:         {seen.saves}, each waited for {seen.saving * each:.1f} ms and written in "
        f"{seen.writing * each:.1f} ms beside; waited {share:.2%} of the time"
    )
    grows = max(resident, device) > LARGEST_SLOPE or max(seen.files[1:]) > min(seen.files[1:]) + 3
    return int(grows or share > 0.01)


if __name__ == "__main__":
    raise SystemExit(main())
