"""What a training process does when it is asked to stop, to save, or to go away at once."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from children import Child, hashes, resume, steps
from families import each_family, words_of

from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import CheckpointFolder
from aigc_cli.training.trainer import Trainer

ENDLESS = "trainer.steps=100000"


@each_family()
def test_sigterm_ends_the_step_saves_and_resumes_bit_for_bit(
    family: str, tmp_path: Path, whole: Callable[[str], Path]
) -> None:
    words = [*words_of(family, tmp_path), "trainer.checkpoint_every=1000"]
    stopped = tmp_path / "stopped"
    child = Child(["train", "run_dir=stopped", *words], tmp_path, functools.partial(_signal_at, signal.SIGTERM, 23))
    assert child.wait() == 143
    assert "stopped at step 24 of 60, saved in" in child.said
    assert "aigc train --resume" in child.said
    assert steps(stopped) == [24]
    assert Run(stopped).status() == "stopped"
    resume(stopped)
    assert hashes(stopped) == hashes(whole(family))


def _signal_at(number: int, *at: int) -> None:
    """Sends this process a signal in the middle of each of some steps."""
    train_step = Trainer.train_step

    def interrupted(self: Trainer, step: int) -> None:
        if step in at:
            os.kill(os.getpid(), number)
        train_step(self, step)

    Trainer.train_step = interrupted  # type: ignore[method-assign]


def test_sigusr1_saves_and_goes_on(tmp_path: Path, whole: Callable[[str], Path]) -> None:
    words = [*words_of("vae", tmp_path), "trainer.checkpoint_every=1000", "trainer.keep=9"]
    child = Child(["train", "run_dir=asked", *words], tmp_path, functools.partial(_signal_at, signal.SIGUSR1, 10, 20))
    assert child.wait() == 0, child.said
    assert steps(tmp_path / "asked") == [11, 21, 60]
    assert hashes(tmp_path / "asked") == hashes(whole("vae"))


def test_ctrl_c_saves_and_stops(tmp_path: Path) -> None:
    child = Child(["train", "run_dir=run", *words_of("vae", tmp_path), ENDLESS], tmp_path)
    child.wait_for(lambda: steps(tmp_path / "run"))
    child.send(signal.SIGINT)
    assert child.wait() == 130
    assert "Ctrl-C again stops at once" in child.said
    assert "Traceback" not in child.said


def _ctrl_c_twice_in_a_save(at: int) -> None:
    """Interrupts the save of step `at` until it ends, when its tensors are written and nothing is published yet."""
    publish = CheckpointFolder._publish

    def interrupted(self: CheckpointFolder, *paths: Any) -> None:
        if paths[1].name == f"step-{at}":
            while True:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)
        publish(self, *paths)

    CheckpointFolder._publish = interrupted  # type: ignore[method-assign]


def test_a_second_ctrl_c_stops_at_once_and_harms_nothing_that_is_saved(
    tmp_path: Path, whole: Callable[[str], Path]
) -> None:
    words, run = words_of("gan", tmp_path), tmp_path / "run"
    child = Child(["train", "run_dir=run", *words], tmp_path, functools.partial(_ctrl_c_twice_in_a_save, 21))
    assert child.wait() == 130
    assert steps(run) == [7, 14]
    assert [path.name for path in run.glob("checkpoints/.tmp*")] == [".tmp-step-21"]
    resume(run)
    assert not list(run.glob("checkpoints/.tmp*"))
    assert hashes(run) == hashes(whole("gan"))
