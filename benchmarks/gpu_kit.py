"""What the sections of ``gpu.py`` share: where they run, the words of each family, and how a result is kept."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import torch
from PIL import Image
from pyarrow import parquet

ROOT = Path(__file__).resolve().parents[1]
STOPPED = 143  # the exit code after SIGTERM
TAIL = 600  # characters of an error that are kept

#: The words of each family and the data it trains on. Batches of 64 images; of text, the batches of the experiment.
FAMILIES: dict[str, tuple[str, list[str]]] = {
    "dcgan": ("images", ["model=dcgan"]),
    "biggan": ("images", ["model=biggan"]),
    "vae": ("images", ["model=vae", "model.network=conv", "model.latent_side=0", "trainer.clip_grad_norm=null"]),
    "hvae": ("images", ["model=hvae"]),
    "vqvae": ("images", ["model=vqvae"]),
    "transformer": ("text", ["experiment=shakespeare_char"]),
    "bert": ("text", ["experiment=shakespeare_char", "model=bert"]),
    "seq2seq": ("pairs", ["experiment=multi30k"]),
    "vae_text": ("captions", ["model=vae"]),
}
_TINY_BLOCKS = ["model.layers=1", "model.heads=2", "model.width=16"]
#: What makes them small enough for a test.
TINY: dict[str, list[str]] = {
    "dcgan": ["model.width=8", "model.discriminator_width=8"],
    "biggan": ["model.width=8", "model.max_width=8", "model.discriminator_width=8", "model.embedding=8"],
    "vae": ["model.width=8", "model.hidden=16"],
    "hvae": ["model.width=8", "model.layout=[1x1,4x1]"],
    "vqvae": ["model.width=8", "model.blocks=1", "model.codes=16"],
    "transformer": _TINY_BLOCKS,
    "bert": _TINY_BLOCKS,
    "seq2seq": _TINY_BLOCKS,
    "vae_text": [*_TINY_BLOCKS, "model.decoder_layers=1"],
}


@dataclass(frozen=True)
class Kit:
    """Where a section runs, how small, for how long, and the file that its results go to."""

    section: str
    data: Path
    out: Path
    work: Path
    device: torch.device
    tiny: bool
    seconds: float

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def keep(self, what: str, **figures: Any) -> None:
        """Writes down a row of results at once, so that nothing that follows can lose it."""
        rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in figures.items()}
        line = json.dumps({"section": self.section, "what": what, **rounded})
        with (self.out / "rows.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def source(self, kind: str) -> list[str]:
        """The words that name the data of a kind; of a tiny run, data that is made on the spot."""
        if not self.tiny:
            multi30k = ["data=multi30k", f"data.root={self.data / 'multi30k'}"]
            return {
                "images": ["data=cifar10", f"data.root={self.data / 'cifar10'}"],
                "digits": ["data=digits"],
                "text": ["data=shakespeare", f"data.root={self.data / 'shakespeare'}"],
                "pairs": multi30k,
                "captions": multi30k,
            }[kind]
        squares = [(f"{number} times {number}", str(number * number)) for number in range(300)]
        rows, text = self.work / "squares.tsv", self.work / "squares.txt"
        if not rows.exists():
            text.write_text(" ".join(map(" is ".join, squares)))
            rows.write_text("\n".join(["question\tanswer", *map("\t".join, squares)]) + "\n")
        tokens = ["data.tokenizer.kind=char"]
        return {
            "images": ["data=cifar10", f"data.root={self._pictures()}"],
            "digits": ["data=digits"],
            "text": ["data=text", f"data.root={text}", "data.context=16", *tokens],
            "pairs": [
                "data=pairs", f"data.root={rows}", "data.source=question", "data.target=answer",
                "data.batch_tokens=64", *tokens,
            ],
            "captions": [
                "data=text", f"data.root={rows}", "data.field=question", "data.items=documents", "data.context=20",
                *tokens,
            ],
        }[kind]  # fmt: skip

    def _pictures(self) -> Path:
        """A few random pictures, laid out as CIFAR-10 is."""
        folder = self.work / "cifar10"
        if not folder.exists():
            folder.mkdir()
            for split, n in {"train": 100, "test": 20}.items():
                cells = [{"bytes": _png(index), "path": f"{index}.png"} for index in range(n)]
                table = pyarrow.table({"img": cells, "label": [index % 10 for index in range(n)]})
                parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")
        return folder

    def words(self, family: str, *further: str, kind: str | None = None) -> list[str]:
        """The words of a training run of a family, on the data of another `kind` if that is given."""
        usual, words = FAMILIES[family]
        kind = kind or usual
        batch = [f"trainer.batch_size={8 if self.tiny else 64}"]
        small = TINY[family] if self.tiny else []
        return [*words, *self.source(kind), *batch, *small, f"trainer.device={self.device}", *further]

    def aigc(self, *words: str) -> str:
        """What a command prints on stdout.

        Raises:
            RuntimeError: it failed, with the end of what it said.
        """
        done = subprocess.run(
            [sys.executable, "-m", "aigc_cli", *words], cwd=self.work, env=environment(self.work), capture_output=True,
            text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"aigc {' '.join(words[:2])}: exit code {done.returncode}: {done.stderr[-TAIL:]}")
        return done.stdout

    def train(self, run: Path, words: list[str], seconds: float | None = None) -> bool:
        """Trains `run`; False where its time was over first, and it was stopped and saved.

        Raises:
            RuntimeError: it failed, with the end of what it said.
        """
        log = run.with_suffix(".log")
        process = self.started(*words, f"run_dir={run}", log=log)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            code = process.wait()
        if code not in (0, STOPPED):
            raise RuntimeError(f"aigc train, {run.name}: exit code {code}: {log.read_text(errors='replace')[-TAIL:]}")
        return code == 0

    def started(self, *words: str, log: Path) -> subprocess.Popen[bytes]:
        """A training run that goes on by itself."""
        command = [sys.executable, "-m", "aigc_cli", "train", *words]
        with log.open("wb") as file:
            return subprocess.Popen(command, cwd=self.work, env=environment(self.work), stdout=file, stderr=file)


def environment(work: Path) -> dict[str, str]:
    """The environment of a command: this checkout before all other packages, and a cache that sections share."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "AIGC_CACHE": str(work / "cache")}


def _png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def rows_of_file(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of one a line."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def rows_of(run: Path) -> list[dict[str, Any]]:
    """The figures of a run."""
    return rows_of_file(run / "metrics.jsonl")


def measured(printed: str) -> dict[str, float]:
    """The figures of `aigc eval --json`, by name."""
    results = json.loads(printed)["results"]
    return {name: value for result in results for name, value in result["figures"].items()}


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options of ``gpu.py``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of cifar10/, shakespeare/, multi30k/")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder for rows.jsonl, gpu.json and logs")
    parser.add_argument("--work", type=Path, help="folder for runs and caches; a temporary one")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sections", help="which, in order; + between those that run side by side")
    parser.add_argument("--seconds", type=float, default=540, help="for all sections together")
    parser.add_argument("--tiny", action="store_true", help="a few steps of the smallest networks")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # the section that this process is for
    return parser


def until(end: float) -> float:
    """Seconds from now to a moment of the monotonic clock."""
    return max(0.0, end - time.monotonic())
