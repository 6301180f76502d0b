"""The newest figures of a run, and all that is written of them: rows, curves, and what they warn of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from aigc_cli.files import resource_errors, write_atomically
from aigc_cli.models.base import Model
from aigc_cli.runs import Run
from aigc_cli.training.logging import MetricLog

_LINE = re.compile(r"step (\d+): ([^:]+): (.*)")


class Journal:
    """Keeps ``metrics.jsonl``, ``curves.png`` and ``warnings.txt`` of a run that goes on from `step`."""

    def __init__(self, run: Run, step: int, *, tensorboard: bool = False) -> None:
        self.run = run
        self.log = MetricLog(run.path / "metrics.jsonl", step, run.path / "tensorboard" if tensorboard else None)
        #: The last value of each curve.
        self.figures = run.figures()
        self.warned = WarningLog(run.path / "warnings.txt", step)
        self._said: set[str] = set()

    def write(self, step: int, figures: Mapping[str, float], beside: Mapping[str, float] | None = None) -> None:
        """Adds a row of `figures` and of what is `beside` them: bookkeeping that nothing is judged by."""
        self.log.write(step, {**(beside or {}), **figures})
        self.figures.update(figures)

    def warn(self, step: int, model: Model, say: Callable[[str], None]) -> None:
        """Says what the model makes of the newest figures, each warning once a process and once in ``warnings.txt``."""
        for name, line in model.warnings(self.figures):
            if name not in self._said:
                self._said.add(name)
                say(f"aigc: warning: step {step}: {line}")
            self.warned.add(step, name, line)

    def close(self) -> None:
        """Closes the files."""
        self.log.close()

    def draw(self) -> None:
        """Draws the curves."""
        self.log.draw(self.run.path / "curves.png", self.warned.steps)


class Silence(Journal):
    """The journal of a process that leaves the writing to another."""

    def __init__(self, run: Run, step: int, *, tensorboard: bool = False) -> None:
        self.figures = run.figures()

    def write(self, step: int, figures: Mapping[str, float], beside: Mapping[str, float] | None = None) -> None:
        """Keeps the newest figures."""
        self.figures.update(figures)

    def warn(self, step: int, model: Model, say: Callable[[str], None]) -> None:
        """Says nothing."""

    def close(self) -> None:
        """Nothing is open."""

    def draw(self) -> None:
        """Draws nothing."""


class WarningLog:
    """``warnings.txt``: each named warning once, with the step of its first time.

    What lies beyond the step that a run goes on from is dropped, since it will come again.
    """

    def __init__(self, path: Path, resume_step: int) -> None:
        self.path = path
        text = path.read_text(errors="replace") if path.is_file() else ""
        found = [match for match in map(_LINE.fullmatch, text.splitlines()) if match and int(match[1]) <= resume_step]
        #: The step of each warning by its name.
        self.steps = {match[2]: int(match[1]) for match in reversed(found)}
        self._lines = [match[0] for match in found]
        if text:
            self._write()

    def add(self, step: int, name: str, line: str) -> None:
        """Adds a warning unless it is there."""
        if name not in self.steps:
            self.steps[name] = step
            self._lines.append(f"step {step}: {name}: {line}")
            self._write()

    def _write(self) -> None:
        with resource_errors(self.path):
            write_atomically(self.path, "".join(f"{line}\n" for line in self._lines))
