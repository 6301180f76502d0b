"""Tokens on disk: made in one pass in bounded memory, and found again by a digest of the text and the tokenizer."""

from __future__ import annotations

import json
import shutil
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from aigc_cli.data.cache import cache_dir, digest_of
from aigc_cli.data.corpus import Corpus, Piece
from aigc_cli.files import Overtaken, new_folder, resource_errors, sync, write_json
from aigc_cli.modalities.tokenizers import BOS, EOS, UNK, Tokenizer
from aigc_cli.progress import Progress

TOGETHER = 1 << 20  # characters tokenized at a time
NAMED = 20  # unknown characters that are listed
ABOUT = "about.json"


@dataclass(frozen=True)
class Extent:
    """How much text a split is: what its likelihood is divided by."""

    tokens: int  # all of them, the special ones included
    targets: int  # those that are predicted
    characters: int  # of the text that the targets stand for
    bytes: int  # of that text in UTF-8
    documents: int


@dataclass(frozen=True)
class Tokens:
    """One stream of tokens, or sequences on one side or on both sides of pairs."""

    key: str  # a digest of all that they follow from
    folder: Path
    dtype: str
    sides: int
    extent: Extent
    unknown: int  # tokens that stand for a character which the vocabulary lacks
    lacking: str  # some of those characters
    cut: int  # sequences that were longer than allowed
    left_out: int  # pairs that were longer than allowed, or had an empty side

    def nbytes(self) -> int:
        """The bytes of all streams."""
        return sum((self.folder / f"{side}.bin").stat().st_size for side in range(self.sides))

    def fit(self, memory_gb: float) -> bool:
        """Whether they may be held in memory."""
        return self.nbytes() <= memory_gb * 1e9

    def load(self, side: int = 0, *, resident: bool) -> np.ndarray:
        """The stream of a side (tokens,), in memory or mapped to it."""
        path = self.folder / f"{side}.bin"
        if resident or not path.stat().st_size:
            return np.fromfile(path, dtype=self.dtype)
        return np.memmap(path, dtype=self.dtype, mode="c")  # torch warns of what cannot be written to

    def offsets(self, side: int = 0) -> np.ndarray:
        """Where the sequences of a side begin, and where the last ends: int64 (n + 1,)."""
        offsets: np.ndarray = np.load(self.folder / f"{side}.offsets.npy", mmap_mode="r", allow_pickle=False)
        return offsets


def stream_tokens(corpus: Corpus, tokenizer: Tokenizer, *, joined: bool) -> Tokens:
    """All tokens of a corpus in one stream; with `joined`, `eos` follows each document; raises ResourceError where the
    cache cannot hold them."""

    def write(folder: Path, dtype: str) -> dict[str, Any]:
        tally = _Tally(tokenizer)
        with (folder / "0.bin").open("wb") as file:
            for group in _together(corpus):
                for piece, ids in zip(group, tokenizer.encode_all([one.texts[0] for one in group]), strict=True):
                    if not tally.extent["tokens"]:
                        tally.first_target(piece.texts[0], ids)
                    ended = joined and piece.ends
                    tally.count(piece.texts[0], ids, ends=ended)
                    tally.note_unknown(piece.texts[0], ids)
                    tally.extent["documents"] += piece.ends
                    file.write((np.append(ids, EOS) if ended else ids).astype(dtype).tobytes())
            _flush(file)
        return tally.about()

    return _kept(["stream", corpus.identity(), joined], tokenizer, 1, write)


def sequence_tokens(corpus: Corpus, tokenizer: Tokenizer, *, sides: int, longest: int, leave_out: bool) -> Tokens:
    """A sequence for each document, or one on each side of a pair: `bos`, its tokens, `eos`.

    One of more than `longest` tokens is cut; or, with `leave_out`, it is left out with its pair, and so are pairs with
    an empty side. The extent is of the last side, the target. Raises ResourceError where the cache cannot hold them.
    """

    def write(folder: Path, dtype: str) -> dict[str, Any]:
        with ExitStack() as stack:
            files: list[BinaryIO] = [stack.enter_context((folder / f"{side}.bin").open("wb")) for side in range(sides)]
            writer = _Sequences(files, tokenizer, dtype, longest, leave_out)
            for group in _together(corpus):
                ids = [tokenizer.encode_all([piece.texts[side] for piece in group]) for side in range(sides)]
                for piece, *parts in zip(group, *ids, strict=True):
                    writer.add(piece, parts)
            for file in files:
                _flush(file)
        for side in range(sides):
            np.save(folder / f"{side}.offsets.npy", np.cumsum([0, *writer.lengths[side]]), allow_pickle=False)
        return writer.about()

    key = ["sequences", corpus.identity(), sides, longest, leave_out]
    return _kept(key, tokenizer, sides, write)


