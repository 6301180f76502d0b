"""Texts that a model writes to be measured, each kind with what it is compared with and what stands beside it.

Translations of held-out sources, continuations of held-out prompts, reconstructions of held-out texts, and texts of its
own. None of their figures means much alone, so each set comes with others in its place: held-out text, a source or a
prompt as it is, training text or another's reconstruction, which have nothing to do with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from aigc_cli.config.schema import check
from aigc_cli.data.base import Dataset
from aigc_cli.errors import DataError
from aigc_cli.metrics.passages import Passages
from aigc_cli.metrics.result import Result, Score, finite
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.tokenizers import BOS, EOS
from aigc_cli.models.base import Model, Prompts
from aigc_cli.progress import progress
from aigc_cli.randomness import generator
from aigc_cli.registry import find
from aigc_cli.sampling.generate import generate, prepare, reconstruct

MOST_CORPUS = 1 << 22  # tokens of the training text that copies are looked for in
_ROWS = 256  # written at a time, beams counted


@dataclass(frozen=True)
class Written:
    """Some texts, in order."""

    texts: Sequence[str]
    #: What each should have been; empty where nothing says.
    references: Sequence[str] = ()
    #: Other texts in their place, by name.
    beside: Mapping[str, Sequence[str]] = field(default_factory=dict)
    #: What copies are looked for in.
    corpus: Callable[[], str] = str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Author:
    """A model that writes.

    Args:
        model: In evaluation mode, on `device`.
        codec: Between its tokens and strings.
        controls: Of ``model.controls``.
        device: Where the model is.
        open_train: Opens what it was trained on.
        batch_size: Texts at a time; None suits a beam.
    """

    model: Model
    codec: TextCodec
    controls: Any
    device: torch.device
    open_train: Callable[[], Dataset]
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
    ) -> Iterator[list[int]]:  # fmt: skip
        size = self.batch_size or max(1, _ROWS // getattr(controls, "beam", 1))
        drawn = generate(
            self.model, self.codec, order, seed=seed, device=self.device, batch_size=size, controls=controls,
            prompts=prompts,
        )  # fmt: skip
        with progress(len(order), "writing", "texts") as bar:
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
        return self.open_train()

    @cached_property
    def training_text(self) -> str:
        """What it was trained on, or the beginning of a long one."""
        rows = range(min(len(self.train), max(1, MOST_CORPUS // self.train.spec.shape[0])))
        return Passages(self.train, rows, "", "train").joined

    def strangers(self, n: int) -> list[list[int]]:
        """The token ids of `n` training items, drawn by a seed that is always the same."""
        rows = generator("beside", n).integers(len(self.train), size=n).tolist()
        return Passages(self.train, rows, "", "train").tokens()


def translations(author: Author, passages: Passages, seed: int) -> Written:
    """What a model makes of the sources of pairs; beside it the sources themselves, and other pairs' targets."""
    longest = author.model.spec.shape[0]
    # A source that the data has cut has no end, which a prompt is given and needs room for.
    sources = [row if row[-1] == EOS else row[: longest - 1] for row in passages.tokens("source")]
    ids = author.answer(sources, seed)
    return Written(
        texts=[author.text(row) for row in ids],
        references=passages.texts(),
        beside={
            "source copied": passages.texts("source"),
            "random training target": [author.text(row) for row in author.strangers(len(passages))],
        },
        corpus=lambda: author.training_text,
    )


