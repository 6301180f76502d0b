"""The words of a sweep's jobs, as a person reads and types them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from hydra.core.override_parser.types import QuotedString

from aigc_cli.config.grammar import parse, prepare
from aigc_cli.errors import ConfigError


def plainly(words: Iterable[str]) -> str:
    """Words as a person would type them, without the quotes of Hydra's grammar."""
    return " ".join(map(_unquoted, words))


def _unquoted(word: str) -> str:
    parsed = parse(word)
    value = None if parsed is None else parsed._value
    return f"{word.partition('=')[0]}={value.text}" if isinstance(value, QuotedString) else word


def typed(words: Sequence[str]) -> str:
    """Words that a shell reads back as they were."""
    return " ".join(
        shlex.quote(plain if _reads_as(plain, word) else word)
        for word, plain in zip(words, map(_unquoted, words), strict=True)
    )


def _reads_as(plain: str, word: str) -> bool:
    try:
        return prepare("train", [plain]) == [word]
    except ConfigError:
        return False
