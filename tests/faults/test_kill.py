"""SIGKILL at random moments of a real training process, then ``--resume``: every tensor as if nothing had happened."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from children import Child, hashes, resume, steps, train
from families import STEPS, each_family, words_of

from aigc_cli.runs import read_rows


def kill_at_random(run: Path, words: list[str], kills: int, moments: random.Random) -> int:
    """Trains `run` to its end, killed `kills` times at random moments and resumed each time; the kills that struck."""
    struck = 0
    child = Child(["train", f"run_dir={run.name}", *words], run.parent)
    for _ in range(kills):
        struck += _kill(child, run, moments)
        child = Child(["train", "--resume", str(run)], run.parent)
    assert child.wait() == 0, child.said
    return struck


def _kill(child: Child, run: Path, moments: random.Random) -> bool:
    before = steps(run)
    child.wait_for(lambda: steps(run) != before)  # so that it trains, and there is something to lose
    time.sleep(moments.uniform(0.0, 0.1))
    child.send(signal.SIGKILL)
    return child.wait() == -signal.SIGKILL


@each_family()
def test_a_killed_run_ends_where_the_uninterrupted_one_ends(
    family: str, tmp_path: Path, kills: int, whole: Callable[[str], Path]
) -> None:
    killed = tmp_path / "killed"
    seed = time.time_ns()
    struck = kill_at_random(killed, words_of(family, tmp_path), kills, random.Random(seed))
    assert struck, "no kill came before the end"
    assert set(hashes(killed)) == {"model.safetensors", "ema.safetensors", "optimizer.safetensors"}
    assert hashes(killed) == hashes(whole(family)), f"seed {seed}, {struck} kills"
    assert _figures(killed) == _figures(whole(family))


def _figures(run: Path) -> list[dict[str, float]]:
    """The rows of figures, but for what is measured in seconds."""
    rows = read_rows(run / "metrics.jsonl")
    return [{key: value for key, value in row.items() if "second" not in key} for row in rows]


def test_the_last_row_may_be_torn(tmp_path: Path, whole: Callable[[str], Path]) -> None:
    torn = tmp_path / "torn"
    train(torn, *words_of("vae", tmp_path), "trainer.steps=31")
    log = torn / "metrics.jsonl"
    log.write_bytes(log.read_bytes() + b'{"step": 35, "main/lo')
    config = torn / "config.yaml"
    config.write_text(config.read_text().replace("steps: 31", f"steps: {STEPS}"))
    resume(torn)
    assert _figures(torn)[-5:] == _figures(whole("vae"))[-5:]
    assert all(json.loads(line) for line in log.read_text().splitlines())


def test_a_lock_that_a_kill_left_is_recovered_and_a_second_trainer_is_kept_out(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = words_of("gan", tmp_path)
    first = Child(["train", "run_dir=run", *words, "trainer.steps=100000"], tmp_path)
    first.wait_for(lambda: steps(run))
    second = Child(["train", "--resume", "run"], tmp_path)
    assert second.wait() == 2
    assert "is being trained by another process" in second.said
    assert f"process {first.process.pid}" in second.said
    first.send(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert (run / "lock").read_text().startswith(f"process {first.process.pid}")
    before = steps(run)[-1]
    third = Child(["train", "--resume", "run"], tmp_path)
    third.wait_for(lambda: steps(run)[-1] > before)
    third.send(signal.SIGTERM)
    assert third.wait() == 143
