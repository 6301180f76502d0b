"""The held-out score after so many steps with each of several optimizers and schedules.

    python benchmarks/optimizers.py --steps 200,365 --seeds 0,1,2 \\
        --common "experiment=shakespeare_char_cpu data.root=../shared/data/shakespeare" \\
        "optimizer.lr=3e-3" "optimizer=muon optimizer.lr=8e-3 optimizer.schedule=linear"

Each of the words in quotes is trained for each number of steps, so that its schedule ends there, and scored on the
whole validation split. Prints a line for each run, and a table: the mean score with the lowest and the highest, and the
processor's time for a step.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from aigc_cli.commands.train import trainer_of
from aigc_cli.config.compose import compose
from aigc_cli.monitor import Monitor
from aigc_cli.runs import Run
from aigc_cli.training.build import build, check_config, set_up_torch
from aigc_cli.training.distributed import Processes
from aigc_cli.training.settings import Hooks

#: Nothing but steps, and one validation at the end.
QUIET = [f"trainer.{key}=null" for key in ("sample_every", "examine_every", "first_look")]
QUIET.append("trainer.checkpoint_every=1000000000")


def trained(words: Sequence[str], steps: int, seed: int) -> tuple[float, float]:
    """The held-out score, and the processor's seconds for a step."""
    length = [f"trainer.steps={steps}", f"trainer.validate_every={steps}", f"seed={seed}"]
    config = compose("train", [*words, *length, *QUIET])
    settings = check_config(config)
    device = set_up_torch(settings.trainer)
    parts = build(config, settings, device)
    monitor = Monitor(parts.model, parts.splits, settings.trainer, device)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run")
        run.path.mkdir()
        trainer = trainer_of(run, parts, settings, device, Processes())
        step, spent = trainer.train_step, []

        def timed(number: int) -> None:
            start = time.process_time()
            step(number)
            spent.append(time.process_time() - start)

        with patch.object(trainer, "train_step", timed):
            figures = trainer.fit(Hooks(validate=monitor.validate))
    return next(value for name, value in figures.items() if name.startswith("val/")), sum(spent) / steps


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--common", default="", help="words of all runs")
    words.add_argument("--steps", default="200", help="numbers of steps, with commas")
    words.add_argument("--seeds", default="0,1,2")
    words.add_argument("contestants", nargs="+", help="further words of each")
    options = words.parse_args()
    table = []
    for contestant in options.contestants:
        for steps in map(int, options.steps.split(",")):
            runs = []
            for seed in map(int, options.seeds.split(",")):
                score, seconds = trained([*shlex.split(options.common), *shlex.split(contestant)], steps, seed)
                runs.append((score, seconds))
                print(f"{contestant}, {steps} steps, seed {seed}: {score:.4f}, {1000 * seconds:.0f} ms", flush=True)
            scores, took = zip(*runs, strict=True)
            spread = f"{statistics.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})"
            table.append(f"| {contestant} | {steps} | {spread} | {1000 * statistics.median(took):.0f} |")
    print("| optimizer | steps | score | ms a step |", "|---|---|---|---|", *table, sep="\n")


if __name__ == "__main__":
    main()
