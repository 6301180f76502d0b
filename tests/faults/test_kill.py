"""SIGKILL at random moments of a real training process, then ``--resume``: every tensor as if nothing had happened."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aigc_cli.files import checksum

WORDS = [
    "trainer.steps=90",
    "trainer.checkpoint_every=7",
    "trainer.keep=99",
    "trainer.sample_every=30",
    "trainer.log_every=5",
]
SMALL = ["model.width=8", "trainer.batch_size=16", "trainer.device=cpu", "trainer.threads=1"]


def aigc(*words, folder):
    return subprocess.Popen(
        [sys.executable, "-m", "aigc_cli", *words],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip


def train(folder, run, *words):
    process = aigc("train", *WORDS, *SMALL, f"run_dir={run}", *words, folder=folder)
    said = process.communicate()[0]
    assert process.returncode == 0, said


def hashes(run):
    return {path.name: checksum(path) for path in (run / "checkpoints" / "step-90").glob("*.safetensors")}


def wait_for_training(process, run, timeout=120):
    """Until it trains, with a checkpoint to go back to."""
    end = time.monotonic() + timeout
    known = set(run.glob("checkpoints/step-*"))
    while set(run.glob("checkpoints/step-*")) <= known:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "training did not start"
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_runs_end_where_the_uninterrupted_one_ends(tmp_path):
    train(tmp_path, "whole")
    expected = hashes(tmp_path / "whole")
    assert set(expected) == {"model.safetensors", "ema.safetensors", "optimizer.safetensors"}
    moments = random.Random(time.time_ns())
    run = tmp_path / "killed"
    killed = 0
    process = aigc("train", *WORDS, *SMALL, "run_dir=killed", folder=tmp_path)
    for _ in range(3):
        wait_for_training(process, run)
        time.sleep(moments.uniform(0.0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        process = aigc("train", "--resume", "killed", folder=tmp_path)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert killed >= 1, "no kill came before the end"
    assert re.search(r"resuming .* from step \d+", said) or "is complete" in said
    assert hashes(run) == expected
    lines = (run / "metrics.jsonl").read_text().splitlines()
    steps = [line.split(",")[0] for line in lines if "/loss" in line]
    assert len(steps) == len(set(steps)) == 18
    assert len([line for line in lines if '"examine/' in line]) == 1


def test_a_second_trainer_is_kept_out(tmp_path):
    process = aigc(
        "train", "trainer.steps=100000", "trainer.checkpoint_every=7", *SMALL, "run_dir=busy", folder=tmp_path
    )
    try:
        wait_for_training(process, tmp_path / "busy")
        second = aigc("train", "--resume", "busy", folder=tmp_path)
        said = second.communicate()[0]
        assert second.returncode == 2
        assert "is being trained by another process" in said
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[0]
        assert process.returncode == 143
        assert "aigc train --resume" in said
    finally:
        process.kill()
        process.wait()
