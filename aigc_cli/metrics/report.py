"""What is told of an evaluation: a file for each record, and a table for people."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from aigc_cli.files import replacing, resource_errors, write_json
from aigc_cli.metrics.result import Result, Score, notes_of
from aigc_cli.metrics.stamp import file_name

if TYPE_CHECKING:
    from torch import Tensor


_LISTED = 3  # of the files, one by one


class Told(Protocol):
    """One side of a comparison, as far as a report is concerned."""

    facts: dict[str, Any]

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Sides:
    """What is compared: generated images, the reference, held-out real images."""

    fake: Any
    real: Any
    #: As many as are generated, for the floor.
    held_out: Any = None
    #: All of them, for metrics whose figures depend on them; None where those are the same.
    all_held_out: Any = None


@dataclass(frozen=True)
class Items:
    """A side of which only its number and its facts are told."""

    n: int
    facts: dict[str, Any]
    #: What they are, in words; None leaves it to the facts, and a reference called "" is not told of.
    called: str | None = None

    def __len__(self) -> int:
        return self.n


def write(record: Mapping[str, Any], folder: Path, gallery: Tensor | None = None) -> list[Path]:
    """Writes a record under a name that tells its conditions apart, with its gallery beside it; the same conditions
    replace their old figures. Returns the files."""
    path = folder / file_name(record)
    files = [path]
    with resource_errors(path, "with out="):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
        if gallery is not None and len(gallery):
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


def describe(results: Sequence[Result], sides: Sides, run: str | None, files: Sequence[Path]) -> str:
    """The figures as a table, with the floor beside them, and what they were measured with."""
    compared = any(result.needs_real for result in results)
    lines = [
        _headline(sides if compared else replace(sides, real=None), run),
        "",
        *table(_rows(results, len(sides.fake))),
        "",
    ]
    notes = list(notes_of(results))
    if sides.held_out is None and any(result.extractor is not None for result in results):
        notes.append("there are no held-out real images to show a floor for; name some with held_out=")
    lines += [f"note: {note}" for note in dict.fromkeys(notes)]
    for extractor in {result.extractor.name: result.extractor for result in results if result.extractor}.values():
        known = f", accuracy {extractor.facts['accuracy']:.1%}" if "accuracy" in extractor.facts else ""
        lines.append(f"extractor: {extractor.name}{known}, sha256 {extractor.checksum[:12]}")
    lines += [f"{result.metric}: {result.facts['signature']}" for result in results if result.facts.get("signature")]
    if 0 < len(files) <= _LISTED:
        lines.append(f"wrote {', '.join(os.path.relpath(file) for file in files)}")
    elif files:
        lines.append(f"wrote {len(files)} files to {os.path.relpath(files[0].parent)}")
    return "\n".join(lines)


def _headline(sides: Sides, run: str | None) -> str:
    made, real = (None if side is None else f"{_count(side)}{_called(side, run)}" for side in (sides.fake, sides.real))
    return f"{made}" if not real else f"{made}, against {real}"


def _called(side: Told, run: str | None) -> str:
    called: str | None = getattr(side, "called", None)
    return _named(side.facts, run) if called is None else called


def _count(side: Told) -> str:
    return f"{len(side):,} " if len(side) else ""


def _named(facts: Mapping[str, Any], run: str | None) -> str:
    if "lines_of" in facts:
        return f"lines of {facts['lines_of']}"
    if "statistics_of" in facts:
        return f"images summed up in {facts['file']}"
    if "reconstructed" in facts:
        return f"{facts['reconstructed']} images as reconstructed by {run} at step {facts['step']}"
    if "data" in facts:
        return f"{facts['split']} images of {facts['data']}"
    if "step" in facts:
        return f"images generated by {facts.get('called', run)} at step {facts['step']}"
    return f"images of {facts.get('folder', facts.get('file'))}"


def _rows(results: Sequence[Result], n: int) -> list[list[str]]:
    matched = next((result.at_floor_n for result in results if result.at_floor_n is not None), None)
    held_out = next((result.floor for result in results if result.floor is not None), None)
    sets = next((len(result.each) for result in results if result.each), 1)
    number_told = f"n={n:,}" if n else "n unknown"
    header = ["", number_told if not any(result.extractor for result in results) else f"generated ({number_told})"]
    header[1] += f", {sets} sets" if sets > 1 else ""
    header += [] if matched is None else [f"generated (n={matched.n:,})"]
    header += [] if held_out is None else [f"held-out real (n={held_out.n:,})"]
    beside = {name: score.n for result in results for name, score in result.beside.items()}
    header += [name if count == n else f"{name} (n={count:,})" for name, count in beside.items()]
    rows = [header]
    for result in results:
        spread = result.spread() or {}
        for figure, way in result.better.items():
            around = f" ± {spread[figure]:.2g}" if figure in spread else ""
            bound = f"{result.bounds[figure]} " if figure in result.bounds else ""
            row = [result.label(figure), bound + number(result.generated, figure) + around]
            row += [] if matched is None else [number(result.at_floor_n, figure)]
            row += [] if held_out is None else [_floor(result.floor, figure, held_out.n)]
            row += [number(result.beside.get(name), figure) for name in beside]
            rows.append([*row, f"{way} is better" if way else ""])
    return rows


def _floor(floor: Score | None, figure: str, n: int | None) -> str:
    """A figure of the floor, with its number of items where the column's head tells another."""
    own = f" (n={floor.n:,})" if floor is not None and floor.n not in (None, n) else ""
    return number(floor, figure) + own


def number(score: Score | None, figure: str) -> str:
    """A figure as a person reads it."""
    return "-" if score is None or figure not in score.figures else f"{score.figures[figure]:.4g}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in aligned columns."""
    columns = max(map(len, rows))
    padded = [[*row, *[""] * (columns - len(row))] for row in rows]
    widths = [max(len(row[column]) for row in padded) for column in range(columns)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in padded]
