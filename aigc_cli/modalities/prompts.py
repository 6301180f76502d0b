"""Text that a person gives a model: prompts to begin from, gaps for it to fill, and lines that each get a vector."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.base import Codec
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.text_files import printable, read_lines, without_surrogates
from aigc_cli.modalities.tokenizers import BOS, EOS

GAP = re.compile(r"(_{2,})")  # two or more underscores stand for one gap
_NAMED = 10  # characters that the vocabulary lacks


class Prompt(NamedTuple):
    """A text, and what it is called in a complaint."""

    text: str
    where: str


def read_prompts(path: Path, *, blank: bool = False) -> list[Prompt]:
    """The prompts in a file, one a line, as :func:`read_lines` reads them; raises ConfigError where it is empty, or one
    of its lines is unless these may be `blank`, and DataError where there is no such file, it cannot be read, or is not
    UTF-8."""
    name = printable(path)
    if not path.is_file():
        raise DataError(f"prompt_file={name}: there is no such file", "name a file of text with a prompt a line")
    lines = read_lines(path, "save it as UTF-8, a prompt a line")
    if not any(map(str.strip, lines)):
        raise ConfigError(f"prompt_file={name} is empty", "write a prompt a line")
    prompts = [Prompt(line, f"line {place} of {name}") for place, line in enumerate(lines, start=1)]
    for prompt in prompts:
        if not blank and not prompt.text.strip():
            raise ConfigError(f"{prompt.where} is empty", "write a prompt there, or remove the line")
    return prompts


def tokens_with_gaps(prompt: Prompt, codec: Codec, mask: int, gap: int | None = None) -> list[int]:
    """The token ids of a prompt with `mask` for its gaps, which are two or more underscores each.

    A gap has `gap` tokens, or without that one for each underscore. Where tokens are parts of words, the space before a
    gap belongs to it, as it does to the token of a word. Raises ConfigError where it has no gaps, or holds characters
    that the vocabulary lacks.
    """
    assert isinstance(codec, TextCodec)
    pieces = GAP.split(prompt.text)  # texts and gaps in turn
    if len(pieces) == 1:
        raise ConfigError(f"{prompt.where} has no gap to fill", 'write ____ for one: prompt="to be, or ____ to be"')
    tokens = codec.opening
    for text, following in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
        kept = text.removesuffix(" ") if following and codec.tokenizer.kind == "bpe" else text
        try:
            tokens += codec.tokens(kept) if kept else []
        except ConfigError as error:
            raise ConfigError(f"{prompt.where}: {error.message}", error.hint) from None
        tokens += [mask] * (gap or len(following) if following else 0)
    return [*tokens, *([EOS] if codec.opening else [])]


def text_with_gaps(tokens: Sequence[int], codec: Codec, mask: int) -> str:
    """Token ids as a person reads them, with ____ where neighbouring ones are `mask`."""
    assert isinstance(codec, TextCodec)
    pieces: list[list[int]] = [[]]
    for place, token in enumerate(tokens):
        if token != mask:
            pieces[-1].append(token)
        elif place == 0 or tokens[place - 1] != mask:
            pieces.append([])
    return "____".join(codec.tokenizer.decode(piece) for piece in pieces)


@dataclass
class Lines:
    """Lines with text in them, by their numbers from 1 on, and how they were read."""

    texts: dict[int, str]
    empty: list[int] = field(default_factory=list)  # lines without text
    cut: list[int] = field(default_factory=list)  # those with more tokens than the model reads
    lacking: Counter[str] = field(default_factory=Counter)  # characters that the vocabulary has no token for

    @classmethod
    def of_file(cls, path: Path) -> Lines:
        """The lines of a file, as :func:`read_lines` reads them; raises ConfigError where there is no text in it, and
        DataError where there is no such file, it cannot be read, or is not UTF-8."""
        name = printable(path)
        if not path.is_file():
            raise DataError(f"input={name}: there is no such file", "name a file of text: each line gets a vector")
        lines = dict(enumerate(read_lines(path), 1))
        found = cls({number: text for number, text in lines.items() if text.strip()})
        if not found.texts:
            raise ConfigError(f"there is no text in {name}", "name a file with text in it")
        found.empty = [number for number in lines if number not in found.texts]
        return found

    def tokens(self, codec: Codec, most: int, *, whole: bool) -> list[list[int]]:
        """The token ids of each line, as many as fit in `most`; between the tokens of its ends where items have these,
        or where `whole` says that the model takes texts so, whatever it was trained on."""
        assert isinstance(codec, TextCodec)
        start, end = ([BOS], [EOS]) if whole or codec.opening else ([], [])
        room, rows = most - len(start) - len(end), []
        for number, line in self.texts.items():
            text, _ = without_surrogates(line)
            self.lacking.update({lack: text.count(lack) for lack in codec.tokenizer.unknown(text)})
            row: list[int] = codec.tokenizer.encode(text).tolist()
            if len(row) > room:
                self.cut.append(number)
            rows.append([*start, *row[:room], *end])
        return rows

    def warnings(self, most: int) -> Iterator[str]:
        """A sentence for each thing that is not as it should be, for a model that reads `most` tokens."""
        if self.empty:
            yield f"{_count(self.empty)} without text, and without a vector (`lines` numbers those that have one)"
        if self.cut:
            yield f"{_count(self.cut)} cut to the {most} tokens that the model reads (data.context)"
        if self.lacking:
            some = ", ".join(repr(character) for character, _ in self.lacking.most_common(_NAMED))
            yield f"{self.lacking.total()} characters are not in the vocabulary, and are read as unk: {some}"


def _count(lines: Sequence[int]) -> str:
    return f"line {lines[0]} is" if len(lines) == 1 else f"{len(lines)} lines are (line {lines[0]} is the first)"
