"""The report on sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_cli.data.base import SPLITS, Split
from aigc_cli.data.cache import find_root
from aigc_cli.data.open import items_at
from aigc_cli.data.report import (
    Look,
    Report,
    add_classes,
    add_copies,
    add_counts,
    add_left_out,
    add_lines,
    counted,
    groups_of,
    plain_report,
)  # fmt: skip
from aigc_cli.data.sound_files import NOUN, Entry, SoundFiles, duration, windows_of
from aigc_cli.errors import DataError
from aigc_cli.files import replacing
from aigc_cli.modalities.audio_decode import missing_packages
from aigc_cli.registry import register

if TYPE_CHECKING:
    from torch import Tensor

_ROWS, _ACROSS = 8, 6  # clips on a sheet
_KEPT = "`aigc data prepare` leaves them out"
#: How the reasons begin for which files are left out, by the code of the finding.
_REASONS = {
    "empty_file": "it is empty", "cut": "it is cut", "not_finite": "it holds values", "silent": "it is silent",
    "too_short": "it has ", "no_sound": "it holds no sound",
}  # fmt: skip
_SAID = {
    "empty_file": "files of no bytes",
    "cut": "shorter than their headers say, so cut",
    "not_finite": "samples that are not finite numbers",
    "silent": "nothing to hear: all below -60 dB of full scale",
    "too_short": "shorter than 20 ms",
    "no_sound": "no samples, or none of sound",
    "broken": "cannot be read",
}
#: What to do about files that are not read.
_INSTEAD = {
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".rar", ".7z"), "unpack archives first"),
    **dict.fromkeys((".mid", ".midi"), "render MIDI files to sound first"),
    ".parquet": "save the sound of parquet files as files first",
}


@dataclass(frozen=True)
class Facts:
    """What is known of the files of all splits, one after the other."""

    parts: dict[Split, SoundFiles]
    names: Sequence[str]
    entries: Sequence[Entry]
    of: np.ndarray  # int64 (n,): the split of each, as a number
    labels: np.ndarray | None  # int64 (n,), -1 where a split has none
    classes: Sequence[str]

    @property
    def usable(self) -> np.ndarray:
        """The places of those that are not left out."""
        return np.flatnonzero([not entry.reason for entry in self.entries])

    def named(self, mask: np.ndarray) -> list[str]:
        """The names of those for which `mask` (n,) holds."""
        return [self.names[place] for place in np.flatnonzero(mask).tolist()]


def facts_of(look: Look) -> Facts | None:
    """The facts on all files, which are decoded, or were before; None of data that is not files."""
    parts = {split: raw.content for split, raw in look.splits.items() if isinstance(raw.content, SoundFiles)}
    if not parts:
        return None
    known = [np.full(len(part), -1) if part.labels is None else part.labels for part in parts.values()]
    return Facts(
        parts,
        [name for part in parts.values() for name in part.names],
        [entry for part in parts.values() for entry in part.entries],
        np.repeat([SPLITS.index(split) for split in parts], [len(part) for part in parts.values()]),
        np.concatenate(known) if any(part.labels is not None for part in parts.values()) else None,
        max((part.classes for part in parts.values()), key=len),
    )


@register("report", "audio")
def audio_report(look: Look) -> Report:
    """Lengths, rates, classes and copies of sound, and what cannot be used; raises DataError where nothing can."""
    facts = facts_of(look)
    if facts is None:
        report = plain_report(look)
        report.preview = lambda path: _write_sheet(_of_datasets(look), path)
        return report
    report = Report(NOUN)
    add_counts(report, {split: len(part) for split, part in facts.parts.items()})
    if not len(facts.usable):
        some = "; ".join(f"{n}: {e.reason}" for n, e in list(zip(facts.names, facts.entries, strict=True))[:3])
        raise DataError(f"none of {counted(len(facts.names), NOUN)} can be read: {some}", "point data.root= at others")
    _add_forms(report, look, facts)
    _add_lengths(report, look, facts)
    _add_broken(report, look, facts)
    labels = np.zeros(0, dtype=np.int64) if facts.labels is None else facts.labels[facts.usable]
    add_classes(report, facts.classes, labels, facts.of[facts.usable])
    digests = np.array([int(facts.entries[place].digest, 16) for place in facts.usable], dtype=np.uint64)
    names = [facts.names[place] for place in facts.usable]
    add_copies(report, groups_of(digests), names, facts.of[facts.usable], labels if len(labels) else None)
    _add_folder(report, look, facts)
    report.preview = lambda path: _write_sheet(_of_files(look, facts), path)
    return report


def _add_forms(report: Report, look: Look, facts: Facts) -> None:
    """Rates and channels, and what becomes of them."""
    used = [facts.entries[place] for place in facts.usable]
    wanted = look.config.sample_rate
    rates = Counter(entry.rate for entry in used)
    channels = Counter(entry.channels for entry in used)
    told = ", ".join(f"{count:,} at {rate / 1000:g} kHz" for rate, count in rates.most_common(6))
    report.add("rates", f"{told}; the model gets {wanted / 1000:g} kHz (data.sample_rate=)", rates=dict(rates))
    words = {1: "mono", 2: "stereo"}
    told = ", ".join(f"{count:,} {words.get(some, f'of {some}')}" for some, count in channels.most_common())
    report.add("channels", f"{told}; the model gets {look.config.channels} (data.channels=)", channels=dict(channels))
    slow = np.array([0 < entry.rate < wanted for entry in facts.entries])
    most = int(np.quantile([entry.rate for entry in used], 0.5, method="nearest"))
    hint = f"data.sample_rate={most} needs less of everything, and loses nothing of most files" if most < wanted else ""
    what = f"a lower rate than data.sample_rate={wanted}, so nothing above half of that"
    report.find("low_rate", facts.named(slow), what, hint)
    clipped = np.array([entry.clipped for entry in facts.entries])
    report.facts["clipped"] = int(clipped.sum())
    what = "clipped: more than 1 % of samples at full scale, which sounds distorted"
    report.find("clipped", facts.named(clipped), what, "lower the gain when recording; a model learns the distortion")


def _add_lengths(report: Report, look: Look, facts: Facts) -> None:
    """How long the files are, and the clips that come of them."""
    config = look.config
    seconds = np.array([facts.entries[place].seconds for place in facts.usable])
    least, middle, most = (float(np.quantile(seconds, share)) for share in (0, 0.5, 1))
    told = f"{duration(seconds.sum())} in all; {least:.2f} to {most:.2f} s, half of them up to {middle:.2f} s"
    report.add("lengths", told, seconds=[round(value, 3) for value in (least, middle, most, float(seconds.sum()))])
    each = config.samples / config.sample_rate
    counts = np.array([facts.entries[place].n for place in facts.usable])
    clips = np.maximum(1, counts // config.samples)
    silence = 1 - np.minimum(counts, clips * config.samples).sum() / (clips.sum() * config.samples)
    short, long = int((counts < config.samples).sum()), int((counts > config.samples).sum())
    report.add(
        "clips",
        f"{clips.sum():,} of {each:g} s (data.seconds=): {short:,} end in silence, and {long:,} are of longer files; "
        f"{silence:.0%} is such silence",
        clips=int(clips.sum()), shorter=short, longer=long, silence=round(float(silence), 3),
    )  # fmt: skip
    fitting = float(np.quantile(seconds, 0.95))
    if silence > 0.5 and fitting < 0.75 * each:
        hint = f"data.seconds={max(0.1, np.ceil(fitting * 10) / 10):g} is enough for 95 % of the files"
        report.find("padding", short, "most of what a model sees is the silence after short files", hint)


def _add_broken(report: Report, look: Look, facts: Facts) -> None:
    """What cannot be used, by the reason."""
    failed = {name: e.reason for name, e in zip(facts.names, facts.entries, strict=True) if e.reason}
    report.facts |= {"readable": len(facts.usable), "unreadable": len(failed)}
    most = look.config.max_bad
    stops = f"training stops at more than data.max_bad={most}: data.max_bad={len(failed)}, or "
    hint = f"{stops if len(failed) > most else ''}{_KEPT}"
    codes = {name: next((c for c, begin in _REASONS.items() if reason.startswith(begin)), "broken")
             for name, reason in failed.items()}  # fmt: skip
    for code, said in _SAID.items():
        names = [f"{name} ({failed[name]})" if code in ("broken", "cut") else name
                 for name, found in codes.items() if found == code]  # fmt: skip
        report.find(code, names, said, hint, prepared=True)


def _add_folder(report: Report, look: Look, facts: Facts) -> None:
    """What lies in the folder beside the files that are read."""
    for part in facts.parts.values():
        add_lines(report, part.lines)
    root = find_root(look.values.get("root"))
    if root.is_dir():
        needs = {kind: f"{kind} needs pip install {package}" for kind, package in missing_packages().items()}
        add_left_out(report, root, facts.names, {**_INSTEAD, **needs})


def _of_files(look: Look, facts: Facts) -> tuple[Tensor, list[str], int, str]:
    """Some clips as a model gets them, int16 (n, channels, samples), the rows' titles, the rate, and a title."""
    import torch

    split = SPLITS[facts.of[facts.usable[0]]]  # the first that has any: all of the training split may be broken
    part = facts.parts[split]
    used = part.take(np.flatnonzero([not entry.reason for entry in part.entries]))
    windows = windows_of(used, look.config)
    labels = None if windows.labels is None else windows.labels.numpy()
    rows, titles = _drawn(len(windows), labels, used.classes)
    title = f"{len(rows)} of {counted(len(facts.names), NOUN)} ({split}), as a model gets them"
    return windows(torch.tensor(rows)).content, titles, look.config.sample_rate, title


