"""What ``aigc`` and ``python -m aigc_cli`` run: a process of its own, which may be set up as one."""

import atexit
import os
import sys
from contextlib import suppress

from aigc_cli import threads
from aigc_cli.cli import main


def start() -> int:
    """Runs the command line of this process, and returns its exit code."""
    code: list[int] = []
    atexit.register(_leave, code)  # before all others, and so called after them
    threads.settle()
    threads.watch()
    code.append(main())
    return code[0]


def _leave(code: list[int]) -> None:
    """Ends the process as it is: to take down what torch has loaded costs half a second and 130 MB."""
    if not code:
        return  # an error is on its way
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code[0])


if __name__ == "__main__":
    sys.exit(start())
