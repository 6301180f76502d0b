"""Places that commands write to: killed at any moment, or two at once, what is there is whole, and is one command's."""

from __future__ import annotations

import functools
import os
import re
import signal
from pathlib import Path

import pytest
from children import Child, aigc, die_at, resume, steps, train
from families import words_of

from aigc_cli.errors import DataError
from aigc_cli.files import checksum
from aigc_cli.modalities.image_files import open_images
from aigc_cli.modalities.samples import read_record
from aigc_cli.runs import Run, list_runs

SHORT = ["trainer.steps=2", "trainer.checkpoint_every=2"]
#: What happens to a run's folder before its first step, in this order.
BEGINNING = [("open", "lock"), *(("os.rename", f"/{name}") for name in ("data.json", "config.yaml", "identity"))]


def content(folder: Path) -> dict[str, str]:
    return {path.name: checksum(path) for path in folder.iterdir() if path.suffix == ".png"}


def test_a_run_killed_as_it_begins_is_not_there(tmp_path: Path) -> None:
    """``latest`` stays with the one before, and what was begun goes with the next one."""
    words = [*words_of("vae", tmp_path), *SHORT]
    code, said = aigc("train", *words, folder=tmp_path)
    assert code == 0, said
    latest, outputs = (tmp_path / "outputs/latest").readlink(), tmp_path / "outputs"
    for event, name in [*BEGINNING, ("os.rename", "latest")]:
        code, said = aigc("train", *words, folder=tmp_path, before=functools.partial(die_at, event, name, 1))
        assert code == -signal.SIGKILL, (name, said)
        assert (outputs / "latest").readlink() == latest
        assert len(list_runs(outputs)) == 1 + (name == "latest")
    named = ["train", "run_dir=outputs/vae-digits/mine", *words]
    code, said = aigc(*named, folder=tmp_path, before=functools.partial(die_at, "os.rename", "config.yaml", 1))
    assert code == -signal.SIGKILL, said
    code, said = aigc(*named, folder=tmp_path)
    assert code == 0, said
    assert len(list_runs(outputs)) == 3
    assert not [path for path in outputs.rglob("*") if path.name.startswith(".")], "what was begun is gone"


def test_a_sweep_killed_as_a_job_begins_is_finished_by_the_same_command(tmp_path: Path) -> None:
    words = ["train", "-m", "seed=0,1", *words_of("vae", tmp_path), *SHORT]
    for event, name in BEGINNING:
        code, said = aigc(*words, folder=tmp_path, before=functools.partial(die_at, event, name, 1))
        assert code == -signal.SIGKILL, said
    code, said = aigc(*words, folder=tmp_path)
    assert code == 0, said
    assert [run.status() for run in list_runs(tmp_path / "outputs")] == ["complete", "complete"]


def keep_tokens_in(cache: str, *, killed: bool) -> None:
    os.environ["AIGC_CACHE"] = cache
    if killed:
        die_at("os.rename", "/tokens/", 1)


