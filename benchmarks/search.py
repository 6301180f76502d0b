"""What pruning spares a search, and what it costs: ``python benchmarks/search.py``.

The toy task is a softmax regression on scikit-learn's digits, trained by SGD with momentum for 270 steps and validated
every 10: a search over rate, momentum, weight decay and batch, once with successive halving and once without, by the
search of ``hydra/sweeper=optuna`` itself. It prints the best held-out score of each, and the share of the steps.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from aigc_cli.commands.search import FILE, Search
from aigc_cli.commands.sweep import _parsed
from aigc_cli.config.schema import load_yaml
from aigc_cli.training.judge import Judge

SPACE = ["lr=tag(log,interval(1e-3,30.0))", "momentum=interval(0.0,0.99)", "decay=tag(log,interval(1e-6,1e-1))",
         "batch=8,32,128"]  # fmt: skip
VALIDATIONS, EVERY = 27, 10
SECTION = load_yaml(Path(__file__).parents[1] / "configs/hydra/sweeper/optuna.yaml")


class Trainings:
    """A launcher that trains in this process, and counts the steps."""

    def __init__(self, folder: Path, seed: int) -> None:
        digits = load_digits()
        order = np.random.default_rng(seed).permutation(len(digits.target))
        self.x, self.y = digits.data[order] / 16, digits.target[order]
        self.folder, self.seed, self.steps, self.best = folder, seed, 0, np.inf

    def launch(self, jobs: list[list[str]], initial_job_idx: int) -> list[Any]:
        return [self._one(job, number) for number, job in enumerate(jobs, start=initial_job_idx)]

    def _one(self, words: list[str], number: int) -> Any:
        value = {key: float(text) for key, _, text in (word.partition("=") for word in words)}
        rng, judge = np.random.default_rng(self.seed), Judge(self.folder / FILE, number, EVERY)
        weights, speed, score = np.zeros((64, 10)), np.zeros((64, 10)), None
        for step in range(1, VALIDATIONS * EVERY + 1):
            rows = rng.integers(0, 1400, int(value["batch"]))
            slope = self.x[rows].T @ (self.chances(weights, rows) - np.eye(10)[self.y[rows]]) / len(rows)
            speed = value["momentum"] * speed + slope + value["decay"] * weights
            weights = weights - value["lr"] * speed
            self.steps += 1
            if step % EVERY == 0:
                held_out = np.arange(1400, len(self.y))
                chosen = self.chances(weights, held_out)[np.arange(len(held_out)), self.y[held_out]]
                score = float(-np.log(np.maximum(chosen, 1e-12)).mean())
                if judge(step, score):
                    return type("Return", (), {"return_value": None})
        self.best = min(self.best, score)
        return type("Return", (), {"return_value": score})

    def chances(self, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        scores = self.x[rows] @ weights
        scores = np.exp(scores - scores.max(1, keepdims=True))
        return scores / scores.sum(1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--prune", type=int, default=SECTION["prune"])
    parser.add_argument("--first-rung", type=int, default=SECTION["first_rung"])
    asked = parser.parse_args()
    shares, gaps = [], []
    for seed in range(asked.seeds):
        found = []
        for prune in (None, asked.prune):
            with tempfile.TemporaryDirectory() as folder:
                trainings: Any = Trainings(Path(folder), seed)
                section = {**SECTION, "n_trials": asked.trials, "seed": seed, "prune": prune}
                section["first_rung"] = asked.first_rung
                Search(section, _parsed(SPACE)).run(trainings, Path(folder), 1)
                found.append(trainings)
        whole, pruned = found
        shares.append(pruned.steps / whole.steps)
        gaps.append(pruned.best - whole.best)
        print(f"seed {seed}: best {whole.best:.4f} in {whole.steps} steps; pruned {pruned.best:.4f} in "
              f"{pruned.steps} steps, {shares[-1]:.0%}", flush=True)  # fmt: skip
    print(f"mean: {np.mean(shares):.0%} of the steps; best score differs by {np.mean(gaps):+.4f} (lower is better)")


if __name__ == "__main__":
    main()
