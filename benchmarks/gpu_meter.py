"""Times a step on a GPU, and how long the GPU idles in it.

That is 1 - busy / step. A step is timed by the clock without a profiler; busy is the time in which at least one kernel
or copy ran, by torch.profiler's records of the device alone, over as many steps after that. A profiler slows what the
host does down, but not the kernels, which is why the clock does not count while it looks.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

TURNS = 3
_MARKS = "#"  # in the names of ranges that span kernels and the gaps between them, and of no kernel


class Meter:
    """Times turns: one to warm up, then :data:`TURNS` by the clock, then on a GPU one for the profiler."""

    def __init__(self, device: torch.device, steps: int) -> None:
        self.device, self.steps = device, steps
        self.times: list[float] = []
        self.busy: float | None = None  # seconds a step
        self._turn = -1
        self._profiler: Any = None
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self._start = time.perf_counter()

    def __call__(self) -> bool:
        """A turn is over; whether there is another."""
        self._wait()
        if self._profiler is not None:
            self._profiler.stop()
            spans = device_spans(self._profiler, torch.autograd.DeviceType.CUDA)
            self.busy = covered(spans) / 1e6 / self.steps
            return False
        if self._turn >= 0:
            self.times.append((time.perf_counter() - self._start) / self.steps)
        self._turn += 1
        if self._turn == TURNS:
            if self.device.type != "cuda":
                return False
            self._profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            self._profiler.start()
        self._wait()
        self._start = time.perf_counter()
        return True

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def figures(self, items: float) -> dict[str, float]:
        """Of steps with so many items each."""
        step = statistics.median(self.times)
        found = {"items_per_second": items / step, "ms_per_step": 1000 * step}
        if self.busy is not None:
            found |= {"idle": max(0.0, 1 - self.busy / step), "gpu_ms_per_step": 1000 * self.busy}
        if self.device.type == "cuda":
            found["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        return found


def device_spans(profiler: Any, kind: Any) -> list[tuple[float, float]]:
    """Beginning and end, in microseconds, of all that the profiler saw on a kind of device."""
    return [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == kind and not getattr(event, "is_user_annotation", False) and _MARKS not in event.name
    ]


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
