"""Where a run stands in time: how far it is, when it is looked at, and the seconds that each part of its work takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from aigc_cli.progress import clock
from aigc_cli.training.checkpoint import State
from aigc_cli.training.settings import TrainerConfig

#: Steps that also set things up (memory, kernels, compiled code), and the seconds after which that is over anyway.
WARM_UP, LONG = 3, 10.0
#: Seconds of steps, and how many of them, after which their rate is known; one will do where that takes so many times
#: as long.
MEASURED, FEWEST, SLOW = 5.0, 5, 3
#: A run by minutes saves after each of so many parts of them, and no sooner than after so many seconds.
PARTS, APART = 10, 60.0


class Pace:
    """The clock of one run in one process; what it says is agreed on by all before it decides anything.

    `until` ends a run that is only measured, in place of its steps or minutes.
    """

    def __init__(self, config: TrainerConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.until: Callable[[], bool] | None = None
        #: How often each part of the work came, and the seconds that it took in all; the first steps are apart.
        self.counts: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.planned = False
        self._began, self._before, self._looked, self._saved = time.monotonic(), 0.0, 0.0, 0.0

    def start(self, state: State) -> None:
        """Begins to count, after what the run was trained before."""
        self._began, self._before = time.monotonic(), state.seconds

    @property
    def trained(self) -> float:
        """The seconds that the run has been trained in all."""
        return self._before + time.monotonic() - self._began

    def progress(self, step: int) -> float:
        """The share of the run that is done after so many steps, by the clock where it trains for minutes."""
        minutes = self.config.minutes
        return step / self.config.steps if minutes is None else self.trained / (60 * minutes)

    def ended(self, step: int) -> bool:
        """Whether `step` is the last one."""
        return self.progress(step) >= 1 if self.until is None else self.until()

    def far(self, step: int) -> str:
        """How far that is, in words."""
        minutes = self.config.minutes
        if minutes is None:
            return f"at step {step} of {self.config.steps}"
        return f"at step {step}, after {clock(self.trained)} of {minutes:g} min"

    # looks by time

    def look_due(self) -> bool:
        """Whether it is time for a look where none comes by the number of steps: soon after the start, and then each
        time that this process has trained twice as long, so that slow steps do not pay for many."""
        first, now = self.config.first_look, time.monotonic() - self._began
        return first is not None and now >= max(first, 2 * self._looked)

    def looked(self) -> None:
        """Notes that the run has been looked at."""
        self._looked = time.monotonic() - self._began

    @property
    def saves_after(self) -> float:
        """The seconds after which a run by minutes saves, whatever its steps are; for other runs infinity."""
        minutes = self.config.minutes
        return math.inf if minutes is None else max(APART, 60 * minutes / PARTS)

    def save_due(self) -> bool:
        """Whether it is time for a checkpoint where none comes by the number of steps."""
        return time.monotonic() - self._began - self._saved >= self.saves_after

    # what things take

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the seconds of the context to those of a part of the work."""
        began = time.monotonic()
        yield
        if part == "save":
            self._saved = time.monotonic() - self._began
        if part == "step":
            if self.planned:
                return
            if self.device.type == "cuda":  # in the first seconds alone, whose steps are measured
                torch.cuda.synchronize(self.device)
            warm = self.counts.get("first steps", 0) >= WARM_UP or self.seconds.get("first steps", 0.0) >= LONG
            part = "step" if warm else "first steps"
        self.counts[part] = self.counts.get(part, 0) + 1
        self.seconds[part] = self.seconds.get(part, 0.0) + time.monotonic() - began

    def mean(self, part: str) -> float:
        """The seconds that a part of the work takes each time; 0 for one that has not come."""
        return self.seconds.get(part, 0.0) / max(1, self.counts.get(part, 0))

    def measured(self, seconds: float = MEASURED) -> bool:
        """Whether so many seconds of steps were measured, and a few steps."""
        count, taken = self.counts.get("step", 0), self.seconds.get("step", 0.0)
        return (count >= FEWEST and taken >= seconds) or taken >= SLOW * seconds
