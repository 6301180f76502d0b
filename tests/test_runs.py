"""The run directory: how it is named, found, locked, and what a broken one says."""

import os

import pytest

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.runs import Run, create_run, find_run

CONFIG = {"model": {"name": "gan"}, "data": {"name": "digits"}, "outputs": "outputs", "run_dir": None}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(**changes) -> Run:
    run = create_run({**CONFIG, **changes})
    (run.path / "config.yaml").write_text("model: {name: gan}\ndata: {name: digits}\n")
    return run


def test_what_names_a_run_finds_it(here):
    usual, elsewhere, apart = made(), made(outputs="elsewhere"), made(run_dir="some where/run")
    assert usual.word == usual.name
    assert elsewhere.word == str(elsewhere.path)
    assert apart.word == f"'{apart.path}'"
    for run in (usual, elsewhere, apart):
        assert find_run(run.word.strip("'")).path == run.path.resolve()


def test_two_runs_of_one_second_are_two():
    assert len({made().path for _ in range(3)}) == 3


def test_latest_points_right_from_outputs_that_lie_elsewhere(here):
    (here / "disk" / "deep").mkdir(parents=True)
    (here / "outputs").symlink_to("disk/deep")
    run = made(run_dir="apart")
    assert find_run("latest").path == run.path.resolve()


@pytest.mark.parametrize(
    "text", ["", "model: gan\n", "model: {name: gan}\n", "model: {name: gan}\ndata: {}\n", "a: &a [1]\nb: *a\n"]
)
def test_a_broken_configuration(text):
    run = made()
    (run.path / "config.yaml").write_text(text)
    with pytest.raises(DataError, match=r"config\.yaml"):
        _ = run.config


def test_figures_are_finite_numbers():
    run = made()
    rows = ['"abc"', "1.5", "true", "NaN", "null", "[1]", "9" * 400]
    (run.path / "metrics.jsonl").write_text("".join(f'{{"step": 1, "val/x": {value}}}\n' for value in rows))
    assert run.figures() == {"val/x": 1.5}


def test_a_lock_keeps_others_out_and_says_nothing_of_what_fails_within():
    run = made()
    with run.lock(), pytest.raises(ConfigError, match=f"process {os.getpid()}"), run.lock():
        pass
    with pytest.raises(PermissionError), run.lock():
        raise PermissionError(13, "Permission denied", "some/picture.png")
