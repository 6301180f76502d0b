"""The text of a split, and what is worked out about it once and kept: how much there is of it, and its tokenizer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

from aigc_cli.data.base import Split
from aigc_cli.data.cache import digest_of, find_root, remembered
from aigc_cli.data.splits import NO_CUT, Cut, empty, part_for, places_of, positions_of
from aigc_cli.data.text_sources import EVERYTHING, By, Piece, Share, Source, selected
from aigc_cli.errors import DataError
from aigc_cli.modalities.text import read_codec
from aigc_cli.modalities.text_files import Reading
from aigc_cli.modalities.tokenizers import Tokenizer, TokenizerConfig, restore_tokenizer, train_tokenizer
from aigc_cli.progress import Progress


@dataclass(frozen=True)
class Stock:
    """What there is in a source."""

    digest: str  # of the text and of where documents end
    places: str  # of the places of documents
    characters: int
    documents: int
    problems: list[str]


@dataclass(frozen=True)
class Corpus:
    """The text of a split: a share of a source."""

    source: Source
    stock: Stock
    reading: Reading
    share: Share = EVERYTHING

    def pieces(self) -> Iterator[Piece]:
        """Its text."""
        again = Reading(self.reading.encoding, self.reading.max_broken)  # problems were noted when stock was taken
        return selected(self.source.pieces(again), self.share)

    def identity(self) -> list[Any]:
        """What changes if and only if its content does."""
        by_place = self.share.of == "places" and self.share != EVERYTHING
        return [self.stock.digest, self.share, self.stock.places if by_place else ""]


def take_stock(source: Source, reading: Reading) -> Stock:
    """Reads all of a source once, and remembers what was found until it changes.

    Raises:
        DataError: it cannot be read, or has no text at all.
    """
    key = digest_of([source.identity, reading.encoding, reading.max_broken])
    return remembered("stock", key, lambda: _counted(source, reading), lambda found: Stock(**found))


def _counted(source: Source, settings: Reading) -> dict[str, Any]:
    """The fields of :class:`Stock`, from all of a source."""
    reading = Reading(settings.encoding, settings.max_broken)  # so that its problems are those of this source alone
    content, places = hashlib.sha256(), hashlib.sha256()
    characters = documents = 0
    with Progress(None, f"reading {source.where}", "B") as bar:
        for piece in source.pieces(reading):
            for text in piece.texts:
                content.update(text.encode() + b"\xff")  # a byte that is in no text
                characters += len(text)
                bar.advance(len(text))
            if piece.ends:
                content.update(b"\xfe")
                places.update(str(piece.place).encode() + b"\n")
                documents += 1
    problems = reading.problems()
    if not characters:
        what = f": {'; '.join(problems[:3])}" if problems else ""
        raise DataError(f"there is no text in {source.where}{what}", "point data.root= at files with text in them")
    return {"digest": content.hexdigest(), "places": places.hexdigest(), "characters": characters,
            "documents": documents, "problems": problems}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Corpora:
    """The text of every split: of files that are named after it, or what is cut off the training text."""

    source: Callable[[Split], Source]  # the text of a part; "train" is all of it where there are no parts
    reading: Reading
    parts: Collection[Split] = ()  # the splits that have files of their own
    cut: Cut = NO_CUT
    by: By = "document"
    whole: bool = True  # whether no document is cut in two, where the cut is by position

    def __getitem__(self, split: Split) -> Corpus:
        """The text of one split.

        Raises:
            ConfigError: the fractions leave it nothing.
            DataError: as :func:`take_stock`.
        """
        part, cut = part_for(split, self.parts, self.cut)
        source = self.source(part)
        stock = take_stock(source, self.reading)
        if self.parts and part == split and not any(cut):
            return Corpus(source, stock, self.reading)
        unit: Literal["documents", "characters"] = "documents" if self.whole else "characters"
        total = stock.documents if self.whole else stock.characters
        if self.by == "document":
            share = Share("places", *places_of(split, cut))
        else:
            share = Share(unit, *positions_of(split, total, cut))
        if share.first >= share.stop:
            raise empty(split, source.where, cut, total, unit)
        return Corpus(source, stock, self.reading, share)


def tokenizer_for(config: TokenizerConfig, train: Corpus) -> Tokenizer:
    """The tokenizer that `config` names, or one made for the training text, which is remembered.

    Raises:
        DataError: the one that `config` names is missing or broken.
    """
    if config.path is not None:
        return read_codec(find_root(config.path)).tokenizer
    made_by = version("tokenizers") if config.kind == "bpe" else ""
    key = digest_of([train.identity(), config.kind, config.vocab_size if config.kind == "bpe" else 0, made_by])
    return remembered("tokenizers", key, lambda: _trained(config, train), restore_tokenizer)


def _trained(config: TokenizerConfig, train: Corpus) -> dict[str, Any]:
    """The state of a new tokenizer."""
    with Progress(None, f"making a tokenizer ({config.kind})", "B") as bar:

        def texts() -> Iterator[str]:
            for piece in train.pieces():
                for text in piece.texts:
                    yield text
                    bar.advance(len(text))

        return train_tokenizer(config, texts(), train.stock.characters).state()