def test_tokens_killed_as_they_appear_leave_nothing_after_the_same_command(tmp_path: Path) -> None:
    words = ["train", "run_dir=run", *words_of("transformer", tmp_path), *SHORT]
    place = functools.partial(keep_tokens_in, str(tmp_path / "cache"))
    for _ in range(2):
        code, said = aigc(*words, folder=tmp_path, before=functools.partial(place, killed=True))
        assert code == -signal.SIGKILL, said
        assert len(list(tmp_path.glob("cache/tokens/.*"))) == 1
    code, said = aigc(*words, folder=tmp_path, before=functools.partial(place, killed=False))
    assert code == 0, said
    assert not list(tmp_path.glob("cache/tokens/.*"))


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that images can be drawn from at once."""
    folder = tmp_path_factory.mktemp("gan")
    train(folder / "run", *words_of("gan", folder), *SHORT)
    return folder / "run"


@pytest.mark.parametrize("more", [[], ["seed=5", "overwrite=true"]], ids=["more of the same", "others"])
def test_samples_killed_as_they_move_in_are_finished_by_the_same_command(
    tmp_path: Path, gan: Path, more: list[str]
) -> None:
    words = ["sample", f"run={gan}", "out=out"]
    assert aigc(*words, "n=10", folder=tmp_path)[0] == 0
    again = [*words, "n=30", *more]
    kill = functools.partial(die_at, "os.rename", ".png", 15)
    code, said = aigc(*again, folder=tmp_path, before=kill)
    assert code == -signal.SIGKILL, said
    with pytest.raises(DataError, match="holds part of a set of samples"):
        open_images(tmp_path / "out")
    code, said = aigc(*again, folder=tmp_path)
    assert code == 0, said
    assert aigc("sample", f"run={gan}", "out=whole", "n=30", *more, folder=tmp_path)[0] == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert not [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
    assert len(open_images(tmp_path / "out")) == 30


@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
def test_of_two_samplings_into_one_folder_the_second_is_refused(tmp_path: Path, gan: Path, there: bool) -> None:
    words = ["sample", f"run={gan}", "out=out", "n=300", "overwrite=true"]
    if there:
        assert aigc(*words, "seed=9", folder=tmp_path)[0] == 0
    first = Child([*words, "seed=0"], tmp_path)
    first.wait_for(lambda: list(tmp_path.rglob("*.part/*.png")))
    first.send(signal.SIGSTOP)
    code, said = aigc(*words, "seed=5", folder=tmp_path)
    first.send(signal.SIGCONT)
    assert code == 2, said
    assert "another command is writing" in said
    assert f"process {first.process.pid}" in said
    assert first.wait() == 0, first.said
    assert (read_record(tmp_path / "out") or {})["seed"] == 0
    assert len(content(tmp_path / "out")) == 301  # with their overview
    assert not list(tmp_path.glob(".*"))


def test_of_two_sweeps_into_one_folder_the_second_is_refused(tmp_path: Path) -> None:
    words = ["train", "-m", *words_of("vae", tmp_path), "hydra.sweep.dir=sweep"]
    first = Child([*words, "trainer.steps=100000"], tmp_path)
    first.wait_for(lambda: list(tmp_path.glob("outputs/*/*/checkpoints/step-*")))
    code, said = aigc(*words, *SHORT, folder=tmp_path)
    first.send(signal.SIGKILL)
    first.wait()
    assert code == 2, said
    assert "another command is writing" in said
    code, said = aigc(*words, *SHORT, folder=tmp_path)
    assert code == 0, said


@pytest.mark.parametrize("writes", ["save", "preview"])
def test_a_run_that_is_moved_as_it_trains_is_not_made_again(tmp_path: Path, writes: str) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    words = [*words_of("vae", tmp_path), "trainer.checkpoint_every=100000", "trainer.steps=100000"]
    words += ["trainer.sample_every=100"] if writes == "preview" else []
    child = Child(["train", "run_dir=run", *words], tmp_path)
    child.wait_for(lambda: (run / "metrics.jsonl").is_file() and (run / "metrics.jsonl").read_text())
    child.send(signal.SIGUSR1)
    child.wait_for(lambda: Run(run).step)  # which is the last that a save writes
    run.rename(moved)
    if writes == "save":
        child.send(signal.SIGTERM)
    child.wait_for(run.exists)
    if made_again := run.exists():
        child.send(signal.SIGKILL)
    assert not made_again, child.said
    assert child.wait() == 5, child.said
    # A preview that was being written as it was moved finds its folder gone.
    assert re.search("is no longer there: it was moved or deleted|its folder is not there", child.said)
    assert "Traceback" not in child.said
    assert not run.exists()
    resume(moved, f"trainer.steps={steps(moved)[-1] + 3}")


def test_a_run_may_be_moved_behind_a_link_as_it_trains(tmp_path: Path) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    words = words_of("vae", tmp_path)
    child = Child(["train", "run_dir=run", *words, "trainer.steps=100000"], tmp_path)
    child.wait_for(lambda: steps(run))
    child.send(signal.SIGSTOP)
    run.rename(moved)
    run.symlink_to(moved)
    last = steps(moved)[-1]
    child.send(signal.SIGCONT)
    child.wait_for(lambda: steps(moved) and steps(moved)[-1] > last)
    child.send(signal.SIGTERM)
    assert child.wait() == 143, child.said


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """Of a sweep: they save, so that the same command goes on from there."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["train", "-m", "seed=0,1", *words_of("vae", tmp_path), "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    words += ["trainer.checkpoint_every=100000", "trainer.steps=1000000"]
    child = Child(words, tmp_path)
    child.wait_for(lambda: len(list(tmp_path.glob("outputs/vae-digits/*/metrics.jsonl"))) == 2)
    runs = list_runs(tmp_path / "outputs")
    holders = [int((run.path / "lock").read_text().split()[1]) for run in runs]
    child.send(signal.SIGKILL)
    child.wait()
    child.wait_until(lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in holders))
    assert [run.status() for run in runs] == ["stopped", "stopped"]
    assert all(run.has_checkpoint for run in runs)
    assert os.getpid() not in holders
