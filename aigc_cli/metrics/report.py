"""What people read of evaluations: a file for each record, and a table; of several models on the same reference, their
scores side by side, and whether they differ by more than chance."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_cli.errors import AigcError, ConfigError, ResourceError
from aigc_cli.files import replacing, resource_errors, write_json
from aigc_cli.metrics.base import FEW, kind_of
from aigc_cli.metrics.record import Record, Score, difference, file_name
from aigc_cli.progress import table
from aigc_cli.registry import names

if TYPE_CHECKING:
    from torch import Tensor

_LISTED = 3  # of the files, one by one
#: What stands above the columns of a gallery of copies, and the pixels that it takes.
_TITLES, _HEAD = ("sample", "nearest in\nfeatures", "nearest in\npixels"), 36
_PICTURES = 5  # axes of a gallery of pictures; nothing else can be drawn
Records = Mapping[str, Mapping[str, Any]]
_Scores = Mapping[str, float]
_BETTER = {
    "lower": "lower is better", "higher": "higher is better", "near": "near the held-out value is better",
}  # fmt: skip
#: A difference counts where it exceeds so many standard deviations of a difference between two sample sets.
BEYOND = 2.0
_CLEARLY = 0.1  # by so much precision is below that of held-out items, be they a few dozen


def write(record: Record, folder: Path) -> list[Path]:
    """Writes a record under a name that tells its conditions apart, with its gallery beside it; the same conditions
    replace their old scores. Returns the files."""
    plain, gallery = record.plain_json(), record.gallery
    path = folder / file_name(plain)
    files = [path]
    with resource_errors(folder, "with out="):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, plain)
        if gallery is not None and gallery.ndim == _PICTURES and len(gallery):
            files.append(path.with_suffix(".png"))
            _draw(gallery, files[-1])
    return files


class Keeper:
    """Writes records, and remembers why one could not be: what was measured is shown all the same, and then
    :meth:`check` raises it."""

    def __init__(self) -> None:
        self.failed: AigcError | None = None

    def keep(self, record: Record, folder: Path) -> list[Path]:
        """As :func:`write`; no files where that failed."""
        try:
            return write(record, folder)
        except (ConfigError, ResourceError) as error:
            self.failed = self.failed or error
            return []

    def check(self) -> None:
        """Raises why a record could not be written; the first time of several."""
        if self.failed is not None:
            raise self.failed


def _draw(gallery: Tensor, path: Path, scale_to: int = 96) -> None:
    """Rows of images side by side, each enlarged to about `scale_to` pixels."""
    import numpy as np
    from PIL import Image, ImageDraw

    rows, columns, _, height, width = gallery.shape
    scale, gap, head = max(1, scale_to // max(height, width)), 2, _HEAD
    down, across = height * scale + gap, width * scale + gap
    sheet = np.full((head + rows * down + gap, columns * across + gap, 3), 255, dtype=np.uint8)
    for row in range(rows):
        for column in range(columns):
            pixels = gallery[row, column].permute(1, 2, 0).expand(-1, -1, 3).numpy().repeat(scale, 0).repeat(scale, 1)
            top, left = head + gap + row * down, gap + column * across
            sheet[top : top + height * scale, left : left + width * scale] = pixels
    image = Image.fromarray(sheet)
    for column, title in enumerate(_TITLES[:columns]):
        ImageDraw.Draw(image).text((gap + column * across, gap), title, fill="black", font_size=_HEAD // 3)
    with replacing(path) as part, part.open("wb") as file:
        image.save(file, format="PNG")


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
    notes += [note for record in records if "precision" in record.better for note in _doubts(record, records)]
    features = [record for record in records if record.extractor is not None]
    if features and all(not record.baseline_of for record in features):
        notes.append("there are no held-out real items to show a baseline for; name some with held_out=")
    yield from (f"note: {note}" for note in dict.fromkeys(notes))
    for extractor in {record.extractor.name: record.extractor for record in records if record.extractor}.values():
        known = f", accuracy {extractor.facts['accuracy']:.1%}" if "accuracy" in extractor.facts else ""
        yield f"extractor: {extractor.name}{known}, sha256 {extractor.checksum[:12]}"
    yield from (f"{record.metric}: {record.facts['signature']}" for record in records if record.facts.get("signature"))


def _doubts(record: Record, records: Sequence[Record]) -> Iterator[str]:
    """What not to conclude from precision and its like, and from the `fd` beside it."""
    sizes = (record.generated.n, record.n_real, record.baseline.n if record.baseline else None)
    fewest = min((n for n in sizes if n), default=FEW)
    if fewest < FEW:
        blind = ""
        if record.extractor is not None and record.extractor.name == "own-ssl":
            blind = "; in these features precision and density do not see blur"
        elif record.extractor is not None and "accuracy" in record.extractor.facts:
            blind = "; in a classifier's features fd does not see what the classes do not need, such as shapes"
        yield f"of as few as {fewest} items, samples are as good as real ones only where no score says otherwise{blind}"
    distance = next((each for each in records if "fd" in each.better and each.baseline is not None), None)
    if distance is None or distance.baseline is None or record.baseline is None:
        return
    found = (distance.at_baseline_n or distance.generated).figures
    found = found | {"precision": (record.at_baseline_n or record.generated).figures.get("precision", 1.0)}
    real = record.baseline.figures.get("precision", 0.0)
    if found["fd"] < distance.baseline.figures["fd"] and found["precision"] < real - _CLEARLY:
        what = f"precision {found['precision']:.2g} against {real:.2g} says that some look like no real one"
        yield f"fd below that of held-out items does not make samples better than real: {what}"


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
        for figure, way in record.better.items():
            row = [record.label(figure), _shown(record.generated.figures, figure, record.spread(), record.bounds)]
            row += [] if matched is None else [_number(record.at_baseline_n, figure)]
            if baseline is not None:
                own = None if record.baseline is None else record.baseline.n
                row.append(_number(record.baseline, figure) + ("" if own in (None, baseline.n) else f" (n={own:,})"))
            row += [_number(record.beside.get(name), figure) for name in beside]
            rows.append([*row, _BETTER.get(way, "")])
    return rows


def _number(score: Score | None, figure: str) -> str:
    return "-" if score is None else _shown(score.figures, figure)


def _shown(values: _Scores, figure: str, spread: _Scores | None = None, bounds: Mapping[str, str] | None = None) -> str:
    if figure not in values:
        return "-"
    bound = f"{bounds[figure]} " if bounds and figure in bounds else ""
    around = f" ± {spread[figure]:.2g}" if spread and figure in spread else ""
    return f"{bound}{values[figure]:.4g}{around}"


# several models


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
            what = f"{metric} of {first_name} and of {name} do not compare"
            found = difference(first[metric], records[metric])
            if found is not None:
                if found[0].startswith("fingerprint") and _at_real(first[metric]) != _at_real(records[metric]):
                    what = f"{what}: they cut text into other tokens, and n= takes other parts of it for each"
                    raise ConfigError(what, "leave n= out, so that both are measured on all of it")
                reason = f"{found[0]} is {_short(found[1])} and {_short(found[2])}"
                raise ConfigError(f"{what}: {reason}", "evaluate both under the same conditions")
            if not shared_figures(first[metric], records[metric]):
                hint = "compare scores that do not depend on tokens, such as bits_per_byte"
                raise ConfigError(f"{what}: they share no score", hint)


def shared_figures(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The scores that two records have in common; with other tokenizers, those that count no tokens."""
    counting = (a.get("facts") or {}).get("per_token", ()) if _at_real(a) != _at_real(b) else ()
    return [figure for figure in a["figures"] if figure in b["figures"] and figure not in counting]


