"""What can go wrong, and the exit code of each.

Every error that a user can cause is an :class:`AigcError`: one line that says what and where, and one that says how
to fix it. Anything else that reaches the top is a bug of ours (exit 1, with its traceback).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_BUG = 1
EXIT_INTERRUPTED = 130  # Ctrl-C
EXIT_TERMINATED = 143  # SIGTERM


class AigcError(Exception):
    """An error with a message for the user, a hint, and an exit code."""

    exit_code = EXIT_BUG

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[type[AigcError], tuple[str, str]]:
        return type(self), (self.message, self.hint)  # a sweep's worker hands its error to another process


class ConfigError(AigcError):
    """The user's words or configuration (exit 2)."""

    exit_code = 2


class DataError(AigcError):
    """Data, weights or a checkpoint that is missing or cannot be trusted (exit 3)."""

    exit_code = 3


class NonFiniteError(AigcError):
    """A loss or a gradient that is not finite (exit 4)."""

    exit_code = 4


class ResourceError(AigcError):
    """A resource that ran out: memory, disk, permission to write (exit 5)."""

    exit_code = 5


class Interrupted(AigcError):
    """Ctrl-C, after the run was saved (exit 130)."""

    exit_code = EXIT_INTERRUPTED


class Terminated(AigcError):
    """SIGTERM, after the run was saved (exit 143)."""

    exit_code = EXIT_TERMINATED


def nearest(word: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """The choices most like `word`, best first; those that share its last dotted part count as alike."""
    options = sorted(set(choices))
    close = difflib.get_close_matches(word, options, n=count, cutoff=0.6)
    tail = word.rsplit(".", 1)[-1]
    by_tail = {option.rsplit(".", 1)[-1]: option for option in options}
    for match in difflib.get_close_matches(tail, by_tail, n=count, cutoff=0.7):
        if by_tail[match] not in close:
            close.append(by_tail[match])
    return close[:count]


def suggest(word: str, choices: Iterable[str], limit: int = 12) -> str:
    """A hint for a word that is not among `choices`: the nearest ones, or all of them where they are few."""
    options = sorted(set(choices))
    close = nearest(word, options)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if not options:
        return ""
    more = "" if len(options) <= limit else f", ... ({len(options)} in all)"
    return f"choose from: {', '.join(options[:limit])}{more}"
