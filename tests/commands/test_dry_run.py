"""``aigc train --dry-run``: it says what a run takes, and nothing of it is left."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from toy import TRAIN_TOY

from aigc_cli.cli import main
from aigc_cli.commands import dry_run
from aigc_cli.runs import find_run

TOY = [*TRAIN_TOY, "trainer.steps=20", "trainer.sample_every=10", "trainer.validate_every=10"]


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """It measures for as long as a few steps take."""
    monkeypatch.setattr(dry_run, "SECONDS", 1e-9)


def left(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if "torchinductor" not in str(path)}  # of torch's own import


def test_nothing_is_left_of_it(
    toy_here: Path, few_steps: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (toy_here / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(toy_here / "tmp"))
    before = left(toy_here)
    assert main([*TOY, "--dry-run"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out if not line.startswith(" ")] == [
        "model:", "data:", "training:", "plan:", "nothing"
    ]  # fmt: skip
    assert out[-2].endswith("of disk are free")
    assert left(toy_here) == before


def test_its_json_is_alone_on_stdout(toy_here: Path, few_steps: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TOY, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["parameters"], found["steps"], found["batch_size"]) == (4, 20, 8)
    assert found["data"]["items"] == 1258
    assert found["seconds"] == pytest.approx(sum(found["parts"].values()))
    assert found["parts"]["validations"] > 0
    assert min(found["memory"], found["free_disk"]) > 1e6
    assert main([*TOY[:6], "trainer.minutes=10", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seconds"] == pytest.approx(600, rel=0.2)
    assert found["steps"] > 20


@pytest.mark.parametrize("length", ["trainer.steps=2", "trainer.minutes=1e-5"])
def test_a_run_that_is_shorter_than_what_is_measured_has_a_plan_too(
    length: str, toy_here: Path, few_steps: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TOY[:6], length, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 1 <= found["steps"] <= 2
    assert found["parts"]["checkpoints"] > 0


def test_what_a_run_would_refuse_it_refuses(toy_here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TOY, "--dry-run", "trainer.batch_size=0"]) == 2
    for words in (["-m", "seed=1,2"], ["--resume"], ["--cfg"]):
        assert main([*TOY, "--dry-run", *words]) == 2
        assert "--dry-run and -" in capsys.readouterr().err
    assert main(["sample", "--dry-run"]) == 2


def test_a_dry_run_and_the_run_after_it_leave_the_run_as_it_would_be(toy_here: Path, few_steps: None) -> None:
    assert main([*TOY, "--dry-run"]) == 0
    assert main(TOY) == 0
    assert find_run("latest").step == 20
    assert len(list((toy_here / "outputs" / "toy-digits").iterdir())) == 1
