"""What is written of a run's scores as it trains: sums of losses, the rows of ``metrics.jsonl``, curves, warnings."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, TextIO

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as typed
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import NonFiniteError
from aigc_cli.files import replacing, resource_errors, write_atomically
from aigc_cli.models.base import Model
from aigc_cli.runs import Run, read_rows
from aigc_cli.training.loggers.base import Loggers

_WARNING = re.compile(r"step (\d+): ([^:]+): (.*)")
#: What is written of one that holds no more.
_PASSED = "it has passed, nothing need be changed"
#: How the names of scores begin that are of held-out data.
HELD_OUT = ("val/", "examine/held_out/")
#: The share by which such a score has risen that is no chance; and the training losses that are taken together.
_RISE, _AVERAGED = 0.02, 3
#: Bookkeeping that is in a row but is not a curve.
_NOT_DRAWN = ("step", "epoch", "seconds")
_DRAWN_FIRST, _DRAWN_LAST = ("loss",), ("gradient_norm", "lr", "items_per_second")


@typed(config=STRICT)
class Sums:
    """Values that were added up together, as ``state.json`` keeps them."""

    names: list[str]
    sums: list[float]
    count: Annotated[int, Field(ge=1)]


class Tally:
    """Adds up scalars on the device and remembers the first step at which one was not finite.

    Nothing is read from the device before :meth:`read` or :meth:`check`, so a step costs no synchronisation. The terms
    of a phase may differ from step to step: a lazy penalty is there on its turn alone.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._counts: dict[tuple[str, ...], int] = {}
        self._first_bad: dict[tuple[str, ...], Tensor] = {}

    def add(self, phase: str, step: int, terms: Mapping[str, Tensor]) -> None:
        """Adds the scalars of one phase."""
        names = tuple(f"{phase}/{term}" for term in terms)
        values = torch.stack([term.detach().float() for term in terms.values()])
        if names not in self._sums:
            self._sums[names] = torch.zeros_like(values)
            self._first_bad[names] = torch.full_like(values, math.inf)
            self._counts[names] = 0
        self._sums[names] += values
        self._counts[names] += 1
        bad = torch.where(torch.isfinite(values), math.inf, float(step))
        self._first_bad[names] = torch.minimum(self._first_bad[names], bad)

    def check(self) -> None:
        """Raises a :class:`NonFiniteError`, of the first step and its terms, where not all was finite so far."""
        bad: dict[float, list[str]] = {}
        for names, first in self._first_bad.items():
            for name, step in zip(names, first.tolist(), strict=True):
                bad.setdefault(step, []).append(name)
        bad.pop(math.inf, None)
        if bad:
            step = min(bad)
            raise NonFiniteError(
                f"step {int(step)}: {', '.join(bad[step])} is not finite; nothing was saved after the last checkpoint",
                "lower optimizer.lr, or set trainer.clip_grad_norm=1 or trainer.precision=fp32",
            )

    def read(self, *, keep: bool = False) -> dict[str, float]:
        """The means since the last reading, as ``<phase>/<term>``; with `keep` the next reading has them too."""
        self.check()
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names, total in self._sums.items():
            for name, value in zip(names, total.tolist(), strict=True):
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + self._counts[names]
        for kept in () if keep else (self._sums, self._counts, self._first_bad):
            kept.clear()
        return {name: value / counts[name] for name, value in sums.items()}

    def state(self) -> list[Sums]:
        """What has been added since the last reading: a resumed run begins its next row with it."""
        kept = self._sums.items()
        return [Sums(names=list(names), sums=total.tolist(), count=self._counts[names]) for names, total in kept]

    def load(self, state: list[Sums], device: torch.device) -> None:
        """Takes what :meth:`state` gave; a :class:`ValueError` where names and sums differ in number."""
        for part in state:
            names, sums = tuple(part.names), torch.tensor(part.sums, dtype=torch.float32, device=device)
            if sums.shape != (len(names),):
                raise ValueError("the state's tally has other sums than names")
            self._sums[names], self._counts[names] = sums, part.count
            self._first_bad[names] = torch.full_like(sums, math.inf)


