"""Several models on the same reference: their scores side by side, and whether they differ by more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from aigc_cli.errors import ConfigError
from aigc_cli.metrics.record import difference
from aigc_cli.progress import table
from aigc_cli.registry import names

Records = Mapping[str, Mapping[str, Any]]
#: A difference counts where it exceeds so many standard deviations of a difference between two sample sets.
BEYOND = 2.0


def check_comparable(named: Sequence[tuple[str, Records]]) -> None:
    """Refuses to set scores side by side that were measured under other conditions.

    Args:
        named: The records of each contestant by metric, with its name.

    Raises:
        ConfigError: a condition differs, or a metric is missing; the message names it.
    """
    first_name, first = named[0]
    for name, records in named[1:]:
        for metric in {**first, **records}:
            if metric not in first or metric not in records:
                lacking = name if metric in first else first_name
                raise ConfigError(f"{lacking} has no record of {metric}", "evaluate both with the same metric=")
            found = difference(first[metric], records[metric])
            if found is not None:
                field, own, other = found
                what = f"{metric} of {first_name} and of {name} do not compare"
                raise ConfigError(
                    f"{what}: {field} is {_short(own)} and {_short(other)}", "evaluate both under the same conditions"
                )
            if not shared_figures(first[metric], records[metric]):
                raise ConfigError(
                    f"{metric} of {first_name} and of {name} cannot be compared: they share no score",
                    "compare scores that do not depend on tokens, such as bits_per_byte",
                )


def shared_figures(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The scores that two records have in common; with other tokenizers, those that count no tokens."""
    tokenizers = [(record.get("real") or {}).get("tokenizer") for record in (a, b)]
    counting = (a.get("facts") or {}).get("per_token", ()) if tokenizers[0] != tokenizers[1] else ()
    return [figure for figure in a["figures"] if figure in b["figures"] and figure not in counting]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def differences(named: Sequence[tuple[str, Records]]) -> list[dict[str, Any]]:
    """Each score of each contestant after the first, against the first's.

    ``exceeds`` is whether the difference is more than twice the spread of a difference between single sample sets,
    ``sqrt(s1^2 + s2^2)``; None where there is one set, so that no spread is known.
    """
    first_name, first = named[0]
    rows = []
    for metric, record in first.items():
        for figure, value in record["figures"].items():
            if figure.partition("[")[0].endswith("_std"):
                continue  # the spread over subsets of a score that is there itself
            for name, records in named[1:]:
                other = records[metric]
                if figure not in shared_figures(record, other):
                    continue
                spreads = [(one.get("spread") or {}).get(figure) for one in (record, other)]
                delta = other["figures"][figure] - value
                spread = None if None in spreads else math.hypot(*spreads)  # type: ignore[arg-type]
                rows.append(
                    {
                        "metric": metric,
                        "figure": figure,
                        "from": first_name,
                        "to": name,
                        "difference": delta,
                        "spread": spread,
                        "exceeds": None if spread is None else abs(delta) > BEYOND * spread,
                    }
                )
    return rows


def describe_comparison(named: Sequence[tuple[str, Records]], rows: Sequence[Mapping[str, Any]]) -> str:
    """The scores of all side by side, then the differences from the first."""
    figures = [["", *(name for name, _ in named), ""]]
    for metric, record in named[0][1].items():
        for figure in record["figures"]:
            ways = record.get("better") or {}
            cells = [_cell(records[metric], figure) for _, records in named]
            figures.append([figure, *cells, f"{ways[figure]} is better" if ways.get(figure) else ""])
    lines = [*table(figures), ""]
    header = ["difference", "", "", "spread", "beyond chance"]
    body = [
        [
            row["figure"],
            f"{row['to']} - {row['from']}",
            f"{row['difference']:+.4g}",
            "-" if row["spread"] is None else f"{row['spread']:.2g}",
            _VERDICTS[row["exceeds"]],
        ]
        for row in rows
    ]
    lines += table([header, *body])
    first = named[0][1]
    if any(row["spread"] is None and _has_sets(first[row["metric"]]) for row in rows):
        lines += ["", "note: one sample set shows no spread; draw several with seeds=3"]
    return "\n".join(lines)


def _has_sets(record: Mapping[str, Any]) -> bool:
    """Whether a record is of what a run draws, of which there can be several sets."""
    from aigc_cli.metrics.base import kind_of  # torchmetrics takes seconds to import

    made = record.get("generated") or {}
    if "step" not in made or "reconstructed" in made or record["metric"] not in names("metric"):
        return False
    return "items" not in kind_of(record["metric"]).takes


_VERDICTS = {None: "unknown", True: "yes", False: "no"}


def _cell(record: Mapping[str, Any], figure: str) -> str:
    if figure not in record["figures"]:
        return "-"
    spread = (record.get("spread") or {}).get(figure)
    bound = (record.get("bounds") or {}).get(figure)
    return f"{bound + ' ' if bound else ''}{record['figures'][figure]:.4g}" + (
        f" ± {spread:.2g}" if spread is not None else ""
    )
