"""Held-out text as metrics look at it: some items of a split, their tokens, their strings, and what a stamp says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor

from aigc_cli.data.base import Dataset
from aigc_cli.data.text_dataset import TextDataset
from aigc_cli.data.token_files import Extent
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.base import View
from aigc_cli.metrics.items import DatasetItems, has_text
from aigc_cli.modalities.base import DataSpec
from aigc_cli.modalities.tokenizers import BOS, FIRST, PAD, UNK

if TYPE_CHECKING:
    from aigc_cli.modalities.text import TextCodec

_TOGETHER = 1024  # items gathered at a time


class Passages(DatasetItems):
    """Items of a dataset of text: windows of a long one, documents, or pairs."""

    @property
    def codec(self) -> TextCodec:
        """Between the tokens and strings."""
        return cast("TextCodec", self.dataset.codec)

    @property
    def running(self) -> bool:
        """Whether items are windows of a text that runs on, and not texts of their own."""
        return self.codec.start != BOS

    @property
    def called(self) -> str:  # type: ignore[override]
        """Where they are from, in words."""
        return f"the {self.split} split of {self.name}"

    def counted_for(self, view: View) -> tuple[int, str]:
        """Characters, whatever the tokenizer, where a text that runs on is scored, else texts, or targets of pairs."""
        if view == "scores" and self.running:
            return len(self.joined), f"{len(self.joined):,} characters of {self.called}"
        what = "targets" if view == "scores" and self.spec.source is not None else "texts"
        return len(self), f"{len(self):,} {what} of {self.called}"

    def where(self) -> dict[str, Any]:
        """All."""
        return self.facts

    def asked_about(self) -> dict[str, Any]:
        """Nothing: what it is of says the side of the reference."""
        return {}

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """How a text that runs on is read."""
        if not self.running:
            return ()
        windows = f"windows of {self.spec.shape[0] - 1} tokens that do not overlap"
        return (f"the text is read in {windows}: a token is predicted from its own alone",)

    def by_length(self) -> Sequence[int]:
        """Their rows, longest first; of pairs the longer side counts."""
        found = [np.zeros(0, dtype=np.int64)]
        for batch in self.batches(_TOGETHER):
            sides = [part for part in (batch.content, batch.source) if part is not None]
            found.append(np.maximum.reduce([(side != PAD).sum(1).numpy() for side in sides]))
        return [self.rows[place] for place in (-np.concatenate(found)).argsort(kind="stable").tolist()]

    def sizes(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The characters and bytes that the ``tokens`` of each item stand for: shares of all that there are.

        How much text a target is, is known of a whole split only, where some stand for characters that have no token.
        """
        each = scores["tokens"].double() / self.extent.targets
        return {"characters": each * self.extent.characters, "bytes": each * self.extent.bytes}

    def tokens(self, side: str = "content") -> list[list[int]]:
        """The token ids of each item without padding; of pairs, `side` may be "source"."""
        parts = (getattr(batch, side) for batch in self.batches(_TOGETHER))
        return [[token for token in row if token != PAD] for part in parts for row in part.tolist()]

    def texts(self, side: str = "content") -> list[str]:
        """The string of each item; of pairs, `side` may be "source"."""
        parts = (getattr(batch, side) for batch in self.batches(_TOGETHER))
        return [text for part in parts for text in self.codec.text(part, stop=not self.running)]

    @cached_property
    def joined(self) -> str:
        """All of it as one string: windows as they run on, other texts a line each."""
        if not self.running:
            return "\n".join(self.texts())
        rows = self.tokens()
        if not rows:
            return ""
        # A window begins with the token that the one before it ends with.
        follows = np.diff(np.asarray(self.rows), prepend=self.rows[0] - 2) == 1
        stream = [row[1:] if joins else row for row, joins in zip(rows, follows.tolist(), strict=True)]
        return self.codec.tokenizer.decode([token for row in stream for token in row])

    @cached_property
    def extent(self) -> Extent:
        """How much text the targets are, which are all tokens of an item but the first."""
        if list(self.rows) == list(range(len(self.dataset))) and isinstance(self.dataset, TextDataset):
            return self.dataset.extent  # which knows the characters behind `unk` too
        targets, unknown, characters, size = self._counted
        if unknown:
            each = 1.0  # byte of a character, which flatters no model, where nothing tells their mean over the split
            if isinstance(self.dataset, TextDataset):
                _, others, _, known = Passages(self.dataset, self.split, self.name)._counted
                each = max(1.0, (self.dataset.extent.bytes - known) / max(1, others))
            characters, size = characters + unknown, size + round(unknown * each)
        return Extent(targets + len(self), targets, characters, size, 0 if self.running else len(self))

    @cached_property
    def _counted(self) -> tuple[int, int, int, int]:
        """The targets, those of them that are `unk`, and the characters and bytes of the others."""
        counts = np.zeros(self.codec.tokenizer.vocab_size, dtype=np.int64)
        for batch in self.batches(_TOGETHER):
            counts += np.bincount(batch.content[:, 1:].flatten().numpy(), minlength=len(counts))
        counts[PAD] = 0
        known = np.flatnonzero(counts[FIRST:]) + FIRST
        sizes = np.array([self.codec.tokenizer.size_of(token) for token in known.tolist()]).reshape(-1, 2)
        characters, size = (counts[known] @ sizes.astype(np.int64)).tolist()
        return int(counts.sum()), int(counts[UNK]), characters, size

    def pieces(self, lengths: Sequence[int]) -> list[str]:
        """Pieces of text with so many characters each, spread over it and none over another, as many as there is room
        for; of texts of their own, their beginnings, a text each."""
        if not self.running:
            return [text[:length] for text, length in zip(self.texts(), lengths, strict=False)]
        pieces, start = [], 0
        gap = max(0, len(self.joined) - sum(lengths)) // max(1, len(lengths))
        for length in lengths:
            if start + length > len(self.joined):
                break
            pieces.append(self.joined[start : start + length])
            start += length + gap
        return pieces

    @cached_property
    def facts(self) -> dict[str, Any]:  # type: ignore[override]
        """What a stamp says of it; the fingerprint is of the text itself, whatever the tokenizer."""
        digest = hashlib.sha256(self.joined.encode())
        if self.spec.source is not None:
            digest.update("\n".join(["", *self.texts("source")]).encode())
        tokenizer = hashlib.sha256(json.dumps(self.codec.tokenizer.state(), sort_keys=True).encode())
        extent = self.extent
        return {
            "data": self.name,
            "split": self.split,
            "fingerprint": digest.hexdigest(),
            "tokenizer": tokenizer.hexdigest(),
            "items": len(self),
            "targets": extent.targets,
            "characters": extent.characters,
            "bytes": extent.bytes,
            **({"context": self.dataset.spec.shape[0] - 1} if self.running else {}),
            **({"original": True} if self.dataset.original else {}),
        }


def check_readable(dataset: Dataset, spec: DataSpec, run: str) -> None:
    """Refuses text that a model of `spec` cannot read.

    Raises:
        ConfigError: it is of another modality, another vocabulary, or in longer items.
    """
    own = dataset.spec
    if own.kind != spec.kind:
        raise ConfigError(f"the data is {own.kind}, and {run} is of {spec.kind}", "leave data= out")
    if own.vocab_size != spec.vocab_size:
        what = f"the data has {own.vocab_size} different tokens, and {run} {spec.vocab_size}"
        raise ConfigError(what, "give it the run's tokenizer with data.tokenizer.path=RUN")
    if own.shape[0] > spec.shape[0]:
        what = f"an item of the data has up to {own.shape[0]} tokens, and {run} reads {spec.shape[0]}"
        raise ConfigError(what, "make them as long with data.context=, or data.max_length=")


def items_of(dataset: Dataset, split: str, name: str, n: int | None = None) -> DatasetItems:
    """The items of a split of the data called `name`, or `n` that stand for them.

    Raises:
        DataError: there is none.
    """
    if not len(dataset):
        raise DataError(f"there is nothing in the {split} split", "name another with split=")
    return (Passages if has_text(dataset.spec) else DatasetItems)(dataset, split, name, n)
