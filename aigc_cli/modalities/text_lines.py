"""Lines of text that a person names, and what of them a model reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Codec
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.text_files import printable, read_lines, without_surrogates
from aigc_cli.modalities.tokenizers import BOS, EOS

_NAMED = 10  # characters that the vocabulary lacks


@dataclass
class Lines:
    """Lines with text in them, by their numbers from 1 on, and how they were read."""

    texts: dict[int, str]
    #: Lines without text, and those with more tokens than the model reads.
    empty: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    #: Characters that the vocabulary has no token for.
    lacking: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of_file(cls, path: Path) -> Lines:
        """The lines of a file, as :func:`aigc_cli.modalities.text_files.read_lines` reads them.

        Raises:
            ConfigError: there is no such file, or no text in it.
            DataError: it cannot be read, or is not UTF-8.
        """
        name = printable(path)
        if not path.is_file():
            raise ConfigError(f"input={name}: there is no such file", "name a file of text: each line gets a vector")
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
