"""The table that a sweep leaves: what writes it and what reads it share its columns."""

from __future__ import annotations

from typing import Final

TABLE: Final = "sweep.csv"
#: The columns on either side of its scores and curves.
BEFORE: Final = ("job", "overrides", "status", "run", "steps")
AFTER: Final = ("message",)
#: The status of jobs that came to their end, now or earlier.
DONE: Final = ("complete", "skipped")
