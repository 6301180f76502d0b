"""Locks on places: one process at a time writes there, and who dies lets go."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aigc_cli.errors import AigcError, ConfigError
from aigc_cli.files import brief, parents


@contextmanager
def holding(lock: Path, taken: Callable[[str], AigcError], *, stays: bool = False) -> Iterator[None]:
    """Holds the file `lock`, which the kernel lets go of when the process dies, however it dies; it is removed at the
    end unless it `stays`. Where another process holds it, raises what `taken` makes of that process's name."""
    while True:
        with lock.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise taken(file.read().strip() or "unknown") from None
            if not lock.exists() or not os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                continue  # who held it has just removed it
            try:
                with suppress(OSError):  # on a full disk it stays unknown
                    file.truncate(0)
                    os.write(file.fileno(), f"process {os.getpid()} on {platform.node()}".encode())
                yield
            finally:
                if not stays:
                    lock.unlink(missing_ok=True)
            return


@contextmanager
def writing_alone(path: Path, elsewhere: str, *, inside: bool = False) -> Iterator[None]:
    """Keeps other commands from writing `path`, a file or a folder, meanwhile; `elsewhere` says how the user names
    another place, such as ``with out=``. The folders that hold it are made. The lock lies beside it, or `inside`, of a
    folder that stays.

    Raises:
        ConfigError: another command is writing it.
    """
    path = path.absolute()
    lock = path / ".lock" if inside else path.with_name(f".{brief(path.name)}.lock")

    def taken(who: str) -> AigcError:
        what = f"another command is writing {path} ({who})"
        return ConfigError(what, f"wait for it, or choose another place {elsewhere}")

    with parents(path), holding(lock, taken):
        yield
