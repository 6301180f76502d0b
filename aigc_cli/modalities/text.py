"""Text: token ids (tokens,), which are also what a model sees, the codec that makes strings of them, and files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from aigc_cli.errors import ConfigError, DataError, unreadable
from aigc_cli.files import checksum, write_atomically
from aigc_cli.modalities.base import Batch, Codec, DataSpec, Items, Modality, Writer
from aigc_cli.modalities.samples import LABEL, ORIGINAL, ROLE, Arrangement
from aigc_cli.modalities.text_files import printable, read_lines
from aigc_cli.modalities.tokenizer_files import HFTokenizer, hf_tokenizer, restore_tokenizer
from aigc_cli.modalities.tokenizers import BOS, EOS, FIRST, PAD, REPLACEMENT, SPECIALS, Tokenizer
from aigc_cli.registry import register

if TYPE_CHECKING:
    from torch import Tensor

TOKENIZER_FILE = "tokenizer.json"
FORMAT = 1
LARGEST_FILE = 1 << 26  # bytes; a tokenizer of a million merges has 20 million
_RESTORE = "restore the file from a copy of the run, or train the run again"
TEXTS = "samples.txt"
OBJECTS = "samples.jsonl"
_SHOWN = 64  # texts on a terminal
_LONGEST = 60  # characters of a fact in a heading
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # but tabs and line feeds


class TextCodec(Codec):
    """Token ids, which are a model's own content, with the tokenizer that maps them to strings and back.

    `start` is the token that writing from nothing begins after: `bos` where every item begins with it, `eos` in texts
    of several documents, else what ends a line.
    """

    readable = True

    def __init__(self, tokenizer: Tokenizer, start: int = BOS) -> None:
        self.tokenizer = tokenizer
        self.start = start

    @property
    def opening(self) -> list[int]:
        """The special tokens that every item begins with."""
        return [BOS] if self.start == BOS else []

    def encode(self, content: Tensor) -> Tensor:
        """Token ids as they are."""
        return content

    def decode(self, encoded: Tensor) -> Tensor:
        """Token ids as they are."""
        return encoded

    def text(self, ids: Tensor, *, stop: bool = True) -> list[str]:
        """The text of each row of token ids, integers (n, t) in [0, vocab_size).

        Special tokens at the beginning are passed over; with `stop`, the text ends at the first `eos` after them, and
        else includes what follows it.
        """
        return [self.tokenizer.decode(_inner(row, stop)) for row in ids.tolist()]

    def tokens(self, text: str) -> list[int]:
        """The token ids of some text, such as a prompt, without special tokens; raises ConfigError where it holds
        characters that the vocabulary lacks, or bytes that are not text."""
        if lacking := self.tokenizer.unknown(text):
            named = ", ".join(f"{character!r}" for character in lacking[:10])
            raise ConfigError(
                f"the vocabulary of this run has no {named}{' and others' if len(lacking) > 10 else ''}",
                "leave them out; a tokenizer of kind byte or bpe has them all (data.tokenizer.kind=)",
            )
        try:
            found: list[int] = self.tokenizer.encode(text).tolist()
            return found
        except UnicodeEncodeError:
            raise ConfigError(
                f"this holds bytes that are not text: {text.encode('utf-8', 'backslashreplace').decode()[:80]}",
                "write it in UTF-8",
            ) from None

    def extensions(self, token: int) -> list[int]:
        """See :meth:`Codec.extensions`."""
        return self.tokenizer.extensions(token)

    def files(self) -> Mapping[str, str]:
        """``tokenizer.json``."""
        saved = {"format": FORMAT, "start": self.start, **self.tokenizer.state()}
        return {TOKENIZER_FILE: json.dumps(saved, ensure_ascii=False) + "\n"}

    def portable(self, length: int, *, masks: bool = False) -> Mapping[str, str]:
        """See :meth:`Codec.portable`."""
        from aigc_cli.modalities.portable import portable

        if isinstance(self.tokenizer, HFTokenizer):
            return {TOKENIZER_FILE: self.tokenizer.text}
        return portable(self.tokenizer, begins=self.start == BOS, length=length, masks=masks)

    def transfer(self, other: Codec) -> list[tuple[int, int]] | None:
        """The special tokens, and those that spell the same."""
        if not isinstance(other, TextCodec):
            return None
        there = {spelling: token for token, spelling in enumerate(other.tokenizer.spellings(), FIRST)}
        here = enumerate(self.tokenizer.spellings(), FIRST)
        special = [(token, token) for token in range(FIRST)]
        return [*special, *((token, there[spelling]) for token, spelling in here if spelling in there)]


def _inner(row: list[int], stop: bool) -> list[int]:
    first = next((place for place, token in enumerate(row) if token not in (PAD, BOS, EOS)), len(row))
    last = row.index(EOS, first) if stop and EOS in row[first:] else len(row)
    return row[first:last]


def read_codec(path: Path) -> TextCodec:
    """The codec in a ``tokenizer.json``, or in the folder of a run or a checkpoint that holds one.

    The file may come from a stranger: it is checked, and nothing in it is run. Raises DataError where it is missing or
    broken.
    """
    file = path / TOKENIZER_FILE if path.is_dir() else path
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise ValueError(f"it has more than {LARGEST_FILE} bytes")
        saved = json.loads(content)
        if isinstance(saved, dict) and "format" not in saved and "model" in saved:
            return TextCodec(hf_tokenizer(file.parent))
        if not isinstance(saved, dict) or saved.get("format") != FORMAT:
            raise ValueError(f"it is not a tokenizer of format {FORMAT}")
        tokenizer, start = restore_tokenizer(saved), saved.get("start")
        if type(start) is not int or not 0 <= start < tokenizer.vocab_size:
            raise ValueError(f"start={start} is not one of its tokens")
    except (OSError, ValueError, RecursionError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise unreadable(file, reason, _RESTORE) from None
    return TextCodec(tokenizer, start)


class Texts(Items):
    """Texts in order, such as those that a model writes, or the lines of a file.

    `sources` are what each should have been, and the rest is as :class:`Items` has it. None of a text's scores means
    much without those of texts `beside` it.
    """

    def __init__(
        self, lines: Sequence[str], facts: Mapping[str, Any] | None = None, *, called: str = "",
        against: Items | None = None, sources: Sequence[str] = (), beside: Mapping[str, Sequence[str]] | None = None,
        notes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._sides = {"content": list(lines), "source": list(sources)}
        self.spec = DataSpec("text", ())
        self.facts, self.called, self.against, self.notes = dict(facts or {}), called, against, tuple(notes)
        self.beside = {name: Texts(other, sources=sources) for name, other in (beside or {}).items()}

    def __len__(self) -> int:
        return len(self._sides["content"])

    def texts(self, side: str = "content") -> list[str]:
        """As they were given."""
        return self._sides[side]

    def take(self, n: int) -> Texts:
        """The first `n`, each with its source: their order says nothing."""
        called = self.called.replace(f"{len(self):,}", f"{n:,}", 1)
        return Texts(self.texts()[:n], self.facts, called=called, sources=self.texts("source")[:n])


def block(arrangement: Arrangement, index: int, text: str) -> str:
    """A sample as a person reads it: a heading, what stands beside the text, and the text."""
    tags = [f"{name} {_brief(arrangement.facts[name][index])}" for name in arrangement.named]
    heading = f"--- {', '.join([str(index // arrangement.group), *tags])} ---"
    if not arrangement.beside:
        return f"{heading}\n{text}\n"
    parts = {name: str(arrangement.facts[name][index]) for name in arrangement.beside} | {arrangement.text: text}
    if any("\n" in part for part in parts.values()):
        return "\n".join([heading, *(f"{name}:\n{part}" for name, part in parts.items())]) + "\n"
    width = max(map(len, parts)) + 2
    return "\n".join([heading, *(f"{name + ':':<{width}}{part}" for name, part in parts.items())]) + "\n"


def _brief(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."


class TextWriter(Writer):
    """All texts in one file under headings, and in another as a JSON object a line, each with its provenance."""

    preview_suffix = ".txt"
    usual = 8
    _files: list[IO[str]] | None = None
    _first: tuple[str, ...] = ()

    def put(self, raw: Tensor) -> None:
        """Writes the texts of the next token ids (b, t)."""
        if self._files is None:
            paths = (self.folder / name for name in (TEXTS, OBJECTS))
            self._files = [self.open.enter_context(path.open("w", encoding="utf-8", newline="\n")) for path in paths]
            self._files[0].write(f"{self.provenance.sentence()}\n\n")
        texts, objects = self._files
        for index, text in enumerate(_texts(raw, self.codec), start=self.written):
            shown = block(self.arrangement, index, text)
            texts.write(f"{shown}\n")
            about = {"index": index, "text": text, **self.provenance.of_sample(self.arrangement, index)}
            objects.write(json.dumps(about, ensure_ascii=False) + "\n")
            if index < _SHOWN:
                self._first += (shown,)

    def end(self) -> tuple[list[str], list[str]]:
        """The names of the files."""
        return [OBJECTS], [TEXTS]

    def shown(self) -> str:
        """The first texts, without what would move a terminal's cursor."""
        more = self.arrangement.n - len(self._first)
        parts = [*self._first, *([f"... and {more} more\n"] if more else [])]
        return _CONTROL.sub(REPLACEMENT, "\n".join(parts))

    @classmethod
    def preview(cls, path: Path, batches: Iterable[Tensor], arrangement: Arrangement, codec: Codec, title: str) -> None:
        """Writes the texts of token ids (b, t) under their headings."""
        texts = chain.from_iterable(_texts(raw, codec) for raw in batches)
        blocks = [block(arrangement, index, text) for index, text in enumerate(texts)]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "\n".join([f"{LABEL}, {title}\n", *blocks]))


