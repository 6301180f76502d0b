"""A small run of each family, a second or so of training each."""

from __future__ import annotations

from pathlib import Path

import pytest

STEPS = 60
COMMON = [
    f"trainer.steps={STEPS}", "trainer.batch_size=8", "trainer.checkpoint_every=7", "trainer.keep=3",
    "trainer.log_every=5", "trainer.sample_every=null", "trainer.examine_every=null", "trainer.device=cpu",
    "trainer.threads=1", "trainer.first_look=null", "recipe=null",
]  # fmt: skip
IMAGES = ["data=digits", "data.size=8"]
TEXT = ["data=text", "data.root=words.txt", "data.context=16", "data.tokenizer.kind=char"]
ROWS = ["data.root=squares.tsv", "data.tokenizer.kind=char"]
PAIRS = ["model=seq2seq", "data=pairs", "data.source=question", "data.target=answer", "data.batch_tokens=128", *ROWS]
LINES = ["model=vae_text", "data=text", "data.field=question", "data.items=documents", "data.context=20", *ROWS]
CODES = ["data.tokens=kmeans", "data.codes=8", "data.residual=2", "model.replaced=0.1"]
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
    "sound": ["model=vae", "data=tones", "data.seconds=0.25", "data.items=64", "model.width=4", "model.hidden=16"],
    "codes": ["model=transformer", "data=tones", "data.seconds=0.25", "data.items=64", *CODES, *SMALL],
    "transformer": ["model=transformer", *TEXT, *SMALL, "model.dropout=0.1"],
    "bert": ["model=bert", *TEXT, *SMALL, "optimizer=muon"],
    "seq2seq": [*PAIRS, *SMALL],
    "vae_text": [*LINES, *SMALL, "model.decoder_layers=1", "model.latent=4", "model.kl_warmup=30"],
}


def words_of(family: str, folder: Path) -> list[str]:
    """The words of a family's small run in `folder`, which gets the data that they name."""
    squares = [(f"{number} times {number}", str(number * number)) for number in range(400)]
    (folder / "words.txt").write_text(" ".join(f"{question} is {answer}." for question, answer in squares))
    (folder / "squares.tsv").write_text("\n".join(["question\tanswer", *map("\t".join, squares)]) + "\n")
    return [*FAMILIES[family], *COMMON]


def each_family() -> pytest.MarkDecorator:
    """One test for each family."""
    return pytest.mark.parametrize("family", FAMILIES)
