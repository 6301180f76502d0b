"""What a report says of one run, part by part, as HTML."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from aigc_cli.files import read_json
from aigc_cli.progress import clock, size
from aigc_cli.reports.facts import HELD_OUT, Facts
from aigc_cli.reports.media import Album
from aigc_cli.reports.svg import Line, chart

_FRAMES = 8  # steps of samples at most
_PLAYERS = 8  # files of a set of samples
_PLAYED = (".wav", ".flac", ".mp3", ".mp4")
#: Which charts come first and which last; the others are as the run wrote them.
_FIRST, _LAST = ("loss",), ("gradient_norm", "lr", "items_per_second")
#: Held-out scores that the training loss of the one phase is of too: both are seen on one axis.
_SAME = {"nll_per_token": "loss"}
_WAYS = {"lower": "lower is better", "higher": "higher is better", "near": "near the baseline is better"}


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    """A table of cells that are HTML already."""
    kind = ' class="n"' if numbers else ""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td{kind}>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def folded(title: str, content: str, *, shown: bool = False) -> str:
    """A part that a click opens, and a printer."""
    return f"<details{' open' if shown else ''}><summary>{escape(title)}</summary>{content}</details>"


def words(run: Facts) -> list[str]:
    """The run in sentences."""
    config, cost = run.run.config, run.cost
    shape = "x".join(map(str, run.data.get("content") or run.data.get("shape") or ()))
    classes = run.data.get("classes") or []
    kind = f"{run.data.get('modality', '')} {shape}".strip() + (f", {len(classes)} classes" if classes else "")
    total = config.get("trainer", {}).get("steps")
    of = f" of {total:,}" if total and config["trainer"].get("minutes") is None else ""
    status = run.run.status() + (f" ({run.run.why})" if run.run.why else "")
    speed = f", {cost['items_per_second']:,.0f} items a second" if cost["items_per_second"] else ""
    found = [
        f"{config['model']['name']} on {config['data']['name']} ({kind}): {status}, {cost['steps']:,}{of} steps "
        f"over {cost['items']:,} items in {clock(cost['seconds'])} on {cost['device']}{speed}; "
        f"{size(cost['disk'])} on the disk."
    ]
    for key, points in run.curves.items():
        finite = [point for point in points if math.isfinite(point[1])]
        if key.startswith(HELD_OUT[0]) and len(points) > 1 and finite:
            best = min(finite, key=lambda point: point[1])
            found.append(
                f"Held-out {key.removeprefix(HELD_OUT[0])} went from {points[0][1]:.4g} at step {points[0][0]} to "
                f"{points[-1][1]:.4g} at step {points[-1][0]}; its lowest is {best[1]:.4g} at step {best[0]}."
            )
    for record in {record["metric"]: record for record in run.records}.values():
        scores = ", ".join(_score(record, name) for name in record["figures"])
        step = (record.get("generated") or {}).get("step")
        found.append(f"Evaluated{f' at step {step}' if step is not None else ''}: {scores}.")
    if not run.records:
        found.append("It has not been evaluated; `aigc eval` does that.")
    return found


def _score(record: Mapping[str, Any], name: str) -> str:
    value, baseline, way = record["figures"][name], baseline_of(record, name), (record.get("better") or {}).get(name)
    notes = [*([f"real items: {baseline:.4g}"] if baseline is not None else []), *filter(None, [_WAYS.get(str(way))])]
    return f"{name} {value:.4g}{f' ({chr(44).join(notes)})' if notes else ''}".replace(",", ", ")


def baseline_of(record: Mapping[str, Any], name: str) -> float | None:
    """What held-out real items score in the place of samples."""
    values = (record.get("floor") or {}).get("figures") or {}
    value = values.get(name, values.get(name.partition("[")[0]))
    return float(value) if isinstance(value, (int, float)) else None


def summary(run: Facts) -> str:
    """The run in words, with what a person noted, and its warnings."""
    parts = [f"<p>{escape(sentence)}</p>" for sentence in words(run)]
    if run.notes["note"] or run.notes["tags"]:
        tags = f" <b>{escape(', '.join(run.notes['tags']))}</b>" if run.notes["tags"] else ""
        parts.append(f"<p>Note: {escape(run.notes['note'])}{tags}</p>")
    parts += [f'<div class="warn">{escape(line)}</div>' for line in run.warnings]
    return "".join(parts)


def charts(run: Facts) -> str:
    """A chart for each term, its phases together, held-out values dashed."""
    panels: dict[str, list[str]] = {}
    for key in run.curves:
        term = key.rsplit("/", 1)[-1]
        panels.setdefault(_SAME.get(term, term) if "main/loss" in run.curves else term, []).append(key)
    marks = {
        match[2]: int(match[1]) for line in run.warnings if (match := re.fullmatch(r"step (\d+): ([^:]+): .*", line))
    }
    found = []
    for term in sorted(panels, key=lambda term: (term in _LAST, term not in _FIRST)):
        lines = [
            Line(key, run.curves[key], number, key.startswith(HELD_OUT)) for number, key in enumerate(panels[term])
        ]
        found.append(chart(term, lines, marks))
    return f'<div class="charts">{"".join(found)}</div>' if found else "<p>No metrics were written.</p>"


def previews(run: Facts, album: Album, anchor: str) -> str:
    """Samples of the same seeds over the steps: pictures and texts one step at a time, sound of the last one."""
    found = []
    for kind, steps in run.previews.items():
        every = max(1, -(-len(steps) // _FRAMES))
        last = max(steps)
        wanted = [step for number, step in enumerate(reversed(steps)) if number % every == 0]
        if kind.endswith(_PLAYED):
            wanted = [last, min(steps)] if min(steps) != last else [last]
        shown = [(step, album.show(steps[step], about=f"samples at step {step}")) for step in wanted]
        frames = [(step, html) for step, html in reversed(shown) if html]
        if not frames:
            continue
        parts = "".join(
            f'<div class="frame" data-step="{step}"{_id(anchor, kind, step == last)}>{html}</div>'
            for step, html in frames
        )
        title = kind.rpartition(".")[0].strip("-") or "samples"
        end = len(frames) - 1
        slider = f'<input type="range" min="0" max="{end}" value="{end}" aria-label="step of the {escape(title)}">'
        hidden = "" if end else " hidden"
        found.append(
            f"<h3>{escape(title)}, the same seeds over the steps</h3>"
            f'<div class="steps"><span{hidden}>{slider}</span><output></output>{parts}</div>'
        )
    return "".join(found)


def _id(anchor: str, kind: str, last: bool) -> str:
    return f' id="{preview_id(anchor, kind)}"' if last else ""


def preview_id(anchor: str, kind: str) -> str:
    """What the last preview of a kind is called within the page."""
    return f"{anchor}-last-{re.sub(r'[^a-z]+', '-', kind.lower()).strip('-')}"


def generated(run: Facts, album: Album) -> str:
    """The newest sets of samples that ``aigc sample`` left in the run: what shows them together, or the first files."""
    sets = [path for path in (run.run.path / "generated").glob("*/samples.json") if path.is_file()]
    found = []
    for path in sorted(sets, key=lambda path: -path.stat().st_mtime)[:3]:
        try:
            record = read_json(path)
            names = [*map(str, record["overview"]), *map(str, record["files"])]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        names = [name for name in names if Path(name).name == name]  # a stranger's record may lead elsewhere
        overview = names[: len(record["overview"])]
        players = [name for name in names if name.endswith(_PLAYED)]
        shown = [album.show(path.parent / name) for name in [*overview, *players[:_PLAYERS]]]
        if any(shown):
            controls = {key: value for key, value in (record.get("controls") or {}).items() if value is not None}
            about = f"seed {record.get('seed')}, step {record.get('step')}, {json.dumps(controls)}"
            found.append(f"<h3>{escape(path.parent.name)}</h3><p class='soft'>{escape(about)}</p>{''.join(shown)}")
    return "".join(found)


def evaluation(run: Facts, album: Album) -> str:
    """Each evaluation with its baseline and conditions, and pictures such as the nearest training items."""
    if not run.records:
        return "<p>None yet: <code>aigc eval</code> scores the run beside held-out real items.</p>"
    rows = []
    for record in run.records:
        spread, bounds = record.get("spread") or {}, record.get("bounds") or {}
        for number, (name, value) in enumerate(record["figures"].items()):
            baseline, way = baseline_of(record, name), (record.get("better") or {}).get(name, "")
            around = f" ± {spread[name]:.2g}" if name in spread else ""
            made = record.get("generated") or {}
            rows.append([
                escape(name), f"{escape(str(bounds.get(name.partition('[')[0], '')))} {value:.5g}{around}",
                "" if baseline is None else f"{baseline:.5g}", _WAYS.get(str(way), ""),
                escape(f"n={made.get('n')}" + (f", step {made['step']}" if "step" in made else "")),
                "" if number else escape("; ".join(map(str, record.get("notes") or ()))),
            ])  # fmt: skip
    found = [table(["score", "of the run", "of real items", "", "on", "notes"], rows, numbers=True)]
    for path in sorted((run.run.path / "eval").glob("*.png")):
        if shown := album.show(path):
            title = "samples beside the nearest training items" if "memorization" in path.name else path.stem
            found.append(f"<h3>{escape(title)}</h3>{shown}")
    return "".join(found)


def reproduction(run: Facts) -> str:
    """The command, the environment, the configuration with where each value came from, and the sums."""
    versions = {key.removeprefix("versions."): value for key, value in run.environment.items() if "versions." in key}
    pinned = " ".join(f"{name}=={value}" for name, value in versions.items() if name in ("aigc-cli", "torch", "numpy"))
    git, fingerprint = run.environment.get("git"), run.data.get("fingerprint", "unknown")
    lines = [
        f"pip install {pinned}" + (f"   # git {git}" if git else ""), *run.commands,
        f"# data: {run.run.config['data']['name']}, fingerprint {fingerprint}",
        "# On the same machine and versions the weights end with the sums below, bit for bit (CPU).",
    ]  # fmt: skip
    config = [
        [f"<code>{escape(key)}</code>", f"<code>{escape(json.dumps(value, ensure_ascii=False))}</code>",
         f"<small>{escape(run.origin(key))}</small>"]
        for key, value in run.config.items()
    ]  # fmt: skip
    facts = [[escape(key), escape(str(value))] for key, value in run.environment.items()]
    sums = [[f"<code>{escape(name)}</code>", f"<code>{escape(value)}</code>"] for name, value in run.sums.items()]
    return "".join([
        f"<h3>How to reproduce</h3><pre>{escape(chr(10).join(lines))}</pre>",
        folded("Configuration", table(["key", "value", "from"], config)),
        folded("Environment", table(["", ""], facts)),
        folded("Sums of the newest checkpoint (SHA-256)", table(["file", "sum"], sums)) if sums else "",
    ])  # fmt: skip