def _of_datasets(look: Look) -> tuple[Tensor, list[str], int, str]:
    """The same of data that is not files."""
    split, raw = next(iter(look.splits.items()))
    dataset: Any = raw.content
    held = dataset.resident()
    labels = None if held is None or held.labels is None else held.labels.numpy()
    rows, titles = _drawn(len(dataset), labels, dataset.spec.classes)
    title = f"{len(rows)} of {len(dataset):,} clips ({split}), as a model gets them"
    return items_at(dataset, rows).content, titles, dataset.spec.rate or 8000, title


def _drawn(n: int, labels: np.ndarray | None, classes: Sequence[str]) -> tuple[list[int], list[str]]:
    """Some of `n` clips, spread over all, a row for each class where there are few; and the titles of the rows."""
    from aigc_cli.data.picture_facts import drawn

    rows = [row for row in drawn(np.arange(n), labels, len(classes), _ROWS, _ACROSS) if len(row)]
    several = labels is not None and 1 < len(classes) <= 3 * _ROWS
    titles = [classes[int(labels[row[0]])] for row in rows] if several and labels is not None else []
    return [int(place) for row in rows for place in row], titles


def _write_sheet(shown: tuple[Tensor, list[str], int, str], path: Path) -> None:
    """A PNG with their spectrograms; raises OSError where it cannot be written."""
    from aigc_cli.modalities.audio_writers import spectrograms
    from aigc_cli.modalities.image_writers import GridLayout, grid

    content, titles, rate, title = shown
    layout = GridLayout(columns=_ACROSS, limit=len(content), title=title, row_titles=titles)
    image: Any = grid(spectrograms(content, rate), layout)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        image.save(part, format="PNG")
