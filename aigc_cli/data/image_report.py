"""The report on pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from aigc_cli.data.alike import alike_pictures
from aigc_cli.data.cache import find_root
from aigc_cli.data.images import EncodedImages
from aigc_cli.data.picture_facts import Facts, drawn, facts_of, misnamed, plain_facts
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
    spread,
)  # fmt: skip
from aigc_cli.errors import DataError
from aigc_cli.files import replacing
from aigc_cli.modalities.image_decode import missing_packages, picture_suffixes, pillow_errors
from aigc_cli.modalities.unreadable import Unreadable
from aigc_cli.registry import register

NOUN = ("picture", "pictures")
_MOST_ALIKE = 100_000  # pictures among which those that look the same are sought
_ROWS, _ACROSS = 8, 10
_ELONGATED = 2.0
_KEPT = "`aigc data prepare`"
#: What to do about files that are not read.
_INSTEAD = {
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".rar", ".7z"), "unpack archives first"),
    **dict.fromkeys((".psd", ".cr2", ".nef", ".dng", ".jp2", ".svg"), "save pictures of other kinds as .png or .jpg"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), "take frames out of films first"),
    ".parquet": "parquet files are read with data=parquet",
}  # fmt: skip
_MODES = {"L": "grey", "RGB": "colour", "RGBA": "transparent", "LA": "transparent grey", "P": "palette", "1": "1 bit",
          **dict.fromkeys(("I", "I;16", "I;16B"), "16 bit")}  # fmt: skip


@register("report", "image")
def image_report(look: Look) -> Report:
    """Sizes, kinds, classes and copies of pictures, and those that cannot be read; raises DataError where none can."""
    facts = facts_of(look)
    report = Report(NOUN)
    add_counts(report, {split: len(part) for split, part in facts.parts.items()})
    if not len(facts.readable):
        some = "; ".join(f"{facts.names[place]}: {reason}" for place, reason in list(facts.failed.items())[:3])
        raise DataError(f"none of {counted(len(facts.names), NOUN)} can be read: {some}", "point data.root= at others")
    report.facts.update(plain_facts(facts))
    _add_files(report, look, facts)
    _add_broken(report, look, facts)
    _add_content(report, look, facts)
    labels = None if facts.labels is None else facts.labels[facts.readable]
    add_classes(report, facts.classes, labels if labels is not None else np.zeros(0), facts.of[facts.readable])
    _add_all_copies(report, facts)
    _add_folder(report, look, facts)
    report.preview = lambda path: write_sheet(facts, path)
    return report


def _add_files(report: Report, look: Look, facts: Facts) -> None:
    """The sizes and kinds of files, for pictures that are in any."""
    some, size = facts.readable, _size(facts)
    sizes = facts.sizes[some]
    if not sizes.any():
        report.add("sizes", f"all {sizes.shape[0]:,} are {size}x{size}")
        return
    short, aspect = sizes.min(1), sizes.max(1) / sizes.min(1)
    report.add("short side", f"{spread(short, ' pixels')}; the model gets {size}x{size} (data.size=)")
    report.add("aspect", f"up to {aspect.max():.1f} to 1, half of them up to {np.median(aspect):.2f}")
    kinds = Counter(facts.kinds[place] for place in some)
    modes = Counter(_MODES.get(facts.modes[place], facts.modes[place]) for place in some)
    for title, found in (("formats", kinds), ("modes", modes)):
        report.add(title, ", ".join(f"{count:,} {name}" for name, count in found.most_common()), **{title: dict(found)})
    small = np.zeros(len(facts.names), dtype=bool)
    small[some] = short < size
    fitting = 2 ** min(8, max(3, int(np.log2(max(1, np.quantile(short, 0.05))))))  # a power of two suits all models
    hint = f"data.size={fitting} or less enlarges few" if fitting < size else ""
    report.sets += [f"data.size={fitting}"] if hint else []
    report.find("small", facts.named(small), f"smaller than data.size={size}, so enlarged and blurred", hint)
    far = np.zeros(len(facts.names), dtype=bool)
    far[some] = aspect >= _ELONGATED
    what = "at least twice as long one way as the other; the middle square is kept"
    report.find("elongated", facts.named(far), what, "crop them, if what matters lies outside of the middle")
    wrong = [name for name, kind in zip(facts.names, facts.kinds, strict=True) if misnamed(name, kind)]
    report.find("suffix", wrong, "another format than the suffix says, which is read all the same")
    report.find("turned", facts.named(facts.turned), "turned as the EXIF says")
    report.find("animated", facts.named(facts.animated), "several frames, of which the first is taken")
    modes_at = np.array(facts.modes)
    _add_modes(report, facts, modes_at, look)


def _add_modes(report: Report, facts: Facts, modes: np.ndarray, look: Look) -> None:
    channels = look.values.get("channels", 3)
    clear = np.isin(modes, ["RGBA", "LA", "PA", "La", "RGBa"])
    report.find("transparent", facts.named(clear), "transparent parts, which are laid on white")
    deep = np.char.startswith(modes, "I") if len(modes) else clear
    report.find("deep", facts.named(deep), "16 bits, which become 8")
    odd = np.isin(modes, ["CMYK", "YCbCr", "LAB", "HSV", "F"])
    report.find("colours", facts.named(odd), "CMYK or other colours of print, which become RGB")
    palette = np.isin(modes, ["P", "1"])
    report.find("palette", facts.named(palette), "a palette or 1 bit a pixel, which become 8 bits a channel")
    if channels == 3:
        some = facts.readable
        colours = int(facts.colour[some].sum())
        if not colours:
            report.find(
                "grey", len(some), "all are grey, and read as colour", "data.channels=1 needs less of everything"
            )
        else:
            what = f"without colour, among {colours:,} with it"
            report.find("mixed", facts.named(~facts.colour), what, "data.channels=1 makes all of them grey")
    else:
        colour = ~np.isin(modes, ["L", "LA", "1", "I", "I;16", "I;16B", ""])
        grey = "colours become grey, by data.channels=1"
        report.find("made_grey", facts.named(colour), grey, "data.channels=3 keeps colours, where there are any")


def _add_broken(report: Report, look: Look, facts: Facts) -> None:
    failed = facts.failed
    most = look.values.get("max_bad", 0)
    hint = f"{_KEPT} leaves them out"
    if len(failed) > most:
        hint = f"training stops at more than data.max_bad={most}: data.max_bad={len(failed)}, or {hint}"
    empty = [facts.names[place] for place, reason in failed.items() if reason == "it is empty"]
    report.find("empty_file", empty, "files of no bytes", hint, prepared=True)
    markup = [facts.names[place] for place, reason in failed.items() if "markup" in reason]
    report.find("markup", markup, "web pages or other markup in disguise", hint, prepared=True)
    others = [f"{facts.names[place]} ({reason})" for place, reason in failed.items()
              if "markup" not in reason and reason != "it is empty"]  # fmt: skip
    report.find("broken", others, "cannot be read", hint, prepared=True)


def _add_content(report: Report, look: Look, facts: Facts) -> None:
    some = facts.readable
    mean, contrast = facts.mean[some].mean(), facts.contrast[some].mean()
    report.add("brightness", f"{mean:.0f} of 255 on average, contrast {contrast:.0f}")
    report.find("blank", facts.named(facts.blank), "a single colour", f"{_KEPT} leaves them out", prepared=True)
    faint = ~facts.blank & (facts.contrast < 4) & (facts.contrast > 0)
    report.find("faint", facts.named(faint), "hardly any contrast")


def _add_all_copies(report: Report, facts: Facts) -> None:
    some = np.array([place for place in facts.readable if not facts.blank[place]], dtype=np.int64)
    names = [facts.names[place] for place in some]
    labels = None if facts.labels is None else facts.labels[some]
    exact = groups_of(facts.digests[some])
    add_copies(report, exact, names, facts.of[some], labels)
    _, first = np.unique(facts.digests[some], return_index=True)
    first = np.sort(first)
    if len(first) > _MOST_ALIKE:
        report.add("near copies", f"not sought among more than {_MOST_ALIKE:,}")
        return
    near = alike_pictures(facts.thumbnails[some[first]])
    add_copies(report, near, [names[place] for place in first], facts.of[some[first]], None, "nearly the same")


def _add_folder(report: Report, look: Look, facts: Facts) -> None:
    """What lies in the folder beside the pictures that are read."""
    for part in facts.parts.values():
        add_lines(report, part.lines if isinstance(part, EncodedImages) else ())
    if look.values.get("root") is None or not any(isinstance(part, EncodedImages) for part in facts.parts.values()):
        return
    root = find_root(look.values["root"])
    if not root.is_dir():
        return
    if any(name.lower().endswith(picture_suffixes()) for name in facts.names):  # else the items are rows, not files
        needs = {kind: f"{kind} needs pip install {package}" for kind, package in missing_packages().items()}
        add_left_out(report, root, facts.names, {**_INSTEAD, **needs})
        above = {name.partition("/")[0] for name in facts.names if "/" in name}
        idle = [path.name for path in root.iterdir() if path.is_dir() and path.name not in above
                and not path.name.startswith(".")]  # fmt: skip
        report.find(
            "empty_folder", sorted(idle) if above else [], "not a picture in a folder", noun=("folder", "folders")
        )
        deep = [name for name in facts.names if name.count("/") > 2]
        report.find("nested", deep, "several folders deep: the class is that of the first")
        odd = [name for name in facts.names if "\\x" in name or any(ord(letter) < 32 for letter in name)]
        report.find("odd_name", odd, "names that are not text")


def _size(facts: Facts) -> int:
    return int(next(iter(facts.parts.values())).shape[1])


def write_sheet(facts: Facts, path: Path) -> None:
    """A PNG with some pictures as a model gets them, a row for each class; raises OSError where it cannot be
    written."""
    import torch

    from aigc_cli.modalities.image_writers import GridLayout, grid

    order = facts.readable[np.argsort(facts.of[facts.readable], kind="stable")]
    rows = [row for row in drawn(order, facts.labels, len(facts.classes), _ROWS, _ACROSS) if len(row)]
    labelled = facts.labels is not None and 1 < len(facts.classes) <= 3 * _ROWS
    titles = [facts.classes[int(facts.labels[row[0]])] for row in rows] if labelled and facts.labels is not None else []
    channels, height, width = next(iter(facts.parts.values())).shape
    sheet = np.full((len(rows) * _ACROSS, channels, height, width), 255, dtype=np.uint8)
    with pillow_errors():
        for line, row in enumerate(rows):
            for column, place in enumerate(row.tolist()):
                try:
                    sheet[line * _ACROSS + column] = facts.decode(place)
                except Unreadable:  # it was readable a moment ago; the sheet is a help, not a check
                    continue
    title = f"{sum(map(len, rows))} of {counted(len(facts.names), NOUN)}, as a model gets them"
    layout = GridLayout(columns=_ACROSS, limit=len(sheet), title=title, row_titles=titles)
    image: Any = grid(torch.from_numpy(sheet), layout)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        image.save(part, format="PNG")
