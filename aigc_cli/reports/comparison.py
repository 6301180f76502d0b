"""Several runs side by side: what differs between them, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from aigc_cli.errors import ConfigError
from aigc_cli.files import shown as file_shown
from aigc_cli.progress import clock, size, table
from aigc_cli.reports.facts import Facts
from aigc_cli.reports.svg import number_of

#: What of the environment changes from run to run and explains nothing.
_NOT_ENVIRONMENT = ("time",)
NO_VALUE = "-"
#: Characters of a value in a column.
_WIDE = 40


class Difference(NamedTuple):
    """A key in which runs differ: the value of each, None where it has none, and where each came from."""

    key: str
    values: list[Any]
    origins: list[str]


#: The records of runs by metric, beside the name of each.
Named = list[tuple[str, dict[str, dict[str, Any]]]]


class Scores(NamedTuple):
    """The evaluations that runs share, as far as they compare: those that the most runs share come first. And why
    others do not."""

    groups: list[Named]
    refused: list[str]


def configuration(runs: Sequence[Facts]) -> list[Difference]:
    """The keys in which the configurations differ."""
    return [
        Difference(key, values, [run.origin(key) if key in run.config else NO_VALUE for run in runs])
        for key, values in _differing([run.config for run in runs])
    ]


def data(runs: Sequence[Facts]) -> list[Difference]:
    """In what the data differs: its shape, classes and fingerprint."""
    return [Difference(key, values, []) for key, values in _differing([run.data for run in runs])]


def environment(runs: Sequence[Facts]) -> list[Difference]:
    """In what the versions, machines and states of git differ."""
    found = _differing([run.environment for run in runs])
    return [Difference(key, values, []) for key, values in found if key not in _NOT_ENVIRONMENT]


def _differing(values: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, list[Any]]]:
    for key in dict.fromkeys(key for each in values for key in each):
        found = [each.get(key) for each in values]
        if any(value != found[0] for value in found):
            yield key, found


def metrics(runs: Sequence[Facts]) -> tuple[int, dict[str, list[float]]]:
    """The value of each curve that all runs have at the last step that all have done, and that step."""
    last = min(max((row["step"] for row in run.rows), default=0) for run in runs)
    shared = [key for key in runs[0].curves if all(key in run.curves for run in runs)]
    found = {}
    for key in shared:
        values = [[value for step, value in run.curves[key] if step <= last] for run in runs]
        if all(values) and key != "items_per_second" and not key.endswith("/lr"):
            found[key] = [each[-1] for each in values]
    return last, found


def scores(runs: Sequence[Facts]) -> Scores:
    """The newest evaluation of each metric that some runs made under the same conditions, together."""
    shared: dict[tuple[str, ...], Named] = {}
    refused = []
    for metric in dict.fromkeys(record["metric"] for run in runs for record in run.records):
        left = {run.name: [each for each in reversed(run.records) if each["metric"] == metric] for run in runs}
        while len(left := {name: records for name, records in left.items() if records}) > 1:
            chosen, why = _together(metric, left)
            left = {name: records for name, records in left.items() if name not in chosen}
            refused += [why] if why else []
            if len(chosen) > 1:
                named = shared.setdefault(tuple(chosen), [(name, {}) for name in chosen])
                for name, own in named:
                    own[metric] = chosen[name]
    return Scores(sorted(shared.values(), key=len, reverse=True), refused)


def _together(metric: str, left: Mapping[str, list[dict[str, Any]]]) -> tuple[dict[str, dict[str, Any]], str]:
    """The record of the first of some runs that the most others have one to compare with, and theirs; and why another
    has none."""
    from aigc_cli.metrics.report import check_comparable  # torchmetrics takes seconds to import

    (name, own), *others = left.items()
    best: dict[str, dict[str, Any]] = {}
    reason = ""
    for first in own:
        chosen, reasons = {name: first}, []
        for other, records in others:
            fitting, why = _fitting(first, records, (name, other), metric, check_comparable)
            chosen |= {other: fitting} if fitting else {}
            reasons += [why] if why else []
        if len(chosen) > len(best):
            best, reason = chosen, next(iter(reasons), "")
    return best, reason


def _fitting(
    first: dict[str, Any], records: Sequence[dict[str, Any]], names: tuple[str, str], metric: str,
    check: Callable[[list[tuple[str, dict[str, dict[str, Any]]]]], None],
) -> tuple[dict[str, Any] | None, str]:  # fmt: skip
    """The newest of `records` that compares with `first`; or None, and why the newest of all does not."""
    why = ""
    for record in records:
        try:
            check([(names[0], {metric: first}), (names[1], {metric: record})])
        except ConfigError as error:
            why = why or error.message
        else:
            return record, ""
    return None, why


def previews(runs: Sequence[Facts]) -> tuple[int, list[str]]:
    """The last step at which all runs drew samples of the same kinds, and these kinds; 0 where there is none."""
    shared = [kind for kind in runs[0].previews if all(kind in run.previews for run in runs)]
    steps = [set.intersection(*(set(run.previews[kind]) for run in runs)) for kind in shared]
    last = max((max(each) for each in steps if each), default=0)
    return last, [kind for kind, each in zip(shared, steps, strict=True) if last in each]


def shown(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return NO_VALUE
    text = value if isinstance(value, str) else f"{value:.5g}" if isinstance(value, float) else json.dumps(value)
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 3]}..."


def cost_rows(runs: Sequence[Facts]) -> list[list[str]]:
    """What each training took, a row for each kind of cost."""
    costs = [run.cost for run in runs]
    formats: dict[str, Callable[[Any], str]] = {
        "steps": lambda n: f"{n:,}", "items": lambda n: f"{n:,}", "seconds": clock, "disk": size,
        "items_per_second": lambda n: f"{n:,.1f}", "device": str,
    }  # fmt: skip
    names = {"seconds": "time", "items_per_second": "items a second"}
    return [
        [names.get(key, key), *(NO_VALUE if cost[key] is None else form(cost[key]) for cost in costs)]
        for key, form in formats.items()
    ]


def describe(runs: Sequence[Facts]) -> str:
    """The comparison as a person reads it on a terminal."""
    header = ["", *(run.name for run in runs)]
    parts = [_section("configuration", header, _with_origins(configuration(runs)))]
    for title, found in (("data", data(runs)), ("environment", environment(runs))):
        parts.append(_section(title, header, [[each.key, *map(shown, each.values)] for each in found]))
    step, values = metrics(runs)
    rows = [[key, *(f"{value:.5g}" for value in each)] for key, each in values.items()]
    parts.append(_section(f"metrics at step {step}", header, rows, "no metric is in all of them"))
    parts.append("\n".join(_scores(runs)))
    step, kinds = previews(runs)
    samples = [[kind, *(str(file_shown(run.previews[kind][step])) for run in runs)] for kind in kinds]
    parts.append(_section(f"samples of the same seeds at step {step}", header, samples, "none at the same step"))
    parts.append(_section("cost", header, cost_rows(runs)))
    return "\n\n".join(parts)


def _with_origins(found: Sequence[Difference]) -> list[list[str]]:
    rows = []
    for key, values, origins in found:
        beside = (f"{shown(value)} ({origin})" for value, origin in zip(values, origins, strict=True))
        rows.append([key, *(cell.removesuffix(f" ({NO_VALUE})") for cell in beside)])
    return rows


def _section(title: str, header: list[str], rows: list[list[str]], none: str = "the same") -> str:
    if not rows:
        return f"{title}: {none}"
    return "\n".join([title, *(f"  {line}" for line in table([header, *rows]))])


def whose(group: Named, runs: Sequence[Facts]) -> str:
    """Which of the runs share scores, where it is not all of them."""
    names = [name for name, _ in group]
    return "" if len(names) == len(runs) else f"of {', '.join(names[:-1])} and {names[-1]}"


def _scores(runs: Sequence[Facts]) -> list[str]:
    found = scores(runs)
    lines = []
    for group in found.groups:
        from aigc_cli.metrics.report import describe_comparison, differences

        lines.append(f"scores {whose(group, runs)}".rstrip())
        lines += [f"  {line}" for line in describe_comparison(group, differences(group)).splitlines()]
        lines.append("")
    lines += ["scores that do not compare", *(f"  {why}" for why in found.refused), ""] if found.refused else []
    if not lines:
        words = ",".join(run.run.named for run in runs)
        return [f"scores: the runs share no evaluation; aigc eval compare run={words} makes one"]
    return lines[:-1]


def as_json(runs: Sequence[Facts]) -> dict[str, Any]:
    """The comparison as plain data."""
    step, values = metrics(runs)
    found = scores(runs)
    drawn, kinds = previews(runs)
    return {
        "runs": [run.name for run in runs],
        "config": [each._asdict() for each in configuration(runs)],
        "data": [{"key": each.key, "values": each.values} for each in data(runs)],
        "environment": [{"key": each.key, "values": each.values} for each in environment(runs)],
        "metrics": {"step": step, "values": {key: [*map(number_of, each)] for key, each in values.items()}},
        "scores": {
            "groups": [[{"name": name, **records} for name, records in group] for group in found.groups],
            "refused": found.refused,
        },
        "samples": {"step": drawn, "files": {kind: [str(run.previews[kind][drawn]) for run in runs] for kind in kinds}},
        "cost": [run.cost for run in runs],
    }
