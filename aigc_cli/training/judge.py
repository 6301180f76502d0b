"""What tells a search how a run of its does while that trains, and whether to give it up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_cli.runs import Run, read_rows

if TYPE_CHECKING:
    from optuna.trial import Trial

#: What the search is called in its file, and on the command line.
NAME = "optuna"


def open_storage(path: Path) -> Any:
    """The trials in a file, which several processes may read and write."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))


class Judge:
    """Tells one trial's held-out scores to its search; the job of that trial has one, which opens the file when asked.

    `every` is how many steps lie between validations: trials are compared after as many validations.
    """

    def __init__(self, file: Path, job: int, every: int) -> None:
        self._file, self._job, self._every = file, job, every
        self._trial: Trial | None = None
        self._told: set[int] = set()

    def __call__(self, step: int, score: float) -> bool:
        """Whether to give the trial up, by its score after `step` steps; one that was told before has no effect."""
        trial = self._trial = self._trial or self._open()
        number = math.ceil(step / self._every)
        if number in self._told:
            return False
        self._told.add(number)
        trial.report(score, number)
        if not trial.should_prune():
            return False
        trial.set_user_attr("given up", True)
        return True

    def _open(self) -> Trial:
        import optuna

        storage = open_storage(self._file)
        study = optuna.load_study(study_name=NAME, storage=storage)
        first, factor = study.user_attrs["rungs"]
        if factor is not None:
            study.pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)
        else:
            study.pruner = optuna.pruners.NopPruner()
        self._told.update(study.trials[self._job].intermediate_values)  # by this job, before it started again
        found = storage.get_study_id_from_name(NAME)
        return optuna.trial.Trial(study, storage.get_trial_id_from_study_id_trial_number(found, self._job))

    def again(self, run: Run) -> bool:
        """Tells the scores of a run that an earlier sweep left: whether it is given up once more."""
        for row in read_rows(run.path / "metrics.jsonl"):
            score = next((value for name, value in row.items() if name.startswith("val/")), None)
            if score is not None and self(row["step"], score):
                return True
        return False