class Journal:
    """Keeps ``metrics.jsonl``, ``curves.png`` and ``warnings.txt`` of a run that resumes from `step`.

    What they hold of later steps is dropped, since it will come again. Where another process does the writing
    (:attr:`Run.writes`), it only keeps the newest values.
    """

    def __init__(self, run: Run, step: int, loggers: Sequence[str] = ()) -> None:
        self.run, self.path = run, run.path
        #: The step of each warning's first time, by its name.
        self.warned: dict[str, int] = {}
        self._lines: list[str] = []  # of warnings.txt
        self._said: set[str] = set()
        self._passed: set[str] = set()  # those of warnings.txt that held no more
        self._held_out: list[tuple[int, float]] = []  # scores, by step
        self._validated = False  # whether they are those that the best checkpoint is kept by
        self._losses: list[tuple[int, float]] = []  # of training
        self._file: TextIO | None = None
        self._loggers: Loggers | None = None
        if run.writes:
            self._open(step, loggers)
        #: The last value of each curve.
        self.figures = run.figures()

    def _open(self, step: int, loggers: Sequence[str]) -> None:
        rows, warnings = self.path / "metrics.jsonl", self.path / "warnings.txt"
        written = read_rows(rows)
        kept = [row for row in written if row["step"] <= step]
        with resource_errors(rows):
            write_atomically(rows, "".join(json.dumps(row) + "\n" for row in kept))
            self._file = rows.open("a")
        for row in kept:
            self._note(row["step"], row)
        if warnings.is_file():
            lines = map(_WARNING.fullmatch, warnings.read_text(errors="replace").splitlines())
            found = [match for match in lines if match and int(match[1]) <= step]
            self.warned = {match[2]: int(match[1]) for match in reversed(found)}
            self._lines = [match[0] for match in found]
            self._passed = {name for name, line in {match[2]: match[3] for match in found}.items() if line == _PASSED}
            self._write_warnings()
        if loggers:
            self._loggers = Loggers(loggers, self.run, step, kept, max((row["step"] for row in written), default=0))

    def write(self, step: int, figures: Mapping[str, float], beside: Mapping[str, float] | None = None) -> None:
        """Adds a row of `figures` and of what is `beside` them: bookkeeping that nothing is judged by."""
        values = {**(beside or {}), **figures}
        self.figures.update(figures)
        self._note(step, figures)
        if self._file is not None:
            with resource_errors(self.path / "metrics.jsonl"):
                self._file.write(json.dumps({"step": step, **values}) + "\n")
                self._file.flush()
        if self._loggers is not None:
            self._loggers.scalars(step, values)

    def samples(self, step: int) -> None:
        """Hands the previews of a step on to the loggers."""
        if self._loggers is not None:
            self._loggers.samples(step)

    def _note(self, step: int, row: Mapping[str, Any]) -> None:
        """Keeps what :func:`overfitting` is seen by; samples of a GAN have no likelihood that could rise."""
        scores = [key for key in row if key.startswith(HELD_OUT) and not key.startswith("val/fd")]
        if scores and isinstance(value := row[scores[0]], float) and math.isfinite(value):
            self._held_out.append((step, value))
            self._validated = scores[0].startswith("val/")
        if isinstance(loss := row.get("main/loss"), float):
            self._losses.append((step, loss))

    def warn(self, step: int, model: Model, say: Callable[[str], None]) -> None:
        """Says what the model makes of the newest values, each warning once a process and once in ``warnings.txt``, and
        once of a collapse that it is over."""
        if self._file is None:
            return
        overfits = overfitting(self._held_out, self._losses, kept=self._validated)
        found = list(chain(model.warnings(self.figures), overfits))
        for name in [name for name in self.warned if name.endswith("collapse")]:
            if name not in self._passed and name not in dict(found):
                self._passed.add(name)
                self._said.discard(name)  # it may come back
                say(f"aigc: step {step}: {name}: {_PASSED}")
                self._lines.append(f"step {step}: {name}: {_PASSED}")
                self._write_warnings()
        for name, line in found:
            if name not in self._said:
                self._said.add(name)
                say(f"aigc: warning: step {step}: {line}")
            if name not in self.warned or name in self._passed:
                self._passed.discard(name)
                self.warned.setdefault(name, step)
                self._lines.append(f"step {step}: {name}: {line}")
                self._write_warnings()

    def _write_warnings(self) -> None:
        path = self.path / "warnings.txt"
        with resource_errors(path):
            write_atomically(path, "".join(f"{line}\n" for line in self._lines))

    def close(self) -> None:
        """Closes the files, and ends the run at the loggers as its status says."""
        if self._loggers is not None:
            self._loggers.close(self.run.recorded_status())
        if self._file is not None:
            self._file.close()

    def draw(self) -> None:
        """Draws the curves, with a line at the step of each warning."""
        if self._file is not None:
            path = self.path / "curves.png"
            with resource_errors(path):
                draw_curves(read_rows(self.path / "metrics.jsonl"), path, self.warned)


