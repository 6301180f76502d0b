"""A small run of each family, a second or so of training each."""

from __future__ import annotations

from pathlib import Path

import pytest

STEPS = 60
COMMON = [
    f"trainer.steps={STEPS}", "trainer.batch_size=8", "trainer.checkpoint_every=7", "trainer.keep=3",
    "trainer.log_every=5", "trainer.sample_every=null", "trainer.examine_every=null", "trainer.device=cpu",
    "trainer.threads=1", "~recipe", "~recipe@_global_",
]  # fmt: skip
IMAGES = ["data=digits", "data.size=8"]
TEXT = ["data=text", "data.root=words.txt", "data.context=16", "data.tokenizer.kind=char"]
SMALL = ["model.width=16", "model.layers=1", "model.heads=2"]
FAMILIES = {
    "gan": [
        "model=gan",
        *IMAGES,
        "model.network=mlp",
        "model.hidden=16",
        "model.latent=4",
        "model.augment=[translation]",
    ],
    "vae": ["model=vae", *IMAGES, "model.network=conv", "model.width=4", "model.hidden=16"],
    "transformer": ["model=transformer", *TEXT, *SMALL, "model.dropout=0.1"],
    "bert": ["model=bert", *TEXT, *SMALL],
}


def words_of(family: str, folder: Path) -> list[str]:
    """The words of a family's small run in `folder`, which gets the data that they name."""
    if family in ("transformer", "bert"):
        text = " ".join(f"{number} times {number} is {number * number}." for number in range(400))
        (folder / "words.txt").write_text(text)
    return [*FAMILIES[family], *COMMON]


def each_family() -> pytest.MarkDecorator:
    """One test for each family."""
    return pytest.mark.parametrize("family", FAMILIES)
