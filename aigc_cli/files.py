"""Files that are either there whole or not at all, and their sums."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aigc_cli.errors import ResourceError


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Flushes a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replaces `path` by `content`: a reader, or a kill, sees the old or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def resource_errors(path: Path) -> Iterator[None]:
    """Turns a full disk, a read-only folder or a file too large into a :class:`ResourceError` that names `path`."""
    try:
        yield
    except OSError as error:
        mends = {
            errno.ENOSPC: "free some space on that disk, or choose another folder with run_dir= or outputs=",
            errno.EDQUOT: "free some of your quota, or choose another folder with run_dir= or outputs=",
            errno.EFBIG: "raise the limit on file sizes (ulimit -f), or choose another folder with run_dir=",
            errno.EROFS: "choose a folder that can be written, with run_dir= or outputs=",
            errno.EACCES: "choose a folder that can be written, with run_dir= or outputs=",
            errno.EPERM: "choose a folder that can be written, with run_dir= or outputs=",
        }
        if error.errno not in mends:
            raise
        raise ResourceError(f"cannot write {path}: {error.strerror}", mends[error.errno]) from error
