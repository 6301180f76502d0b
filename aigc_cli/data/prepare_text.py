"""A cleaned copy of text, or of pairs of texts: a file for each split."""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from aigc_cli.data.alike import alike_texts, sketch
from aigc_cli.data.base import SPLITS, Split
from aigc_cli.data.cache import digest_of
from aigc_cli.data.corpus import Corpora, Piece, in_pieces
from aigc_cli.data.prepare import Asked, Prepared
from aigc_cli.data.report import members
from aigc_cli.data.splits import place_of
from aigc_cli.data.text_facts import beginning, digest_of_text
from aigc_cli.data.text_report import DOCUMENT, readable
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.text_files import Reading
from aigc_cli.registry import register

_CLEANED = "cleaned of control characters, marks and ends of lines"
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")


def cleaned(text: str) -> str:
    """A text without control characters and marks of encodings, with line feeds alone, its letters joined (NFC)."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", _CONTROLS.sub("", text))


class CleanSource:
    """The documents, or pairs, of a source, cleaned, but those that are empty or were there before.

    `known` are the digests of documents of other splits, and `near` the numbers of those that others are nearly like.
    """

    def __init__(self, source: Any, dedup: bool, known: Iterable[int] = (), near: Iterable[int] = ()) -> None:
        self._source, self._dedup, self._known, self._near = source, dedup, frozenset(known), frozenset(near)
        self.where = source.where
        left_out = digest_of([sorted(self._known), sorted(self._near)])
        self.identity = json.dumps(["cleaned", source.identity, dedup, left_out])
        self.left_out: list[tuple[str, str]] = []
        self.changed = 0

    def documents(self, reading: Reading) -> Iterator[tuple[str, ...]]:
        """The sides of each."""
        seen, self.left_out, self.changed = set(self._known), [], 0
        for number, texts in enumerate(_whole(self._source.pieces(reading))):
            sides = tuple(map(cleaned, texts))
            name, digest = " - ".join(map(beginning, sides)), digest_of_text("\0".join(sides))
            why = ""
            if not all(side.strip() for side in sides):
                why = "empty"
            elif self._dedup and digest in seen:
                why = "the same as another"
            elif number in self._near:
                why = "nearly the same as another"
            if why:
                self.left_out.append((why, name))
                continue
            seen.add(digest)
            self.changed += sides != texts
            yield sides

    def pieces(self, reading: Reading) -> Iterator[Piece]:
        """See :class:`Source`."""
        for sides in self.documents(reading):
            if len(sides) == 1:
                yield from in_pieces(sides, place_of(*sides))
            else:
                yield Piece(sides, True, place_of(*sides))


def _whole(pieces: Iterable[Piece]) -> Iterator[tuple[str, ...]]:
    """Documents out of their pieces; the last may be cut off."""
    parts: list[tuple[str, ...]] = []
    for piece in pieces:
        parts.append(piece.texts)
        if piece.ends:
            yield tuple("".join(side) for side in zip(*parts, strict=True))
            parts = []
    if parts:
        yield tuple("".join(side) for side in zip(*parts, strict=True))


def clean_corpora(asked: Asked, prepared: Prepared) -> Corpora:
    """The cleaned text of each split; of documents of several splits, the held-out one stays."""
    corpora, files = readable(asked.look())
    for name, error in files.failed.items():
        prepared.leave_out(f"cannot be read: {error.message}", name)
    for name in files.empty:
        prepared.leave_out("an empty file", name)
    own: Sequence[Split] = [split for split in reversed(SPLITS) if split in corpora.parts] or ["train"]
    sources: dict[Split, CleanSource] = {}
    known: set[int] = set()
    near = _near(corpora, own) if asked.dedup == "near" else {}
    for part in own:
        sources[part] = clean = CleanSource(corpora.source(part), bool(asked.dedup), known, near.get(part, ()))
        seen = {digest_of_text("\0".join(sides)) for sides in clean.documents(corpora.reading.again())}
        known |= seen if asked.dedup else set()
        for why, name in clean.left_out:
            prepared.leave_out(why, name)
        if clean.changed:
            prepared.changed[_CLEANED] = prepared.changed.get(_CLEANED, 0) + clean.changed
    return replace(corpora, source=sources.__getitem__, cut=asked.cut)


def _near(corpora: Corpora, own: Sequence[Split]) -> dict[Split, list[int]]:
    """The numbers of the documents of each part that are nearly the same as others before them."""
    sketches: list[np.ndarray] = []
    firsts: list[int] = []
    for part in own:
        firsts.append(len(sketches))
        pieces = corpora.source(part).pieces(corpora.reading.again())
        sketches += [sketch("".join(texts)) for texts in _whole(pieces)]
    copies = np.sort(np.concatenate([np.zeros(0, int), *(group[1:] for group in members(alike_texts(sketches)))]))
    ends = [*firsts[1:], len(sketches)]
    return {
        part: (copies[(copies >= first) & (copies < end)] - first).tolist()
        for part, first, end in zip(own, firsts, ends, strict=True)
    }


def splits_of(corpora: Corpora, prepared: Prepared) -> dict[Split, list[tuple[str, ...]]]:
    """The documents of each split that has any; raises DataError where there are none at all."""
    found: dict[Split, list[tuple[str, ...]]] = {}
    for split in SPLITS:
        try:
            documents = list(_whole(corpora[split].pieces()))
        except (ConfigError, DataError):
            continue
        if documents:
            found[split] = documents
    if "train" not in found:
        raise DataError("there is nothing left of this text", "aigc data show says what is wrong with it")
    prepared.items = {split: len(documents) for split, documents in found.items()}
    return found


@register("preparation", "text")
def prepare_text(asked: Asked, folder: Path) -> Prepared:
    """Writes a .jsonl for each split, or where it is one document, or on request, .txt."""
    prepared = Prepared(DOCUMENT)
    parts = splits_of(clean_corpora(asked, prepared), prepared)
    one = all(len(documents) == 1 for documents in parts.values())
    lines = bool(asked.values.get("lines"))
    form = asked.refuse_format(("txt", "jsonl") if one else ("jsonl", "txt"))
    for split, documents in parts.items():
        if form == "jsonl":
            _write_objects(folder / f"{split}.jsonl", ("text",), documents)
        elif one or lines:
            text = "".join(f"{text}\n" if lines else text for (text,) in documents)
            (folder / f"{split}.txt").write_text(text, encoding="utf-8", newline="\n")
        else:
            (folder / split).mkdir()
            for number, (text,) in enumerate(documents):
                (folder / split / f"{number:06d}.txt").write_text(text, encoding="utf-8", newline="\n")
    added = ["data.lines=true"] if lines and form == "txt" else []
    prepared.words = ["model=transformer", "data=text", *added, *asked.kept(("lines", "field"))]
    return prepared


@register("preparation", "text from text")
def prepare_pairs(asked: Asked, folder: Path) -> Prepared:
    """Writes a .jsonl or .tsv for each split, with the fields ``source`` and ``target``."""
    form = asked.refuse_format(("jsonl", "tsv"))
    prepared = Prepared(("pair", "pairs"))
    for split, pairs in splits_of(clean_corpora(asked, prepared), prepared).items():
        if form == "jsonl":
            _write_objects(folder / f"{split}.jsonl", ("source", "target"), pairs)
            continue
        with (folder / f"{split}.tsv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerows([("source", "target"), *pairs])
    sides = ["data.source=source", "data.target=target"]
    prepared.words = ["model=seq2seq", "data=pairs", *sides, *asked.kept(("source", "target"))]
    return prepared


def _write_objects(path: Path, names: Sequence[str], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n")
