"""Texts that a model makes to be measured, each kind with what it is held against and what stands beside it.

Translations of held-out sources, continuations of held-out prompts, reconstructions of held-out texts, and texts of its
own. None of their scores means much alone, so each set comes with others in its place: held-out text, a source or a
prompt as it is, training text or another's reconstruction, which have nothing to do with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from aigc_cli.data.base import Dataset
from aigc_cli.data.open import Splits
from aigc_cli.errors import DataError
from aigc_cli.metrics.passages import Passages
from aigc_cli.modalities.text import TextCodec, Texts
from aigc_cli.modalities.tokenizers import BOS, EOS
from aigc_cli.models.base import Model, Prompts
from aigc_cli.progress import Progress
from aigc_cli.randomness import generator
from aigc_cli.sampling.generate import generate, prepare, reconstruct

MOST_CORPUS = 1 << 22  # tokens of the training text that copies are looked for in
_ROWS = 256  # written at a time, beams counted


@dataclass(frozen=True)
class Author:
    """A model that writes.

    Args:
        model: In evaluation mode, on `device`.
        codec: Between its tokens and strings.
        controls: Of ``model.controls``.
        device: Where the model is.
        splits: Of the data that it was trained on.
        batch_size: Texts at a time; None suits a beam.
    """

    model: Model
    codec: TextCodec
    controls: Any
    device: torch.device
    splits: Splits
    batch_size: int | None = None

    def answer(self, prompts: Sequence[Sequence[int]], seed: int, **changed: Any) -> list[list[int]]:
        """The token ids that the model gives for each prompt, prompts of like length together."""
        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
        rows: list[list[int]] = [[] for _ in prompts]
        drawn = self._draw(order, seed, replace(self.controls, **changed), Prompts(prompts))
        for place, row in zip(order, drawn, strict=True):
            rows[place] = row
        return rows

    def write(self, n: int, seed: int) -> list[list[int]]:
        """The token ids of `n` texts of its own."""
        prepare(self.model, lambda: self.train, self.controls, device=self.device)
        return list(self._draw(range(n), seed, self.controls))

    def _draw(
        self, order: Sequence[int], seed: int, controls: Any, prompts: Prompts | None = None
    ) -> Iterator[list[int]]:
        size = self.batch_size or max(1, _ROWS // getattr(controls, "beam", 1))
        drawn = generate(
            self.model, self.codec, order, seed=seed, device=self.device, batch_size=size, controls=controls,
            prompts=prompts,
        )  # fmt: skip
        with Progress(len(order), "writing", "texts") as bar:
            for ids in drawn:
                yield from ids.tolist()
                bar.advance(len(ids))

    def text(self, row: Sequence[int]) -> str:
        """The string of a whole item's token ids."""
        return self.codec.text(torch.tensor([row]))[0]

    def rest(self, row: Sequence[int]) -> str:
        """The string of token ids from the middle of an item, up to the first `eos`."""
        kept = list(row)
        return self.codec.tokenizer.decode(kept[: kept.index(EOS)] if EOS in kept else kept)

    @cached_property
    def train(self) -> Dataset:
        """What the model was trained on."""
        return self.splits["train"]

    @cached_property
    def training_text(self) -> str:
        """What it was trained on, or the beginning of a long one."""
        rows = range(min(len(self.train), max(1, MOST_CORPUS // self.train.spec.shape[0])))
        return Passages(self.train, "train", "", rows=rows).joined

    def strangers(self, n: int) -> list[list[int]]:
        """The token ids of `n` training items, drawn by a seed that is always the same."""
        rows = generator("beside", n).integers(len(self.train), size=n).tolist()
        return Passages(self.train, "train", "", rows=rows).tokens()


def _texts(lines: Sequence[str], **held_against: Any) -> Texts:
    """Texts of a model.

    Raises:
        DataError: all are empty.
    """
    if not any(line.strip() for line in lines):
        raise DataError("all texts of the run are empty", "train it longer, or draw with temperature=1")
    return Texts(lines, **held_against)


def translations(author: Author, passages: Passages, seed: int) -> Texts:
    """What a model makes of the sources of pairs; beside it the sources themselves, and other pairs' targets."""
    longest = author.model.spec.shape[0]
    # A source that the data has cut has no end, which a prompt is given and needs room for.
    sources = [row if row[-1] == EOS else row[: longest - 1] for row in passages.tokens("source")]
    ids = author.answer(sources, seed)
    return _texts(
        [author.text(row) for row in ids],
        sources=passages.texts(),
        beside={
            "source copied": passages.texts("source"),
            "random training target": [author.text(row) for row in author.strangers(len(passages))],
        },
    )


def continuations(author: Author, passages: Passages, seed: int, share: float) -> Texts:
    """How a model goes on from the first `share` of each passage, in as many tokens as the passage does.

    Beside it the end of the prompt once more, and training text, in as many tokens each. A passage ends at its first
    `eos`, and one with nothing after its prompt is left out.

    Raises:
        DataError: none has anything.
    """
    prompts, rests = [], []
    for row in passages.tokens():
        cut = max(1 + (row[0] == BOS), int(len(row) * share))
        rest = row[cut : row.index(EOS, cut) if EOS in row[cut:] else len(row)]
        if author.rest(rest).strip():
            prompts.append(row[:cut])
            rests.append(rest)
    if not rests:
        raise DataError("no text continues after its prompt", "give a smaller metric.continuation.prompt")
    ids = author.answer(prompts, seed, max_tokens=max(map(len, rests)))
    # A model may begin a row with a `bos` that the prompt has not.
    rows = [row[len(prompt) + (row[0] == BOS != prompt[0]) :] for row, prompt in zip(ids, prompts, strict=True)]

    def alike(others: Sequence[Sequence[int]]) -> list[str]:
        return [author.rest(row[: len(rest)]) for row, rest in zip(others, rests, strict=True)]

    return _texts(
        alike(rows),
        sources=[author.rest(rest) for rest in rests],
        beside={
            "prompt copied": [author.rest(row[-len(rest) :]) for row, rest in zip(prompts, rests, strict=True)],
            "random training text": alike([row[1:] for row in author.strangers(len(rests))]),
        },
        notes=(f"continuations of {sum(map(len, prompts)) / len(prompts):.0f} tokens "
               f"by {sum(map(len, rests)) / len(rests):.0f} tokens, on average",),
    )  # fmt: skip


def reconstructions(author: Author, passages: Passages) -> Texts:
    """What an autoencoder makes of the latents of texts, the likeliest token after the likeliest; beside it, of others.

    Of a window of a text the first token is left out, which the model is not told.

    Raises:
        ConfigError: the model is no autoencoder.
    """
    texts: list[str] = []
    originals: list[str] = []
    pairs = reconstruct(
        author.model, passages.dataset, passages.rows, device=author.device, batch_size=author.batch_size
    )
    with Progress(len(passages), "reconstructing", "texts") as bar:
        for content, made in pairs:
            originals += passages.codec.text(content[:, 1:], stop=not passages.running)
            texts += author.codec.text(made)
            bar.advance(len(made))
    return _texts(texts, sources=originals, beside={"reconstruction of another": [*texts[1:], *texts[:1]]})


def own_texts(author: Author, passages: Passages, seed: int, n: int) -> Texts:
    """`n` texts of a model's own; beside them held-out text in pieces of the same lengths, as many as it gives."""
    texts = [author.text(row) for row in author.write(n, seed)]
    pieces = passages.pieces([len(text) for text in texts])
    return _texts(texts, beside={"held-out text": pieces} if pieces else {})
