"""Files that are either there whole or not at all, and their sums."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aigc_cli.errors import ConfigError, ResourceError

#: How the folder of runs is named.
_OF_RUNS = "with run_dir= or outputs="


def path_of(word: str | Path) -> Path:
    """The path that a user's word names: ``~`` is a home, where there is one of that name, and else a letter. A
    :class:`ConfigError` says that no path can be written so."""
    if "\0" in str(word):
        raise ConfigError(f"{str(word)!r} is not a path: it contains a null byte", "name a file or a folder")
    path = Path(os.path.expanduser(word))
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ConfigError(f"{str(word)[:40]}... is not a path: {error.strerror}", "choose a shorter one") from None
    return path


def shown(path: Path) -> Path:
    """The path as it is shortest: relative where it lies under the current folder."""
    path, here = path.absolute(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """The sum of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place at the end; after an error it is removed."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replaces `path` by `content`: a reader, or a kill, sees the old or the new, never a part."""
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        sync(part)


def read_json(path: Path) -> Any:
    """What a file of JSON holds; a ValueError where it is not JSON, or is nested too deeply."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def hint_for(error: OSError, elsewhere: str) -> str:
    """How to get past a failure to write; `elsewhere` says how the user names another place, such as ``with out=``."""
    return _FIRST.get(error.errno or 0, "") + f"choose another folder {elsewhere}"


#: What else can be done, or is the matter, by the system's number for it.
_FIRST = {
    errno.ENOSPC: "free some space on that disk, or ",
    errno.EDQUOT: "free some of your quota, or ",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or ",
    errno.EROFS: "it is read-only: ",
    errno.EACCES: "you have no permission to write there: ",
    errno.EPERM: "you have no permission to write there: ",
}


def check_writable(folder: Path, elsewhere: str = _OF_RUNS) -> None:
    """Raises a :class:`ResourceError` before anything is computed if `folder`, which need not be there yet, cannot be
    written to; `elsewhere` is as in :func:`hint_for`."""
    from tempfile import TemporaryFile  # takes a while

    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is not a folder")
        TemporaryFile(dir=there).close()  # what permissions say is not all: they allow root to write to /proc
    except OSError as error:
        raise ResourceError(f"cannot write to {folder}: {error.strerror}", hint_for(error, elsewhere)) from error


@contextmanager
def resource_errors(path: Path, elsewhere: str = _OF_RUNS) -> Iterator[None]:
    """Turns a full disk, a read-only folder or a file too large into a :class:`ResourceError` that names `path`;
    `elsewhere` is as in :func:`hint_for`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FIRST:
            raise
        raise ResourceError(f"cannot write {path}: {error.strerror}", hint_for(error, elsewhere)) from error


def walk_files(root: Path) -> Iterator[tuple[str, Path]]:
    """The files below a folder, each with its name within; what begins with a dot is passed over, and so is a link that
    leads back up."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(folder, name) for name in names if not name.startswith(".")):
            if path.is_file():
                yield path.relative_to(root).as_posix(), path


def suffix_of(name: str) -> str:
    """The kind of a file by its name, for messages."""
    return Path(name).suffix.lower() or "no suffix"


def kinds_of(names: Iterable[str]) -> str:
    """What kinds of files there are, for a message that none is of the kind that is wanted."""
    seen = _counts(map(suffix_of, names))
    return f"it has {seen}" if seen else "it is empty"


def passed_over(names: Iterable[str], needs: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """A line about files beside those that are read, by kind, and the package that some kind `needs`; none where there
    are none but what belongs to a folder, such as a README."""
    bases = (name.rsplit("/", 1)[-1].lower() for name in names)
    suffixes = [suffix_of(base) for base in bases if not base.startswith(_ABOUT)]
    seen = _counts(
        f"{suffix} (needs pip install {needs[suffix]})" if suffix in needs else suffix for suffix in suffixes
    )
    return [f"passed over: {seen}"] if seen else []


#: What the names of files begin with that tell of a folder and are no content of it.
_ABOUT = (
    "readme", "license", "licence", "thumbs.db", "desktop.ini",
    "metadata.", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "samples.json",
)  # fmt: skip


def about_folder(name: str) -> bool:
    """Whether a file tells of the folder that it lies in, such as a README, and is no content of it."""
    return name.rsplit("/", 1)[-1].lower().startswith(_ABOUT)


def _counts(kinds: Iterable[str]) -> str:
    counted = Counter(kinds).most_common()
    more = f", {sum(count for _, count in counted[5:])} others" if len(counted) > 5 else ""
    return ", ".join(f"{count} x {kind}" for kind, count in counted[:5]) + more


def some_of(names: Sequence[str], most: int = 3) -> str:
    """The first few of some names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def equal_contents(sizes: Sequence[int], digest: Callable[[int], Hashable]) -> dict[int, int]:
    """Which of some contents are copies, each with the first that is the same; only those that share their size with
    another are read, by `digest`. What is empty copies nothing."""
    often = Counter(sizes)
    first: dict[Hashable, int] = {}
    same = {}
    for place, size in enumerate(sizes):
        if size and often[size] > 1:
            origin = first.setdefault((size, digest(place)), place)
            if origin != place:
                same[place] = origin
    return same


def equal_files(files: Sequence[tuple[str, Path]]) -> dict[str, str]:
    """The names of files that are copies, each with the first name of a file of the same bytes."""
    same = equal_contents([path.stat().st_size for _, path in files], lambda place: checksum(files[place][1]))
    return {files[place][0]: files[origin][0] for place, origin in same.items()}
