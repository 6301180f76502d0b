"""What the rest of a run takes, by what was measured of it so far: steps, time, memory, disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from aigc_cli.progress import clock, size
from aigc_cli.runs import Run
from aigc_cli.training.pace import Pace
from aigc_cli.training.settings import Plan, TrainerConfig

HALF_AN_HOUR = 1800
#: The share of its steps from which a run by minutes counts as a full one: the rate of a machine wavers by as much.
_NEARLY = 0.95
#: The keys that make each step cheaper, the least that they are halved from, and what that does.
_CHEAPER = {
    "data.size": (64, "about a quarter of the work in a step; pictures of half the side"),
    "data.context": (128, "about half of the work in a step; the model looks back half as far"),
    "model.width": (64, "about a third of the work in a step; fewer details"),
}


def plan(pace: Pace, config: TrainerConfig, step: int, *, memory: int, disk: int) -> Plan:
    """What a run takes from `step` on, by what was measured of its work; what has not come yet is taken to be free."""
    each = pace.mean("step")
    if config.minutes is None:
        end = max(step, config.steps)
    else:
        left = 60 * config.minutes - (pace.trained if step else 0.0)
        end = step + max(1, round(left / each))
        for _ in range(5):  # as many fewer as what comes between them takes
            end = step + max(1, round((end - step) * left / sum(parts(pace, config, step, end).values())))
    seconds = sum(parts(pace, config, step, end).values())
    return Plan(end - step, seconds, 1 / each, memory, disk, end / config.steps)


def parts(pace: Pace, config: TrainerConfig, start: int, end: int) -> dict[str, float]:
    """The seconds that each part of the work takes from step `start` to `end`."""
    first, each = 0 if start else min(end, pace.counts.get("first steps", 0)), pace.mean("step")
    seconds = (end - start - first) * each

    def times(every: int | None) -> int:
        """How often something comes: each time, and at the end."""
        return 0 if every is None else end // every - start // every + int(end % every > 0)

    def by_time(every: int | None) -> int:
        """How often it comes before that, since steps are slow: each time that the run has lasted twice as long."""
        until = min(seconds, each * (every or 0))
        first = config.first_look
        return 0 if not first or until <= first else int(math.log2(until / first)) + 1

    counts = {
        "preview": times(config.sample_every) + by_time(config.sample_every),
        "examine": times(config.examine_every) + by_time(config.examine_every),
        "first validate": int(config.validate_every is not None),
        "validate": times(config.validate_every),
        "save": max(times(config.checkpoint_every), times(config.validate_every), int(seconds / pace.saves_after)),
        "write": 1,  # others are written while it trains on
        "curves": 1,
    }
    looks = {part: pace.mean(part) * count for part, count in counts.items()}
    return {"first steps": first * pace.mean("first steps"), "step": seconds, **looks}


def plan_lines(found: Plan, config: Mapping[str, Any], *, on_cpu: bool, new: bool) -> list[str]:
    """The lines that say it: what it takes, and where that is long for a CPU, which words of the whole configuration
    would fit half an hour; a run that is not `new` may change its length alone."""
    lines = [
        f"plan:        {found.steps:,}{'' if new else ' more'} steps in about {clock(found.seconds)}, "
        f"{found.steps_per_second:.3g} a second; memory {size(found.memory)} at the peak; "
        f"checkpoints {size(found.disk)} at most"
    ]
    if short := short_of(config["trainer"], found.share):
        lines.append(f"             {short}; {enough(config['trainer'], found.share)} has time for all of them")
    if on_cpu and config["trainer"].get("minutes") is None and found.seconds > HALF_AN_HOUR:
        share = f"{max(0.01, HALF_AN_HOUR / found.seconds):.0%}"
        lines.append(f"             long for a CPU; trainer.minutes=30 has time for {share} of it: rougher results")
        for key, (least, costs) in _CHEAPER.items() if new else ():
            section, _, name = key.partition(".")
            value = config[section].get(name)
            if type(value) is int and value >= least:
                lines.append(f"             {key}={value // 2} (now {value}): {costs}")
    return lines


def short_of(trainer: Mapping[str, Any], share: float) -> str:
    """What is said of a run whose minutes have time for but a `share` of the steps that it would train for without
    them, such as those of its recipe; "" where that is nearly all of them, or where it trains for steps."""
    if trainer.get("minutes") is None or share > _NEARLY:
        return ""
    return f"{max(0.01, share):.0%} of the {trainer['steps']:,} steps of a full run: rougher results"


def cut_short(run: Run) -> str:
    """What share of a full run one has had that its minutes ended; "" of any other."""
    trainer, ended = run.config["trainer"], run.recorded_status() == "complete" and not run.stopped_early
    return short_of(trainer, run.step / trainer["steps"]) if ended else ""


def enough(trainer: Mapping[str, Any], share: float) -> str:
    """The word with minutes for all of the steps, at the rate of those that had time for that share; they count from
    the start of a run, resumed or not."""
    return f"trainer.minutes={math.ceil(trainer['minutes'] / share)}"
