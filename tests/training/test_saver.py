"""Saves beside the training loop: whole, in order, as of their step, and never silently lost."""

from __future__ import annotations

import json
import shutil
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import toy_config

from aigc_cli.commands.train import run_training
from aigc_cli.config.schema import Options
from aigc_cli.errors import NonFiniteError, ResourceError
from aigc_cli.runs import Run, find_run
from aigc_cli.training.checkpoint import CheckpointFolder, State
from aigc_cli.training.saver import Saver


@pytest.fixture
def saver(tmp_path: Path) -> Saver:
    return Saver(Run(tmp_path), keep=1)


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Saves wait for this before they write anything."""
    go_on = threading.Event()
    save = CheckpointFolder.save

    def late(self: CheckpointFolder, *rest: Any) -> None:
        assert go_on.wait(60)
        save(self, *rest)

    monkeypatch.setattr(CheckpointFolder, "save", late)
    return go_on


def tensors(value: float = 1.0) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"w": torch.full((3,), value)}}


def test_what_is_saved_is_as_of_its_step(saver: Saver, held_back: threading.Event) -> None:
    live, state = tensors(2.0), State(step=4, seconds=1.0)
    saver.start(state, live, {})
    live["model"]["w"].fill_(9.0)
    state.step, state.seconds = 5, 2.0
    saver.check()
    assert not saver.checkpoints.steps()
    held_back.set()
    saver.wait()
    assert saver.checkpoints.steps() == [4]
    saved = saver.checkpoints.load(4)
    assert torch.equal(saved.tensors["model"]["w"], torch.full((3,), 2.0))
    assert saved.state.seconds == 1.0


def test_records_follow_and_older_ones_go_when_it_is_there(saver: Saver) -> None:
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 4)):
        saver.start(State(step=step, best=0.5, best_step=best), tensors(), {})
    saver.wait()
    assert saver.checkpoints.steps() == [4]
    assert json.loads((saver.run.path / "best.json").read_text()) == {"step": 4, "value": 0.5}
    assert saver.run.step == 4


def test_a_save_that_fails_is_told_once_and_harms_nothing(saver: Saver, monkeypatch: pytest.MonkeyPatch) -> None:
    saver.start(State(step=1), tensors(), {})
    saver.start(State(step=2, best=1.0, best_step=2), tensors(float("nan")), {})
    with pytest.raises(NonFiniteError, match="step 2: model tensor w"):
        saver.start(State(step=3), tensors(), {})
    saver.wait()
    assert saver.checkpoints.steps() == [1]
    assert not (saver.run.path / "best.json").exists()
    assert saver.run.step == 1


def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    made = toy_config()
    made["trainer"].update(
        steps=6, checkpoint_every=2, sample_every=None, examine_every=None, log_every=1, device="cpu"
    )
    return made


def in_step(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], object]) -> None:
    """Has the model act at the beginning of each step."""
    from toy import Toy

    phases = Toy.phases

    def acting(self: Any, step: int) -> Any:
        act(step)
        return phases(self, step)

    monkeypatch.setattr(Toy, "phases", acting)


def test_training_goes_on_while_a_save_is_written(
    registered_toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_back: threading.Event
) -> None:
    in_step(monkeypatch, lambda step: held_back.set() if step == 3 else None)
    result = run_training(config(tmp_path, monkeypatch), Options())
    assert result.run.status() == "complete"
    assert CheckpointFolder(result.run.checkpoints).steps() == [4, 6]


def test_a_run_that_fails_ends_what_it_was_saving(
    registered_toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_back: threading.Event
) -> None:
    def fail(step: int) -> None:
        if step == 3:
            held_back.set()
            raise ZeroDivisionError

    in_step(monkeypatch, fail)
    with pytest.raises(ZeroDivisionError):
        run_training(config(tmp_path, monkeypatch), Options())
    run = find_run("latest")
    assert CheckpointFolder(run.checkpoints).steps() == [2]
    assert run.status() == "failed"


def test_a_save_that_fails_ends_the_run(registered_toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: CheckpointFolder, step: int, *rest: Any) -> None:
        raise ResourceError("cannot write")

    monkeypatch.setattr(CheckpointFolder, "save", full)
    with pytest.raises(ResourceError, match="cannot write"):
        run_training(config(tmp_path, monkeypatch), Options())
    assert find_run("latest").status() == "failed"


Usage = namedtuple("Usage", "total used free")


def test_a_disk_without_room_for_the_checkpoints_is_told_before_training(
    registered_toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1000, 900, 100))
    with pytest.raises(ResourceError, match=r"takes about .* up to 3 at a time, .* has room for") as caught:
        run_training(config(tmp_path, monkeypatch), Options())
    assert "trainer.keep" in caught.value.hint
    assert not list(find_run("latest").checkpoints.glob("*"))
