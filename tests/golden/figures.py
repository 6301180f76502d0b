"""Everything that tiny runs of every family come to, as numbers and SHA-256, to compare before and after a change.

    OMP_NUM_THREADS=1 PYTHONPATH=CHECKOUT python tests/golden/figures.py make FILE.json
    python tests/golden/figures.py compare BEFORE.json AFTER.json

``make`` works through ``cases.py`` with the public command line of whatever ``aigc_cli`` is on the path, in a folder of
its own with a cache of its own, on one thread. ``compare`` prints what differs and exits with 1 if anything does:
numbers by more than 1e-6 of their size (or 1e-6, for those below 1), everything else if it is not the same. Both files
must be of one machine: other processors, and other versions of libraries, round in other ways.

Left out, because it differs from one time to the next or is written for people: times and speeds, versions, sentences
(``PROSE`` in ``contents.py``), ``samples.txt``, metadata of PNGs, titles and ``curves.png``. Left out, because it
cannot be had here: ``lpips``, whose weights are recognised by their sum and are not to be had without a network.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

for threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[threads] = "1"
os.environ["MPLBACKEND"] = "Agg"

import materials  # noqa: E402
from cases import COMMON, EMBEDDINGS, EVALS, REAL_RUNS, RESUMED, RUNS, SAMPLES, SPLITS  # noqa: E402
from contents import content, pixels, sha256, steady  # noqa: E402
from line import aigc  # noqa: E402

TOLERANCE = 1e-6
#: Of a run's data.json: what the data is, however it is called.
_OF_DATA = ("fingerprint", "shape", "classes", "vocab_size", "specials")
_SHOWN = 100  # differences, one by one


def make() -> dict[str, Any]:
    """All that there is to tell of the cases, which are worked through in the current folder."""
    import torch

    torch.set_num_threads(1)
    materials.write_all(Path())
    shared = os.environ.get("AIGC_TEST_DATA")
    if shared:
        Path("shared").symlink_to(shared)
    made: dict[str, Any] = {"runs": {}, "resumed": {}, "samples": {}, "embeddings": {}, "evals": {}, "splits": {}}
    for name, words in {**RUNS, **(REAL_RUNS if shared else {})}.items():
        with _timed(name):
            code, _ = aigc("train", *COMMON, *words, f"run_dir=outputs/golden/{name}")
            made["runs"][name] = {"exit": code, **_run(Path("outputs/golden", name))}
    for name, words in RESUMED.items():
        with _timed(name):
            code, _ = aigc("train", "--resume", f"golden/{name}", *words)
            made["resumed"][name] = {"exit": code, **_run(Path("outputs/golden", name))}
    for name, (run, words) in SAMPLES.items():
        with _timed(name):
            out = Path("samples", name)
            code, _ = aigc("sample", f"run=golden/{run}", *words, f"out={out}", "device=cpu")
            made["samples"][name] = {"exit": code, **{path.name: content(path) for path in sorted(out.glob("*"))}}
    for name, (run, words) in EMBEDDINGS.items():
        with _timed(name):
            out = Path("embeddings", f"{name}.npz")
            code, told = aigc("embed", *words, f"run=golden/{run}", f"out={out}", "device=cpu", "--json")
            made["embeddings"][name] = {"exit": code, "told": told, "arrays": content(out) if out.exists() else None}
    for name, words in EVALS.items():
        with _timed(name):
            code, told = aigc("eval", *words, "device=cpu", "--json", *_kept(name, words))
            made["evals"][name] = {"exit": code, "told": steady(told)}
    for name, metric in SPLITS.items():
        with _timed(f"splits of {name}"):
            if name in made["runs"]:
                made["splits"][name] = _splits(name, metric)
    return made


def _splits(run: str, metric: str) -> dict[str, Any]:
    """The fingerprint of each split of a run's data, as a record tells of it."""
    found: dict[str, Any] = {"exit": 0}
    for split in ("train", "val", "test"):
        words = [f"run=golden/{run}", f"split={split}", "--metric", metric, "n=1", f"out=splits/{run}"]
        code, told = aigc("eval", *words, "device=cpu", "--json")
        found["exit"] = found["exit"] or code
        found[split] = told and told["results"][0]["real"]["fingerprint"]
    return found


