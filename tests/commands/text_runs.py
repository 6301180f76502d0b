"""Runs of small models of text with fresh weights, on a text that is written beside them."""

from __future__ import annotations

import random
from pathlib import Path

from fresh_runs import fresh

from aigc_cli.runs import Run

SMALL = ["model.layers=1", "model.heads=2", "model.width=16"]
WORDS = ["the", "a", "one", "red", "old", "dog", "cat", "bird", "sees", "hears", "naïve", "of", "moon", "tree"]


def sentences(n: int, seed: int) -> list[str]:
    """Sentences of three to eight words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 8))) + "." for _ in range(n)]


def write_text(folder: Path, n: int = 160) -> list[str]:
    """The words that name a text of `n` lines, as windows of 16 characters."""
    (folder / "text.txt").write_text("\n".join(sentences(n, 0)) + "\n")
    return ["data=text", f"data.root={folder / 'text.txt'}", "data.tokenizer.kind=char", "data.context=16"]


def write_pairs(folder: Path) -> list[str]:
    """The words that name 60 pairs and 30 held-out ones, of which the target is the source backwards."""
    for split, n in (("train", 60), ("val", 20), ("test", 30)):
        lines = sentences(n, len(split))
        (folder / f"{split}.en").write_text("\n".join(lines) + "\n")
        (folder / f"{split}.de").write_text("\n".join(" ".join(line.split()[::-1]) for line in lines) + "\n")
    return [
        "data=pairs", f"data.root={folder}", "data.source=en", "data.target=de", "data.tokenizer.kind=char",
        "data.max_length=64",
    ]  # fmt: skip


def fresh_run(words: list[str], name: str = "run") -> Run:
    """A run whose checkpoint of step 3 holds fresh weights, in the folder `name`."""
    return fresh([*words, *SMALL, f"run_dir={name}"])
