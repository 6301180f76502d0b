"""What people watch: a tqdm bar on a terminal, else a plain line now and then, both on stderr; and aligned tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, Self

from aigc_cli.errors import tell


class Progress:
    """Shows progress towards `total`, or without an end where that is None, from what was done before (`initial`).

    The unit "B" is shown in MB. `every` so many seconds there is a line where stderr is not a terminal.
    """

    def __init__(self, total: int | None, desc: str, unit: str, *, initial: int = 0, every: float = 10.0) -> None:
        self.total, self.desc, self.unit, self.every = total, desc, unit, every
        self.initial = self.count = initial
        self.notes: dict[str, str] = {}
        self._shown: dict[str, str] = {}
        self._began = self._told = time.monotonic()
        self._lines, self._last = 0, initial
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                desc=desc, total=total, initial=initial, unit=unit, unit_scale=unit == "B", file=sys.stderr,
                dynamic_ncols=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def advance(self, count: int = 1, **notes: str) -> None:
        """Counts `count` more; `notes`, such as ``loss="0.69"``, are shown beside the count from now on."""
        self.count += count
        self.notes.update(notes)
        if self._bar is not None:
            if self.notes != self._shown:
                self._shown = dict(self.notes)
                self._bar.set_postfix(self._shown, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._told >= self.every:
            self._tell()

    def expect(self, total: int) -> None:
        """Changes how many there will be, where that is only known as time goes by."""
        self.total = total
        if self._bar is not None:
            self._bar.total = total

    def write(self, line: str) -> None:
        """Writes a line to stderr, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            tell(line)

    def close(self) -> None:
        """Ends the bar; a log that saw lines sees how it ended."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif self._lines:
            if self.count != self._last:
                self._tell()
            self._lines = 0

    def _tell(self) -> None:
        self._told = time.monotonic()
        self._lines += 1
        self._last = self.count
        seconds = max(self._told - self._began, 1e-9)
        rate = (self.count - self.initial) / seconds
        parts = [f"{self._amount(self.count)}/{self._amount(self.total)}" if self.total else self._amount(self.count)]
        parts[0] += "" if self.unit == "B" else f" {self.unit}"
        parts.append(f"{self._amount(rate)}{'' if self.unit == 'B' else f' {self.unit}'}/s")
        if self.total and rate > 0 and self.count < self.total:
            parts.append(f"{clock((self.total - self.count) / rate)} left")
        elif self.total and self.count >= self.total:
            parts.append(f"done in {clock(seconds)}")
        parts += [f"{name} {value}" for name, value in self.notes.items()]
        tell(f"{self.desc}: {', '.join(parts)}")

    def _amount(self, count: float) -> str:
        if self.unit == "B":
            return f"{count / 1e6:,.1f} MB"
        return f"{count:,.0f}" if count >= 100 or count == int(count) else f"{count:.3g}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in aligned columns, a line each; a short row leaves its last columns empty."""
    columns = max(map(len, rows), default=0)
    # A line feed, or what moves a terminal's cursor, has no place in a cell.
    padded = [["".join(c if c.isprintable() else " " for c in cell) for cell in row] for row in rows]
    padded = [[*row, *[""] * (columns - len(row))] for row in padded]
    widths = [max(len(row[column]) for row in padded) for column in range(columns)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in padded]


def size(count: float) -> str:
    """Bytes as a person reads them: "45.1 MB", "1.2 GB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def clock(seconds: float) -> str:
    """A duration as a person reads it: "42 s", "3 min 05 s", "2 h 04 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