def _kept(name: str, words: list[str]) -> list[str]:
    """Where the records go: a folder for each case, so that none finds those of another; stats names its own file."""
    return [] if words[0] == "stats" else [f"out=eval/{name}"]


@contextlib.contextmanager
def _timed(name: str) -> Iterator[None]:
    """Says how long a case took."""
    began = time.perf_counter()
    yield
    print(f"{time.perf_counter() - began:6.1f} s  {name}", file=sys.__stderr__, flush=True)


def _run(folder: Path) -> dict[str, Any]:
    """What a run has come to: the bytes of its tensors, its curves, its previews and its data."""
    tensors = {str(path.relative_to(folder)): sha256(path.read_bytes()) for path in folder.rglob("*.safetensors")}
    shown = sorted((folder / "samples").glob("*"))
    curves, data = folder / "metrics.jsonl", folder / "data.json"
    return {
        "tensors": dict(sorted(tensors.items())),
        "curves": [steady(json.loads(line)) for line in curves.read_text().splitlines()] if curves.exists() else None,
        "data": {key: json.loads(data.read_text()).get(key) for key in _OF_DATA} if data.exists() else None,
        "previews": {path.name: _preview(path) for path in shown},
    }


def _preview(path: Path) -> str:
    if path.suffix == ".png":
        return pixels(path, below_title=True)
    return sha256(path.read_text(encoding="utf-8").partition("\n")[2].encode())


def differences(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """Every place at which two results differ, in words."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            inner = f"{place}/{key}"
            if key not in after or key not in before:
                yield f"{inner}: only {'before' if key in before else 'after'}"
            else:
                yield from differences(before[key], after[key], inner)
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            yield f"{place}: {len(before)} and {len(after)} items"
        for index, (one, other) in enumerate(zip(before, after, strict=False)):
            yield from differences(one, other, f"{place}/{index}")
    elif not same(before, after):
        yield f"{place}: {before!r} and {after!r}"


def same(before: Any, after: Any) -> bool:
    """Whether two values are equal, numbers up to the tolerance."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in (before, after)):
        both_nan = math.isnan(before) and math.isnan(after)
        return both_nan or math.isclose(before, after, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return type(before) is type(after) and before == after


def _make(target: Path) -> int:
    import numpy
    import torch

    import aigc_cli

    package = Path(aigc_cli.__file__).resolve().parents[1]
    if str(package) not in [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(":")]:
        print(f"aigc_cli is found in {package}, which PYTHONPATH does not name: say which checkout is meant")
        return 2
    began = time.time()
    place = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="aigc-golden-") as folder:
        os.environ["AIGC_CACHE"] = str(Path(folder, "cache"))
        Path(folder, "work").mkdir()
        os.chdir(Path(folder, "work"))
        made = make()
        os.chdir(place)
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": numpy.__version__}
    about = {"package": str(package), "seconds": round(time.time() - began), "versions": versions}
    target.write_text(json.dumps({"about": about, **made}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    failed = [f"{part}/{name}" for part, cases in made.items() for name, case in cases.items() if case["exit"]]
    print(f"wrote {target} in {about['seconds']} s" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _compare(before: Path, after: Path) -> int:
    sides = [json.loads(path.read_text(encoding="utf-8")) for path in (before, after)]
    abouts = [side.pop("about") for side in sides]
    if abouts[0]["versions"] != abouts[1]["versions"]:
        print(f"note: made with other versions: {abouts[0]['versions']} and {abouts[1]['versions']}")
    found = list(differences(*sides))
    print("".join(f"{one}\n" for one in found[:_SHOWN]), end="")
    print(f"{len(found)} differences" + (f", of which these are the first {_SHOWN}" if len(found) > _SHOWN else ""))
    return 1 if found else 0


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make").add_argument("file", type=Path)
    both = commands.add_parser("compare")
    both.add_argument("before", type=Path)
    both.add_argument("after", type=Path)
    asked = parser.parse_args()
    return _make(asked.file.absolute()) if asked.command == "make" else _compare(asked.before, asked.after)


if __name__ == "__main__":
    sys.exit(main())
