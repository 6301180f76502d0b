"""Threads that wait: what the entry point sets, whose word counts, and what happens on busy cores."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from aigc_cli import threads

STARTED = (
    "import os, sys, threading\nfrom aigc_cli import __main__ as entry\nsys.argv = ['aigc', '--version']\n"
    "entry.start()\nassert 'torch' not in sys.modules\n"
    "print(os.environ.get('GOMP_SPINCOUNT'), *sorted(each.name for each in threading.enumerate()))\n"
)
IMPORTED = "import os, aigc_cli, aigc_cli.cli, aigc_cli.api\nprint(os.environ.get('GOMP_SPINCOUNT'))\n"


def said(script: str, **own: str) -> str:
    """The last line that a script prints in a process whose environment says nothing of threads but its `own`."""
    names = ("OMP_", "GOMP_", "KMP_", "MKL_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment | own)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_the_entry_point_has_threads_sleep_soon_and_watches_over_them() -> None:
    assert said(STARTED) == f"{threads.SPINS} MainThread aigc-watch"


@pytest.mark.parametrize(("own", "left"), [({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")])
def test_what_a_user_has_set_stands(own: dict[str, str], left: str) -> None:
    assert said(STARTED, **own) == f"{left} MainThread"


def test_nothing_is_set_where_it_is_imported() -> None:
    assert said(IMPORTED) == "None"


def test_a_process_ends_with_its_exit_code_and_all_that_it_has_printed() -> None:
    done = subprocess.run([sys.executable, "-m", "aigc_cli", "ls", "modles"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "modles" in done.stderr


def test_threads_sleep_while_others_need_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [(0, 0), (1, 0), (1.5, 0.5), (2, 1), (2.01, 1.01), (3, 1)]  # idle, busy, busy, without work, idle
    times: Iterator[tuple[float, float]] = iter(seconds)
    held: list[threading.Event] = []

    def crowd() -> threading.Event:
        held.append(threading.Event())
        return held[-1]

    states: list[list[bool]] = []
    monkeypatch.setattr(threads, "_times", lambda: {"1": tuple(int(each * 1e9) for each in next(times))})
    monkeypatch.setattr(threads, "_crowd", crowd)
    monkeypatch.setattr(threads.time, "sleep", lambda _: states.append([each.is_set() for each in held]))
    with pytest.raises(StopIteration):
        threads._watch()
    assert states == [[], [], [False], [False], [False], [True]]


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is what torch brings on Linux")
def test_further_threads_are_there_until_they_are_let_go() -> None:
    script = (
        "import os, time, torch\nfrom aigc_cli import threads\n"
        "def count(): return len(os.listdir('/proc/self/task'))\n"
        "def until(wanted):\n    while not wanted(): time.sleep(0.01)\n"
        "before = count()\nenough = threads._crowd()\nuntil(lambda: count() > before + os.cpu_count())\n"
        "enough.set()\nuntil(lambda: count() == before)\ntorch.set_num_threads(1)\nprint(threads._crowd())\n"
    )
    assert said(script, OMP_NUM_THREADS="2") == "None"
