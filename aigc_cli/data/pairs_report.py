"""The report on pairs of texts, such as sentences and their translations."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from aigc_cli.data.base import SPLITS, Split
from aigc_cli.data.report import Look, Report, add_copies, add_counts, groups_of, spread
from aigc_cli.data.text_facts import TextFacts, beginning, digest_of_text, scripts
from aigc_cli.data.text_report import add_files, add_oddities, add_tokens, readable
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.registry import register

PAIR = ("pair", "pairs")
_UNEVEN = 3.0  # times the usual ratio of the lengths of both sides
_SHORT = 10  # characters below which a ratio says little


@register("report", "text from text")
def pairs_report(look: Look) -> Report:
    """Numbers, lengths and copies of pairs, and sides that are empty, equal or of odd lengths; raises DataError where
    none can be read."""
    report = Report(PAIR)
    corpora, files = readable(look)
    rows: list[tuple[str, str]] = []
    of: list[int] = []
    counts: dict[Split, int] = {}
    sides = (TextFacts(near=False), TextFacts(near=False))
    for split in look.splits:
        found: list[tuple[str, str]] = []
        with suppress(ConfigError, DataError):  # what opening the split says of it is told below
            for piece in corpora[split].pieces():
                found.append((piece.texts[0], piece.texts[1]))
                for side, facts in enumerate(sides):
                    facts.add(piece, side)
        rows += found
        counts[split] = len(found)
        of += [SPLITS.index(split)] * len(found)
    for facts in sides:
        facts.close()
    if not rows:
        raise DataError("no pairs can be read", "; ".join(str(error) for error in files.failed.values()))
    add_counts(report, counts)
    names = [f"{beginning(source)} - {beginning(target)}" for source, target in rows]
    for title, facts in zip(("source", "target"), sides, strict=True):
        shares = ", ".join(f"{name} {share:.1%}" for name, share in list(scripts(facts.points).items())[:3])
        lengths = spread(np.array(facts.lengths), " characters")
        report.add(title, f"{lengths}; {shares}", **{title: {"characters": facts.characters}})
    add_tokens(report, look, corpora, files)
    add_files(report, look, files)
    add_oddities(report, list(sides))
    _add_sides(report, rows, names)
    splits = np.array(of)
    digests = np.array([digest_of_text("\0".join(row)) for row in rows], dtype=np.int64)
    add_copies(report, groups_of(digests), names, splits, None)
    _add_sources(report, rows, digests, splits)
    report.excerpts = [f"{source}\n    -> {target}" for source, target in rows[:2]]
    return report


def _add_sides(report: Report, rows: list[tuple[str, str]], names: list[str]) -> None:
    left_out = "`aigc data prepare` leaves them out"
    empty = [name for name, row in zip(names, rows, strict=True) if not all(side.strip() for side in row)]
    report.find("empty_side", empty, "nothing on one side", left_out, prepared=True)
    equal = [name for name, row in zip(names, rows, strict=True) if row[0].strip() == row[1].strip() and row[0].strip()]
    report.find("equal_sides", equal, "the same on both sides, such as text that was not translated")
    lengths = np.array([[max(1, len(side)) for side in row] for row in rows], dtype=np.float64)
    ratio = np.log(lengths[:, 1] / lengths[:, 0])
    usual = float(np.median(ratio))
    far = (np.abs(ratio - usual) > np.log(_UNEVEN)) & (lengths.max(1) >= _SHORT)
    full = [all(side.strip() for side in row) for row in rows]
    uneven = [names[place] for place in np.flatnonzero(far & np.array(full))]
    what = f"one side more than {_UNEVEN:g} times as long as it usually is beside the other ({np.exp(usual):.2f} to 1)"
    report.find("uneven", uneven, what, "are they a translation of each other?")
    report.facts["ratio"] = round(float(np.exp(usual)), 3)


def _add_sources(report: Report, rows: list[tuple[str, str]], digests: np.ndarray, of: np.ndarray) -> None:
    """Sources that come with several targets, and held-out ones that are trained on."""
    sources = np.array([digest_of_text(source) for source, _ in rows], dtype=np.int64)
    _, first = np.unique(digests, return_index=True)
    _, place, counts = np.unique(sources[first], return_index=True, return_counts=True)
    several = [beginning(rows[int(first[at])][0]) for at in place[counts > 1]]
    report.find("several_targets", several, "one source, several targets", noun=("source", "sources"))
    leaked = (of > 0) & np.isin(sources, sources[of == 0]) & ~np.isin(digests, digests[of == 0])
    names = [beginning(rows[int(at)][0]) for at in np.flatnonzero(leaked)]
    report.find(
        "split_sources", names, "held-out sources that are trained on with other targets", noun=("source", "sources")
    )
