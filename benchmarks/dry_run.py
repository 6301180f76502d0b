"""What ``aigc train --dry-run`` says that a run takes, beside what the run then takes: time and memory, as ratios.

    OMP_NUM_THREADS=1 python benchmarks/dry_run.py [NAME ...] [--wall]

Six configurations of own data and of digits, a minute or two each. Time is processor time, in the plan and in the run
alike, since other programs would take their share of the wall's; with ``--wall``, on a quiet machine, it is that. A run
is planned before and after it is done. The bar: time within 30 %, memory within 20 %.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

TEXT = "the river runs a small boat drifts old walls fall nobody answers we count days light comes back"
SHORT = ["trainer.device=cpu", "trainer.log_every=20"]
CASES = {
    "gan": ["model=gan", "data=digits", "trainer.steps=600"],
    "vae": ["model=vae", "data=image_folder", "data.root=pictures", "data.size=32", "trainer.steps=200",
            "trainer.batch_size=32", "trainer.validate_every=100"],
    "transformer": ["model=transformer", "data=text", "data.root=text.txt", "data.tokenizer.kind=char",
                    "data.context=96", "trainer.steps=150", "trainer.batch_size=16", "trainer.validate_every=75"],
    "bert": ["model=bert", "data=text", "data.root=text.txt", "data.tokenizer.kind=char", "data.context=64",
             "trainer.steps=200", "trainer.batch_size=16"],
    "seq2seq": ["model=seq2seq", "data=pairs", "data.root=pairs.tsv", "data.source=en", "data.target=de",
                "data.tokenizer.kind=char", "trainer.steps=150", "trainer.batch_size=32"],
    "hvae": ["model=hvae", "data=digits", "trainer.steps=150", "trainer.batch_size=32", "trainer.validate_every=75"],
}  # fmt: skip


def write_data() -> None:
    """``pictures/``, ``text.txt`` and ``pairs.tsv`` in the current folder."""
    import numpy as np
    from PIL import Image

    draws = np.random.default_rng(0)
    Path("pictures").mkdir()
    for number in range(600):
        coarse = draws.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC).save(f"pictures/{number}.png")
    lines = [" ".join(draws.choice(TEXT.split(), draws.integers(4, 12))) for _ in range(4000)]
    Path("text.txt").write_text("\n".join(lines))
    pairs = [f"{line}\t{' '.join(word[::-1] for word in line.split())}" for line in lines]
    Path("pairs.tsv").write_text("\n".join(["en\tde", *pairs]) + "\n")


def child(words: list[str], *, wall: bool) -> None:
    """One command line in this process, with processor time for the clock that training goes by; what it took goes to
    ``taken.json``."""
    from aigc_cli import cli
    from aigc_cli.commands import dry_run
    from aigc_cli.training import pace
    from aigc_cli.training.memory import peak_memory

    clock = time.monotonic if wall else time.process_time
    if not wall:
        for module in (pace, dry_run, cli):
            module.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[attr-defined]
    began = clock()  # this child has imported torch already, which neither a plan nor its run is to count
    code = cli.main(words)
    import torch

    taken = {"seconds": clock() - began, "memory": peak_memory(torch.device("cpu"))}
    Path("taken.json").write_text(json.dumps(taken))
    sys.exit(code)


def call(words: list[str], *flags: str) -> str:
    """What a child prints."""
    line = [sys.executable, str(Path(__file__).resolve()), "--child", *flags, *words]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def main() -> None:
    """Prints a line for each case, and ends with 1 if one is off."""
    if "--child" in sys.argv:
        child([word for word in sys.argv[2:] if word != "--wall"], wall="--wall" in sys.argv)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[*CASES])
    parser.add_argument("--wall", action="store_true")
    chosen = parser.parse_args()
    flags = ["--wall"] if chosen.wall else []
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    off = False
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["AIGC_CACHE"] = str(Path(folder, "cache"))
        write_data()
        print(f"{'':<13}{'plan':>8}{'run':>8}{'time':>7}{'plan':>9}{'run':>9}{'memory':>8}")
        for name in chosen.names:
            words = ["train", *SHORT, *CASES[name]]
            plans = [json.loads(call([*words, "--dry-run", "--json"], *flags))]
            call(words, *flags)
            taken = json.loads(Path("taken.json").read_text())
            plans.append(json.loads(call([*words, "--dry-run", "--json"], *flags)))
            seconds, memory = (sum(plan[key] for plan in plans) / len(plans) for key in ("seconds", "memory"))
            ratios = seconds / taken["seconds"], memory / taken["memory"]
            off |= abs(ratios[0] - 1) > 0.3 or abs(ratios[1] - 1) > 0.2
            print(
                f"{name:<13}{seconds:>6.1f} s{taken['seconds']:>6.1f} s{ratios[0]:>7.2f}"
                f"{memory / 1e6:>6.0f} MB{taken['memory'] / 1e6:>6.0f} MB{ratios[1]:>8.2f}",
                flush=True,
            )
    raise SystemExit(int(off))


if __name__ == "__main__":
    main()
