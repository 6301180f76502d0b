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
_NO_VALUE = "-"
#: Characters of a value in a column.
_WIDE = 40


class Difference(NamedTuple):
    """A key in which runs differ: the value of each, None where it has none, and where each came from."""

    key: str
    values: list[Any]
    origins: list[str]


class Scores(NamedTuple):
    """The evaluations that all runs share, as far as they compare, and why others do not."""

    named: list[tuple[str, dict[str, dict[str, Any]]]]
    refused: list[str]


def configuration(runs: Sequence[Facts]) -> list[Difference]:
    """The keys in which the configurations differ."""
    return [
        Difference(key, values, [run.origin(key) if key in run.config else _NO_VALUE for run in runs])
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
    """The newest evaluation of each metric of every run that was made under the same conditions as one of the first."""
    if not all(run.records for run in runs):
        return Scores([], [])
    from aigc_cli.metrics.report import check_comparable  # torchmetrics takes seconds to import

    found: list[tuple[str, dict[str, dict[str, Any]]]] = [(run.name, {}) for run in runs]
    refused = []
    for metric in dict.fromkeys(record["metric"] for record in runs[0].records):
        kept = [[record for record in reversed(run.records) if record["metric"] == metric] for run in runs]
        if not all(kept):
            continue
        reasons = []
        for first in kept[0]:
            chosen = [first]
            for name, records in zip(found[1:], kept[1:], strict=True):
                fitting, why = _fitting(first, records, (runs[0].name, name[0]), metric, check_comparable)
                reasons += [why] if why else []
                chosen += [fitting] if fitting else []
            if len(chosen) == len(runs):
                for (_, own), record in zip(found, chosen, strict=True):
                    own[metric] = record
                break
        else:
            refused.append(reasons[0])
    return Scores(found if found[0][1] else [], refused)


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
        return _NO_VALUE
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
        [names.get(key, key), *(_NO_VALUE if cost[key] is None else form(cost[key]) for cost in costs)]
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
        rows.append([key, *(cell.removesuffix(f" ({_NO_VALUE})") for cell in beside)])
    return rows


def _section(title: str, header: list[str], rows: list[list[str]], none: str = "the same") -> str:
    if not rows:
        return f"{title}: {none}"
    return "\n".join([title, *(f"  {line}" for line in table([header, *rows]))])


def _scores(runs: Sequence[Facts]) -> list[str]:
    found = scores(runs)
    lines = ["scores"]
    if found.named:
        from aigc_cli.metrics.report import describe_comparison, differences

        lines += [f"  {line}" for line in describe_comparison(found.named, differences(found.named)).splitlines()]
    lines += [f"  {why}" for why in found.refused]
    if len(lines) == 1:
        words = ",".join(run.run.named for run in runs)
        return [f"scores: the runs share no evaluation; aigc eval compare run={words} makes one"]
    return lines


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
        "scores": {"records": [{"name": name, **records} for name, records in found.named], "refused": found.refused},
        "samples": {"step": drawn, "files": {kind: [str(run.previews[kind][drawn]) for run in runs] for kind in kinds}},
        "cost": [run.cost for run in runs],
    }
