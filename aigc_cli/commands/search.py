"""``hydra/sweeper=optuna``: a sweep whose jobs follow from the scores of those before, and which gives up the bad ones.

The trials are in a file of the sweep's folder, which a job opens itself in whatever process it runs: so launchers that
run jobs side by side, and jobs of several processes, report to the same search. Bad jobs are given up by asynchronous
successive halving (Li et al., 2018, "A System for Massively Parallel Hyperparameter Tuning"): after 1, N, N^2, ...
validations, one trains on only if its score is among the best 1/N of those that came as far.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.plugins.launcher import Launcher
from pydantic import Field
from pydantic.dataclasses import dataclass as typed

from aigc_cli.config.schema import STRICT, check
from aigc_cli.errors import ConfigError
from aigc_cli.runs import Run
from aigc_cli.training.judge import NAME, open_storage

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

#: The file of the trials in a sweep's folder.
FILE = "optuna.log"
Count = Annotated[int, Field(ge=1)]


@typed(config=STRICT, frozen=True, kw_only=True)
class SearchConfig:
    """The section ``hydra.sweeper``; ``configs/hydra/sweeper/optuna.yaml`` says what each key means."""

    name: Literal["optuna"]
    n_trials: Count
    n_jobs: Count | None
    sampler: Literal["tpe", "random", "grid"]
    seed: Annotated[int, Field(ge=0)]
    startup: Annotated[int, Field(ge=0)]
    prune: Annotated[int, Field(ge=2)] | None
    first_rung: Count
    params: dict[str, Any] | None


class Search:
    """Chooses the jobs of a sweep over `words`.

    Raises:
        ConfigError: Optuna is missing or too old, a key of its section is wrong, or there is nothing to search.
    """

    def __init__(self, section: Mapping[str, Any], words: Sequence[Override]) -> None:
        try:
            from optuna.storages.journal import JournalFileBackend  # noqa: F401  # since Optuna 4
        except ImportError:
            what = "hydra/sweeper=optuna needs the package optuna, version 4 or later"
            raise ConfigError(what, "pip install 'aigc-cli[sweep]'") from None
        self.config: SearchConfig = check("hydra.sweeper", SearchConfig, section)
        self.fixed = [str(word.input_line) for word in words if not word.is_sweep_override()]
        self.space = {word.get_key_element(): _distribution(word) for word in words if word.is_sweep_override()}
        if not self.space:
            what = "hydra/sweeper=optuna has nothing to choose"
            raise ConfigError(what, "give a key several values: 'optimizer.lr=tag(log,interval(1e-4,1e-2))'")
        self.grid = self._grid() if self.config.sampler == "grid" else None
        self.count = min(self.config.n_trials, len(self.grid or range(self.config.n_trials)))

    def _grid(self) -> list[dict[str, Any]]:
        from optuna.distributions import CategoricalDistribution, IntDistribution

        values: list[Sequence[Any]] = []
        for key, found in self.space.items():
            if isinstance(found, CategoricalDistribution):
                values.append(found.choices)
            elif isinstance(found, IntDistribution):
                values.append(range(found.low, found.high + 1, found.step))
            else:
                what = f"{key} is an interval, and hydra.sweeper.sampler=grid needs values"
                raise ConfigError(what, "list them, or use hydra.sweeper.sampler=tpe")
        return [dict(zip(self.space, row, strict=True)) for row in itertools.product(*values)]

    def run(self, launcher: Launcher, folder: Path, usual: int | None) -> None:
        """Has `launcher`, which runs `usual` jobs side by side, run them in batches; their trials are in the sweep's
        `folder`."""
        import optuna

        side_by_side = self.config.n_jobs or _counted(usual or 1)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = self._study(folder)
        for first in range(0, self.count, side_by_side):
            trials = [study.ask(self.space) for _ in range(min(side_by_side, self.count - first))]
            jobs = [[*self.fixed, *(f"{key}={trial.params[key]}" for key in self.space)] for trial in trials]
            ended = launcher.launch(jobs, initial_job_idx=first)
            for trial, job in zip(trials, ended, strict=True):
                _tell(study, trial, job.return_value)

    def _study(self, folder: Path) -> Study:
        import optuna

        config, samplers = self.config, optuna.samplers
        (folder / FILE).unlink(missing_ok=True)  # of an earlier sweep there
        random = samplers.RandomSampler(seed=config.seed)
        startup = config.startup
        tpe = samplers.TPESampler(seed=config.seed, n_startup_trials=startup) if config.sampler == "tpe" else random
        study = optuna.create_study(storage=open_storage(folder / FILE), study_name=NAME, sampler=tpe)
        study.set_user_attr("rungs", [config.first_rung, config.prune])
        for point in self.grid or ():
            study.enqueue_trial(point)
        return study


def _counted(jobs: int) -> int:
    """How many jobs joblib runs for its ``n_jobs``: -1 stands for all cores that this process may use, -2 for all but
    one."""
    if jobs > 0:
        return jobs
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores + 1 + jobs)


def _tell(study: Study, trial: Trial, score: float | None) -> None:
    """Ends a trial with its score; without one it failed, or was given up."""
    from optuna.trial import TrialState

    if score is not None and math.isfinite(score):
        study.tell(trial, score)
    else:
        given_up = study.trials[trial.number].user_attrs.get("given up")
        study.tell(trial, state=TrialState.PRUNED if given_up else TrialState.FAIL)


def _distribution(word: Override) -> BaseDistribution:
    """What Optuna draws a value from, for a word that sweeps."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = word.value()
    if isinstance(value, IntervalSweep):
        low: Any = value.start
        high: Any = value.end
        log = "log" in value.tags
        try:
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high, log=log)
            return FloatDistribution(float(low), float(high), log=log)
        except ValueError as error:
            raise ConfigError(f"{word.input_line}: {error}", "write interval(LOW,HIGH)") from None
    values = [str(each) for each in word.sweep_string_iterator()]
    if isinstance(value, RangeSweep) and not value.shuffle and all(each.lstrip("-").isdecimal() for each in values):
        numbers = sorted(map(int, values))
        step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
        return IntDistribution(numbers[0], numbers[-1], step=step)
    return CategoricalDistribution(list(dict.fromkeys(values)))


def pruned_line(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The line that says which share of their steps the jobs that were given up did not take."""
    runs = [Run(Path(row["run"])) for row in rows if row["status"] == "pruned" and row["run"]]
    if not runs:
        return []
    done, asked = sum(run.step for run in runs), sum(run.config["trainer"]["steps"] for run in runs)
    return [f"given up:    {len(runs)} of {len(rows)} jobs, after {done:,} of their {asked:,} steps"]
