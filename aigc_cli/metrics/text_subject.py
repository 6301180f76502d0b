"""The model of a run that writes: translations, continuations and reconstructions of held-out texts, and its own.

None of their scores means much alone, so each set comes with others in its place that say nothing: held-out text, a
source or a prompt as it is, training text or another's reconstruction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch

from aigc_cli.errors import DataError
from aigc_cli.metrics.passages import Passages
from aigc_cli.metrics.run_subject import RunSubject
from aigc_cli.modalities.base import Items
from aigc_cli.modalities.text import TextCodec, Texts
from aigc_cli.modalities.tokenizers import BOS, EOS
from aigc_cli.models.base import Prompts
from aigc_cli.progress import Progress
from aigc_cli.randomness import generator
from aigc_cli.sampling.generate import generate, prepare

MOST_CORPUS = 1 << 22  # tokens of the training text that copies are looked for in
_ROWS = 256  # written at a time, beams counted
_SHARE = 0.5  # of an item that is continued, where no metric says
_WRITTEN = 128  # texts of its own, where nobody says how many


class TextSubject(RunSubject):
    """The model of a run that writes."""

    offers = frozenset({"text", "scores", "codes", "fills"})

    @property
    def corpus(self) -> Texts:
        """What it was trained on, or the beginning of a long one: where copies are looked for."""
        train = self.splits["train"]
        rows = range(min(len(train), max(1, MOST_CORPUS // train.spec.shape[0])))
        return Texts([Passages(train, "train", "", rows=rows).joined])

    def fake(self, n: int | None, seed: int) -> Items:
        """What it makes of held-out texts; of a model that writes freely `n` of its own.

        Beside the latter stands held-out text in pieces of the same lengths, as many as it gives.
        """
        assert isinstance(self.items, Passages), "the reference of text is text"
        makes = self.makes()
        if makes:
            return self.pairs(makes, self.items if n is None else self.items.take(n), seed)
        prepare(self.model, lambda: self.splits["train"], self.controls, device=self.device)
        drawn = self._drawn(range(_WRITTEN if n is None else n), seed, self.controls)
        texts = [self._text(row) for row in drawn]
        pieces = self.items.pieces([len(text) for text in texts])
        made = Texts(texts, self.stamp(self.controls, seed=seed), beside={"held-out text": pieces} if pieces else {})
        return self._named(made, "texts written", self.items)

    def pairs(self, kind: str, items: Items | None, seed: int, **options: Any) -> Items:
        """Translations, reconstructions or continuations of `items`."""
        assert isinstance(items, Passages), "a model is measured on texts of a dataset"
        if kind == "translate":
            return self._named(self._translations(items, seed), "translations", items)
        if kind == "continue":
            made = self._continuations(items, seed, float(options.get("share", _SHARE)))
            return self._named(made, "continuations", items)
        return self._named(self._reconstructions(items, seed), "reconstructions", items)

    def _named(self, made: Texts, what: str, against: Items) -> Texts:
        if not any(line.strip() for line in made.texts()):
            raise DataError("all texts of the run are empty", "train it longer, or draw with temperature=1")
        made.against = against
        made.called = f"{len(made):,} {what} by {self.named}, against {against.called}"
        return made

    def _translations(self, passages: Passages, seed: int) -> Texts:
        """What it makes of the sources of pairs; beside it the sources themselves, and other pairs' targets."""
        longest = self.spec.shape[0]
        # A source that the data has cut has no end, which a prompt is given and needs room for.
        sources = [row if row[-1] == EOS else row[: longest - 1] for row in passages.tokens("source")]
        beside = {
            "source copied": passages.texts("source"),
            "random training target": [self._text(row) for row in self._strangers(len(passages))],
        }
        texts = [self._text(row) for row in self._answers(sources, seed)]
        return Texts(texts, self.stamp(self.controls, seed=seed), sources=passages.texts(), beside=beside)

    def _continuations(self, passages: Passages, seed: int, share: float) -> Texts:
        """How it goes on from the first `share` of each passage, in as many tokens as the passage does.

        Beside it the end of the prompt once more, and training text, in as many tokens each. A passage ends at its
        first `eos`, and one with nothing after its prompt is left out.

        Raises:
            DataError: none has anything.
        """
        prompts, rests = [], []
        for row in passages.tokens():
            cut = max(1 + (row[0] == BOS), int(len(row) * share))
            rest = row[cut : row.index(EOS, cut) if EOS in row[cut:] else len(row)]
            if self._rest(rest).strip():
                prompts.append(row[:cut])
                rests.append(rest)
        if not rests:
            raise DataError("no text continues after its prompt", "give a smaller metric.continuation.prompt")
        ids = self._answers(prompts, seed, max_tokens=max(map(len, rests)))
        # A model may begin a row with a `bos` that the prompt has not.
        rows = [row[len(prompt) + (row[0] == BOS != prompt[0]) :] for row, prompt in zip(ids, prompts, strict=True)]

        def alike(others: Sequence[Sequence[int]]) -> list[str]:
            return [self._rest(row[: len(rest)]) for row, rest in zip(others, rests, strict=True)]

        beside = {
            "prompt copied": [self._rest(row[-len(rest) :]) for row, rest in zip(prompts, rests, strict=True)],
            "random training text": alike([row[1:] for row in self._strangers(len(rests))]),
        }
        given, wanted = (sum(map(len, side)) / len(side) for side in (prompts, rests))
        note = f"continuations of {given:.0f} tokens by {wanted:.0f} tokens, on average"
        sources, facts = [self._rest(rest) for rest in rests], self.stamp(self.controls, seed=seed, prompt=share)
        return Texts(alike(rows), facts, sources=sources, beside=beside, notes=[note])

    def _reconstructions(self, passages: Passages, seed: int) -> Texts:
        """What an autoencoder makes of the latents of texts, the likeliest token after the likeliest; beside it, of
        others. Of a window of a text the first token is left out, which the model is not told."""
        texts: list[str] = []
        originals: list[str] = []
        with Progress(len(passages), "reconstructing", "texts") as bar:
            for content, made in self.remade(passages):
                originals += passages.codec.text(content[:, 1:], stop=not passages.running)
                texts += self._codec.text(made)
                bar.advance(len(made))
        facts, beside = self.stamp(seed=seed, reconstructed=passages.split), [*texts[1:], *texts[:1]]
        return Texts(texts, facts, sources=originals, beside={"reconstruction of another": beside})

    # tokens

    @property
    def _codec(self) -> TextCodec:
        return cast("TextCodec", self.restored.codec)

    def _text(self, row: Sequence[int]) -> str:
        """The string of a whole item's token ids."""
        return self._codec.text(torch.tensor([row]))[0]

    def _rest(self, row: Sequence[int]) -> str:
        """The string of token ids from the middle of an item, up to the first `eos`."""
        kept = list(row)
        return self._codec.tokenizer.decode(kept[: kept.index(EOS)] if EOS in kept else kept)

    def _strangers(self, n: int) -> list[list[int]]:
        """The token ids of `n` training items, drawn by a seed that is always the same."""
        train = self.splits["train"]
        rows = generator("beside", n).integers(len(train), size=n).tolist()
        return Passages(train, "train", "", rows=rows).tokens()

    def _answers(self, prompts: Sequence[Sequence[int]], seed: int, **changed: Any) -> list[list[int]]:
        """The token ids that the model gives for each prompt, prompts of like length together."""
        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
        rows: list[list[int]] = [[] for _ in prompts]
        drawn = self._drawn(order, seed, replace(self.controls, **changed), Prompts(prompts))
        for place, row in zip(order, drawn, strict=True):
            rows[place] = row
        return rows

    def _drawn(
        self, order: Sequence[int], seed: int, controls: Any, prompts: Prompts | None = None
    ) -> Iterator[list[int]]:
        size = self.batch_size or max(1, _ROWS // getattr(controls, "beam", 1))
        how: dict[str, Any] = {"device": self.device, "batch_size": size, "controls": controls, "prompts": prompts}
        with Progress(len(order), "writing", "texts") as bar:
            for ids in generate(self.model, self._codec, order, seed=seed, **how):
                yield from ids.tolist()
                bar.advance(len(ids))
