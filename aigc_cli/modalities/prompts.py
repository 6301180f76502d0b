"""Prompts: what a person writes for a model of text to go on from, as the token ids that it reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aigc_cli.errors import ConfigError, warn
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.text_files import printable, read_lines
from aigc_cli.modalities.tokenizers import BOS, EOS

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


def tokens_of(prompt: Prompt, codec: TextCodec) -> list[int]:
    """The token ids of a prompt, after what the items of its data begin with.

    Raises:
        ConfigError: it is empty, or holds characters that the vocabulary lacks.
    """
    if not prompt.text:
        raise ConfigError(f"{prompt.where} is empty", "leave it out to have a text without one, or write how it begins")
    return [*_opening(codec), *_encoded(prompt.text, prompt, codec)]


def check_lengths(prompts: Sequence[Prompt], rows: Sequence[Sequence[int]], most: int, limit: str) -> None:
    """Refuses prompts whose token ids, `rows`, are more than `most`; `limit` says for a person what the model does.

    Raises:
        ConfigError: the first of them.
    """
    for prompt, row in zip(prompts, rows, strict=True):
        if len(row) > most:
            ends = ", its ends included" if row[0] == BOS else ""
            raise ConfigError(
                f"{prompt.where} has {len(row)} tokens{ends}, and this model {limit}",
                "shorten it, or train on longer items (data.context= or data.max_length=)",
            )


def warn_of_unread(prompts: Sequence[Prompt], rows: Sequence[Sequence[int]], window: int) -> None:
    """Says on stderr of which prompts the beginning is not read, where the last `window` tokens of a row are."""
    lengths = [sum(token != BOS for token in row) for row in rows]
    long = [(prompt.where, length) for prompt, length in zip(prompts, lengths, strict=True) if length > window]
    if not long:
        return
    where, length = long[0]
    others = f"; so it is with {len(long) - 1} more" if len(long) > 1 else ""
    warn(
        f"{where} has {length} tokens, and this model looks at the last {window}: the first "
        f"{length - window} are not seen{others}"
    )


def left_open(tokens: Sequence[int], codec: TextCodec) -> tuple[Sequence[int], list[int]]:
    """The token ids of a prompt but the last, if others extend it, and these: the next token is to be one of them.

    A prompt may end in the middle of a word, or with the space that begins one, where no text is cut into tokens.
    """
    extensions = codec.tokenizer.extensions(tokens[-1])
    return (tokens[:-1], extensions) if len(tokens) > 1 < len(extensions) else (tokens, [])


def tokens_with_gaps(prompt: Prompt, codec: TextCodec, mask: int, gap: int | None = None) -> list[int]:
    """The token ids of a prompt with `mask` for its gaps, which are two or more underscores each.

    A gap has `gap` tokens, or without that one for each underscore. Where tokens are parts of words, the space before
    a gap belongs to it, as it does to the token of a word.

    Raises:
        ConfigError: it has no gaps, or holds characters that the vocabulary lacks.
    """
    pieces = GAP.split(prompt.text)  # texts and gaps in turn
    if len(pieces) == 1:
        raise ConfigError(
            f"{prompt.where} has no gap to fill", 'write ____ for one, as in prompt="to be, or ____ to be"'
        )
    tokens = _opening(codec)
    for text, following in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
        kept = text.removesuffix(" ") if following and codec.tokenizer.kind == "bpe" else text
        tokens += _encoded(kept, prompt, codec) if kept else []
        tokens += [mask] * (gap or len(following) if following else 0)
    return [*tokens, *([EOS] if codec.start == BOS else [])]


def _opening(codec: TextCodec) -> list[int]:
    return [BOS] if codec.start == BOS else []


def _encoded(text: str, prompt: Prompt, codec: TextCodec) -> list[int]:
    try:
        return codec.tokens(text)
    except ConfigError as error:
        raise ConfigError(f"{prompt.where}: {error.message}", error.hint) from None
