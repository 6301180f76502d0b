"""``hydra/sweeper=optuna``: what it searches, which jobs it gives up, and what an earlier sweep has left."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from aigc_cli.cli import main
from aigc_cli.commands.search import FILE, Search
from aigc_cli.commands.sweep import _parsed
from aigc_cli.config.schema import load_yaml
from aigc_cli.errors import ConfigError
from aigc_cli.runs import Run
from aigc_cli.training.judge import Judge

pytest.importorskip("optuna", minversion="4", reason="the extra aigc-cli[sweep] is not installed")

SECTION = load_yaml(Path(__file__).parents[2] / "configs/hydra/sweeper/optuna.yaml")
TOY = ["data.size=8", "model=vae", "model.network=mlp", "trainer.batch_size=64", "trainer.sample_every=null",
       "trainer.examine_every=null", "trainer.device=cpu", "trainer.steps=6", "trainer.validate_every=1",
       "trainer.validate_items=64", "hydra/sweeper=optuna"]  # fmt: skip


class Returns:
    """A launcher whose jobs report a score after each of nine validations, until they are given up."""

    def __init__(self, folder: Path, score: Any) -> None:
        self.folder, self.score = folder, score
        self.jobs: list[list[str]] = []
        self.lengths: list[int] = []

    def launch(self, jobs: list[list[str]], initial_job_idx: int) -> list[Any]:
        return [self._one(job, number) for number, job in enumerate(jobs, start=initial_job_idx)]

    def _one(self, words: list[str], number: int) -> Any:
        self.jobs.append(words)
        judge = Judge(self.folder / FILE, number, every=10)
        value = self.score(words)
        for count in range(1, 10):
            if count == 6:  # it starts again from its last checkpoint
                judge = Judge(self.folder / FILE, number, every=10)
                assert not any(judge(10 * told, value + 1 / told) for told in range(1, 6))
            if judge(10 * count, value + 1 / count):
                break
        self.lengths.append(count)
        return type("Return", (), {"return_value": value if count == 9 else None})


def search(words: list[str], **changes: Any) -> Search:
    return Search({**SECTION, **changes}, _parsed(words))


def rate(words: list[str]) -> float:
    return abs(float(words[-1].partition("=")[2]) - 0.3)


def test_bad_jobs_are_given_up_at_the_rungs_and_good_ones_are_not(tmp_path: Path) -> None:
    import optuna

    launcher: Any = Returns(tmp_path, rate)
    search(["seed=1", "optimizer.lr=interval(0.0,1.0)"]).run(launcher, tmp_path, 1)
    assert len(launcher.jobs) == 20
    assert all(words[0] == "seed=1" for words in launcher.jobs)
    assert set(launcher.lengths) <= {1, 2, 4, 8, 9}
    best = min(range(20), key=lambda number: rate(launcher.jobs[number]))
    assert launcher.lengths[best] == 9
    assert sum(launcher.lengths) < 0.7 * 180
    states = [trial.state.name for trial in optuna.load_study(
        study_name="optuna", storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(tmp_path / FILE)))).trials]  # fmt: skip
    assert states == ["COMPLETE" if length == 9 else "PRUNED" for length in launcher.lengths]


def test_the_same_search_tries_the_same_again_and_none_is_given_up_without_pruning(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        launcher: Any = Returns(tmp_path / name, rate)
        search(["optimizer.lr=interval(0.0,1.0)"], prune=None, n_trials=12, startup=3).run(launcher, tmp_path / name, 2)
        assert launcher.lengths == [9] * 12
        found.append(launcher.jobs)
    assert found[0] == found[1]


def test_a_grid_is_tried_whole(tmp_path: Path) -> None:
    launcher: Any = Returns(tmp_path, lambda words: float(words[1][-1]))
    found = search(["model.loss=hinge,lsgan", "seed=range(3)"], sampler="grid", prune=None)
    assert found.count == 6
    found.run(launcher, tmp_path, 4)
    assert [" ".join(words) for words in launcher.jobs] == [
        f"model.loss={loss} seed={seed}" for loss in ("hinge", "lsgan") for seed in (0, 1, 2)
    ]


def test_what_it_draws_is_what_the_words_say() -> None:
    words = ["a=interval(1,8)", "b=tag(log,interval(1e-4,1))", "c=range(0,10,3)", "d=x,y", "e=range(0,1,0.25)"]
    space = search(words).space
    assert (space["a"].low, space["a"].high, space["a"].log) == (1, 8, False)
    assert (space["b"].low, space["b"].log) == (1e-4, True)
    assert (space["c"].low, space["c"].high, space["c"].step) == (0, 9, 3)
    assert (space["d"].choices, space["e"].choices) == (("x", "y"), ("0.0", "0.25", "0.5", "0.75"))


@pytest.mark.parametrize(
    ("words", "changes", "says"),
    [
        (["seed=1"], {}, "nothing to choose"),
        (["a=interval(0,1)"], {"sampler": "grid"}, "grid needs values"),
        (["a=tag(log,interval(0,1.0))"], {}, "interval"),
        (["a=1,2"], {"sampler": "bayes"}, "sampler"),
        (["a=1,2"], {"prune": 1}, "prune"),
    ],
    ids=str,
)
def test_a_search_that_cannot_be_is_refused(words: list[str], changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        search(words, **changes)


def rows_of(folder: Path) -> list[dict[str, str]]:
    (path,) = sorted((folder / "outputs" / "sweeps").glob("*/sweep.csv"))
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_gives_up_jobs_names_the_best_and_finds_the_same_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "-m", *TOY, "optimizer.lr=1e-2,1e-4", "hydra.sweeper.sampler=grid", "hydra.sweeper.prune=2"]
    assert main(words) == 0
    rows = rows_of(tmp_path)
    assert [row["status"] for row in rows] == ["complete", "pruned"]
    given_up = Run(Path(rows[1]["run"]))
    assert (given_up.status(), given_up.step < 6) == ("stopped", True)
    assert f"given up at step {given_up.step} of 6, as others" in given_up.why
    out = capsys.readouterr().out
    assert f"given up:    1 of 2 jobs, after {given_up.step} of their 6 steps" in out
    assert "best:        aigc train data.size=8 model=vae" in out
    assert " optimizer.lr=0.01\n" in out

    step = given_up.step
    (tmp_path / "outputs/sweeps").rename(tmp_path / "earlier")
    assert main(words) == 0
    assert [(row["status"], row["run"]) for row in rows_of(tmp_path)] == [
        ("skipped", rows[0]["run"]), ("pruned", rows[1]["run"])
    ]  # fmt: skip
    assert given_up.step == step
