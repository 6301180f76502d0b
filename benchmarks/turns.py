"""Contestants that take turns at their training steps, each in a process of its own, and the ratios of their times."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from aigc_cli.data.loader import Loader
from aigc_cli.models.base import Model
from aigc_cli.runs import Run
from aigc_cli.training.build import check_config
from aigc_cli.training.settings import Hooks
from aigc_cli.training.trainer import Trainer

#: Does so many steps.
Turn = Callable[[int], None]
#: Tells that a turn is over and waits for the next; False is the end.
Report = Callable[[], bool]
#: Builds a contestant of the options, and lets it take turns.
Contestant = Callable[[argparse.Namespace, Report], None]
#: Words for a training without an end, checkpoints or looks at held-out data.
ENDLESS = ["trainer.steps=1000000000", "trainer.checkpoint_every=1000000000", "trainer.examine_every=null"]


def parser(description: str | None, *, steps: int, turns: int) -> argparse.ArgumentParser:
    """The options that every benchmark of steps has."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=steps, help="steps in a turn")
    options.add_argument("--turns", type=int, default=turns)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--cpu-time", action="store_true", help="count the processor's time, where others use it too")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("words", nargs="*", help="further key=value words, such as model.width=32")
    return options


def repeat(turn: Turn, steps: int, report: Report) -> None:
    """Turns of a contestant that is a function."""
    turn(steps)
    while report():
        turn(steps)


class Enough(Exception):
    """Ends a training that has no end of its own."""


def train(config: dict[str, Any], model: Model, loader: Loader, device: torch.device, report: Report) -> None:
    """All that ``aigc train`` does in a step; the place where samples are drawn reports a turn and waits for the next.

    `config` is composed with :data:`ENDLESS`, and with ``trainer.sample_every`` as the steps in a turn.
    """

    def pause(step: int) -> None:
        if not report():
            raise Enough

    checked = check_config(config)
    with tempfile.TemporaryDirectory() as folder, suppress(Enough):
        run = Run(Path(folder) / "run")
        run.path.mkdir()
        trainer = Trainer(
            model=model, loader=loader, optimizer=checked.optimizer, config=checked.trainer, seed=0, run=run,
            device=device,
        )  # fmt: skip
        trainer.fit(Hooks(preview=pause))


def measure(contestants: Mapping[str, Contestant], options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds a step in each turn of each contestant, after a turn to warm up."""
    taken = take_turns(contestants, options)
    return {
        role: [each.processor if options.cpu_time else each.clock for each in turns] for role, turns in taken.items()
    }


class Took(NamedTuple):
    """Seconds that a step took."""

    clock: float
    processor: float


def take_turns(
    contestants: Mapping[str, Contestant],
    options: argparse.Namespace,
    environments: Mapping[str, Mapping[str, str]] | None = None,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, list[Took]]:
    """What a step took in each turn of each contestant, after a turn to warm up.

    `environments` are variables that a contestant's process begins with, and `around` is entered for the turns.
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for role, contestant in contestants.items():
        pipes[role], far = context.Pipe()
        with patch.dict(os.environ, (environments or {}).get(role, {})):
            context.Process(target=_worker, args=(contestant, options, far)).start()
        far.close()  # else a contestant that fails would be waited for
        pipes[role].recv()
    taken: dict[str, list[Took]] = {role: [] for role in pipes}
    with around():
        for _ in range(options.turns):
            for role, pipe in pipes.items():
                pipe.send(True)
                taken[role].append(Took(*(seconds / options.steps for seconds in pipe.recv())))
    for pipe in pipes.values():
        pipe.send(False)
    return taken


def _worker(contestant: Contestant, options: argparse.Namespace, pipe: Connection) -> None:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    clocks = time.perf_counter, time.process_time

    def report() -> bool:
        nonlocal start
        if torch.device(options.device).type == "cuda":
            torch.cuda.synchronize()
        pipe.send([clock() - began for clock, began in zip(clocks, start, strict=True)])
        more = bool(pipe.recv())
        start = [clock() for clock in clocks]
        return more

    start = [clock() for clock in clocks]
    contestant(options, report)


def show(times: Mapping[str, list[float]], items: int) -> None:
    """Prints the median time of a step of so many `items`, and how the contestants compare, turn by turn."""
    for role, measured in times.items():
        median = statistics.median(measured)
        print(f"{role:8} {1000 * median:8.1f} ms a step (median), {items / median:8.0f} items/s")
    for left, right, meaning in (("plain", "trainer", "speed-up"), ("trainer", "bare", "cost of the loop")):
        ratios = [a / b for a, b in zip(times[left], times[right], strict=True)]
        best = min(times[left]) / min(times[right])
        around = f"{min(ratios):.3f} to {max(ratios):.3f}, {best:.3f} of the best turns"
        print(f"{left}/{right}: {statistics.median(ratios):.3f} ({meaning}; {around})")
