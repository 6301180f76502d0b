"""When the networks of a run are compiled by torch: always, never, or where the steps that are left pay for it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from aigc_cli.data.cache import cache_dir
from aigc_cli.errors import ConfigError, tell
from aigc_cli.files import read_json, write_json
from aigc_cli.models.base import Model
from aigc_cli.progress import clock
from aigc_cli.runs import Run
from aigc_cli.training.distributed import Processes
from aigc_cli.training.pace import WARM_UP, Pace
from aigc_cli.training.settings import TrainerConfig

#: Steps whose median is what a step takes.
TIMED = 10
#: Seconds that must be left of a run for compiling to be tried: it took 20 to 60 s where it was measured.
TRIED = 600.0
#: The share of a plain step that a compiled one must be below.
BETTER = 0.97


@dataclass(frozen=True)
class Known:
    """What was measured of a shape of step on this machine, in seconds: a step, a compiled one, and compiling it."""

    plain: float
    compiled: float
    cost: float

    def pays(self, left: float) -> bool:
        """Whether compiling spares more than it costs, with `left` seconds of plain steps to come."""
        return self.compiled < BETTER * self.plain and left * (1 - self.compiled / self.plain) > self.cost


class Compiler:
    """Compiles the networks of a run, or puts them back, between two steps, alike in all of its processes.

    Compiled code rounds differently. So the run keeps the steps at which it changed in ``compile.json``, and changes
    there again where it is resumed from before. What was measured stays in the cache, so that the next run of such
    steps knows at once.

    Raises:
        ConfigError: ``trainer.compile=true`` on a CPU without a C++ compiler.
    """

    def __init__(
        self, model: Model, config: TrainerConfig, device: torch.device, run: Run, processes: Processes, pace: Pace
    ) -> None:
        self.model, self.config, self.processes, self.pace = model, config, processes, pace
        self.file = run.path / "compile.json"
        self.auto = config.compile == "auto" and config.sharding == "none"
        if config.compile is True and not can_compile(device):
            what = "trainer.compile=true needs a C++ compiler on a CPU, and this machine has not got one"
            raise ConfigError(what, "install g++, or name yours in the variable CXX; or leave trainer.compile=false")
        self.decided = not self.auto or not can_compile(device)
        #: From which step on the run is compiled, or is not.
        self.turns: list[tuple[int, bool]] = [(0, True)] if config.compile is True else []
        self.compiled, self.known = False, None
        if not self.decided:
            self.turns, self.decided = processes.from_main(self._kept)
            self._cached = self._place(device)
            self.known = processes.from_main(self._remembered)
        self._times: list[float] = []  # of steps since the last change
        self._plain = 0.0
        self._last: float | None = None

    def before(self, step: int) -> None:
        """Called before each step, of which there have been `step`."""
        if not self.decided:
            self._look(step)
        on = next((on for at, on in reversed(self.turns) if at <= step), False)
        if on != self.compiled:
            self._switch(on)

    # whether it pays

    def _look(self, step: int) -> None:
        now = time.monotonic()
        if self._last is None:
            if self.known is not None and not self.turns:
                self._weigh(step, self.known, self.known.plain)
        else:
            self._times.append(now - self._last)
            if len(self._times) == WARM_UP + TIMED:
                self._judge(step)
        self._last = time.monotonic()

    def _judge(self, step: int) -> None:
        # The slowest process is what all wait for.
        took, first = self._agreed(median(self._times[WARM_UP:]), self._times[0])
        self._times = []
        if self.compiled:
            if not self._plain:
                self._decide(
                    step, True, None, "it was when the run was resumed, and what plain steps took is not known"
                )
                return
            known = Known(self._plain, took, max(0.0, first - took))
            self._remember(known)
            self._decide(step, took < BETTER * self._plain, known, f"compiling took {known.cost:.0f} s")
            return
        self._plain = took
        if self.known is not None:
            self._weigh(step, self.known, took)
        elif (left := self._left(step, took)) < TRIED:
            self._decide(step, False, None, f"it is not tried where {clock(left)} of steps are left")
        else:
            self._turn(step, True)

    def _left(self, step: int, took: float) -> float:
        """The seconds that are left of the run, if a step takes so long."""
        minutes = self.config.minutes
        left = took * (self.config.steps - step) if minutes is None else 60 * minutes - self.pace.trained
        return self._agreed(max(0.0, left))[0]

    def _weigh(self, step: int, known: Known, took: float) -> None:
        left = self._left(step, took)
        self._decide(step, known.pays(left), known, f"as in a run before, and {clock(left)} are left")

    def _decide(self, step: int, on: bool, known: Known | None, why: str) -> None:
        self.decided = True
        if known is not None:
            why = f"a step takes {1000 * known.compiled:.3g} ms so, and {1000 * known.plain:.3g} ms plain; {why}"
        if self.processes.main:
            tell(f"{'compiled' if on else 'not compiled'}: {why}")
        self._turn(step, on)

    def _turn(self, step: int, on: bool) -> None:
        if on != self.compiled:
            self.turns.append((step, on))
        if self.processes.main:
            write_json(self.file, {"turns": self.turns, "decided": self.decided})

    def _agreed(self, *seconds: float) -> list[float]:
        """The highest of each over all processes, to the microsecond."""
        return [found / 1e6 for found in self.processes.highest(*(round(1e6 * min(each, 1e9)) for each in seconds))]

    # what is known

    def _kept(self) -> tuple[list[tuple[int, bool]], bool]:
        with suppress(OSError, ValueError, TypeError, KeyError):
            kept = read_json(self.file)
            return [(int(step), bool(on)) for step, on in kept["turns"]], bool(kept["decided"])
        return [], False

    def _place(self, device: torch.device) -> Path:
        """The file of what is known of such steps."""
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
        settings = self.config
        shape: list[Any] = [str(self.model), settings.batch_size, settings.accumulate, settings.precision]
        shape += [settings.compile_mode, self.processes.world_size, name, torch.__version__]
        return cache_dir() / "compile" / f"{hashlib.sha256(json.dumps(shape).encode()).hexdigest()[:16]}.json"

    def _remembered(self) -> Known | None:
        with suppress(OSError, ValueError, TypeError):
            return Known(**{part: float(seconds) for part, seconds in dict(read_json(self._cached)).items()})
        return None

    def _remember(self, known: Known) -> None:
        if self.processes.main:
            with suppress(OSError):  # it is measured again
                self._cached.parent.mkdir(parents=True, exist_ok=True)
                write_json(self._cached, asdict(known))

    # how

    def _switch(self, on: bool) -> None:
        self.compiled = on
        if not on:
            for module in self.model.modules():
                module._compiled_call_impl = None
            return
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "inductor"))
        mode = self.config.compile_mode
        self.model.compile_networks(**({} if mode == "default" else {"mode": mode}))
        for module in self.model.modules():
            if (compiled := module._compiled_call_impl) is not None:
                module._compiled_call_impl = partial(_in_training, module, compiled)


def _in_training(module: nn.Module, compiled: Any, *args: Any, **kwargs: Any) -> Any:
    """A pass through a compiled module; without compiled code where it does not train, for sizes that come once."""
    return compiled(*args, **kwargs) if module.training else module._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]


def can_compile(device: torch.device) -> bool:
    """Whether there is what torch's compiler needs: on a CPU a compiler of C++."""
    names = (os.environ.get("CXX"), "g++", "clang++", "cl")
    return device.type != "cpu" or any(name and shutil.which(name) for name in names)
