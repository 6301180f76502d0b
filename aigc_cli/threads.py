"""How the threads of torch wait for one another: awake where the cores are theirs, asleep where others need them.

A waiting thread of libgomp, the OpenMP of torch's wheels, spins 300,000 times before it sleeps, unless told otherwise:
beside other programs it so keeps from a core the very thread that it waits for. Training is then twenty times as slow
as with threads that sleep at once, and those are 1.4 times as slow on idle cores (``benchmarks/busy.py``).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

#: As fast as 300,000 on idle cores, and three times as slow as none on busy ones: hence :func:`watch`.
SPINS = "10000"
_BUSY = 0.1  # the share of the time that our threads could run in which they wait for a core
_NAME = "aigc-watch"


def settle() -> None:
    """Has libgomp spin less, which it reads as torch loads it; what the user has set stands."""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS


def watch() -> None:
    """Has the threads of this process sleep at once while other programs need their cores; where the count is ours."""
    if os.environ.get("GOMP_SPINCOUNT") == SPINS and _NAME not in {each.name for each in threading.enumerate()}:
        threading.Thread(target=_watch, name=_NAME, daemon=True).start()


def _watch() -> None:
    before, crowd = _times(), None
    while True:
        time.sleep(1)
        now = _times()
        both = now.keys() & before.keys()
        ran, waited = (sum(now[thread][i] - before[thread][i] for thread in both) / 1e9 for i in (0, 1))
        before, busy = now, waited > _BUSY * (ran + waited)
        if ran + waited < 0.1:
            continue  # it idles, which says nothing
        if busy and crowd is None:
            crowd = _crowd()
        elif crowd is not None and not busy:
            crowd.set()
            crowd = None


def _times() -> dict[str, tuple[int, int]]:
    """For how many nanoseconds each thread has run, and waited for a core; none where the system does not say."""
    found = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError):  # it has ended meanwhile
            ran, waited, _ = path.read_text().split()
            found[path.parent.name] = int(ran), int(waited)
    return found


def _crowd() -> threading.Event | None:
    """Until the event is set libgomp has more threads than cores, and so spins a hundred times at most; the further
    ones sleep. None without libgomp, or with a single thread, which waits for nobody."""
    import ctypes

    try:
        alone = sys.modules["torch"].get_num_threads() == 1
        libgomp = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD)
        nothing = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p)  # any function of C would do
    except (KeyError, AttributeError, OSError):  # torch is not there, or not yet whole
        return None
    enough = threading.Event()

    def hold() -> None:  # the team lives as long as the thread
        libgomp.GOMP_parallel(nothing, None, (os.cpu_count() or 1) + 1, 0)
        enough.wait()

    if not alone:
        threading.Thread(target=hold, name=f"{_NAME}-team", daemon=True).start()
    return None if alone else enough
