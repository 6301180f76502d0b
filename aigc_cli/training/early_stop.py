"""When training ends before its time: the held-out score has not become better for as long as one is ready to wait.

What that is told by is in the state of a checkpoint, so that a run which was stopped anywhere ends where the
uninterrupted one ends.
"""

from __future__ import annotations

import math

from aigc_cli.runs import STOPPED_EARLY
from aigc_cli.training.checkpoint import State
from aigc_cli.training.settings import TrainerConfig


def note_score(state: State, value: float, delta: float) -> bool:
    """Notes a held-out score in the state of its step; whether it is the lowest so far.

    For the wait it counts as better only where it is lower by more than `delta`; one that is not finite never is.
    """
    if math.isfinite(value) and (state.to_beat is None or value < state.to_beat - delta):
        state.to_beat, state.since_better = value, 0
    else:
        state.since_better += 1
    if not math.isfinite(value) or (state.best is not None and value >= state.best):
        return False
    state.best, state.best_step = value, state.step
    return True


def has_stalled(state: State, config: TrainerConfig) -> bool:
    """Whether the wait is over."""
    return config.early_stop is not None and state.since_better >= config.early_stop


def why_early(state: State) -> str:
    """The sentence that says so."""
    best = "" if state.best is None else f" better than {state.best:.4g}, that of step {state.best_step}, which is kept"
    if state.best is not None and state.to_beat is not None and state.best < state.to_beat:  # by less than the delta
        best = f" much better than {state.to_beat:.4g}; the best, {state.best:.4g} of step {state.best_step}, is kept"
    count = "1 validation" if state.since_better == 1 else f"{state.since_better} validations"
    return f"{STOPPED_EARLY} at step {state.step}: {count} without a held-out score{best}"
