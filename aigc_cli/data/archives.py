"""Archives from elsewhere: unpacked with every path, link and size checked."""

from __future__ import annotations

import tarfile
import zlib
from contextlib import suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from aigc_cli.errors import DataError, ResourceError
from aigc_cli.files import hint_for


def unpack(archive: Path, folder: Path, *, max_bytes: int) -> Path:
    """Unpacks a tar, plain or compressed, into the new `folder`, which appears whole or not at all.

    Python's own filter for data refuses what leads outside, and devices. Its members may have `max_bytes` together:
    no more comes out of a tar than the headers of its members say.

    Raises:
        DataError: the archive is broken, or is refused.
        ResourceError: it cannot be written.
    """
    left = max_bytes

    def bounded(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        nonlocal left
        left -= member.size
        if left < 0:
            raise ValueError(f"it unpacks to more than {max_bytes} bytes")
        return tarfile.data_filter(member, path)

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            whole = Path(temporary, folder.name)
            with tarfile.open(archive, "r|*") as tar:  # a stream, so that it is decompressed but once
                tar.extractall(whole, filter=bounded)
            with suppress(OSError):  # another process was faster
                whole.rename(folder)
    except (tarfile.TarError, zlib.error, EOFError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # gzip and bz2 have none for broken content
            hint = hint_for(error, "with AIGC_CACHE or data.root=")
            raise ResourceError(f"cannot unpack {archive} into {folder}: {error.strerror}", hint) from error
        hint = "get it again from a source that you trust"
        raise DataError(f"{archive} is broken, or not safe to unpack: {error}", hint) from error
    return folder


def safe_name(name: str) -> str | None:
    """The path of a zip's member, normalised; None where it is absolute, leads outside, or is not a path at all."""
    path = PurePosixPath(name)
    odd = "\\" in name or "\0" in name or ":" in name.split("/")[0]
    if odd or path.is_absolute() or ".." in path.parts:
        return None
    return str(path)
