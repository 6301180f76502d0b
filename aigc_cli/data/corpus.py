"""Text as a stream of pieces: where it comes from, which share of it a split takes, and the tokenizer made for it."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass as typed

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Split
from aigc_cli.data.cache import digest_of, find_root, remembered
from aigc_cli.data.splits import NO_CUT, Cut, CutConfig, empty, part_for, place_of, places_of, positions_of
from aigc_cli.errors import DataError
from aigc_cli.files import equal_files
from aigc_cli.modalities.text import read_codec
from aigc_cli.modalities.text_files import (
    ROWS,
    RULES,
    Reading,
    identity_of,
    kind_of,
    lines_of,
    printable,
    rows_of,
    text_of,
)
from aigc_cli.modalities.tokenizer_files import restore_tokenizer
from aigc_cli.modalities.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from aigc_cli.progress import Progress

PIECE = 1 << 16  # characters; what tokenizers are handed at a time
By = Literal["position", "document"]


class Piece(NamedTuple):
    """A part of a document: a row whole, a file in pieces."""

    texts: tuple[str, ...]  # one; of a pair, source and target
    ends: bool  # whether its document ends with it
    place: float  # of its document, uniform in [0, 1): a hash of what it holds, or of the name of its file


class Source(Protocol):
    """Documents, one after the other."""

    where: str  # for messages
    identity: str  # changes when the content may have

    def pieces(self, reading: Reading) -> Iterator[Piece]:
        """Everything, in order; `reading` notes what is wrong with it."""


class FileSource:
    """The text of files, in order; each is a document, or each of its rows or lines."""

    def __init__(self, where: str, files: Sequence[tuple[str, Path]], *, field: str, lines: bool) -> None:
        self.where, self.files, self.field, self.lines = where, files, field, lines
        self.identity = json.dumps(["files", identity_of(files), field, lines])

    def pieces(self, reading: Reading) -> Iterator[Piece]:
        """See :class:`Source`; rows and lines of white space alone are left out."""
        plain = [(name, path) for name, path in self.files if kind_of(path) not in ROWS and not self.lines]
        copies = equal_files(plain)  # which are always in one split
        for name, path in self.files:
            if kind_of(path) in ROWS:
                yield from _whole(rows_of(path, [self.field], reading))
            elif self.lines:
                yield from _whole((line,) for line in lines_of(path, reading))
            else:
                yield from in_pieces(text_of(path, reading), place_of(printable(copies.get(name, name))))


class TextSource:
    """Documents that are at hand."""

    def __init__(self, where: str, documents: Sequence[str]) -> None:
        self.where, self.documents = where, documents
        self.identity = hashlib.sha256("\0".join(documents).encode()).hexdigest()

    def pieces(self, reading: Reading) -> Iterator[Piece]:
        """See :class:`Source`."""
        for document in self.documents:
            yield from in_pieces([document], place_of(document))


class PairSource:
    """Pairs of texts: the lines of two files, or two fields of the rows of one; or several such, one after another."""

    def __init__(self, where: str, parts: Sequence[Sequence[Path]], fields: Sequence[str]) -> None:
        """Each of `parts` is two files, or one of rows with the two `fields`."""
        self.where, self.parts, self.fields = where, parts, fields
        files = [identity_of([(path.name, path) for path in part]) for part in parts]
        self.identity = json.dumps(["pairs", files, list(fields)])

    def pieces(self, reading: Reading) -> Iterator[Piece]:
        """See :class:`Source`; each piece is a pair; raises DataError where two files differ in length."""
        for part in self.parts:
            rows = _lines(part, reading) if len(part) == 2 else rows_of(part[0], self.fields, reading)
            yield from (Piece(row, True, place_of(*row)) for row in rows)


def _lines(part: Sequence[Path], reading: Reading) -> Iterator[tuple[str, ...]]:
    counts = [0, 0]
    for pair in zip_longest(*(lines_of(path, reading) for path in part)):
        for side, line in enumerate(pair):
            counts[side] += line is not None
        if counts[0] == counts[1]:  # else they are only counted
            yield pair
    if counts[0] != counts[1]:
        named = " and ".join(f"{printable(path)} has {n} lines" for path, n in zip(part, counts, strict=True))
        raise DataError(f"the files do not match: {named}", "line n of one must belong to line n of the other")


def _whole(rows: Iterable[tuple[str, ...]]) -> Iterator[Piece]:
    return (Piece(row, True, place_of(*row)) for row in rows if not row[0].isspace() and row[0])


def in_pieces(blocks: Iterable[str], place: float) -> Iterator[Piece]:
    """One document, cut at ends of lines as near to every :data:`PIECE` characters as there are any.

    Where it is cut depends on the text alone, not on the blocks in which it comes.
    """
    rest = ""
    for block in blocks:
        rest += block
        start = 0
        while len(rest) - start > PIECE:
            cut = rest.rfind("\n", start, start + PIECE) + 1 or start + PIECE
            yield Piece((rest[start:cut],), False, place)
            start = cut
        rest = rest[start:]
    if rest:
        yield Piece((rest,), True, place)


class Share(NamedTuple):
    """Which of a source's pieces a split takes: those between two bounds of what `of` counts."""

    of: Literal["characters", "documents", "places"]
    first: float
    stop: float


