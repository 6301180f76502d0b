"""Prompts: what a person writes for a model to begin from, and the gaps that a text may have for it to fill."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Codec
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.text_files import printable, read_lines
from aigc_cli.modalities.tokenizers import EOS

#: Two or more underscores stand for one gap.
GAP = re.compile(r"(_{2,})")


class Prompt(NamedTuple):
    """A text, and what it is called in a complaint."""

    text: str
    where: str


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts in a file, one a line, as :func:`aigc_cli.modalities.text_files.read_lines` reads them.

    Raises:
        ConfigError: there is no such file, it is empty, or one of its lines is.
        DataError: it cannot be read, or is not UTF-8.
    """
    name = printable(path)
    if not path.is_file():
        raise ConfigError(f"prompt_file={name}: there is no such file", "name a file of text with a prompt a line")
    lines = read_lines(path, "save it as UTF-8, a prompt a line")
    if lines in ([], [""]):
        raise ConfigError(f"prompt_file={name} is empty", "write a prompt a line")
    prompts = [Prompt(line, f"line {place} of {name}") for place, line in enumerate(lines, start=1)]
    for prompt in prompts:
        if not prompt.text.strip():
            raise ConfigError(f"{prompt.where} is empty", "write a prompt there, or remove the line")
    return prompts


def tokens_with_gaps(prompt: Prompt, codec: Codec, mask: int, gap: int | None = None) -> list[int]:
    """The token ids of a prompt with `mask` for its gaps, which are two or more underscores each.

    A gap has `gap` tokens, or without that one for each underscore. Where tokens are parts of words, the space before
    a gap belongs to it, as it does to the token of a word.

    Raises:
        ConfigError: it has no gaps, or holds characters that the vocabulary lacks.
    """
    assert isinstance(codec, TextCodec)
    pieces = GAP.split(prompt.text)  # texts and gaps in turn
    if len(pieces) == 1:
        raise ConfigError(
            f"{prompt.where} has no gap to fill", 'write ____ for one, as in prompt="to be, or ____ to be"'
        )
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
