import csv
import errno
import json
import logging
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus

from aigc_cli.cli import main
from aigc_cli.commands import sweep, sweep_results, train
from aigc_cli.commands.train import TrainResult
from aigc_cli.config.compose import compose_raw, plain
from aigc_cli.config.schema import Options
from aigc_cli.errors import ConfigError, DataError, Interrupted, Terminated
from aigc_cli.runs import Run
from aigc_cli.training.build import check_config

TINY = ["trainer.steps=1", "trainer.sample_every=null", "trainer.batch_size=4"]
TINY += ["data.size=8", "model.width=8", "model.max_width=8", "model.latent=4"]


class FakeTraining:
    """Stands in for `run_training`: the loss is 1000 times the learning rate; some jobs fail as told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.failures: dict[int, BaseException] = {}
        self.seen: list[tuple[dict[str, Any], Options]] = []

    def __call__(self, config: dict[str, Any], options: Options) -> TrainResult:
        self.seen.append((config, options))
        assert options.job is not None
        if options.job in self.failures:
            raise self.failures[options.job]
        loss = 1000 * config["optimizer"]["lr"]
        figures = {"generator/loss": loss}
        if config["trainer"]["validate_every"]:
            figures["val/fd"] = 10 / loss + config["seed"]
        return TrainResult(Run(self.root / str(options.job)), figures, "complete", loss)


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    fake = FakeTraining(tmp_path)
    monkeypatch.setattr(train, "run_training", fake)
    return fake


def sweep_csv(folder: Path) -> list[dict[str, str]]:
    (path,) = sorted((folder / "outputs" / "sweeps").glob("*/sweep.csv"))
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_grid(training: FakeTraining, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", "model=gan", "optimizer.lr=1e-3,2e-3", "seed=0,1"]) == 0
    assert [(config["optimizer"]["lr"], config["seed"]) for config, _ in training.seen] == [
        (1e-3, 0),
        (1e-3, 1),
        (2e-3, 0),
        (2e-3, 1),
    ]
    assert [options.job for _, options in training.seen] == [0, 1, 2, 3]
    rows = sweep_csv(tmp_path)
    assert [row["status"] for row in rows] == ["complete"] * 4
    assert [float(row["generator/loss"]) for row in rows] == [1, 1, 2, 2]
    assert rows[3]["overrides"] == "model=gan optimizer.lr=0.002 seed=1"
    assert [row["job"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[3]["run"] == str(tmp_path / "3")
    table = capsys.readouterr().out.splitlines()
    assert [line.split() for line in table[:3]] == [  # the two seeds of a rate are one row
        ["job", "words", "status", "n", "generator/loss", "run"],
        ["1,2", "optimizer.lr=0.001", "complete", "2", "1", "±", "0", "0,", "..."],
        ["3,4", "optimizer.lr=0.002", "complete", "2", "2", "±", "0", "2,", "..."],
    ]
    assert "sweep.csv" in table[3]
    assert table[4].startswith(
        "best:        not known: the runs have no held-out score; the same command with --metric "
    )
    assert table[5] == "next:        aigc eval compare run=" + ",".join(str(tmp_path / str(job)) for job in range(4))
    assert len(table) == 6


def test_what_to_type_next_compares_runs_that_can_be_compared(
    training: FakeTraining, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training.failures = {0: DataError("the data went away")}
    for words in (["seed=0,1"], ["data=digits,mnist,cifar10"], ["seed=0,1,2", "--json"]):
        main(["train", "-m", *words])
        assert "next:" not in capsys.readouterr().out
    monkeypatch.setattr(sweep_results, "plugin_words", lambda: " --plugin mine")
    main(["train", "-m", "seed=range(10)"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(" --plugin mine"), last
    assert last.count(",") == 7


def test_a_single_job_is_named_without_words(training: FakeTraining, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m"]) == 0
    assert "aigc: job 1 of 1\n" in capsys.readouterr().err


def test_only_what_a_sweep_needs_is_written(training: FakeTraining, tmp_path: Path) -> None:
    assert main(["train", "-m", "seed=0,1"]) == 0
    found = {str(path.relative_to(tmp_path / "outputs/sweeps")).partition("/")[2] for path in tmp_path.rglob("*.*")}
    assert found - {""} == {"sweep.csv", "multirun.yaml", "jobs/0.json", "jobs/1.json"}


def test_json(training: FakeTraining, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", "seed=0,1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [job["status"] for job in found["jobs"]] == ["complete", "complete"]


def test_a_job_that_fails_lets_the_others_run(
    training: FakeTraining, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training.failures = {1: DataError("the data went away", "bring it back"), 2: ZeroDivisionError("a bug")}
    assert main(["train", "-m", "seed=0,1,2,3"]) == 3
    rows = sweep_csv(tmp_path)
    assert [row["status"] for row in rows] == ["complete", "failed", "failed", "complete"]
    assert "the data went away" in rows[1]["message"]
    out, err = capsys.readouterr()
    assert "failed:      job 2 (seed=1): the data went away bring it back" in out.splitlines()
    assert "aigc: job 2: the data went away" in err
    assert "Error executing job" not in err  # Hydra's, beside ours


def test_what_a_sweeper_logs_of_a_job_is_not_said_beside_ours(
    training: FakeTraining, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def logged(config: dict[str, Any], options: Options) -> TrainResult:
        logging.getLogger("hydra_plugins.some_sweeper").error("Failed experiment")
        return training(config, options)

    monkeypatch.setattr(train, "run_training", logged)
    for name in (None, "hydra_plugins"):  # what pytest has there, and sweeps before
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    assert main(["train", "-m", "seed=0,1"]) == 0
    assert "Failed experiment" not in capsys.readouterr().err


# the winner


def out_of(words: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> list[str]:
    assert main(["train", "-m", *words]) == code
    return capsys.readouterr().out.splitlines()


def test_the_best_held_out_score_wins_and_its_words_can_be_copied(
    training: FakeTraining, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["trainer.validate_every=1", "optimizer.lr=1e-3,4e-3,2e-3", "run_dir='a b ${seed}${optimizer.lr}'"]
    lines = out_of(words, capsys)
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["2", "optimizer.lr=0.004"],
        ["3", "optimizer.lr=0.002"],
        ["1", "optimizer.lr=0.001"],
    ]
    assert [row["job"] for row in sweep_csv(tmp_path)] == ["1", "2", "3"]
    best = next(line for line in lines if line.startswith("best:"))
    copied = shlex.split(best)[1:]
    assert copied[:4] == ["aigc", "train", "trainer.validate_every=1", "optimizer.lr=0.004"]
    assert lines[lines.index(best) + 1].split() == ["val/fd", "2.5"]
    assert lines[-1] == f"next:        aigc sample run={tmp_path / '1'}"
    assert main([*copied[1:], "--cfg", "job"]) == 0


def test_the_latest_run_is_the_winner_unless_another_was_made_meanwhile(
    training: FakeTraining, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, latest = ["trainer.validate_every=1", "optimizer.lr=1e-3,4e-3,2e-3"], tmp_path / "outputs" / "latest"
    latest.parent.mkdir()
    latest.symlink_to(tmp_path / "another")
    assert not any(line.startswith("latest:") for line in out_of(words, capsys))
    assert latest.resolve() == tmp_path / "another"
    latest.unlink()
    latest.symlink_to(tmp_path / "2")  # the last job
    assert out_of(words, capsys)[-2:] == [
        "latest:      latest is the winner",
        f"next:        aigc sample run={tmp_path / '1'}",
    ]
    assert latest.resolve() == tmp_path / "1"


def test_jobs_that_differ_in_their_seed_are_one_row_with_a_spread(
    training: FakeTraining, capsys: pytest.CaptureFixture[str]
) -> None:
    training.failures = {4: DataError("the data went away")}
    lines = out_of(["trainer.validate_every=1", "optimizer.lr=1e-3,2e-3", "seed=0,1,2"], capsys, 3)
    assert lines[1].split()[:9] == ["4,5,6", "optimizer.lr=0.002", "2", "complete,", "1", "failed", "2", "6", "±"]
    assert lines[2].split()[:7] == ["1,2,3", "optimizer.lr=0.001", "complete", "3", "11", "±", "1"]
    assert "failed:      job 5 (optimizer.lr=0.002 seed=1): the data went away" in lines
    assert "best:        aigc train trainer.validate_every=1 optimizer.lr=0.002" in lines
    assert any(line.split() == ["val/fd", "6", "±", "1.4", "over", "2", "seeds"] for line in lines)


def test_the_winner_as_json(training: FakeTraining, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["trainer.validate_every=1", "optimizer.lr=1e-3,2e-3", "seed=0,2", "--json"]
    found = json.loads("\n".join(out_of(words, capsys)))
    assert found["best"]["words"] == ["trainer.validate_every=1", "optimizer.lr=0.002"]
    assert (found["best"]["score"], found["best"]["mean"], found["best"]["n"]) == ("val/fd", 6.0, 2)
    assert found["best"]["jobs"] == [3, 4]
    assert [job["job"] for job in found["jobs"]] == [1, 2, 3, 4]


def test_runs_on_different_data_are_not_ranked(training: FakeTraining, capsys: pytest.CaptureFixture[str]) -> None:
    lines = out_of(["trainer.validate_every=1", "data=digits,mnist"], capsys)
    assert "best:        not known: val/fd of runs on different data does not compare (data)" in lines


def records(value: float, **more: Any) -> list[tuple[str, dict[str, Any]]]:
    record = {"metric": "fd", "figures": {"fd[cnn]": value}, "better": {"fd[cnn]": "lower"}, "real": {"data": "digits"}}
    return [("run", {"fd": {**record, **more}})]


@pytest.fixture
def measured(training: FakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs that can be opened, whose records are those given by their jobs' numbers."""
    from aigc_cli.commands import eval as evaluation

    found: dict[str, Any] = {}

    def evaluated(asked: Any, options: Options, runs: list[Run], keeper: object) -> Any:
        assert list(asked.metric) == ["fd"]
        if isinstance(found[runs[0].path.name], BaseException):
            raise found[runs[0].path.name]
        return found[runs[0].path.name]

    monkeypatch.setattr(evaluation, "evaluated", evaluated)
    monkeypatch.setattr(Run, "config", {"trainer": {"device": "cpu"}})
    return found


