"""The cache folder: what is downloaded or worked out once, for many runs, and is there whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from tqdm import tqdm

from aigc_cli import __version__
from aigc_cli.errors import ConfigError, DataError, ResourceError, tell
from aigc_cli.files import Overtaken, checksum, hint_for, new_folder, path_of, replacing, write_atomically
from aigc_cli.modalities.text_files import printable

T = TypeVar("T")
CHUNK = 1 << 20  # bytes
MARKUP = (b"<!doctype html", b"<html", b"<?xml", b"<head")


def cache_dir() -> Path:
    """``$AIGC_CACHE``, else ``$XDG_CACHE_HOME/aigc``, else ``~/.cache/aigc``; it exists.

    One that is read-only, as an image may bring it, serves what it holds. Where the home folder has none and cannot be
    written to, as in some containers, a folder of the user's own under the system's temporary one takes its place.
    Raises ResourceError where ``$AIGC_CACHE`` is not there and cannot be made, or nothing can.
    """
    chosen = os.environ.get("AIGC_CACHE")
    if chosen:
        folder = path_of(chosen).absolute()
        if not folder.is_dir() and not _writable(folder):
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


def find_root(root: str | None, hint: str = "", key: str = "data.root") -> Path:
    """The absolute path of `data.root`, or of another `key`, with ``~`` for the home folder; raises ConfigError where
    it is empty, or not set, for which `hint` says what to name, and DataError where there is nothing."""
    if root is None:
        raise ConfigError(f"this dataset needs {key}=", hint)
    if not root.strip():  # it would be the current folder
        raise ConfigError(f"{key}= has no value", "name a path after the =; a shell variable there may not be set")
    path = path_of(root).absolute()
    if not path.exists():
        what = "the data" if key == "data.root" else "the file"
        raise DataError(
            f"{key}={root}: there is nothing at {path}", f"put {what} there, or say with {key}= where it is"
        )
    return path


class Refused(Exception):
    """Why one address did not give the file."""


@dataclass(frozen=True)
class Published:
    """A file at its publisher's addresses, with its sums by algorithm, such as ``{"md5": "..."}``."""

    name: str
    urls: Sequence[str]
    sums: Mapping[str, str]

    def __str__(self) -> str:
        sums = ", ".join(f"{algorithm} {value}" for algorithm, value in self.sums.items())
        return " or ".join(self.urls) + (f" ({sums})" if sums else "")

    @property
    def _may_be_plain(self) -> bool:
        return self.name.endswith(".gz") and not self.name.endswith(".tar.gz")

    def find(self, root: str | None, cached: Path, folders: Sequence[str] = ("",)) -> Path:
        """The file in one of some `folders` of a person's `root`, or without a root downloaded to the folder `cached`.

        One that ends in .gz may be there unpacked, and then has no sum that is known. Raises DataError where it is not
        there, or has another sum, or cannot be downloaded, and ResourceError where it cannot be written.
        """
        if root is None:
            return download(self.urls, cached / self.name, self.sums)
        base = find_root(root)
        for folder in folders:
            packed = base / folder / self.name
            if packed.is_file():
                return self.checked(packed)
            if self._may_be_plain and packed.with_suffix("").is_file():
                return packed.with_suffix("")
        raise self.missing(base)

    def is_at(self, path: Path) -> bool:
        """Whether a file has its sums."""
        return all(checksum(path, algorithm) == value for algorithm, value in self.sums.items())

    def checked(self, path: Path) -> Path:
        """`path` itself, where it is this very file; raises DataError where it has another sum."""
        if self.is_at(path):
            return path
        raise DataError(
            f"{printable(path)} has the wrong sum: it is damaged, or another file",
            f"get {self} again, or choose another data= for files of your own",
        )

    def missing(self, folder: Path, instead: str = "") -> DataError:
        """The error that it is not in a folder, and `instead` neither."""
        packed = ", packed or not," if self._may_be_plain else ""
        return DataError(
            f"there is no {self.name}{packed} in {printable(folder)}{instead}",
            f"put {self} there, or leave data.root= out to have it downloaded",
        )


