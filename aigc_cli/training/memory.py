"""Memory: how it is kept and given back, and how it is seen to have run out."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

#: What a plain RuntimeError says where the CPU's allocator has no more, or where oneDNN's kernels or a thread get none.
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "could not create a primitive", "can't start new thread")
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


def release_freed_memory() -> None:
    """Gives the system, and a GPU, what is free: not all that a step needs comes out of what tensors freed.

    oneDNN maps the kernels that it compiles, for which a process of limited address space would have no room.
    """
    gc.collect()  # cycles may hold tensors
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has had: of a GPU what its tensors took, else of the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):  # getrusage's peak may be that of the process that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, a GPU's or the machine's."""
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or any(words in str(error) for words in _OUT_OF_MEMORY)
