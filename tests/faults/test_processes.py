"""Two real processes that train together: killed and asked to stop, they end where others end."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aigc_cli.files import checksum
from aigc_cli.runs import Run, read_rows

WORDS = ["model=vae", "model.network=mlp", "model.hidden=16", "trainer.checkpoint_every=20", "trainer.log_every=20",
         "trainer.sample_every=null", "trainer.examine_every=null", "trainer.keep=999", "trainer.device=cpu",
         "trainer.devices=2", "trainer.steps=400"]  # fmt: skip


def aigc(*words, folder):
    return subprocess.Popen(
        [sys.executable, "-m", "aigc_cli", "train", *words],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip


def workers_of(process):
    """The processes that train, which the launcher has started; the main one first."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def wait_for_checkpoint(process, run, beyond, timeout=300):
    """Until there is a checkpoint of a step that comes after `beyond`."""
    end = time.monotonic() + timeout
    while max(steps_of(run), default=0) <= beyond:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "training did not get on"
        time.sleep(0.01)


def steps_of(run):
    return [int(path.name.removeprefix("step-")) for path in run.glob("checkpoints/step-*")]


def hashes(run):
    return {path.name: checksum(path) for path in (run / "checkpoints" / "step-400").glob("*.safetensors")}


@pytest.mark.slow
def test_processes_that_are_killed_or_stopped_end_where_others_end(tmp_path):
    whole = aigc(*WORDS, "run_dir=whole", folder=tmp_path)
    said = whole.communicate()[0]
    assert whole.returncode == 0, said
    assert said.count("model: ") == 1
    assert "400 steps of 64 items on 2 processes" in said

    run = tmp_path / "hurt"
    hurt = aigc(*WORDS, "trainer.restarts=1", "run_dir=hurt", folder=tmp_path)
    wait_for_checkpoint(hurt, run, 0)
    os.kill(workers_of(hurt)[-1], signal.SIGKILL)
    wait_for_checkpoint(hurt, run, max(steps_of(run)))  # it has started again by itself
    os.kill(workers_of(hurt)[0], signal.SIGKILL)  # and does so once
    said = hurt.communicate(timeout=60)[0]
    assert hurt.returncode == 5, said
    assert said.count("was killed (SIGKILL)") == 2
    assert said.count("starting again from the last checkpoint") == 1
    assert said.count("resuming") == 1

    stopped = aigc("--resume", "hurt", folder=tmp_path)
    wait_for_checkpoint(stopped, run, max(steps_of(run)))
    os.kill(workers_of(stopped)[-1], signal.SIGTERM)
    said = stopped.communicate(timeout=60)[0]
    assert stopped.returncode == 143, said
    step = int(re.search(r"stopped at step (\d+) of 400", said)[1])
    assert said.count("stopped at step") == 1
    assert max(steps_of(run)) == step == Run(run).step
    assert Run(run).status() == "stopped"

    ended = aigc("--resume", "hurt", folder=tmp_path)
    said = ended.communicate()[0]
    assert ended.returncode == 0, said
    assert hashes(run) == hashes(tmp_path / "whole")
    assert len(hashes(run)) == 3
    rows = [row["step"] for row in read_rows(run / "metrics.jsonl") if "main/loss" in row]
    assert set(range(20, 401, 20)) <= set(rows)
    assert len(rows) == len(set(rows))