def test_a_metric_is_measured_of_every_run_and_ranks_them(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured |= {"0": records(3.0), "1": records(2.0), "2": DataError("too few items")}
    lines = out_of(["optimizer.lr=1e-3,2e-3,3e-3", "--metric", "fd"], capsys, 3)
    assert lines[0].split()[:4] == ["job", "words", "status", "fd[cnn]"]
    assert [line.split()[0] for line in lines[1:4]] == ["2", "1", "3"]
    assert "complete:    job 3 (optimizer.lr=0.003): too few items" in lines
    assert "best:        aigc train optimizer.lr=0.002" in lines
    assert [row["fd[cnn]"] for row in sweep_csv(tmp_path)] == ["3.0", "2.0", ""]


def test_jobs_of_the_same_minutes_show_their_unequal_steps_and_how_to_compare_fairly(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured |= {"0": records(3.0), "1": records(2.0)}
    for job, step in ((0, 178), (1, 198)):
        (tmp_path / str(job)).mkdir()
        Run(tmp_path / str(job)).set_status("complete", step)
    words = ["optimizer.lr=1e-3,2e-3", "--metric", "fd"]
    lines = out_of(["trainer.minutes=2", *words], capsys)
    assert [line.split()[3] for line in lines[:3]] == ["steps", "198", "178"]
    assert (
        "note:        the jobs were trained for unequal steps, 178 to 198; trainer.steps=178 in place of "
        "trainer.minutes= gives all the same"
    ) in lines
    assert [row["steps"] for row in sweep_csv(tmp_path)] == ["178", "198"]
    lines = out_of(words, capsys)  # not by the clock
    assert "steps" not in lines[0]


def test_scores_that_do_not_compare_name_no_winner(
    measured: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    measured |= {"0": records(3.0), "1": records(2.0, real={"data": "mnist"})}
    lines = out_of(["data=digits,mnist", "--metric", "fd"], capsys)
    why = "best:        not known: the runs are not comparable: reference data is digits and mnist"
    assert why in lines


def test_a_stop_while_measuring_shows_what_is_known(
    measured: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    measured |= {"0": records(3.0), "1": KeyboardInterrupt()}
    lines = out_of(["optimizer.lr=1e-3,2e-3", "--metric", "fd"], capsys, 130)
    assert lines[1].split()[:4] == ["1", "optimizer.lr=0.001", "complete", "3"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-m", "--metric", "fdd", "seed=0,1"], "did you mean fd"),
        (["--metric", "fd"], "add -m to rank the runs of a sweep by it"),
        (["-m", "model=transformer", "seed=0,1", "--metric", "fd"], "fd does not measure what model=transformer makes"),
        (["-m", "model=gan", "seed=0,1", "--metric", "likelihood"], "likelihood does not measure what model=gan makes"),
    ],
)
def test_a_metric_that_cannot_be_is_refused_first(
    words: list[str], says: str, training: FakeTraining, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words]) == 2
    assert says in capsys.readouterr().err
    assert training.seen == []


def test_words_are_written_as_a_person_types_them(training: FakeTraining, tmp_path: Path) -> None:
    assert main(["train", "-m", "seed=0,1", "run_dir=a b ${seed}", "outputs=my runs (1)"]) == 0
    (path,) = (tmp_path / "my runs (1)" / "sweeps").glob("*/sweep.csv")
    with path.open(newline="") as file:
        assert [row["overrides"] for row in csv.DictReader(file)][1] == "seed=1 run_dir=a b 1 outputs=my runs (1)"


def test_a_row_that_cannot_be_kept_is_in_the_table_all_the_same(
    training: FakeTraining, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, *_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sweep, "write_json", full)
    monkeypatch.setattr(sweep_results, "write_atomically", full)
    assert main(["train", "-m", "trainer.validate_every=1", "seed=0,1"]) == 5
    out, err = capsys.readouterr()
    assert "best:        aigc train trainer.validate_every=1" in out
    assert "sweep.csv: No space left on device" in err
    assert "Error executing job" not in err


def test_a_sweep_whose_table_nobody_reads_keeps_it(
    training: FakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, written = os.pipe()
    os.close(read)
    with os.fdopen(written, "w") as gone:
        monkeypatch.setattr("sys.stdout", gone)
        assert main(["train", "-m", "model=gan", "optimizer.lr=1e-3,2e-3"]) == 141
    assert [row["status"] for row in sweep_csv(tmp_path)] == ["complete", "complete"]


@pytest.mark.parametrize(
    ("error", "code"), [(Interrupted("saved"), 130), (KeyboardInterrupt(), 130), (Terminated("saved"), 143)], ids=repr
)
def test_an_interrupt_ends_the_sweep(error: BaseException, code: int, training: FakeTraining, tmp_path: Path) -> None:
    training.failures = {1: error}
    assert main(["train", "-m", "seed=0,1,2"]) == code
    assert [row["status"] for row in sweep_csv(tmp_path)] == ["complete", "stopped", "not run"]


def test_keys_that_only_one_model_has(training: FakeTraining, tmp_path: Path) -> None:
    options = tmp_path / "configs" / "optimizer"
    options.mkdir(parents=True)
    text = (Path(train.__file__).parents[2] / "configs/optimizer/sgd.yaml").read_text()
    (options / "mine.yaml").write_text(text)
    assert main(["train", "-m", "optimizer=sgd,mine", "optimizer.momentum=0.5", "recipe=null"]) == 0
    assert [config["optimizer"]["momentum"] for config, _ in training.seen] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["optimizer.lr=1e-3,-1"], "in the job optimizer.lr=-1: optimizer.lr=-1 is not allowed"),
        (["optimizer.lrr=1,2"], "there is no key optimizer.lrr"),
        (["model=gan,gann"], "there is no model named 'gann'"),
        (["optimizer.lr=interval(1e-4,1e-3)"], "hydra/sweeper=optuna"),
        (["seed=0,1", "run_dir=x"], "cannot share run_dir"),
        (["seed=0,1", "model.init_from=latest"], "another run after every job"),
        (["seed=0,1", "hydra/launcher=joblb"], "joblb"),
        (["hydra.launcher._target_=a,b"], "hydra"),
        (["+model.extra={_target_:os.system},{a:1}"], "model.extra._target_"),
        (["experiment=sly"], "hydra.sweeper.params"),
    ],
    ids=str,
)
def test_every_job_is_checked_before_the_first_starts(
    words: list[str], says: str, training: FakeTraining, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "configs" / "experiment"
    folder.mkdir(parents=True)
    (folder / "sly.yaml").write_text("# @package _global_\nhydra: {sweeper: {params: {hydra.job.name: 'a,b'}}}\n")
    assert main(["train", "-m", *words]) == 2
    assert training.seen == []
    assert not (tmp_path / "outputs").exists()
    err = capsys.readouterr().err
    assert says in err
    assert len(err.splitlines()) <= 2


def test_sweeper_params_from_an_experiment(training: FakeTraining, tmp_path: Path) -> None:
    folder = tmp_path / "configs" / "experiment"
    folder.mkdir(parents=True)
    text = "# @package _global_\n# Rates\nhydra:\n  sweeper:\n    params:\n      optimizer.lr: 1e-3,2e-3\n"
    (folder / "rates.yaml").write_text(text)
    assert main(["train", "-m", "experiment=rates", "seed=5"]) == 0
    assert [(config["optimizer"]["lr"], config["seed"]) for config, _ in training.seen] == [(1e-3, 5), (2e-3, 5)]


def test_an_optimizer_chooses(training: FakeTraining, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna", minversion="4")
    training.failures = {0: DataError("the data went away")}
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"]
    assert main(["train", "-m", *words, "optimizer.lr=interval(1e-4,1e-3)", "model.loss=choice(hinge,lsgan)"]) == 3
    rates = [config["optimizer"]["lr"] for config, _ in training.seen]
    assert len(set(rates)) == 3
    assert all(1e-4 <= rate <= 1e-3 for rate in rates)
    assert [row["status"] for row in sweep_csv(tmp_path)] == ["failed", "complete", "complete"]
    out, err = capsys.readouterr()
    assert f"best:        aigc train optimizer.lr={min(rates[1:])} model.loss=" in out
    assert "Error executing job" not in err  # Hydra's, beside ours
    assert "Failed experiment" not in err


@pytest.mark.parametrize(("jobs", "expected"), [(-1, [3, 2]), (2, [2, 2, 1])])
def test_an_optimizer_has_as_many_jobs_run_at_a_time_as_the_launcher_does(
    jobs: int, expected: list[int], training: FakeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", minversion="4")
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    batches: list[int] = []

    class Launcher:
        def launch(self, jobs: list[list[str]], initial_job_idx: int) -> list[JobReturn]:
            batches.append(len(jobs))
            return [JobReturn(_return_value=1.0, status=JobStatus.COMPLETED) for _ in jobs]

    monkeypatch.setattr(sweep.Plugins, "instantiate_launcher", lambda self, **parts: Launcher())
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=5", "hydra/launcher=joblib"]
    main(["train", "-m", *words, f"hydra.launcher.n_jobs={jobs}", "optimizer.lr=interval(1e-4,1e-3)"])
    assert batches == expected


def test_an_optimizer_cannot_choose_code(training: FakeTraining, tmp_path: Path) -> None:
    pytest.importorskip("optuna", minversion="4")
    folder = tmp_path / "configs" / "experiment"
    folder.mkdir(parents=True)
    (folder / "good.yaml").write_text("# @package _global_\nseed: 1\n")
    evil = "hydra: {job_logging: {root: {handlers: [a]}, handlers: {a: {'()': os.getcwd}}}}"
    (folder / "evil.yaml").write_text(f"# @package _global_\n{evil}\n")
    words = ["hydra/sweeper=optuna", "hydra.sweeper.sampler=grid", "hydra.sweeper.n_jobs=1"]
    assert main(["train", "-m", *words, "experiment=good,evil"]) == 2
    assert all(config["seed"] == 1 for config, _ in training.seen)


def test_an_optimizer_whose_jobs_all_fail(training: FakeTraining, tmp_path: Path) -> None:
    pytest.importorskip("optuna", minversion="4")
    training.failures = {0: DataError("gone"), 1: DataError("gone")}
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1"]
    assert main(["train", "-m", *words, "optimizer.lr=interval(1e-4,1e-3)"]) == 3
    assert [row["status"] for row in sweep_csv(tmp_path)] == ["failed", "failed"]


@pytest.mark.parametrize("word", ["seed=3", "trainer.batch_size=5000"])  # one is cut to the training split
def test_the_same_sweep_again_skips_what_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "-m", *TINY, word]
    assert main(words) == 0
    (first,) = sweep_csv(tmp_path)
    assert first["status"] == "complete"
    os.rename(tmp_path / "outputs/sweeps", tmp_path / "earlier")
    assert main(words) == 0
    (again,) = sweep_csv(tmp_path)
    assert again["status"] == "skipped"
    assert (again["run"], again["generator/loss"]) == (first["run"], first["generator/loss"])


@pytest.mark.slow
def test_jobs_in_processes_of_their_own_one_of_which_may_be_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    loky = pytest.importorskip("joblib.externals.loky")
    loky.get_reusable_executor().shutdown(wait=True)  # processes of another test look for the plugin in its folder
    monkeypatch.chdir(tmp_path)
    in_two = ["train", "-m", *TINY, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    assert main([*in_two, "optimizer.lr=1e-3,1e38", "model.augment=[]"]) == 4
    rows = sweep_csv(tmp_path)
    assert [row["status"] for row in rows] == ["complete", "failed"]
    assert len({row["run"] for row in rows}) == 2

    os.rename(tmp_path / "outputs/sweeps", tmp_path / "earlier")
    (tmp_path / "deadly.py").write_text(
        f"import os, signal\nif os.getpid() != {os.getpid()}:\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    capsys.readouterr()
    assert main([*in_two, "seed=0,1", "--plugin", "deadly"]) == 5
    err = capsys.readouterr().err
    assert "a process of the sweep was killed" in err
    assert "Traceback" not in err
    assert [row["status"] for row in sweep_csv(tmp_path)] == ["not run", "not run"]


SLURM = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.launcher.gpus_per_node=4"]
SLURM += ["hydra.launcher.timeout_min=1440", "trainer.devices=4", "trainer.restarts=1", "trainer.device=cpu"]


def test_a_sweep_for_slurm_is_composed() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    config = compose_raw("train", [*SLURM, "seed=0"])
    launcher = config.hydra.launcher
    assert (launcher.partition, launcher.gpus_per_node, launcher.timeout_min) == ("gpu", 4, 1440)
    assert (launcher.tasks_per_node, launcher.nodes) == (1, 1)  # aigc starts its processes itself
    trainer = check_config(plain("train", config)).trainer
    assert (trainer.devices, trainer.restarts) == (4, 1)
    with pytest.raises(ConfigError, match="setup"):
        compose_raw("train", [*SLURM, "hydra.launcher.setup=[reboot]"])


@pytest.mark.slow
def test_jobs_by_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.chdir(tmp_path)
    words = ["hydra/launcher=submitit_local", "trainer.devices=2", "trainer.device=cpu"]
    assert main(["train", "-m", *TINY, *words]) == 0
    assert [row["status"] for row in sweep_csv(tmp_path)] == ["complete"]
