"""What a command takes as what it is given grows ten times and ten times again: processor time, memory, and the slope.

    python benchmarks/growth.py [folder parquet samples runs sweep] [--most 1000000] [--place /scratch]

- folder, parquet: pictures of 16 pixels, to the end of the first step of training, read for the first time and again.
- samples: pictures in a file of arrays, to the end of `aigc eval`.
- runs: runs in `outputs/`, listed with an index and without one.
- sweep: jobs that are complete, passed over when the sweep is typed again.

Each command is a process of its own with one thread. The slope is of logarithms: 1 is linear, and less is better.
Memory is the largest that no file stands behind, over the process and what it starts. Text is in `text_large.py`.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 16
STEP = ["train", "model=vae", "model.network=mlp", "trainer.steps=1", "trainer.device=cpu", "trainer.sample_every=null"]


class Took(NamedTuple):
    """What a command took: seconds of the processor, seconds of the clock, and megabytes."""

    processor: float
    clock: float
    memory: float


def aigc(place: Path, *words: str) -> Took:
    """Runs ``aigc`` in a folder, with the cache in that folder."""
    environment = {**os.environ, "AIGC_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with (place / "log.txt").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "aigc_cli", *words], cwd=place, env=environment, stdout=log, stderr=log
        )
        largest = 0
        while process.poll() is None:
            largest = max(largest, sum(map(anonymous, family(process.pid))))
            time.sleep(0.05)
        if process.returncode:
            log.seek(0)
            sys.exit(f"aigc {' '.join(words)} ended with exit code {process.returncode}:\n{log.read()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = sum(getattr(after, part) - getattr(before, part) for part in ("ru_utime", "ru_stime"))
    return Took(processor, time.perf_counter() - began, largest / 1e6)


def family(process: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield process
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from family(int(child))


def anonymous(process: int) -> int:
    """Bytes of its memory that no file stands behind."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def png(index: int) -> bytes:
    """A picture that no other number has."""
    pixels = np.random.default_rng(index).integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def twice(place: Path, *words: str) -> dict[str, Took]:
    return {
        "first": aigc(place, *STEP, f"data.size={SIDE}", *words),
        "again": aigc(place, *STEP, f"data.size={SIDE}", *words),
    }


def folder(place: Path, count: int) -> dict[str, Took]:
    for start in range(0, count, 1000):
        part = place / "pictures" / f"{start // 1000:04}"
        part.mkdir(parents=True)
        for index in range(start, min(start + 1000, count)):
            (part / f"{index}.png").write_bytes(png(index))
    return twice(place, "data=image_folder", f"data.root={place / 'pictures'}", "data.labels=false")


def parquet(place: Path, count: int) -> dict[str, Took]:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    (place / "pictures").mkdir()
    for start in range(0, count, 10_000):
        numbers = range(start, min(start + 10_000, count))
        column = [{"bytes": png(index), "path": f"{index}.png"} for index in numbers]
        write_table(pa.table({"image": column}), place / "pictures" / f"{start}.parquet")
    return twice(place, "data=parquet", f"data.root={place / 'pictures'}")


def samples(place: Path, count: int) -> dict[str, Took]:
    random = np.random.default_rng(0)
    for name, size in (("real", 1000), ("fake", count)):
        np.savez(place / f"{name}.npz", images=random.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8))
    words = ["eval", f"fake={place / 'fake.npz'}", f"real={place / 'real.npz'}", "--metric", "fd,kd,prdc"]
    return {"with features to learn": aigc(place, *words), "with learnt ones": aigc(place, *words, "seed=1")}


def one_run(place: Path) -> Path:
    aigc(place, *STEP, "data=digits", f"run_dir={place / 'one'}")
    return place / "one"


def runs(place: Path, count: int) -> dict[str, Took]:
    one = one_run(place)
    for index in range(count):
        copy = place / "outputs" / "vae-digits" / f"2026-01-01_00-00-00-{index}"
        shutil.copytree(one, copy)
        (copy / "identity").write_text(f"{index:032x}")
    return {"without an index": aigc(place, "ls", "runs"), "with one": aigc(place, "ls", "runs")}


def sweep(place: Path, count: int) -> dict[str, Took]:
    words = [*STEP, "-m", "data=digits", f"seed=range({count})", f"hydra.sweep.dir={place / 'jobs'}"]
    return {"first": aigc(place, *words), "again": aigc(place, *words)}


#: What grows, how it is made and measured, and how many there are at most.
SECTIONS: dict[str, tuple[Callable[[Path, int], dict[str, Took]], int]] = {
    "folder": (folder, 1_000_000), "parquet": (parquet, 1_000_000), "samples": (samples, 50_000), "runs": (runs, 1000),
    "sweep": (sweep, 1000),
}  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("sections", nargs="*", default=[*SECTIONS], help="which; all by default")
    options.add_argument("--most", type=int, default=10**9, help="the largest number, where a section's own is larger")
    options.add_argument("--place", type=Path, help="a folder with room; 6 GB for a million pictures")
    asked = options.parse_args()
    for name in asked.sections:
        measure, own = SECTIONS[name]
        most, before = min(own, asked.most), {}
        for count in (most // 100, most // 10, most):
            place = Path(tempfile.mkdtemp(prefix="aigc-growth-", dir=asked.place))
            try:
                for what, took in measure(place, count).items():
                    slope = ""
                    if what in before:
                        slope = f", slope {math.log10(took.processor / before[what].processor):.2f}"
                    print(f"{name:8} {what:16} {count:9,}: {took.processor:7.1f} s of the processor, "
                          f"{took.clock:7.1f} s, {took.memory:6.0f} MB{slope}", flush=True)  # fmt: skip
                    before[what] = took
            finally:
                shutil.rmtree(place)


if __name__ == "__main__":
    main()
