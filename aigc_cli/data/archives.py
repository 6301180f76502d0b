"""Archives from elsewhere, unpacked with every path, link and size checked."""

from __future__ import annotations

import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from aigc_cli.errors import DataError, ResourceError
from aigc_cli.files import hint_for

CHUNK = 1 << 20
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError)


def unpack(
    archive: Path, folder: Path, *, max_bytes: int = 50 * 10**9, max_files: int = 5_000_000, max_ratio: float = 1000.0
) -> Path:
    """Unpacks a tar (plain or compressed) or zip into the new `folder`, which appears whole or not at all.

    Only plain files and folders are taken. `max_bytes` bounds their total size, and `max_ratio` that total over the
    size of the archive; both are counted as bytes come out, whatever the archive's own headers claim.

    Raises:
        DataError: the archive is broken, or holds an absolute path, a way out, a link, a device or a name twice,
            or unpacks to more than the bounds allow.
        ResourceError: it cannot be written.
    """
    allowed = min(max_bytes, int(max(archive.stat().st_size, 1 << 16) * max_ratio))
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        _unpack_into(temporary, archive, allowed, max_files)
        temporary.chmod(0o755)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    except BROKEN as error:
        raise _refuse(archive, f"it is broken: {error}") from error
    except OSError as error:
        if error.errno is None:  # gzip, lzma and bz2 say so of broken content
            raise _refuse(archive, f"it is broken: {error}") from error
        hint = hint_for(error, "with AIGC_CACHE or data.root=")
        raise ResourceError(f"cannot unpack {archive} into {folder}: {error.strerror}", hint) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def safe_name(name: str) -> str | None:
    """A member's path, normalised, or None where it is absolute, leads outside, or is no path at all."""
    path = PurePosixPath(name)
    odd = "\\" in name or "\0" in name or ":" in name.split("/")[0]
    if odd or path.is_absolute() or ".." in path.parts:
        return None
    return str(path)


def _refuse(archive: Path, reason: str) -> DataError:
    return DataError(f"{archive} is refused: {reason}", "get it again from a source that you trust")


def _unpack_into(root: Path, archive: Path, allowed: int, max_files: int) -> None:
    members = _zip_members if zipfile.is_zipfile(archive) else _tar_members
    seen: set[str] = set()
    written = 0
    for name, file in members(archive):
        safe = safe_name(name)
        if safe is None:
            raise _refuse(archive, f"{name!r} leads outside of it")
        if safe.casefold() in seen:
            raise _refuse(archive, f"{name!r} is in it twice")
        if len(seen) >= max_files:
            raise _refuse(archive, f"it holds more than {max_files} files")
        seen.add(safe.casefold())
        target = root / safe
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            out = target.open("xb")
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise _refuse(archive, f"{name!r} is both a file and a folder") from error
        with out:
            while block := file.read(CHUNK):
                written += len(block)
                if written > allowed:
                    raise _refuse(archive, f"it unpacks to more than {allowed} bytes")
                out.write(block)


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            if member.isdir():
                continue
            file = tar.extractfile(member) if member.isreg() else None
            if file is None:
                raise _refuse(archive, f"{member.name!r} is a link or a device")
            yield member.name, file


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            if info.is_dir():
                continue
            mode = info.external_attr >> 16
            if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise _refuse(archive, f"{info.filename!r} is a link or a device")
            with packed.open(info) as file:
                yield info.filename, file