def _texts(raw: Tensor, codec: Codec) -> list[str]:
    texts = codec.text(raw)
    assert texts is not None, "text can be read"
    return texts


def _written(path: Path) -> list[str] | None:
    """The texts of samples that :class:`TextWriter` wrote, by either of its files, in order, without originals that
    stand beside them; None where a file is not one of those.

    Raises:
        DataError: the one with an object a line is missing, or cannot be read.
    """
    if path.name not in (TEXTS, OBJECTS) and not path.name.startswith("step-"):
        return None
    first = next(iter(read_lines(path)), "")
    objects = path.with_name(OBJECTS)
    if path.name != OBJECTS:
        if not first.startswith(LABEL):
            return None
        if path.name != TEXTS or not objects.is_file():
            what = f"{printable(path)} shows samples under headings, which are not to be measured"
            raise DataError(what, "measure the run itself with run=, or what `aigc sample` writes")
    try:
        rows = [json.loads(line) for line in read_lines(objects)]
        if not all(isinstance(row["text"], str) for row in rows) or not rows:
            raise TypeError("it has no texts")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if path.name == OBJECTS:
            return None  # somebody else's
        raise unreadable(printable(objects), str(error), "sample again with overwrite=true") from None
    return [row["text"] for row in rows if row.get(ROLE) != ORIGINAL]


