"""How an error is told to the user, and which exit code it ends in."""

from __future__ import annotations

import errno
import sys
import traceback
from pathlib import Path

from aigc_cli import __version__
from aigc_cli.errors import EXIT_BUG, AigcError, ConfigError, DataError, ResourceError

_SPENT = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG, errno.EMFILE, errno.ENOMEM}
#: How libraries word a resource that ran out, where they raise no type of their own for it.
_SPENT_WORDS = ("no space left on device", "can't allocate memory", "not enough memory", "out of memory",
                "too many open files", "can't start new thread")  # fmt: skip
#: What torch raises when a process that reads data dies: from a signal's handler, wherever the program happens to be.
_DEAD_WORKER = "DataLoader worker (pid"
#: What torch says of a batch norm whose batch has one item.
_ONE_VALUE = "Expected more than 1 value per channel when training"
#: The errors of joblib and submitit for a job whose process is gone.
_LOST_JOB = ("TerminatedWorkerError", "UncompletedJobError")


def say(text: str) -> None:
    """One message to the user, on stderr."""
    print(f"aigc: {text}", file=sys.stderr, flush=True)


def say_plainly(text: str) -> None:
    """Text that may hold anything on stdout, with ``?`` for what its encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def shown(path: Path) -> Path:
    """The path as it is shortest: relative where it lies under the current folder."""
    path, here = path.absolute(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


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


def as_user_error(error: Exception) -> AigcError | None:
    """The error in the user's terms; None where it is a bug of ours."""
    if isinstance(error, AigcError):
        return error
    text = str(error)
    first = next(iter(text.strip().splitlines()), "")
    if first.startswith(_DEAD_WORKER):
        return dead_worker(first.strip())
    if first.startswith(_ONE_VALUE):
        return ConfigError(
            "a batch norm was given a single item, which has no variance",
            "give each process at least two: set trainer.batch_size= to two or more for each of trainer.devices=",
        )
    if type(error).__name__ in _LOST_JOB:
        return ResourceError(
            "a process of the sweep was killed, and its job with it",
            "most often the machine ran out of memory: run fewer jobs at a time, or use a smaller trainer.batch_size",
        )
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return ResourceError(
            f"out of memory: {first or 'an allocation failed'}",
            "use a smaller batch_size (trainer.batch_size= in training), or close what else uses the memory",
        )
    if isinstance(error, OSError) and error.errno in _SPENT:
        where = f"{error.filename}: " if error.filename else ""
        return ResourceError(f"{where}{error.strerror}", "free some space, or name a place that you may write to")
    # Libraries written in other languages have types of their own for a full disk, all with the system's words.
    if any(words in text.lower() for words in _SPENT_WORDS):
        return ResourceError(first, "free some space or memory, and run the command again")
    return None
