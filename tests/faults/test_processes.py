"""Two processes that train together: killed and asked to stop, they end where others end."""

from __future__ import annotations

import functools
import os
import re
import signal
from pathlib import Path

from children import Child, hashes, steps

from aigc_cli.runs import Run, read_rows

STEPS = 200
WORDS = [
    "model=vae", "model.network=mlp", "model.hidden=16", "trainer.checkpoint_every=10", "trainer.log_every=20",
    "trainer.sample_every=null", "trainer.examine_every=null", "trainer.keep=999", "trainer.device=cpu",
    "trainer.devices=2", f"trainer.steps={STEPS}",
]  # fmt: skip


def forked() -> None:
    """Those that train are forked too, which spares them the seconds of importing torch."""
    from torch.distributed.launcher import api

    api.LaunchConfig = functools.partial(api.LaunchConfig, start_method="fork")  # type: ignore[misc, assignment]


def together(*words: str, folder: Path) -> Child:
    return Child(["train", *words], folder, forked)


def workers_of(child: Child) -> list[int]:
    """The processes that train, which the launcher has started; the main one first."""
    pid = child.process.pid
    return [int(worker) for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_checkpoint(child: Child, run: Path) -> None:
    """Until there is a checkpoint of a later step than now."""
    before = max(steps(run), default=0)
    child.wait_for(lambda: max(steps(run), default=0) > before)


def test_processes_that_are_killed_or_stopped_end_where_others_end(tmp_path: Path) -> None:
    whole = together(*WORDS, "run_dir=whole", folder=tmp_path)
    assert whole.wait() == 0, whole.said
    assert whole.said.count("model: ") == 1
    assert f"{STEPS} steps of 64 items on 2 processes" in whole.said

    run = tmp_path / "hurt"
    hurt = together(*WORDS, "trainer.restarts=1", "run_dir=hurt", folder=tmp_path)
    wait_for_checkpoint(hurt, run)
    os.kill(workers_of(hurt)[-1], signal.SIGKILL)
    hurt.wait_for(lambda: "starting again" in hurt.said)  # by itself
    wait_for_checkpoint(hurt, run)
    os.kill(workers_of(hurt)[0], signal.SIGKILL)  # and does so once
    assert hurt.wait() == 5, hurt.said
    assert hurt.said.count("was killed (SIGKILL)") == 2, hurt.said
    assert hurt.said.count("starting again from the last checkpoint") == 1
    assert hurt.said.count("resumes from step") == 1

    stopped = together("--resume", "hurt", folder=tmp_path)
    wait_for_checkpoint(stopped, run)
    os.kill(workers_of(stopped)[-1], signal.SIGTERM)
    assert stopped.wait() == 143, stopped.said
    found = re.search(rf"stopped at step (\d+) of {STEPS}", stopped.said)
    assert found is not None, stopped.said
    assert stopped.said.count("stopped at step") == 1
    assert max(steps(run)) == int(found[1]) == Run(run).step
    assert Run(run).status() == "stopped"

    ended = together("--resume", "hurt", folder=tmp_path)
    assert ended.wait() == 0, ended.said
    assert steps(run)[-1] == STEPS
    assert hashes(run) == hashes(tmp_path / "whole")
    assert len(hashes(run)) == 3
    rows = [row["step"] for row in read_rows(run / "metrics.jsonl") if "main/loss" in row]
    assert set(range(20, STEPS + 1, 20)) <= set(rows)
    assert len(rows) == len(set(rows))


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """They stop after the same step, and save."""
    run = tmp_path / "run"
    child = together(*WORDS, "trainer.steps=1000000", "trainer.keep=1", "run_dir=run", folder=tmp_path)
    wait_for_checkpoint(child, run)
    workers = workers_of(child)
    child.send(signal.SIGKILL)
    child.wait()
    child.wait_until(lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in workers))
    assert Run(run).status() == "stopped"
    assert steps(run)[-1] == Run(run).step