@register("modality", "text")
class TextModality(Modality):
    """Texts, each a row of token ids."""

    name = "text"
    axes = ("tokens",)
    noun = ("text", "texts")

    def codec(self, spec: DataSpec, folder: Path | None = None) -> TextCodec:
        """The one in the folder's ``tokenizer.json``, if that is the one that `spec` is of."""
        if folder is None:
            raise DataError(f"a codec of text is made of a run's {TOKENIZER_FILE}", "name the run")
        codec = read_codec(folder)
        if codec.tokenizer.vocab_size != spec.vocab_size or dict(spec.specials) != dict(SPECIALS):
            raise DataError(
                f"{folder / TOKENIZER_FILE} has {codec.tokenizer.vocab_size} tokens, and the model {spec.vocab_size}",
                _RESTORE,
            )
        return codec

    @cached_property
    def writers(self) -> dict[str, type[Writer]]:
        """One file that a person reads beside one that a program does."""
        return {"txt": TextWriter}

    def read(self, path: Path, like: DataSpec | None = None) -> Texts:
        """A file of UTF-8 with a text a line; of samples that were written here the texts alone."""
        path = path / OBJECTS if (path / OBJECTS).is_file() else path
        if not path.is_file():
            raise DataError(f"there is no file {printable(path)}", "name one with a text a line")
        lines, what = _written(path), "texts"
        if lines is None:
            if path.suffix.lower() in (".json", ".jsonl"):
                hint = "save its texts as a .txt"
                raise ConfigError(f"{printable(path)} holds JSON, and plain text is measured", hint)
            lines, what = read_lines(path, "save it as UTF-8, an item a line"), "lines"
        facts = {"lines_of": str(path), "sha256": checksum(path)}
        return Texts(lines, facts, called=f"{len(lines):,} {what} of {printable(path)}")

    def parse(self, word: str, codec: Codec) -> Batch:
        """The token ids of a text, (1, t), after what the items of its data begin with."""
        import torch

        assert isinstance(codec, TextCodec)
        return Batch(torch.tensor([[*codec.opening, *codec.tokens(word)]]))