def continuations(author: Author, passages: Passages, seed: int, share: float) -> Written:
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
        raise DataError("no passage goes on after its prompt", "give a smaller metric.continuation.prompt")
    ids = author.answer(prompts, seed, max_tokens=max(map(len, rests)))
    # A model may begin a row with a `bos` that the prompt has not.
    rows = [row[len(prompt) + (row[0] == BOS != prompt[0]) :] for row, prompt in zip(ids, prompts, strict=True)]

    def alike(others: Sequence[Sequence[int]]) -> list[str]:
        return [author.rest(row[: len(rest)]) for row, rest in zip(others, rests, strict=True)]

    return Written(
        texts=alike(rows),
        references=[author.rest(rest) for rest in rests],
        beside={
            "prompt copied": [author.rest(row[-len(rest) :]) for row, rest in zip(prompts, rests, strict=True)],
            "random training text": alike([row[1:] for row in author.strangers(len(rests))]),
        },
        corpus=lambda: author.training_text,
        notes=(f"continuations of {sum(map(len, prompts)) / len(prompts):.0f} tokens "
               f"by {sum(map(len, rests)) / len(rests):.0f} tokens, on average",),
    )  # fmt: skip


def reconstructions(author: Author, passages: Passages) -> Written:
    """What an autoencoder makes of the latents of texts, the likeliest token after the likeliest; beside it, of others.

    Of a window of a text the first token is left out, which the model is not told.

    Raises:
        ConfigError: the model is no autoencoder.
    """
    texts: list[str] = []
    originals: list[str] = []
    model, size = author.model, author.batch_size
    pairs = reconstruct(model, passages.dataset, passages.rows, device=author.device, batch_size=size)
    with progress(len(passages), "reconstructing", "texts") as bar:
        for content, made in pairs:
            originals += passages.codec.text(content[:, 1:], stop=not passages.running)
            texts += author.codec.text(made)
            bar.advance(len(made))
    return Written(
        texts=texts,
        references=originals,
        beside={"reconstruction of another": [*texts[1:], *texts[:1]]},
        corpus=lambda: author.training_text,
    )


def own_texts(author: Author, passages: Passages, seed: int, n: int) -> Written:
    """`n` texts of a model's own; beside them held-out text in pieces of the same lengths, as many as it gives."""
    texts = [author.text(row) for row in author.write(n, seed)]
    pieces = pieces_of(passages, [len(text) for text in texts])
    return Written(texts=texts, beside={"held-out text": pieces} if pieces else {}, corpus=lambda: author.training_text)


def pieces_of(passages: Passages, lengths: Sequence[int]) -> list[str]:
    """Pieces of text with so many characters each, spread over it and none over another, as many as there is room for.

    Of texts of their own, it is their beginnings, a text each.
    """
    if not passages.running:
        return [text[:length] for text, length in zip(passages.texts(), lengths, strict=False)]
    joined, pieces, start = passages.joined, [], 0
    gap = max(0, len(joined) - sum(lengths)) // max(1, len(lengths))
    for length in lengths:
        if start + length > len(joined):
            break
        pieces.append(joined[start : start + length])
        start += length + gap
    return pieces


def measure_written(name: str, values: Mapping[str, Any], written: Written) -> Result:
    """The figures of a text metric on what a model has written, and on what stands beside it.

    Raises:
        DataError: the texts are too few, or all empty.
    """
    component = find("metric", name)
    config = check(f"metric.{name}", component.config, values)

    if not any(text.strip() for text in written.texts):
        raise DataError("what the run wrote is all empty", "train it longer, or draw with temperature=1")

    def measured(texts: Sequence[str]) -> tuple[Any, Score]:
        metric = component.build(config)
        metric.distributed_available_fn = lambda: False
        metric.update(texts, [written.corpus()] if metric.reference == "corpus" else written.references)
        return metric, Score(finite(name, metric.compute()), len(texts))

    metric, score = measured(written.texts)
    beside = {called: measured(texts)[1] for called, texts in written.beside.items()}
    n = len(written.texts)
    fewest = min((len(texts) for texts in written.beside.values()), default=n)
    return Result(
        metric=name,
        extractor=None,
        plain=True,
        better=metric.figures,
        config=dict(values),
        n_real=len(written.references),
        generated=score,
        at_floor_n=measured(written.texts[:fewest])[1] if fewest < n else None,
        beside=beside,
        notes=written.notes,
        facts=metric.facts(),
    )
