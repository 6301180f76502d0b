"""How the C library gives memory back."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Lets glibc keep what tensors free, for the next step's tensors; elsewhere nothing happens.

    By default every large tensor on the CPU is mapped afresh and its pages faulted in one by one, at each step again.
    """
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # musl has no mallopt
            mallopt = ctypes.CDLL(None).mallopt
            if not mallopt(_M_MMAP_THRESHOLD, 1 << 30):
                mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # the most that older versions take
            mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
