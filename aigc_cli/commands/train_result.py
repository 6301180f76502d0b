"""How a training ended: the last value of each curve, and what a sweep compares it by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aigc_cli.errors import ConfigError
from aigc_cli.runs import Run, read_rows
from aigc_cli.training.restore import best_step


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    run: Run
    figures: dict[str, float]
    status: str  # "complete", or "skipped" where it was complete before
    objective: float | None


def result_of(run: Run, config: Mapping[str, Any], figures: dict[str, float] | None = None) -> TrainResult:
    """The result of a run that trained to its end; without `figures`, of one that had been there before."""
    last = run.figures() if figures is None else figures
    if config["trainer"].get("early_stop") is not None:  # it counts by the checkpoint that it was stopped to keep
        best = best_step(run)
        rows = (row for row in read_rows(run.path / "metrics.jsonl") if row["step"] == best)
        last = {**last, **{key: value for row in rows for key, value in row.items() if key.startswith("val/")}}
    return TrainResult(run, last, "skipped" if figures is None else "complete", _objective(last, config))


def _objective(figures: Mapping[str, float], config: Mapping[str, Any]) -> float | None:
    """What a sweep's optimizer minimises: as configured, else the first held-out score, else the last loss."""
    wanted = (config.get("sweep") or {}).get("objective")
    if wanted is not None:
        if wanted not in figures:
            hint = f"choose from: {', '.join(sorted(figures))}"
            raise ConfigError(f"sweep.objective={wanted} is not a metric of this run", hint)
        return figures[wanted]
    held_out = [value for name, value in figures.items() if name.startswith("val/")]
    losses = [value for name, value in figures.items() if name.endswith("/loss")]
    return next(iter([*held_out, *reversed(losses)]), None)