class _Tally:
    """Counts what a stream is made of, so that its likelihood can be stated per byte and per character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.extent = Counter(tokens=0, targets=0, characters=0, bytes=0, documents=0)
        self.unknown = self.cut = self.left_out = 0
        self.lacking: set[str] = set()

    def first_target(self, text: str, ids: np.ndarray) -> None:
        """Takes the first token of a stream, and its text, out of the targets: nothing comes before it."""
        unknown = int(ids[0]) == UNK  # a character, of any size
        characters, size = (1, len(text[0].encode())) if unknown else self.tokenizer.size_of(int(ids[0]))
        self.extent.subtract({"targets": 1, "characters": characters, "bytes": size})

    def count(self, text: str, ids: np.ndarray, *, ends: bool) -> None:
        """Counts some text, its tokens, and the `eos` that ends its document."""
        targets = len(ids) + ends
        self.extent.update(tokens=targets, targets=targets, characters=len(text), bytes=len(text.encode()))

    def note_unknown(self, text: str, ids: np.ndarray) -> None:
        """Counts what the vocabulary lacks."""
        unknown = int((ids == UNK).sum())
        self.unknown += unknown
        if unknown and len(self.lacking) < NAMED:
            self.lacking.update(self.tokenizer.unknown(text))

    def about(self) -> dict[str, Any]:
        """What :class:`Tokens` says of it."""
        extent = {name: max(count, 0) for name, count in self.extent.items()}
        return {"extent": extent, "unknown": self.unknown, "lacking": "".join(sorted(self.lacking)[:NAMED]),
                "cut": self.cut, "left_out": self.left_out}  # fmt: skip


class _Sequences(_Tally):
    """Writes sequences, and counts those that are too long."""

    def __init__(self, files: list[BinaryIO], tokenizer: Tokenizer, dtype: str, longest: int, leave_out: bool) -> None:
        super().__init__(tokenizer)
        self.files, self.dtype, self.longest, self.leave_out = files, dtype, longest, leave_out
        self.lengths = [array("q") for _ in files]
        self._begin()

    def _begin(self) -> None:
        self._parts: list[list[np.ndarray]] = [[] for _ in self.files]
        self._counts = [0] * len(self.files)
        self._texts: list[list[str]] = [[] for _ in self.files]

    def add(self, piece: Piece, ids: list[np.ndarray]) -> None:
        """The next piece of a document, with its tokens on each side."""
        for side, some in enumerate(ids):
            if self._counts[side] < self.longest:  # a document may be far longer than what is kept of it
                self._parts[side].append(some)
                self._texts[side].append(piece.texts[side])
            self._counts[side] += len(some)
        if piece.ends:
            self._end()
            self._begin()

    def _end(self) -> None:
        long = max(self._counts) + 2 > self.longest
        if self.leave_out and (long or (len(self.files) > 1 and min(self._counts) == 0)):
            self.left_out += 1
            return
        self.cut += long
        for side, file in enumerate(self.files):
            whole = np.concatenate([[BOS], *self._parts[side], [EOS]])
            kept = whole[: self.longest]
            file.write(kept.astype(self.dtype).tobytes())
            self.lengths[side].append(len(kept))
            text, ended = "".join(self._texts[side]), len(kept) == len(whole)
            self.note_unknown(text, kept)
        self.extent["tokens"] += 1  # bos, which is never a target
        ids = kept[1:-1] if ended else kept[1:]
        self.count(text if ended else self.tokenizer.decode(ids.tolist()), ids, ends=ended)
        self.extent["documents"] += 1


def _together(corpus: Corpus) -> Iterator[list[Piece]]:
    """Pieces in groups, so that all cores have some to tokenize."""
    group: list[Piece] = []
    size = 0
    with Progress(None, f"tokenizing {corpus.source.where}", "B") as bar:
        for piece in corpus.pieces():
            group.append(piece)
            size += sum(map(len, piece.texts))
            if size >= TOGETHER:
                yield group
                bar.advance(size)
                group, size = [], 0
        if group:
            yield group


def _kept(key: list[Any], tokenizer: Tokenizer, sides: int, write: Callable[[Path, str], dict[str, Any]]) -> Tokens:
    """The tokens that `write` makes, once; a folder of the cache holds them, whole or not at all."""
    dtype = next(name for name, most in (("uint8", 1 << 8), ("uint16", 1 << 16), ("int32", 1 << 31))
                 if tokenizer.vocab_size <= most)  # fmt: skip
    name = digest_of([*key, tokenizer.state()])
    folder = cache_dir() / "tokens" / name
    if (found := _open(folder, name, dtype, sides)) is not None:
        return found
    with resource_errors(folder, "with AIGC_CACHE"), suppress(Overtaken), new_folder(folder) as temporary:
        write_json(temporary / ABOUT, write(temporary, dtype))
        if _open(folder, name, dtype, sides) is None:
            shutil.rmtree(folder, ignore_errors=True)  # a broken one
    made = _open(folder, name, dtype, sides)
    assert made is not None, "it has just been written"
    return made


def _open(folder: Path, name: str, dtype: str, sides: int) -> Tokens | None:
    """What a folder of the cache holds; None where it is not there, or not whole."""
    try:
        about = json.loads((folder / ABOUT).read_text())
        tokens = Tokens(name, folder, dtype, sides, Extent(**about.pop("extent")), **about)
        size = tokens.extent.tokens * np.dtype(dtype).itemsize
        last = folder / f"{sides - 1}.bin"
        return tokens if last.stat().st_size == size else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _flush(file: BinaryIO) -> None:
    file.flush()
    sync(Path(file.name))
