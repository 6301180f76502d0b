"""A report: one file of HTML that needs nothing else, neither the runs nor a network."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from aigc_cli import __version__
from aigc_cli.modalities.samples import LABEL
from aigc_cli.progress import clock
from aigc_cli.reports import comparison, sections
from aigc_cli.reports import sweep as sweeps
from aigc_cli.reports.comparison import NO_VALUE
from aigc_cli.reports.facts import Facts
from aigc_cli.reports.media import Album
from aigc_cli.reports.svg import Line, chart

#: Bytes of samples in a page; with all else it stays below 3 MB.
ROOM = 2_300_000
_SHARED, _OWN = 4, 4  # scores of the overview: columns of those that several runs have, and others of each run
_FOLDER = Path(__file__).parent


def report(runs: Sequence[Facts], swept: Sequence[sweeps.Sweep] = (), *, room: int = ROOM) -> tuple[str, list[str]]:
    """The page, and the files that were left out of it for lack of room."""
    anchors = {run.name: f"run-{number}" for number, run in enumerate(runs)}
    title = runs[0].name if len(runs) == 1 and not swept else _counted(runs, swept)
    parts, links, left_out = [], [], []
    if len(runs) > 1:
        links.append(("overview", "Overview"))
        parts.append(_part("overview", "Overview", _overview(runs, anchors)))
    for number, each in enumerate(swept):
        links.append((f"sweep-{number}", f"Sweep {each.folder.name}"))
        parts.append(_part(links[-1][0], links[-1][1], sweeps.section(each, anchors)))
    if len(runs) > 1:
        links.append(("comparison", "Comparison"))
        parts.append(_part("comparison", "Comparison", _comparison(runs, anchors)))
    for number, run in enumerate(runs):
        album = Album(room // (len(runs) - number), run.run.path)
        before = album.room
        links.append((anchors[run.name], run.name))
        parts.append(_part(anchors[run.name], run.name, _of_run(run, album, anchors[run.name])))
        room -= before - album.room
        left_out += [f"{run.name}/{name}" for name in album.left_out]
    if left_out:
        note = f"Left out, for lack of room where no other reason stands: {', '.join(left_out)}."
        parts.append(f"<p class='soft'>{escape(note)}</p>")
    return _page(title, links, parts), left_out


def _counted(runs: Sequence[Facts], swept: Sequence[sweeps.Sweep]) -> str:
    counts = ((len(runs), "run"), (len(swept), "sweep"))
    return " and ".join(f"{n} {word}{'' if n == 1 else 's'}" for n, word in counts if n)


def _part(anchor: str, title: str, content: str) -> str:
    return f'<section id="{anchor}"><h2>{escape(title)}</h2>{content}</section>'


def _of_run(run: Facts, album: Album, anchor: str) -> str:
    # What is looked at first takes its room first.
    evaluation, previews = sections.evaluation(run, album), sections.previews(run, album, anchor)
    generated = sections.generated(run, album)
    return "".join([
        sections.summary(run), "<h3>Curves</h3>", sections.charts(run), previews,
        f"<h3>Samples</h3>{generated}" if generated else "",
        "<h3>Evaluation</h3>", evaluation, sections.reproduction(run),
    ])  # fmt: skip


def _overview(runs: Sequence[Facts], anchors: Mapping[str, str]) -> str:
    found = [_scores_of(run) for run in runs]
    having = Counter(name for scores in found for name in scores)
    # Counted ones come in the order in which they were met, and equal ones stay so.
    shared = [name for name, count in having.most_common() if count > 1][:_SHARED]
    rows = []
    for run, scores in zip(runs, found, strict=True):
        others = [f"{name} {value:.4g}" for name, value in scores.items() if name not in shared][:_OWN]
        rows.append([
            f'<a href="#{anchors[run.name]}">{escape(run.name)}</a>', escape(run.run.status()), f"{run.run.step:,}",
            clock(run.seconds), *(f"{scores[name]:.4g}" if name in scores else "" for name in shared),
            escape(", ".join(others)), escape(", ".join(run.notes["tags"])), str(len(run.warnings) or ""),
        ])  # fmt: skip
    header = ["run", "status", "steps", "time", *map(escape, shared), "other scores", "tags", "warnings"]
    note = "<p class='soft'>Scores of one name compare as far as the comparison below has them side by side.</p>"
    return sections.table(header, rows, numbers=True) + (note if shared else "")


def _scores_of(run: Facts) -> dict[str, float]:
    """The newest value of each score, those of copies last, as they are many; without spreads over subsets."""
    records = sorted(run.records, key=lambda record: record["metric"] == "memorization")
    found = {name: value for record in records for name, value in record["figures"].items()}
    return {name: value for name, value in found.items() if not name.partition("[")[0].endswith("_std")}


def _comparison(runs: Sequence[Facts], anchors: Mapping[str, str]) -> str:
    header = ["", *(escape(run.name) for run in runs)]
    found = comparison.configuration(runs)
    rows = [
        [f"<code>{escape(key)}</code>", *(
            escape(comparison.shown(value)) + (f" <small>{escape(origin)}</small>" if origin != NO_VALUE else "")
            for value, origin in zip(values, origins, strict=True)
        )] for key, values, origins in found
    ]  # fmt: skip
    title = f"{len(found)} keys of the configuration differ" if len(found) != 1 else "One key differs"
    parts = [sections.folded(title, sections.table(header, rows), shown=len(found) <= 25) if rows
             else "<p>The configurations are the same.</p>"]  # fmt: skip
    for name, differing in (("data", comparison.data(runs)), ("environment", comparison.environment(runs))):
        rows = [[escape(each.key), *(escape(comparison.shown(value)) for value in each.values)] for each in differing]
        parts.append(f"<h3>Differences of {name}</h3>{sections.table(header, rows)}" if rows
                     else f"<p>The {name} is the same.</p>")  # fmt: skip
    parts += [_curves(runs), _scores(runs), _beside(runs, anchors)]
    cost = [[escape(cell) for cell in row] for row in comparison.cost_rows(runs)]
    return "".join([*parts, "<h3>Cost</h3>", sections.table(header, cost, numbers=True)])


def _curves(runs: Sequence[Facts]) -> str:
    """The curves that several runs have, on one axis each."""
    shared = [key for key in dict.fromkeys(key for run in runs for key in run.curves)
              if sum(key in run.curves for run in runs) > 1 and not key.endswith("/lr")]  # fmt: skip
    found = []
    for key in sorted(shared, key=lambda key: (key == "items_per_second", not key.startswith("val/"))):
        lines = [Line(run.name, run.curves[key], number) for number, run in enumerate(runs) if key in run.curves]
        found.append(chart(key, lines))
    kinds = {run.run.config["model"]["name"] for run in runs}
    note = "<p class='soft'>Losses of different models measure different things.</p>" if len(kinds) > 1 else ""
    return f'<h3>Curves on one axis</h3>{note}<div class="charts">{"".join(found)}</div>' if found else ""


def _scores(runs: Sequence[Facts]) -> str:
    found = comparison.scores(runs)
    parts = []
    for group in found.groups:
        from aigc_cli.metrics.report import describe_comparison, differences

        parts.append(f"<h3>{escape(f'Scores {comparison.whose(group, runs)}'.rstrip())}</h3>")
        parts.append(f"<pre>{escape(describe_comparison(group, differences(group)))}</pre>")
    parts = parts or ["<h3>Scores</h3>"]
    parts += [f'<div class="warn">{escape(why)}</div>' for why in found.refused]
    none = "<p>The runs share no evaluation: <code>aigc eval compare</code> makes one.</p>"
    return "".join(parts + [none] * (len(parts) == 1))


def _beside(runs: Sequence[Facts], anchors: Mapping[str, str]) -> str:
    """The newest samples of the same seeds side by side; the script brings them from further down the page."""
    shared = [kind for kind in dict.fromkeys(kind for run in runs for kind in run.previews)
              if kind.endswith(".png") and sum(kind in run.previews for run in runs) > 1]  # fmt: skip
    parts = []
    for kind in shared:
        cells = "".join(
            f"<div><p>{escape(run.name)}, step {max(run.previews[kind])}</p>"
            f'<img alt="samples of {escape(run.name)}" data-of="{sections.preview_id(anchors[run.name], kind)}"></div>'
            for run in runs if kind in run.previews
        )  # fmt: skip
        parts.append(f'<h3>Side by side: {escape(kind.rpartition(".")[0].strip("-") or "samples")} of the same seeds'
                     f'</h3><div class="beside">{cells}</div>')  # fmt: skip
    return "".join(parts)


def _page(title: str, links: Sequence[tuple[str, str]], parts: Sequence[str]) -> str:
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    nav = "".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name in links) if len(links) > 1 else ""
    made = time.strftime("%Y-%m-%d %H:%M %Z")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><meta name="generator" content="aigc {__version__}">'
        f'<link rel="icon" href="data:,"><style>{style}</style></head><body><header><h1>{escape(title)}</h1>'
        f'<p class="soft">A report of aigc {__version__}, made {escape(made)}. The samples in it are {LABEL}.</p>'
        f"<nav>{nav}</nav></header><main>{''.join(parts)}</main><script>{script}</script></body></html>\n"
    )
