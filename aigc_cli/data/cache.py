"""The cache folder, for what is downloaded or worked out once and used by many runs."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from aigc_cli.errors import ConfigError, DataError, ResourceError
from aigc_cli.files import path_of, write_atomically

T = TypeVar("T")


def cache_dir() -> Path:
    """``$AIGC_CACHE``, else ``$XDG_CACHE_HOME/aigc``, else ``~/.cache/aigc``; it exists and can be written to.

    Where the home folder cannot be written to, as in some containers, a folder of the user's own under the system's
    temporary one takes its place.

    Raises:
        ResourceError: ``$AIGC_CACHE`` cannot be written to, or nothing can.
    """
    chosen = os.environ.get("AIGC_CACHE")
    if chosen:
        folder = path_of(chosen).absolute()
        if not _writable(folder):
            raise ResourceError(f"the cache folder {folder} cannot be written to", "set AIGC_CACHE to one that can")
        return folder
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    for folder in (Path(base).absolute() / "aigc", _temporary()):
        if _writable(folder):
            return folder
    raise ResourceError("there is no folder to keep downloads in", "set AIGC_CACHE to a folder that can be written to")


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / f"aigc-{os.getuid()}"


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder == _temporary() and folder.lstat().st_uid != os.getuid():
            return False  # someone else's, in a folder that all may write to
        return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return False


def digest_of(value: Any) -> str:
    """A SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def remembered(kind: str, key: str, make: Callable[[], Any], read: Callable[[Any], T]) -> T:
    """What `read` finds in the plain data that `make` gives, which is made once and kept in the cache under its `key`.

    What is kept is made again where it cannot be read; and where it cannot be kept, as on a full disk, that costs time
    at the next start and nothing else.
    """
    memory = cache_dir() / kind / f"{key}.json"
    with suppress(OSError, ValueError, TypeError, LookupError, AttributeError, DataError):
        return read(json.loads(memory.read_text()))
    made = make()
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memory, json.dumps(made))
    return read(made)


def find_root(root: str | None, hint: str = "") -> Path:
    """The absolute path of `data.root`, with ``~`` for the home folder; `hint` says what to name if it is not set.

    Raises:
        ConfigError: it is not set.
        DataError: there is nothing.
    """
    if root is None:
        raise ConfigError("this dataset needs data.root=", hint)
    path = path_of(root).absolute()
    if not path.exists():
        raise DataError(f"data.root={root}: there is nothing at {path}", "check the path, or put the data there")
    return path