def download(
    urls: Sequence[str], path: Path, sums: Mapping[str, str], *, timeout: float = 30.0, max_bytes: int = 20 * 10**9
) -> Path:
    """The file at `path`, fetched from the first of `urls` that gives it; one that is there with the right sums stays.

    The body goes to a temporary file beside `path`, which is renamed at the end: nothing is ever left half-written.
    Raises DataError where no address gave the file: no network, an HTML page, a truncated body, a wrong sum, and
    ResourceError where it cannot be written.
    """
    wanted = Published(path.name, urls, sums)
    if path.is_file() and wanted.is_at(path):
        return path
    reasons = []
    for url in urls:
        tell(f"downloading {url}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part, _open(url, timeout) as answer, part.open("wb") as file:
                _copy(answer, file, path.name, sums, max_bytes)
                file.flush()
                os.fsync(file.fileno())
            return path
        except Refused as reason:
            reasons.append(f"{url}: {reason}")
        except OSError as error:
            hint = hint_for(error, "with AIGC_CACHE")
            raise ResourceError(f"cannot write {path}: {error.strerror or error}", hint) from error
    raise DataError(
        f"{path.name} could not be downloaded: {'; '.join(reasons)}",
        f"download {wanted} by other means and put it at {path}",
    )


def _open(url: str, timeout: float) -> Any:
    if not url.startswith(("http://", "https://")):
        raise Refused("not an http address")
    request = urllib.request.Request(url, headers={"User-Agent": f"aigc/{__version__}"})
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        raise Refused(f"the server answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise Refused(f"no connection ({getattr(error, 'reason', error)})") from error


def _copy(answer: Any, file: IO[bytes], name: str, sums: Mapping[str, str], max_bytes: int) -> None:
    """Copies a body, and holds it against all that is known of the file."""
    if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise Refused("it is an HTML page, not the file")  # such as the login page of a network
    length = answer.headers.get("Content-Length")
    expected = int(length) if length and length.isdigit() else None
    digests = {algorithm: hashlib.new(algorithm, usedforsecurity=False) for algorithm in sums}
    received = 0
    with tqdm(total=expected, unit="B", unit_scale=True, desc=name, disable=None, leave=False) as bar:
        for block in _blocks(answer):
            if not received and block.lstrip()[:16].lower().startswith(MARKUP):
                raise Refused("it is an HTML page, not the file")
            received += len(block)
            if max(received, expected or 0) > max_bytes:
                raise Refused(f"it has more than the {max_bytes} bytes allowed")
            for digest in digests.values():
                digest.update(block)
            file.write(block)
            bar.update(len(block))
    if expected is not None and received != expected:
        raise Refused(f"it is truncated: {received} of {expected} bytes arrived")
    for algorithm, digest in digests.items():
        if digest.hexdigest() != sums[algorithm]:
            raise Refused(f"its {algorithm} is {digest.hexdigest()}, not {sums[algorithm]}")


def _blocks(answer: Any) -> Iterator[bytes]:
    while True:
        try:
            block = answer.read(CHUNK)
        except http.client.IncompleteRead as error:
            block = error.partial
        except (OSError, http.client.HTTPException) as error:
            raise Refused(f"the connection broke: {error or type(error).__name__}") from error
        if not block:
            return
        yield block


def unpack(archive: Path, folder: Path, *, max_bytes: int) -> Path:
    """Unpacks a tar, plain or compressed, into the new `folder`, which appears whole or not at all.

    Files and folders are taken, and what leads outside, links and devices are refused. Its members may have `max_bytes`
    together: no more comes out of a tar than the headers of its members say. Raises DataError where the archive is
    broken, or is refused, and ResourceError where it cannot be written.
    """
    try:
        # Another process may be faster. It is read as a stream, so that it is decompressed but once.
        with suppress(Overtaken), new_folder(folder) as whole, tarfile.open(archive, "r|*") as tar:
            left = max_bytes
            for member in tar:
                left -= member.size
                if left < 0:
                    raise ValueError(f"it unpacks to more than {max_bytes} bytes")
                _unpack_member(tar, member, whole)
    except (tarfile.TarError, zlib.error, EOFError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # gzip and bz2 have none for broken content
            hint = hint_for(error, "with AIGC_CACHE or data.root=")
            raise ResourceError(f"cannot unpack {archive} into {folder}: {error.strerror}", hint) from error
        hint = "get it again from a source that you trust"
        raise DataError(f"{archive} is broken, or not safe to unpack: {error}", hint) from error
    return folder


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Not by ``extractall(filter="data")``, which Python has since 3.11.4 alone."""
    path = folder / member.name.lstrip("/")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{member.name} leads outside")
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    content = tar.extractfile(member) if member.isfile() else None
    if content is None:
        raise ValueError(f"{member.name} is no file and no folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with content, path.open("wb") as file:
        shutil.copyfileobj(content, file)