EVERYTHING = Share("places", 0.0, 1.0)


def selected(pieces: Iterable[Piece], share: Share) -> Iterator[Piece]:
    """The pieces in a share; by characters, one may be cut off at either end."""
    at = 0
    for piece in pieces:
        if share.of == "characters":
            text = piece.texts[0]
            first, stop = (min(max(int(bound) - at, 0), len(text)) for bound in (share.first, share.stop))
            at += len(text)
            if first < stop:
                yield Piece((text[first:stop],), piece.ends and stop == len(text), piece.place)
        else:
            if share.first <= (at if share.of == "documents" else piece.place) < share.stop:
                yield piece
            at += piece.ends
        if share.of != "places" and at >= share.stop:  # what follows need not be read
            return


@typed(config=STRICT, frozen=True, kw_only=True)
class TextFilesConfig(CutConfig):
    """The keys of a person's own text, in files of any layout."""

    root: str | None
    encoding: str
    max_broken: Annotated[float, Field(ge=0, le=1)]

    @field_validator("encoding")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            "".encode(name)
            return codecs.lookup(name).name
        except LookupError:
            raise ValueError(f"encoding={name}: Python knows no such encoding of text") from None

    @property
    def reading(self) -> Reading:
        """How the files are read."""
        return Reading(self.encoding, self.max_broken)


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
        return selected(self.source.pieces(self.reading.again()), self.share)  # what is wrong was noted with the stock

    def identity(self) -> list[Any]:
        """What changes if and only if its content does."""
        by_place = self.share.of == "places" and self.share != EVERYTHING
        return [self.stock.digest, self.share, self.stock.places if by_place else ""]


def _counted(source: Source, settings: Reading) -> dict[str, Any]:
    """The fields of :class:`Stock`, from all of a source."""
    reading = settings.again()  # so that its problems are those of this source alone
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
    left_out: Sequence[str] = ()  # lines about files that were passed over

    def held_out(self) -> list[str]:
        """A line about how much text is held out, where that is known before it is read."""
        if self.parts or self.by == "document" or self.whole or not any(self.cut):
            return []
        total = self["train"].stock.characters
        counts = {split: positions_of(split, total, self.cut) for split in ("val", "test")}
        shares = [f"{stop - first:,} for {split}" for split, (first, stop) in counts.items() if stop > first]
        return [f"held out at the end: {' and '.join(shares)}, of {total:,} characters"]

    def __getitem__(self, split: Split) -> Corpus:
        """The text of one split; raises ConfigError where the fractions leave it nothing, and DataError where its
        source cannot be read, or has no text at all."""
        part, cut = part_for(split, self.parts, self.cut)
        source = self.source(part)
        key = digest_of([RULES, source.identity, self.reading.encoding, self.reading.max_broken])
        stock = remembered("stock", key, lambda: _counted(source, self.reading), lambda found: Stock(**found))
        if self.parts and part == split and not any(cut):
            return Corpus(source, stock, self.reading)
        unit: Literal["documents", "characters"] = "documents" if self.whole else "characters"
        total: int = getattr(stock, unit)
        by_place = self.by == "document"
        share = Share("places", *places_of(split, cut)) if by_place else Share(unit, *positions_of(split, total, cut))
        if share.first >= share.stop:
            raise empty(split, source.where, cut, total, unit)
        return Corpus(source, stock, self.reading, share)


def tokenizer_for(config: TokenizerConfig, train: Corpus) -> Tokenizer:
    """The tokenizer that `config` names, or one made for the training text, which is remembered; raises DataError where
    the one that `config` names is missing or broken."""
    if config.path is not None:
        return read_codec(find_root(config.path, key="data.tokenizer.path")).tokenizer
    made_by = version("tokenizers") if config.kind == "bpe" else ""
    key = digest_of([train.identity(), config.kind, config.vocab_size if config.kind == "bpe" else 0, made_by])
    return remembered("tokenizers", key, lambda: _trained(config, train), restore_tokenizer)


def _trained(config: TokenizerConfig, train: Corpus) -> dict[str, Any]:
    with Progress(None, f"making a tokenizer ({config.kind})", "B") as bar:

        def texts() -> Iterator[str]:
            for piece in train.pieces():
                for text in piece.texts:
                    yield text
                    bar.advance(len(text))

        return train_tokenizer(config, texts(), train.stock.characters).state()
