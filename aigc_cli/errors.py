"""What can go wrong, the exit code of each, and messages to the user: one line that says what, and one with a hint."""

from __future__ import annotations

import difflib
import errno
import os
import sys
import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from aigc_cli import __version__

EXIT_OK = 0
EXIT_BUG = 1
EXIT_INTERRUPTED = 130  # Ctrl-C
EXIT_TERMINATED = 143  # SIGTERM

#: What can be done about, or is the matter with, a file that cannot be used, by the system's number for it.
HINTS = {
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "it is read-only: use a disk that is not",
    errno.EACCES: "you have no permission there: get it",
    errno.EPERM: "you have no permission there: get it",
    errno.ENOENT: "its folder is not there: put it back",
    errno.ENAMETOOLONG: "shorten the name",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close what else has files open",
    errno.EIO: "look after the disk, which fails",
}
_MEMORY = "close what else uses the memory, raise its limit (ulimit -v), or use a smaller batch"
#: How libraries word a resource that ran out, where they raise no type of their own for it, and what to do then.
_SPENT_WORDS = {
    "no space left on device": HINTS[errno.ENOSPC],
    "too many open files": HINTS[errno.EMFILE],
    "can't start new thread": "raise the limit on processes (ulimit -u), or end some",
    "resource temporarily unavailable": "raise the limit on processes (ulimit -u), or end some",
    "failed to map segment from shared object": _MEMORY,
    **dict.fromkeys(("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory"), _MEMORY),
}
#: What torch raises when a process that reads data dies: from a signal's handler, wherever the program happens to be.
_DEAD_WORKER = "DataLoader worker (pid"
#: What torch says of a batch norm whose batch has one item.
_ONE_VALUE = "Expected more than 1 value per channel when training"
#: How alike, from 0 to 1, a misspelt word and a choice are, or the last parts of two keys; and how far behind the best
#: others may be that are named too.
_ALIKE, _ALIKE_AT_THE_END, _BEHIND = 0.6, 0.7, 0.1
#: The errors of joblib and submitit for a job whose process is gone.
_LOST_JOB = ("TerminatedWorkerError", "UncompletedJobError")


class AigcError(Exception):
    """An error that a user can cause, with a message, a hint and an exit code; any other is a bug of ours (exit 1)."""

    exit_code = EXIT_BUG

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

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


class GivenUp(Interrupted):
    """A job that a search gave up, after its run was saved: it does worse than others."""


class Terminated(AigcError):
    """SIGTERM, after the run was saved (exit 143)."""

    exit_code = EXIT_TERMINATED


def nearest(word: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """The choices most like `word`, best first; of keys it is enough that their last dotted parts are alike."""
    found = []
    for choice in set(choices):
        pairs = (word, choice), (word.rpartition(".")[2], choice.rpartition(".")[2])
        whole, last = (difflib.SequenceMatcher(None, one.lower(), two.lower()).ratio() for one, two in pairs)
        if whole >= _ALIKE or last >= _ALIKE_AT_THE_END:
            found.append((max(whole, last), whole, choice))
    found.sort(key=lambda each: (-each[0], -each[1], each[2]))
    # Beside a choice that is nearly the word, one that only resembles it would send the reader astray.
    return [choice for likeness, _, choice in found if likeness >= found[0][0] - _BEHIND][:count]


def namesake(last: str, keys: Iterable[str]) -> str | None:
    """The key whose last dotted part is `last`, of several the one with the fewest; None where that is not one."""
    same = sorted((key for key in keys if key.rpartition(".")[2] == last), key=lambda key: key.count("."))
    depths = [key.count(".") for key in same]
    return same[0] if depths and depths.count(depths[0]) == 1 else None


def suggest(word: str, choices: Iterable[str], limit: int = 12) -> str:
    """A hint for a word that is not among `choices`: the nearest ones, or all of them where they are few."""
    options = sorted(set(choices))
    close = nearest(word, options) or [each for each in options if len(word) > 2 and word.lower() in each.lower()][:3]
    if close:
        return f"did you mean {' or '.join(close)}?"
    if not options:
        return ""
    more = "" if len(options) <= limit else f", ... ({len(options)} in all)"
    return f"choose from: {', '.join(options[:limit])}{more}"


def no_such(kind: str, name: str, choices: Iterable[str], hint: str = "") -> ConfigError:
    """The error of a name that is not among `choices`; `hint` where there is nothing to choose from."""
    return ConfigError(f"there is no {kind} named {name!r}", suggest(name, choices) or hint)


def too_many(n: int, there: int, what: str) -> ConfigError:
    """The error of an ``n=`` that is more than there is of something, such as ``lines in words.txt``."""
    return ConfigError(f"n={n}: there are {there:,} {what}", f"use n={there}, or no n=")


def unreadable(path: Path | str, why: object, hint: str = "restore the file from a copy") -> DataError:
    """The error of a file that is broken, or cannot be opened."""
    return DataError(f"{path} cannot be read: {why}", hint)


def tell(line: str) -> None:
    """A line on stderr; where nobody reads that any more, as behind ``| head``, work goes on without it."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def say(text: str) -> None:
    """One message to the user, on stderr."""
    tell(f"aigc: {text}")


def warn(text: str) -> None:
    """One warning to the user, on stderr."""
    say(f"warning: {text}")


def say_plainly(text: str) -> None:
    """Text that may hold anything on stdout, with ``?`` for what its encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def report(error: Exception, *, debug: bool = False, prefix: str = "") -> int:
    """Tells the user about an error on stderr and returns its exit code; a bug of ours comes with its traceback."""
    known = as_user_error(error)
    if known is None or debug:
        traceback.print_exception(error)
    if known is not None:
        say(f"{prefix}{known}")
        return known.exit_code
    say(f"{prefix}this is a bug (aigc {__version__}); please report it with the lines above and the command you typed")
    return EXIT_BUG


def dead_worker(reason: str) -> DataError:
    """The error of a process that read data and is gone."""
    return DataError(
        f"a data worker process died: {reason}",
        "most often the machine ran out of memory: use fewer workers or a smaller batch",
    )


def as_user_error(error: BaseException) -> AigcError | None:
    """The error in the user's terms; None where it is a bug of ours."""
    if isinstance(error, AigcError):
        return error
    text = str(error)
    first = next(iter(text.strip().splitlines()), "")
    if first.startswith(_DEAD_WORKER):
        return dead_worker(first.strip())
    if first.startswith(_ONE_VALUE):
        return ConfigError(
            "a batch norm got a batch of one item, which has no variance",
            "give each process two items or more: raise trainer.batch_size=, or lower trainer.devices=",
        )
    if type(error).__name__ in _LOST_JOB:
        return ResourceError(
            "a process of the sweep was killed together with its job",
            "most often the machine ran out of memory: run fewer jobs at a time, or use a smaller trainer.batch_size",
        )
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return ResourceError(
            f"out of memory: {first or 'an allocation failed'}",
            "use a smaller batch_size (trainer.batch_size= in training), or close what else uses the memory",
        )
    if isinstance(error, OSError) and error.errno in HINTS.keys() - {errno.ENOENT}:
        kind = ConfigError if error.errno == errno.ENAMETOOLONG else ResourceError
        where = f"{error.filename}: " if error.filename else ""
        return kind(f"{where}{error.strerror}", HINTS[error.errno])
    # Libraries written in other languages have types of their own for a full disk, all with the system's words.
    for words, hint in _SPENT_WORDS.items():
        if words in text.lower():
            return ResourceError(first, f"{hint}, and run the command again")
    return None
