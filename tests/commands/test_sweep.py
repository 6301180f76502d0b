import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

from aigc_cli.cli import main
from aigc_cli.commands import sweep, train
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
        return TrainResult(Run(self.root / str(options.job)), {"generator/loss": loss}, "complete", loss)


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
    assert rows[3]["run"] == str(tmp_path / "3")
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 7
    assert "model=gan" not in table[4]
    assert "optimizer.lr=0.002 seed=1" in table[4]
    assert "sweep.csv" in table[5]
    assert table[6] == "next:        aigc eval compare run=" + ",".join(str(tmp_path / str(job)) for job in range(4))


def test_what_to_type_next_compares_runs_that_can_be_compared(
    training: FakeTraining, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training.failures = {0: DataError("the data went away")}
    for words in (["seed=0,1"], ["data=digits,mnist,cifar10"], ["seed=0,1,2", "--json"]):
        main(["train", "-m", *words])
        assert "next:" not in capsys.readouterr().out
    monkeypatch.setattr(sweep, "plugin_words", lambda: " --plugin mine")
    main(["train", "-m", "seed=range(10)"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(" --plugin mine")
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
    assert "seed=1" in next(line for line in out.splitlines() if "failed" in line)
    assert "aigc: job 2: the data went away" in err


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # Optuna 2 imports what is old
def test_an_optimizer_chooses(training: FakeTraining, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    training.failures = {0: DataError("the data went away")}
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"]
    assert main(["train", "-m", *words, "optimizer.lr=interval(1e-4,1e-3)", "model.loss=choice(hinge,lsgan)"]) == 3
    rates = [config["optimizer"]["lr"] for config, _ in training.seen]
    assert len(set(rates)) == 3
    assert all(1e-4 <= rate <= 1e-3 for rate in rates)
    assert [row["status"] for row in sweep_csv(tmp_path)] == ["failed", "complete", "complete"]
    (best,) = tmp_path.glob("outputs/sweeps/*/optimization_results.yaml")
    assert f"{1000 * min(rates[1:]):.6f}"[:6] in best.read_text()
    assert "best:" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_optimizer_cannot_choose_code(training: FakeTraining, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    folder = tmp_path / "configs" / "experiment"
    folder.mkdir(parents=True)
    (folder / "good.yaml").write_text("# @package _global_\nseed: 1\n")
    evil = "hydra: {job_logging: {root: {handlers: [a]}, handlers: {a: {'()': os.getcwd}}}}"
    (folder / "evil.yaml").write_text(f"# @package _global_\n{evil}\n")
    words = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_jobs=1"]
    assert main(["train", "-m", *words, "experiment=good,evil"]) == 2
    assert all(config["seed"] == 1 for config, _ in training.seen)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_optimizer_whose_jobs_all_fail(training: FakeTraining, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
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
