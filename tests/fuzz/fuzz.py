"""Broken and hostile input of every kind, a minute of each: no command may end in a traceback (exit 1).

    python tests/fuzz/fuzz.py
    python tests/fuzz/fuzz.py --target weights --seconds 600 --seed 7

A target draws damage with Hypothesis, does it to a copy of a small run or to files of data, and types commands that
read them. The first input that ends in anything but an exit code of the contract is made as small as it gets and
shown, with what was said; the exit code is then 1. A line a target tells how many commands were typed, which codes they
ended in, and how many took longer than `--patience` and were cut off.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from targets import TARGETS, Target, prepare

from aigc_cli.cli import main as aigc
from aigc_cli.training.journal import Journal

CONTRACT = {0, 2, 3, 4, 5}
MEMORY = 6 << 30  # of address space, beyond what a process has at its start
AT_ONCE = 50  # inputs between two looks at the clock


class TooSlow(BaseException):
    """A command that is not done; no error of ours, so that nothing on the way catches it."""


class Bug(Exception):
    """A command that ended as none may."""


def main() -> int:
    asked = _arguments()
    torch.set_num_threads(1)
    Journal.draw = lambda _: None  # type: ignore[method-assign]  # most of the time of so short a run
    signal.signal(signal.SIGALRM, _too_slow)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(AIGC_CACHE=f"{home}/cache", XDG_CONFIG_HOME=f"{home}/config")
        pristine = Path(home, "pristine")
        pristine.mkdir()
        with inside(pristine):
            prepare(typed)
        names = asked.target or list(TARGETS)
        failed = [name for name in names if not fuzz(name, TARGETS[name], pristine, asked)]
    return int(bool(failed))


def fuzz(name: str, target: Target, pristine: Path, asked: argparse.Namespace) -> bool:
    """Tries inputs until the time is up; whether all of them ended well."""
    codes: Counter[str] = Counter()
    end = time.monotonic() + asked.seconds
    rounds = 0

    def attempt(data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            here = Path(folder, "here")
            shutil.copytree(pristine, here, symlinks=True)
            with inside(here):
                for words in target(here, data.draw):
                    codes[judged(words, asked.patience)] += 1

    while time.monotonic() < end:
        test = given(st.data())(attempt)
        test = settings(
            max_examples=AT_ONCE, deadline=None, database=None, suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink], report_multiple_bugs=False, print_blob=False,
        )(test)  # fmt: skip
        try:
            seeded(f"{asked.seed} {name} {rounds}")(test)()
        except Bug as bug:
            print(f"{name}: after {codes.total()} commands\n{bug}", flush=True)
            return False
        rounds += 1
    told = ", ".join(f"{code} {count} times" for code, count in sorted(codes.items()))
    print(f"{name}: {codes.total()} commands in {asked.seconds:g} s; {told}", flush=True)
    return True


def judged(words: Sequence[str], patience: int) -> str:
    """How a command ended, in words.

    Raises:
        Bug: it ended in no way that the contract knows.
    """
    signal.alarm(patience)
    try:
        code, said = typed(words)
    except TooSlow:
        return "cut off"
    except BaseException as error:
        raise Bug(f"{words} raised {type(error).__name__}: {error}") from error
    finally:
        signal.alarm(0)
    if code not in CONTRACT or "Traceback (most recent call last)" in said:
        raise Bug(f"{words} ended in exit {code} and said\n{said[-4000:]}")
    return f"exit {code}"


def typed(words: Sequence[str]) -> tuple[int, str]:
    """The exit code of a command line, and what it said."""
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="replace", write_through=True)
    with redirect_stdout(said), redirect_stderr(said):
        code = aigc(list(words))
    said.flush()
    return code, said.buffer.getvalue().decode(errors="replace")  # type: ignore[attr-defined]


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Makes a folder the current one."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _too_slow(*_: object) -> None:
    raise TooSlow


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", choices=TARGETS, help="which, once for each; all by default")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--patience", type=int, default=20, help="seconds that a command may take")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
