"""What tests of text datasets share."""

from pathlib import Path

import numpy as np
import torch

from aigc_cli.config.schema import load_yaml
from aigc_cli.data import open_dataset
from aigc_cli.data.loader import batches_in_order

CONFIGS = Path(__file__).parents[2] / "configs/data"
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "then", "it", "sleeps"]


def opened(root, split="train", *, kind="char", vocab_size=300, path=None, folder=None, **changes):
    values = {**load_yaml(CONFIGS / "text.yaml"), "context": 16, "val_fraction": 0.2, "test_fraction": 0.1, **changes}
    values["tokenizer"] = {"kind": kind, "vocab_size": vocab_size, "path": path}
    return open_dataset({**values, "root": None if root is None else str(root)}, split, folder)


def prose(lines: int, seed: int = 0) -> str:
    draw = np.random.default_rng(seed)
    return "".join(" ".join(draw.choice(WORDS, 8)) + ".\n" for _ in range(lines))


def stream_of(dataset) -> list[int]:
    """The tokens that batches in order hold, from which a target that comes twice or never would be missed."""
    windows = torch.cat([batch.content for batch in batches_in_order(dataset, 7, "cpu")])
    assert windows[1:, 0].tolist() == windows[:-1, -1].tolist(), (
        "the last target of one is the first context of the next"
    )
    return [*windows[:1, 0].tolist(), *windows[:, 1:].flatten().tolist()]


def dataset_text(dataset) -> str:
    return dataset.codec.text(torch.tensor([stream_of(dataset)]), stop=False)[0]
