"""A text larger than memory may be: how much memory it takes to tokenize it and to draw windows from it.

    python benchmarks/text_large.py --gb 5 --folder /scratch

It writes a file of that size from the words of Python's language reference, opens it as `data=text` with the tokens
left on disk, and prints the largest anonymous memory of the process (pages of mapped files are the system's to take
back) beside the file's size, then the time of a batch beside that of a plain loop: random crops from a
`numpy.memmap`, as small trainers make them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from growth import anonymous

from aigc_cli.config.schema import load_yaml
from aigc_cli.data import open_dataset
from aigc_cli.data.loader import Loader

CONTEXT, BATCH = 256, 64


def write_text(path: Path, size: int) -> None:
    from pydoc_data.topics import topics

    words = "\n".join(topics.values()).split(" ")
    random = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            file.write(" ".join([words[place] for place in random.integers(len(words), size=1 << 20)]) + "\n")


@contextmanager
def watched(what: str) -> Iterator[None]:
    before, largest, done = anonymous(os.getpid()), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            largest[0] = max(largest[0], anonymous(os.getpid()))

    thread = threading.Thread(target=watch)
    thread.start()
    began = time.perf_counter()
    try:
        yield
    finally:
        done.set()
        thread.join()
    seconds = time.perf_counter() - began
    print(f"{what}: {seconds:.1f} s, {(max(largest[0], before) - before) / 1e6:.0f} MB more memory at most")


def per_batch(draw: Callable[[int], object], count: int) -> float:
    began = time.perf_counter()
    for k in range(count):
        draw(k)
    return (time.perf_counter() - began) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=5.0)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/aigc-large"))
    parser.add_argument("--tokenizer", default="bpe", choices=["char", "byte", "bpe"])
    parser.add_argument("--batches", type=int, default=1000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ["AIGC_CACHE"] = str(options.folder / "cache")
    path = options.folder / "large.txt"
    try:
        write_text(path, int(options.gb * 1e9))
        values = load_yaml(Path(__file__).parents[1] / "configs/data/text.yaml")
        values |= {"root": str(path), "memory_gb": 1e-9, "context": CONTEXT}
        values["tokenizer"] |= {"kind": options.tokenizer}
        with watched(f"{path.stat().st_size / 1e9:.2f} GB read, tokenized and opened"):
            dataset = open_dataset(values, "train")
        assert dataset.extent is not None
        print(f"{dataset.extent.tokens:,} tokens")
        loader = Loader(dataset, batch_size=BATCH, seed=0, device="cpu")
        with watched(f"{options.batches} batches drawn"):
            ours = per_batch(loader.batch, options.batches)
        tokens = next((options.folder / "cache" / "tokens").glob("*/0.bin"))
        stream = np.memmap(tokens, dtype=np.uint8 if options.tokenizer == "char" else np.uint16, mode="r")

        def plain(_: int) -> torch.Tensor:
            starts = torch.randint(len(stream) - CONTEXT - 1, (BATCH,))
            return torch.stack([torch.from_numpy(stream[i : i + CONTEXT + 1].astype(np.int64)) for i in starts])

        theirs = per_batch(plain, options.batches)
        print(f"a batch: {ours * 1e6:.0f} us, plain {theirs * 1e6:.0f} us, ratio {theirs / ours:.2f}")
    finally:
        shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
