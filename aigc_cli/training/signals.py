"""Signals that a training run answers: stop after the step, or save and continue."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from aigc_cli.errors import EXIT_INTERRUPTED


class Signals:
    """Within the context, SIGINT and SIGTERM ask for a stop after the current step, and SIGUSR1 for a checkpoint.

    A second SIGINT ends the process at once; a checkpoint being written is then left as a temporary folder, which the
    next start removes.
    """

    def __init__(self) -> None:
        self.stop: int | None = None
        self.save = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.save = True
            return
        if number == signal.SIGINT and self.stop == signal.SIGINT:
            os._exit(EXIT_INTERRUPTED)
        if self.stop is None and number == signal.SIGINT:
            print("\naigc: stopping after this step; Ctrl-C again stops at once", file=sys.stderr)
        self.stop = number
