"""Exports a small model of every family and preset in every format, and writes what came of it into docs/export.md.

    python tests/export/exported_table.py [NAME ...]

Rows of families that are not named are kept as they were measured, in ``tests/export/measured.json``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
KEPT, PAGE = HERE / "measured.json", HERE.parents[1] / "docs" / "export.md"
FORMATS = ("onnx", "torch_export", "safetensors", "huggingface", "web")
BEGIN, END = "<!-- measured by tests/export/exported_table.py -->\n", "<!-- end -->"


def measured(words: list[str], capture: Any = contextlib.redirect_stdout) -> dict[str, Any]:
    """What came of each format: its greatest difference, of the model's results or of samples, or None where it is
    refused."""
    from untrained import untrained

    from aigc_cli import open_run
    from aigc_cli.cli import main
    from aigc_cli.export import graphs

    run = untrained(words)
    found: dict[str, Any] = {}
    traced: dict[str, Any] = {}  # which is most of the work, and the same in every format
    trace = graphs.trace

    def once(part: Any) -> Any:
        traced[part.name] = traced.get(part.name) or trace(part)
        return traced[part.name]

    graphs.trace = once
    for format in FORMATS:
        out, err = io.StringIO(), io.StringIO()
        with capture(out), contextlib.redirect_stderr(err):
            code = main(["export", "run=run", f"format={format}", f"out={format}", "--json"])
        if code:
            print(f"  {format}: {code} {err.getvalue().strip()[-150:]}")
            assert code == 2, err.getvalue()
            found[format] = None
            continue
        record = json.loads(out.getvalue())
        found[format] = difference(record)
        if format in ("onnx", "safetensors"):
            found[f"{format} samples"] = sampled(open_run, run.path, format)
    graphs.trace = trace
    return found


def difference(record: dict[str, Any]) -> float:
    """The greatest of a record's, but of pixels, whose levels are rounded."""
    each = [about["greatest_difference"] for about in record.get("files", {}).values()]
    values = {"": record["greatest_difference"]} if "greatest_difference" in record else {}
    each += [value if isinstance(value, dict) else {"": value} for value in values.values()]
    return max((value for some in each for name, value in some.items() if name != "raw"), default=0.0)


def sampled(open_run: Any, run: Path, folder: str) -> str:
    """How the run's samples and those of what was exported differ, for one seed."""
    mine, theirs = (open_run(path, device="cpu") for path in (run, folder))
    about: dict[str, Any] = {"seed": 3}
    if mine.spec.source is not None:
        about["prompt"] = "the red dog" if mine.spec.source.modality == mine.spec.modality else "six"
    one, other = mine.sample(4, **about), theirs.sample(4, **about)
    if isinstance(one, list):
        return "equal" if one == other else "others"
    apart = int((one.int() - other.int()).abs().max())
    return "equal" if not apart else f"{apart} level{'s' * (apart > 1)}"


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as a page has them."""
    lines = [
        "| model | ONNX | its samples | torch_export | safetensors | huggingface | web |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        cells = [row.get("onnx"), row.get("onnx samples"), row.get("torch_export"),
                 row.get("safetensors samples"), row.get("huggingface"), row.get("web")]  # fmt: skip
        told = ["" if cell is None else cell if isinstance(cell, str) else f"{cell:.0e}" for cell in cells]
        lines.append(f"| {name} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures the families that are named, or all, and writes the page."""
    from exported_families import EVERYTHING, words_of

    rows: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    for name in sys.argv[1:] or EVERYTHING:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            print(name, flush=True)
            rows[name] = measured(words_of(name, Path(folder)))
            print(f"  {rows[name]}", flush=True)
            os.chdir(HERE)
        rows = {known: rows[known] for known in EVERYTHING if known in rows}
        KEPT.write_text(json.dumps(rows, indent=1) + "\n")
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{table(rows)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parent / name) for name in ("export", "commands", "training", "data", "")]
    main()