def _at_real(record: Mapping[str, Any]) -> Any:
    """The sum of the tokenizer that read the reference, if any did."""
    real = record.get("real")
    return real.get("tokenizer") if isinstance(real, Mapping) else None


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
                exceeds = None if spread is None else abs(delta) > BEYOND * spread
                row = {"metric": metric, "figure": figure, "from": first_name, "to": name}
                rows.append({**row, "difference": delta, "spread": spread, "exceeds": exceeds})
    return rows


def describe_comparison(named: Sequence[tuple[str, Records]], rows: Sequence[Mapping[str, Any]]) -> str:
    """The scores of all side by side, then the differences from the first."""
    figures = [["", *(name for name, _ in named), ""]]
    for metric, record in named[0][1].items():
        for figure in record["figures"]:
            ways = record.get("better") or {}
            others = [records[metric] for _, records in named]
            cells = [_shown(each["figures"], figure, each.get("spread"), each.get("bounds")) for each in others]
            figures.append([figure, *cells, _BETTER.get(ways.get(figure, ""), "")])
    lines = [*table(figures), ""]
    header = ["difference", "", "", "spread", "beyond chance"]
    body = []
    for row in rows:
        spread = "-" if row["spread"] is None else f"{row['spread']:.2g}"
        verdict = {None: "unknown", True: "yes", False: "no"}[row["exceeds"]]
        between = f"{row['to']} - {row['from']}"
        body.append([row["figure"], between, f"{row['difference']:+.4g}", spread, verdict])
    lines += table([header, *body])
    first = named[0][1]
    if any(row["spread"] is None and _has_sets(first[row["metric"]]) for row in rows):
        lines += ["", "note: one sample set shows no spread; draw several with seeds=3"]
    return "\n".join(lines)


def _has_sets(record: Mapping[str, Any]) -> bool:
    """Whether a record is of what a run draws, of which there can be several sets."""
    made, metric = record.get("generated") or {}, record["metric"]
    drawn = "step" in made and "reconstructed" not in made
    return drawn and metric in names("metric") and "items" not in kind_of(metric).takes  # it may be a plugin's
