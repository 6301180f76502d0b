"""Charts as SVG that stands by itself: it prints, needs no network, and its numbers lie beside it for the script."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

WIDTH, HEIGHT = 460, 230
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 8, 18, 26
_MOST = 400  # points of a line; more than that no screen shows
#: Okabe and Ito's colours, which people who see few colours tell apart too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b8a800")
_TICKS = 5
#: What the legend says of a curve with crosses.
LOST = " (\N{MULTIPLICATION SIGN}: NaN or infinite)"
_AXIS, _HIGH, _FIRST = 150, 260, 70  # of parallel coordinates: pixels between axes, their height, the first one's place


class Line(NamedTuple):
    """A curve of a chart; `dashed` where it is of held-out data. `lost` are the points that it cannot go through."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dashed: bool = False
    lost: Sequence[tuple[float, float]] = ()


def embedded(value: Any) -> str:
    """JSON that no HTML ends."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points, of very many the lowest and the highest of each stretch, so that no peak is lost."""
    if len(points) <= _MOST:
        return [*points]
    found: dict[tuple[float, float], None] = {points[0]: None}
    width = 2 * len(points) / _MOST
    for part in range(_MOST // 2):
        some = points[int(part * width) : int((part + 1) * width)]
        ends = {min(some, key=lambda point: point[1]), max(some, key=lambda point: point[1])}
        found |= dict.fromkeys(sorted(ends))
    return [*{**found, points[-1]: None}]


def ticks(low: float, high: float, count: int = _TICKS) -> list[float]:
    """Round numbers within a range."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
    return [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def chart(title: str, lines: Sequence[Line], marks: Mapping[str, int] | None = None) -> str:
    """Curves over steps, a vertical line at each of `marks`, a cross above what is NaN or infinite; the script adds
    hover, keys and a logarithmic axis."""
    lines = [_parted(line) for line in lines if line.points]
    xs = [x for line in lines for x, _ in [*line.points, *line.lost]]
    ys = [y for line in lines for _, y in line.points] or [0.0]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    right, (low, high) = right if right > left else left + 1, (low, high) if high > low else (low - 0.5, high + 0.5)
    wide, tall = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def x_of(x: float) -> float:
        return _LEFT + (x - left) / (right - left) * wide

    def y_of(y: float) -> float:
        return _TOP + (high - y) / (high - low) * tall

    parts = [f'<rect class="box" x="{_LEFT}" y="{_TOP}" width="{wide}" height="{tall}"/>', '<g class="ys">']
    parts += [_tick(f"{y:.4g}", y_of(y)) for y in ticks(low, high)]
    parts.append("</g>")
    parts += [f'<text class="x" x="{x_of(x):.1f}" y="{HEIGHT - 10}">{x:g}</text>' for x in ticks(left, right)]
    for name, step in (marks or {}).items():
        at = f'x1="{x_of(step):.1f}" x2="{x_of(step):.1f}" y1="{_TOP}" y2="{_TOP + tall}"'
        parts.append(f'<line class="mark" {at}><title>step {step}: {escape(name)}</title></line>')
    for n, line in enumerate(lines):
        # A line of one point has length none, and is seen by its round end.
        points = line.points if len(line.points) > 1 else [*line.points, *line.points]
        path = "L".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)
        kind = ' stroke-width="6"' if len(line.points) == 1 else ' stroke-dasharray="5 3"' if line.dashed else ""
        colour = COLOURS[line.colour % len(COLOURS)]
        parts.append(f'<path class="line" d="{"M" * bool(path)}{path}" stroke="{colour}"{kind}/>')
        for x, y in line.lost:
            cross = f"M{x_of(x) - 3:.1f},{_TOP + 2 + 8 * (n % 8)}l6,6m0,-6l-6,6"
            said = f"<title>step {x}: {escape(line.name)} is {y}</title>"
            parts.append(f'<path class="lost" d="{cross}" stroke="{colour}">{said}</path>')
    data = {
        "box": [_LEFT, _TOP, wide, tall], "x": [left, right],
        "lines": [
            {"name": line.name, "points": line.points, "lost": {str(x): str(y) for x, y in line.lost}} for line in lines
        ],
    }  # fmt: skip
    legend = "".join(_legend(line) for line in lines)
    return (
        f'<div class="chart"><h4>{escape(title)} <button type="button" class="log" aria-pressed="false">'
        f'log</button></h4><svg viewBox="0 0 {WIDTH} {HEIGHT}" tabindex="0" role="img" '
        f'aria-label="{escape(_said(title, lines))}">{"".join(parts)}<line class="cursor" y1="{_TOP}" '
        f'y2="{_TOP + tall}" visibility="hidden"/></svg><div class="legend">{legend}</div><output></output>'
        f'<script type="application/json">{embedded(data)}</script></div>'
    )


def _parted(line: Line) -> Line:
    """A line with no more points than a screen shows, and those apart that are NaN or infinite."""
    lost = [point for point in line.points if not math.isfinite(point[1])]
    points = [point for point in line.points if math.isfinite(point[1])] if lost else line.points
    return line._replace(points=thinned(points), lost=lost[:: -(-len(lost) // _MOST) or 1])


def _tick(label: str, y: float) -> str:
    across = f'x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
    return f'<line class="grid" {across}/><text class="y" x="{_LEFT - 5:.1f}" y="{y + 3:.1f}">{label}</text>'


def _legend(line: Line) -> str:
    style = "dashed" if line.dashed else "solid"
    mark = f'<i style="border-top:2px {style} {COLOURS[line.colour % len(COLOURS)]}"></i>'
    return f"<span>{mark}{escape(line.name)}{LOST if line.lost else ''}</span>"


def _said(title: str, lines: Sequence[Line]) -> str:
    ends = (
        f"{line.name}" + (f" from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}" if line.points else "")
        + (LOST if line.lost else "") for line in lines
    )  # fmt: skip
    return f"{title}: {'; '.join(ends)}"


# parallel coordinates


def parallel(axes: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]], best: int = 0) -> str:
    """Each row as a line through the axes, the last of which is the score that colours it; `rows` have a name and a
    value for each axis, and that of number `best` is drawn last and thick."""
    places = [_places([values[number] for _, values in rows]) for number in range(len(axes))]
    wide = 2 * _FIRST + _AXIS * (len(axes) - 1)
    parts, labels = [], []
    for number, name in enumerate(axes):
        x = _FIRST + _AXIS * number
        parts.append(f'<line class="axis" x1="{x}" x2="{x}" y1="30" y2="{_HIGH + 30}"/>')
        parts.append(f'<text class="name" x="{x}" y="16">{escape(name)}</text>')
        shown = places[number][1]
        labels += [f'<text class="value" x="{x + 5}" y="{_down(y) + 3:.1f}">{escape(text)}</text>' for text, y in shown]
    order = [*(number for number in range(len(rows)) if number != best), best]
    for number in order:
        ys = [places[axis][0][number] for axis in range(len(axes))]
        points = " ".join(f"{_FIRST + _AXIS * axis},{_down(y):.1f}" for axis, y in enumerate(ys) if y is not None)
        shade = ys[-1] if ys[-1] is not None else 0.5
        colour = f"hsl({250 - 200 * shade:.0f} 75% 42%)"
        kind = "path best" if number == best else "path"
        parts.append(
            f'<polyline class="{kind}" points="{points}" stroke="{colour}"><title>{escape(rows[number][0])}</title>'
            "</polyline>"
        )
    return (
        f'<svg class="parallel" viewBox="0 0 {wide} {_HIGH + 50}" style="max-width:{wide}px" role="img" '
        f'aria-label="{len(rows)} jobs over {escape(", ".join(axes))}">{"".join([*parts, *labels])}</svg>'
    )


def _down(place: float) -> float:
    return 30 + (1 - place) * _HIGH


def _places(values: Sequence[Any]) -> tuple[list[float | None], list[tuple[str, float]]]:
    """Where each value stands on its axis, from 0 below to 1; and what is written there."""
    numbers = [number for value in values if (number := number_of(value)) is not None]
    known = [value for value in values if value is not None]
    if len(numbers) == len(known) and len(set(numbers)) > 1:
        low, high = min(numbers), max(numbers)
        logarithmic = low > 0 and high / low >= 30
        ends = (math.log(low), math.log(high)) if logarithmic else (low, high)
        found: list[float | None] = [
            None if value is None
            else ((math.log(float(value)) if logarithmic else float(value)) - ends[0]) / (ends[1] - ends[0])
            for value in values
        ]  # fmt: skip
        labels = {f"{float(value):.4g}": place for value, place in zip(values, found, strict=True) if place is not None}
        return found, _apart(sorted(labels.items(), key=lambda each: each[1]))
    kinds = [*dict.fromkeys(map(str, known))]
    spots = {kind: (n + 0.5) / len(kinds) for n, kind in enumerate(kinds)}
    return [None if value is None else spots[str(value)] for value in values], [*spots.items()]


def _apart(labels: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """The labels that can be read beside one another, both ends among them."""
    kept = labels[:1]
    for text, place in labels[1:-1]:
        if place - kept[-1][1] > 0.06 and labels[-1][1] - place > 0.06:
            kept.append((text, place))
    return [*kept, *labels[1:][-1:]]


def number_of(value: Any) -> float | None:
    """A finite number, be it as text; None where it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
