"""Memory that runs out, is kept, and is given back."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
import torch

from aigc_cli.training.memory import is_out_of_memory, keep_freed_memory, release_freed_memory


def test_out_of_memory_in_whatever_words() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(RuntimeError("can't start new thread"))
    assert not is_out_of_memory(RuntimeError("a shape is wrong"))


def resident() -> int:
    """The pages of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc")
def test_what_tensors_freed_is_kept_until_it_is_released() -> None:
    keep_freed_memory()
    some = [torch.ones(1 << 24, dtype=torch.uint8) for _ in range(8)]
    pages = len(some) * some[0].numel() // os.sysconf("SC_PAGE_SIZE")
    some.clear()
    before = resident()
    release_freed_memory()
    assert before - resident() > pages // 2
