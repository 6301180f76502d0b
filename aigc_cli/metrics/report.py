"""What people read of an evaluation: a file for each record, and a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aigc_cli.files import replacing, resource_errors, write_json
from aigc_cli.metrics.record import Record, Score, file_name
from aigc_cli.progress import table

if TYPE_CHECKING:
    from torch import Tensor

_LISTED = 3  # of the files, one by one
_PICTURES = 5  # axes of a gallery of pictures; nothing else can be drawn


def write(record: Record, folder: Path) -> list[Path]:
    """Writes a record under a name that tells its conditions apart, with its gallery beside it; the same conditions
    replace their old scores. Returns the files."""
    plain, gallery = record.plain_json(), record.gallery
    path = folder / file_name(plain)
    files = [path]
    with resource_errors(path, "with out="):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, plain)
        if gallery is not None and gallery.ndim == _PICTURES and len(gallery):
            files.append(path.with_suffix(".png"))
            _draw(gallery, files[-1])
    return files


def _draw(gallery: Tensor, path: Path, scale_to: int = 96) -> None:
    """Rows of images side by side, each enlarged to about `scale_to` pixels."""
    import numpy as np
    from PIL import Image

    rows, columns, _, height, width = gallery.shape
    scale, gap = max(1, scale_to // max(height, width)), 2
    sheet = np.full(
        (rows * (height * scale + gap) + gap, columns * (width * scale + gap) + gap, 3), 255, dtype=np.uint8
    )
    for row in range(rows):
        for column in range(columns):
            pixels = gallery[row, column].permute(1, 2, 0).expand(-1, -1, 3).numpy().repeat(scale, 0).repeat(scale, 1)
            top, left = gap + row * (height * scale + gap), gap + column * (width * scale + gap)
            sheet[top : top + height * scale, left : left + width * scale] = pixels
    with replacing(path) as part, part.open("wb") as file:
        Image.fromarray(sheet).save(file, format="PNG")


def describe(records: Sequence[Record], files: Sequence[Path]) -> str:
    """The scores as tables, one for all that were measured on the same items, with the baseline beside them."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.called[0], []).append(record)
    texts = ["\n".join(_described(group)) for group in groups.values()]
    if 0 < len(files) <= _LISTED:
        texts[-1] += f"\nwrote {', '.join(os.path.relpath(file) for file in files)}"
    elif files:
        texts[-1] += f"\nwrote {len(files)} files to {os.path.relpath(files[0].parent)}"
    return "\n\n".join(texts)


def _described(records: Sequence[Record]) -> Iterator[str]:
    """The lines of one table, and below it what the scores were measured with."""
    made, against = records[0].called[0], next((record.called[1] for record in records if record.compares), "")
    yield f"{made}, against {against}" if against else made
    yield ""
    yield from table(_rows(records))
    yield ""
    notes = [note for record in records for note in record.notes]
    features = [record for record in records if record.extractor is not None]
    if features and all(not record.baseline_of for record in features):
        notes.append("there are no held-out real items to show a baseline for; name some with held_out=")
    yield from (f"note: {note}" for note in dict.fromkeys(notes))
    for extractor in {record.extractor.name: record.extractor for record in records if record.extractor}.values():
        known = f", accuracy {extractor.facts['accuracy']:.1%}" if "accuracy" in extractor.facts else ""
        yield f"extractor: {extractor.name}{known}, sha256 {extractor.checksum[:12]}"
    yield from (f"{record.metric}: {record.facts['signature']}" for record in records if record.facts.get("signature"))


def _rows(records: Sequence[Record]) -> list[list[str]]:
    n = records[0].generated.n
    matched = next((record.at_baseline_n for record in records if record.at_baseline_n is not None), None)
    baseline = next((record.baseline for record in records if record.baseline is not None), None)
    sets = next((len(record.each) for record in records if record.each), 1)
    counted = f"n={n:,}" if n else "n unknown"
    header = ["", f"generated ({counted})" if any(record.extractor for record in records) else counted]
    header[1] += f", {sets} sets" if sets > 1 else ""
    header += [] if matched is None else [f"generated (n={matched.n:,})"]
    header += [] if baseline is None else [f"held-out real (n={baseline.n:,})"]
    beside = {name: score.n for record in records for name, score in record.beside.items()}
    header += [name if count == n else f"{name} (n={count:,})" for name, count in beside.items()]
    rows = [header]
    for record in records:
        spread = record.spread() or {}
        for figure, way in record.better.items():
            around = f" ± {spread[figure]:.2g}" if figure in spread else ""
            bound = f"{record.bounds[figure]} " if figure in record.bounds else ""
            row = [record.label(figure), bound + number(record.generated, figure) + around]
            row += [] if matched is None else [number(record.at_baseline_n, figure)]
            row += [] if baseline is None else [_baseline(record.baseline, figure, baseline.n)]
            row += [number(record.beside.get(name), figure) for name in beside]
            rows.append([*row, f"{way} is better" if way else ""])
    return rows


def _baseline(baseline: Score | None, figure: str, n: int | None) -> str:
    """A score of the baseline, with its number of items where the column's head tells another."""
    own = f" (n={baseline.n:,})" if baseline is not None and baseline.n not in (None, n) else ""
    return number(baseline, figure) + own


def number(score: Score | None, figure: str) -> str:
    """A score as a person reads it."""
    return "-" if score is None or figure not in score.figures else f"{score.figures[figure]:.4g}"
