"""Processes that read the data: how many there are changes nothing, and one that dies is named."""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path

from children import Child, hashes, resume, steps, train
from streamed import STREAMED, paint

from aigc_cli.training.trainer import Trainer


def test_a_run_goes_on_with_another_number_of_workers(tmp_path: Path) -> None:
    paint(tmp_path / "pictures")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole, *STREAMED, "trainer.steps=20")
    train(parts, *STREAMED, "trainer.steps=5", "trainer.workers=2")
    resume(parts, "trainer.steps=12", "trainer.workers=1")
    resume(parts, "trainer.steps=20", "trainer.workers=0")
    assert hashes(parts) == hashes(whole)


def workers_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def assert_named(child: Child, worker: int) -> None:
    """Waits for the end of a process that has lost a worker."""
    child.process.join(30)
    assert child.process.exitcode == 3, child.said
    assert "a data worker process died: " in child.said
    assert str(worker) in child.said
    assert "Traceback" not in child.said


def test_a_worker_that_is_killed_ends_the_run_and_is_named(tmp_path: Path) -> None:
    paint(tmp_path / "pictures")
    words = ["train", "run_dir=run", *STREAMED, "trainer.steps=100000", "trainer.workers=2"]
    child = Child(words, tmp_path)
    child.wait_for(lambda: steps(tmp_path / "run"))
    worker = workers_of(child.process.pid or 0)[-1]
    os.kill(worker, signal.SIGKILL)
    assert_named(child, worker)


def _worker_dies_in_step(at: int, note: Path) -> None:
    """Kills a worker in the middle of a step, which goes on computing until that is known."""
    train_step = Trainer.train_step

    def bereaved(self: Trainer, step: int) -> None:
        train_step(self, step)
        if step == at:
            worker = workers_of(os.getpid())[0]
            note.write_text(str(worker))
            os.kill(worker, signal.SIGKILL)
            while True:
                time.sleep(0.01)

    Trainer.train_step = bereaved  # type: ignore[method-assign]


def test_a_worker_that_dies_while_a_step_computes_is_named(tmp_path: Path) -> None:
    paint(tmp_path / "pictures")
    words = ["train", "run_dir=run", *STREAMED, "trainer.steps=20", "trainer.workers=1"]
    note = tmp_path / "worker"
    child = Child(words, tmp_path, functools.partial(_worker_dies_in_step, 3, note))
    child.wait_for(lambda: note.is_file() and note.read_text())
    assert_named(child, int(note.read_text()))