def overfitting(
    held_out: Sequence[tuple[int, float]], losses: Sequence[tuple[int, float]], *, kept: bool
) -> Iterator[tuple[str, str]]:
    """The warning of held-out scores, each with its step, that rise while training losses fall; `kept` says whether the
    best checkpoint is. A rise counts where it is there twice: scores of a few items move a little."""
    if not held_out:
        return
    best = min(held_out, key=lambda each: (each[1], each[0]))
    later = [value for step, value in held_out if step > best[0]]
    then = [loss for step, loss in losses if step <= best[0]][-_AVERAGED:]
    now = [loss for step, loss in losses if step > best[0]][-_AVERAGED:]
    rise = best[1] + _RISE * abs(best[1])
    if len(later) < 2 or min(later[-2:]) < rise or not then or not now or fmean(now) >= fmean(then):
        return
    keep = f"the best checkpoint, of step {best[0]}, is kept: `aigc sample step=best`"
    hint = keep if kept else f"train for {best[0]} steps, or set trainer.validate_every= to keep the best checkpoint"
    line = (
        f"the score of held-out data rose from {best[1]:.4g} at step {best[0]} to {later[-1]:.4g}, while the training "
        f"loss fell from {fmean(then):.4g} to {fmean(now):.4g}: the model learns its data by heart (overfitting); "
        f"{hint}. More data, more dropout or a smaller model put it off"
    )
    yield "overfitting", line


def draw_curves(rows: list[dict[str, Any]], path: Path, marks: Mapping[str, int] | None = None) -> None:
    """Draws the rows' curves as a PNG: a panel for each term, its phases together, held-out values as dots, and a cross
    above what is NaN or infinite.

    A thin line stands at the step of each mark, whose name the first panel shows.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for row in rows for key in row if key not in _NOT_DRAWN):
        panels.setdefault(key.rsplit("/", 1)[-1], []).append(key)
    if not panels:
        return
    columns = min(3, len(panels))
    lines = math.ceil(len(panels) / columns)
    width, height = 4.2 * columns, 2.8 * lines
    figure = Figure(figsize=(width, height))
    # Margins in inches: a layout that measures every label takes longer than all else that is drawn.
    sides = {"left": 0.7 / width, "right": 1 - 0.1 / width, "bottom": 0.45 / height, "top": 1 - 0.3 / height}
    figure.subplots_adjust(**sides, wspace=0.8 / 3.4, hspace=0.75 / 2.05)
    # The losses come first, what is the same for all models last, and the rest as it was first seen.
    terms = sorted(panels, key=lambda term: (term in _DRAWN_LAST, term not in _DRAWN_FIRST))
    for number, term in enumerate(terms):
        axes = figure.add_subplot(lines, columns, number + 1)
        for n, key in enumerate(panels[term]):
            points = [(row["step"], row[key]) for row in rows if key in row]
            [line] = axes.plot(
                *zip(*points, strict=True), label=key, marker="o" if len(points) < 20 else None, markersize=3
            )
            if lost := [step for step, value in points if not math.isfinite(value)]:
                at, colour = axes.get_xaxis_transform(), line.get_color()
                heights = [0.97 - 0.06 * (n % 8)] * len(lost)
                axes.plot(lost, heights, "x", color=colour, transform=at, label="NaN or infinite")
        _draw_marks(axes, marks or {}, named=number == 0)
        axes.set_title(term, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if len(axes.get_lines()) > 1 + len(marks or {}):
            axes.legend(fontsize=7)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=110)


def _draw_marks(axes: Any, marks: Mapping[str, int], *, named: bool) -> None:
    for name, step in marks.items():
        axes.axvline(step, color="firebrick", linewidth=0.8, linestyle="--")
        if named:
            at = {"xy": (step, 1), "xycoords": ("data", "axes fraction"), "xytext": (2, -3)}
            axes.annotate(name, **at, textcoords="offset points", rotation=90, va="top", fontsize=7, color="firebrick")
