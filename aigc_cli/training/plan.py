"""What the rest of a run takes, by what was measured of it so far: steps, time, memory, disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from aigc_cli.progress import clock, size
from aigc_cli.training.pace import Pace
from aigc_cli.training.settings import Plan, TrainerConfig

HALF_AN_HOUR = 1800
#: The keys that make each step cheaper, the least that they are halved from, and what that does.
_CHEAPER = {
    "data.size": (64, "about a quarter of the work in a step; pictures of half the side"),
    "data.context": (128, "about half of the work in a step; the model looks back half as far"),
    "model.width": (64, "about a third of the work in a step; fewer details"),
}


def plan(pace: Pace, config: TrainerConfig, step: int, *, memory: int, disk: int) -> Plan:
    """What a run takes from `step` on; the parts of its work that have not come yet are taken to be free."""
    each = pace.mean("step")
    if config.minutes is not None:
        left = max(0.0, 60 * config.minutes - pace.trained)
        steps = round(left / each * (1 - _share_of_looks(pace, config, each)))
        return Plan(steps, left, 1 / each, memory, disk)
    steps = max(0, config.steps - step)
    seconds = steps * each + _looks(pace, config, step, step + steps, steps * each)
    return Plan(steps, seconds, 1 / each, memory, disk)


def _looks(pace: Pace, config: TrainerConfig, start: int, end: int, seconds: float) -> float:
    """The seconds that go to what comes between the steps from `start` to `end`, which take so many themselves."""

    def times(every: int | None) -> int:
        """How often something comes: each time, and at the end."""
        return 0 if every is None else end // every - start // every + int(end % every > 0)

    def by_time(every: int | None) -> int:
        """How often it comes before that, since steps are slow: each time that the run has lasted twice as long."""
        until = min(seconds, seconds * (every or 0) / max(1, end - start))
        first = config.first_look
        return 0 if not first or until <= first else int(math.log2(until / first)) + 1

    saves = times(config.checkpoint_every)
    counts = {
        "preview": times(config.sample_every) + by_time(config.sample_every),
        "examine": times(config.examine_every) + by_time(config.examine_every),
        "validate": times(config.validate_every),
        "save": max(saves, times(config.validate_every)),
        "curves": 1,
    }
    return sum(pace.mean(part) * count for part, count in counts.items())


def _share_of_looks(pace: Pace, config: TrainerConfig, each: float) -> float:
    """The share of the time that does not go to steps."""
    spent = _looks(pace, config, 0, 10_000, 10_000 * each)
    return spent / (spent + 10_000 * each)


def plan_lines(found: Plan, config: Mapping[str, Any], *, on_cpu: bool, new: bool) -> list[str]:
    """The lines that say it: what it takes, and where that is long for a CPU, which words of the whole configuration
    would fit half an hour; a run that is not `new` may change its length alone."""
    lines = [
        f"plan:        {found.steps:,} steps in about {clock(found.seconds)}, {found.steps_per_second:.3g} a second; "
        f"memory {size(found.memory)} at the peak; checkpoints {size(found.disk)} at most"
    ]
    if on_cpu and config["trainer"].get("minutes") is None and found.seconds > HALF_AN_HOUR:
        share = f"{max(0.01, HALF_AN_HOUR / found.seconds):.0%}"
        lines.append(f"             long for a CPU; trainer.minutes=30 has time for {share} of it: rougher results")
        for key, (least, costs) in _CHEAPER.items() if new else ():
            section, _, name = key.partition(".")
            value = config[section].get(name)
            if type(value) is int and value >= least:
                lines.append(f"             {key}={value // 2} (now {value}): {costs}")
    return lines
