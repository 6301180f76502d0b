"""The report on video."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_cli.data.base import SPLITS
from aigc_cli.data.cache import find_root
from aigc_cli.data.open import items_at
from aigc_cli.data.report import Look, Report, add_classes, add_copies, add_counts, add_left_out, add_lines, groups_of
from aigc_cli.data.video_files import NOUN, Clips, Entry, VideoFiles
from aigc_cli.errors import DataError
from aigc_cli.files import replacing
from aigc_cli.modalities.video_decode import missing_packages
from aigc_cli.registry import register

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = 10  # clips on a sheet


@register("report", "video")
def video_report(look: Look) -> Report:
    """Lengths, rates, classes and copies of videos, and what cannot be used; raises DataError where nothing can."""
    parts = {split: raw.content for split, raw in look.splits.items() if isinstance(raw.content, VideoFiles)}
    if not parts:
        return _of_made(look)
    report, config = Report(NOUN), look.config
    add_counts(report, {split: len(part) for split, part in parts.items()})
    names = [name for part in parts.values() for name in part.names]
    entries = [entry for part in parts.values() for entry in part.entries]
    of = np.repeat([SPLITS.index(split) for split in parts], [len(part) for part in parts.values()])
    usable = np.flatnonzero([not entry.reason for entry in entries])
    if not len(usable):
        some = "; ".join(f"{name}: {entry.reason}" for name, entry in list(zip(names, entries, strict=True))[:3])
        raise DataError(f"none of {len(names):,} videos can be read: {some}", "point data.root= at others")
    _add_forms(report, config, [entries[place] for place in usable])
    _add_broken(report, config, names, entries)
    known = [np.full(len(part), -1) if part.labels is None else part.labels for part in parts.values()]
    classes = max((part.classes for part in parts.values()), key=len)
    labels = np.concatenate(known)[usable]
    add_classes(report, classes, labels, of[usable])
    digests = np.array([int(entries[place].digest, 16) for place in usable], dtype=np.uint64)
    add_copies(report, groups_of(digests), [names[place] for place in usable], of[usable], labels if classes else None)
    # Nothing prepares copies of videos: what the other reports say of it is done by hand.
    report.findings[:] = [
        replace(each, prepared=False, hint="remove one of each") if each.prepared else each for each in report.findings
    ]
    for part in parts.values():
        add_lines(report, part.lines)
    root = find_root(look.values.get("root"))
    if root.is_dir():
        needs = {kind: f"{kind} needs pip install {package}" for kind, package in missing_packages().items()}
        add_left_out(report, root, names, needs)
    report.preview = lambda path: _write_sheet(*_of_files(next(iter(parts.values())), config), path)
    return report


def _of_made(look: Look) -> Report:
    """Of clips that are made when they are asked for: how many, and a sheet."""
    opened: dict[Any, Any] = {split: raw.content for split, raw in look.splits.items()}
    first = next(iter(opened.values()))
    report = Report(("clip", "clips"))
    add_counts(report, {split: len(dataset) for split, dataset in opened.items()})
    report.add("shape", " x ".join(map(str, first.spec.shape)), shape=list(first.spec.shape))
    classes = first.spec.classes
    report.add("classes", f"{len(classes)}: {', '.join(classes[:12])}", classes=len(classes))
    shown = list(range(min(_SHOWN, len(first))))
    batch = items_at(first, shown)
    titles = [str(place) for place in shown]
    if batch.labels is not None:
        titles = [classes[label] for label in batch.labels.tolist()]
    report.preview = lambda path: _write_sheet(batch.content, titles, path)
    return report


def _add_forms(report: Report, config: Any, used: list[Entry]) -> None:
    """How long the files are, at which rates, and the clips that come of them."""
    rates = Counter(round(entry.rate) for entry in used)
    told = ", ".join(f"{count:,} at {rate}" for rate, count in rates.most_common(6))
    report.add("rates", f"{told} frames a second; the model gets {config.fps} (data.fps=)", rates=dict(rates))
    seconds = np.array([entry.seconds for entry in used])
    least, middle, most = (float(np.quantile(seconds, share)) for share in (0, 0.5, 1))
    told = f"{seconds.sum() / 60:.1f} min in all; {least:.2g} to {most:.2g} s, half of them up to {middle:.2g} s"
    report.add("lengths", told, seconds=[round(value, 3) for value in (least, middle, most, float(seconds.sum()))])
    clips = sum(entry.n // config.span for entry in used)
    each = config.frames * config.stride / config.fps
    report.add("clips", f"{clips:,} of {each:g} s (data.frames= data.stride=) and {config.size} pixels", clips=clips)


def _add_broken(report: Report, config: Any, names: list[str], entries: list[Entry]) -> None:
    """What cannot be used, by the reason, and what is cut."""
    failed = {name: entry.reason for name, entry in zip(names, entries, strict=True) if entry.reason}
    report.facts |= {"readable": len(names) - len(failed), "unreadable": len(failed)}
    stops = f"training stops at more than data.max_bad={config.max_bad}: data.max_bad={len(failed)}, or remove them"
    hint = stops if len(failed) > config.max_bad else "they are left out"
    short = [name for name, reason in failed.items() if reason.startswith("it has")]
    report.find("too_short", short, "shorter than a clip", f"{hint}; data.frames= or data.stride= makes clips shorter")
    broken = [f"{name} ({reason})" for name, reason in failed.items() if not reason.startswith("it has")]
    report.find("broken", broken, "cannot be read", hint)
    cut = [f"{name} ({e.cut})" for name, e in zip(names, entries, strict=True) if e.cut and not e.reason]
    report.find("cut", cut, "cut, or broken after a while; what is there is used", "copy them again")


def _of_files(part: VideoFiles, config: Any) -> tuple[Tensor, list[str]]:
    """The first clips of some files that can be read, uint8 (n, c, t, size, size), and their names."""
    import torch

    rows = np.flatnonzero([not entry.reason for entry in part.entries])
    rows = rows[:: max(1, -(-len(rows) // _SHOWN))]
    used = part.take(rows)
    clips = Clips(used.reel.content, used.entries, config, first_alone=True)
    return clips(torch.arange(len(clips))).content, [name.rsplit("/", 1)[-1] for name in used.names]


def _write_sheet(content: Tensor, titles: list[str], path: Path) -> None:
    """A PNG with a row a clip and a column a frame; raises OSError where it cannot be written."""
    from aigc_cli.modalities.samples import Arrangement
    from aigc_cli.modalities.video_writers import sheet

    title = f"{len(content)} clips, as a model gets them"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        sheet(content, Arrangement(n=len(content), title=title), titles).save(part, format="PNG")
