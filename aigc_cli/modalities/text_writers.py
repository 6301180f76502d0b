"""Texts as one file that a person reads and one that a program does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from aigc_cli.files import write_atomically
from aigc_cli.modalities.base import Codec, Writer
from aigc_cli.modalities.samples import LABEL, Arrangement
from aigc_cli.modalities.tokenizers import REPLACEMENT

TEXTS = "samples.txt"
OBJECTS = "samples.jsonl"
_SHOWN = 64  # texts on a terminal
_LONGEST = 60  # characters of a fact in a heading
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # but tabs and line feeds


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
    _files: tuple[IO[str], IO[str]] | None = None
    _first: tuple[str, ...] = ()

    def put(self, raw: Tensor) -> None:
        """Writes the texts of the next token ids (b, t)."""
        if self._files is None:
            self._files = (self._begin(TEXTS), self._begin(OBJECTS))
            self._files[0].write(f"{self.provenance.sentence()}\n\n")
        texts, objects = self._files
        for index, text in enumerate(_texts(raw, self.codec), start=self.written):
            shown = block(self.arrangement, index, text)
            texts.write(f"{shown}\n")
            about = {"index": index, "text": text, **self.provenance.of_sample(self.arrangement, index)}
            objects.write(json.dumps(about, ensure_ascii=False) + "\n")
            if index < _SHOWN:
                self._first += (shown,)

    def _begin(self, name: str) -> IO[str]:
        return self.open.enter_context((self.folder / name).open("w", encoding="utf-8", newline="\n"))

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
