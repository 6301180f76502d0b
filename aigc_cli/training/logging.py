"""Figures of a run: added up on the device, read at a tick, kept in ``metrics.jsonl`` and drawn as ``curves.png``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aigc_cli.errors import NonFiniteError
from aigc_cli.files import replacing, resource_errors, write_atomically
from aigc_cli.runs import read_rows
from aigc_cli.training.settings import Sums


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
        """Reads whether all was finite so far.

        Raises:
            NonFiniteError: naming the first step and the terms that were not.
        """
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

    def read(self) -> dict[str, float]:
        """The means since the last reading, as ``<phase>/<term>``."""
        self.check()
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names, total in self._sums.items():
            for name, value in zip(names, total.tolist(), strict=True):
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + self._counts[names]
        self._sums.clear()
        self._counts.clear()
        self._first_bad.clear()
        return {name: value / counts[name] for name, value in sums.items()}

    def state(self) -> list[Sums]:
        """What has been added since the last reading, as plain data: a run that goes on begins its next row with it."""
        return [
            Sums(names=list(names), sums=total.tolist(), count=self._counts[names])
            for names, total in self._sums.items()
        ]

    def load(self, state: list[Sums], device: torch.device) -> None:
        """Takes what :meth:`state` gave.

        Raises:
            ValueError: it did not give this.
        """
        for part in state:
            names, sums = tuple(part.names), torch.tensor(part.sums, dtype=torch.float32, device=device)
            if sums.shape != (len(names),):
                raise ValueError("the state's tally has other sums than names")
            self._sums[names], self._counts[names] = sums, part.count
            self._first_bad[names] = torch.full_like(sums, math.inf)


class MetricLog:
    """``metrics.jsonl``, one row a line; rows beyond the step a run goes on from are dropped, so none doubles."""

    def __init__(self, path: Path, resume_step: int, tensorboard: Path | None = None) -> None:
        self.path = path
        kept = [row for row in read_rows(path) if row["step"] <= resume_step]
        with resource_errors(path):
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
            self._file = path.open("a")
        self._board = _open_board(tensorboard, resume_step) if tensorboard else None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a row."""
        row = {"step": step, **values}
        with resource_errors(self.path):
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def draw(self, path: Path, marks: Mapping[str, int] | None = None) -> None:
        """Draws the curves of all rows written, one panel for each term, with a line at the step of each mark."""
        with resource_errors(path):
            draw_curves(read_rows(self.path), path, marks)


def _open_board(folder: Path, resume_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=resume_step + 1)


#: Bookkeeping that is a figure but no curve.
_NOT_DRAWN = ("step", "epoch", "seconds")
_DRAWN_FIRST, _DRAWN_LAST = ("loss",), ("gradient_norm", "lr", "items_per_second")


def draw_curves(rows: list[dict[str, Any]], path: Path, marks: Mapping[str, int] | None = None) -> None:
    """Draws the rows' curves as a PNG: a panel for each term, its phases together, held-out values as dots.

    A thin line stands at the step of each mark, whose name the first panel shows.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels: dict[str, list[str]] = {}
    for row in rows:
        for key in row:
            if key not in _NOT_DRAWN and key not in panels.setdefault(_term(key), []):
                panels[_term(key)].append(key)
    if not panels:
        return
    panels = dict(sorted(panels.items(), key=_place))
    columns = min(3, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.2 * columns, 2.8 * lines), layout="constrained")
    for place, (term, keys) in enumerate(panels.items()):
        axes = figure.add_subplot(lines, columns, place + 1)
        for key in keys:
            points = [(row["step"], row[key]) for row in rows if key in row]
            axes.plot(*zip(*points, strict=True), label=key, marker="o" if len(points) < 20 else None, markersize=3)
        _draw_marks(axes, marks or {}, named=place == 0)
        axes.set_title(term, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if len(keys) > 1:
            axes.legend(fontsize=7)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=110)


def _draw_marks(axes: Any, marks: Mapping[str, int], *, named: bool) -> None:
    for name, step in marks.items():
        axes.axvline(step, color="firebrick", linewidth=0.8, linestyle="--")
        if named:
            at = {"xy": (step, 1), "xycoords": ("data", "axes fraction"), "xytext": (2, -3)}
            axes.annotate(name, **at, textcoords="offset points", rotation=90, va="top", fontsize=7, color="firebrick")


def _place(panel: tuple[str, list[str]]) -> tuple[bool, bool]:
    """The losses come first, what is the same for all models last, and the rest as it was first seen."""
    return panel[0] in _DRAWN_LAST, panel[0] not in _DRAWN_FIRST


def _term(key: str) -> str:
    return key.rsplit("/", 1)[-1]
