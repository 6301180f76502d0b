"""Many kills of one long run: SIGKILL at random moments, ``--resume`` each time, and the end beside a whole run's.

    python benchmarks/kill_many.py --kills 200
    python benchmarks/kill_many.py --kills 50 --family bert --seed 3

A line a kill says how far the run was, and which checkpoint it went on from. It ends with the number of tensors that
differ, and of checkpoints that were lost: those that were there at the kill, and were not what the run went on from.
The exit code is 1 if there is one of either.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "faults"))

from children import Child, hashes, steps, train
from families import FAMILIES, words_of

from aigc_cli.runs import Run, read_rows

STEPS_A_KILL = 60


def main() -> int:
    asked = _arguments()
    moments = random.Random(asked.seed)
    total = STEPS_A_KILL * asked.kills
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        run, whole = Path(folder, "killed"), Path(folder, "whole")
        words = [*words_of(asked.family, Path(folder)), f"trainer.steps={total}", "trainer.checkpoint_every=20"]
        began = time.monotonic()
        train(whole, *words)
        print(f"{asked.family}: {total} steps without a kill took {time.monotonic() - began:.1f} s", flush=True)
        killed, lost = kill(run, words, asked.kills, moments)
        expected, found = hashes(whole), hashes(run)
        differing = [name for name in expected if expected[name] != found.get(name)]
        rows = [row["step"] for row in read_rows(run / "metrics.jsonl")]
        twice = len(rows) - len(set(rows))
        print(f"status {Run(run).status()}, step {steps(run)[-1]} of {total}")
        print(
            f"{killed} kills: {len(differing)} of {len(expected)} files of tensors differ, {lost} checkpoints lost, "
            f"{twice} rows twice, {(time.monotonic() - began) / 60:.1f} minutes"
        )
        for name, value in expected.items():
            print(f"  {name}: {value[:16]} {'==' if name not in differing else '!='} {found.get(name, 'none')[:16]}")
    return int(bool(differing or lost or twice or killed < asked.kills))


def kill(run: Path, words: list[str], kills: int, moments: random.Random) -> tuple[int, int]:
    """Trains `run` to its end through `kills` kills; how many there were, and how many checkpoints they lost."""
    killed = lost = 0
    newest = 0
    child = Child(["train", f"run_dir={run.name}", *words], run.parent)
    while child.process.exitcode is None:
        if killed == kills:
            child.wait()
            break
        before = steps(run)
        child.wait_for(lambda: steps(run) != before)  # noqa: B023
        time.sleep(moments.uniform(0.0, 0.3))
        child.send(signal.SIGKILL)
        ended = child.wait()
        newest = (steps(run) or [0])[-1]
        if ended != -signal.SIGKILL:
            break
        killed += 1
        child = Child(["train", "--resume", str(run)], run.parent)
        child.wait_for(lambda: "from step" in child.said)  # noqa: B023
        match = re.search(r"from step (\d+)", child.said)
        went_on = int(match[1]) if match else -1
        lost += went_on != newest
        print(f"kill {killed}: newest checkpoint {newest}, went on from {went_on}", flush=True)
    assert child.wait() == 0, child.said
    return killed, lost


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--family", choices=FAMILIES, default="gan")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", help="where the runs lie meanwhile; a file system in memory is fastest")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
