"""Signals that a training run answers: stop after the step, or save and continue."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from aigc_cli.errors import EXIT_INTERRUPTED, AigcError, GivenUp, Interrupted, Terminated, tell
from aigc_cli.runs import Run

#: In place of a signal: what a search asks for.
GIVEN_UP = -1
_WATCH, _AGAIN = "parent", 5.0  # seconds
_ANSWERED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def stopped_by(number: int, far: str, run: Run) -> AigcError:
    """What a run that was saved, so `far`, ends with at a signal, or where a search gave it up."""
    if number == GIVEN_UP:
        return GivenUp(f"given up {far}, as others have better scores there")
    kind = {signal.SIGINT: Interrupted, signal.SIGTERM: Terminated}[signal.Signals(number)]
    return kind(f"stopped {far}, saved in {run.path}", f"resume with `aigc train --resume {run.word}`")


class Signals:
    """What a training run is asked for while it runs: SIGINT and SIGTERM to stop after the step, SIGUSR1 to save.

    A second SIGINT ends the process at once; a checkpoint being written is then left as a temporary folder, which the
    next start removes.
    """

    def __init__(self) -> None:
        self.stop: int | None = None
        self.save = False

    def handle(self, number: int, _: FrameType | None) -> None:
        """Notes what a signal asks for."""
        if number == signal.SIGUSR1:
            self.save = True
            return
        if number == signal.SIGINT and self.stop == signal.SIGINT:
            os._exit(EXIT_INTERRUPTED)
        if self.stop is None and number == signal.SIGINT:
            tell("\naigc: stopping after this step; Ctrl-C again stops at once")
        self.stop = number


def end_with_parent(first: float = 0.0) -> None:
    """Has this process stop as at SIGTERM so many seconds after the one that started it is gone, however that ended: it
    would else train on, while the same command starts the same again."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        time.sleep(first)
        while True:  # the first has a run saved, and the next one ends what waits for work then
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_AGAIN)

    if not any(thread.name == _WATCH for thread in threading.enumerate()):
        threading.Thread(target=watch, name=_WATCH, daemon=True).start()


@contextmanager
def signals_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within the context a handler gets SIGINT, SIGTERM and SIGUSR1; in a thread, which can have none, it does not."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _ANSWERED}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)
