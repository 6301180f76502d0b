"""Files that are either there whole or not at all, and their sums."""

from __future__ import annotations

import errno
import functools
import hashlib
import itertools
import json
import os
import platform
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aigc_cli.errors import HINTS, AigcError, ConfigError, ResourceError

#: How the folder of runs is named.
_OF_RUNS = "with run_dir= or outputs="
#: Bytes of a name that we make up; systems have 255, and something may be put before and behind it.
LONGEST_NAME = 200


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
    with suppress(FileNotFoundError):  # the current folder may have been deleted meanwhile
        path, here = path.absolute(), Path.cwd()
        return path.relative_to(here) if path.is_relative_to(here) else path
    return path


def slug(text: str, longest: int = 40) -> str:
    """A name that a shell and Hydra take as it is, and that differs where the texts differ."""
    plain = re.sub(r"[^A-Za-z0-9.+_-]+", "_", text)
    if plain == text and len(plain) <= longest:
        return plain
    return f"{plain[:longest]}-{hashlib.blake2b(os.fsencode(text), digest_size=3).hexdigest()}"


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


# what is there whole or not at all

#: What is being written, by the sum of its name, the machine, the process and a number.
_PART = re.compile(r"\.[0-9a-f]{8}-([0-9a-f]{8})-(\d+)-\d+\.part")
_numbers = itertools.count()
#: Seconds after which what another machine began to write has been given up.
_GIVEN_UP = 7 * 86_400


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place at the end; after an error it is removed."""
    part = _part(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class Overtaken(FileExistsError):
    """Another process has filled the place meanwhile."""


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes it at the end, by one rename, also where that is an empty folder;
    after an error it is removed, and so are folders that were made to hold it. Raises Overtaken where something is in
    `path` by then."""
    with parents(path), temporary_folder(path) as part:
        yield part
        try:
            part.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise Overtaken(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` that is gone at the end, or soon after a kill."""
    part = _part(path)
    try:
        part.mkdir()
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def parents(path: Path) -> Iterator[None]:
    """The folders that hold `path` are there; after an error those that had to be made are not."""
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        raise


def _part(path: Path) -> Path:
    """A name beside `path` for what is to take its place, as short whatever the name there; what writes that were
    killed left beside it is removed."""
    with suppress(OSError):
        for entry in path.parent.iterdir():
            if (match := _PART.fullmatch(entry.name)) and _is_left(entry, *match.groups()):
                is_folder = entry.is_dir() and not entry.is_symlink()
                shutil.rmtree(entry) if is_folder else entry.unlink(missing_ok=True)
    return path.with_name(f".{brief(path.name)}-{_machine()}-{os.getpid()}-{next(_numbers)}.part")


def _is_left(part: Path, machine: str, pid: str) -> bool:
    if machine != _machine():
        return time.time() - part.lstat().st_mtime > _GIVEN_UP
    try:
        os.kill(int(pid), 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)
    return False


@functools.cache
def _machine() -> str:
    """Tells apart where numbers of processes mean others: machines, since they were started, and containers."""
    found = [platform.node()]
    with suppress(OSError):  # where there is no /proc, a name has to do
        found += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return brief(" ".join(found))


def brief(name: str) -> str:
    """A short name in the place of another, of any length."""
    return hashlib.blake2b(os.fsencode(name), digest_size=4).hexdigest()


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
    first = HINTS.get(error.errno or 0, "")
    return f"{first}, or choose another folder {elsewhere}" if first else f"choose another folder {elsewhere}"


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
        raise _unwritable(f"to {folder}", error, elsewhere) from error


def _unwritable(place: str, error: OSError, elsewhere: str) -> AigcError:
    kind = ConfigError if error.errno == errno.ENAMETOOLONG else ResourceError
    return kind(f"cannot write {place}: {error.strerror}", hint_for(error, elsewhere))


@contextmanager
def resource_errors(path: Path, elsewhere: str = _OF_RUNS) -> Iterator[None]:
    """Turns a full disk, a read-only folder, one that is gone or a file too large into a :class:`ResourceError` that
    names `path`, and a name too long into a :class:`ConfigError`; `elsewhere` is as in :func:`hint_for`."""
    try:
        yield
    except OSError as error:
        if error.errno not in HINTS:
            raise
        raise _unwritable(str(path), error, elsewhere) from error


def stamp(stat: os.stat_result) -> tuple[int, int, int]:
    """What changes when a file's content may have, without reading it: its size, and its times of change in ns, of
    which a tool that keeps the first, as ``cp -p`` and ``rsync -t`` do, cannot set the second."""
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def listing_of(folder: Path, paths: Iterable[Path]) -> str:
    """A SHA-256 over the names of files in a folder and their :func:`stamp`."""
    listing = hashlib.sha256()
    for path in paths:
        listing.update("\0".join(["", *map(str, stamp(path.stat())), ""]).encode())
        listing.update(os.fsencode(path.relative_to(folder)))
    return listing.hexdigest()


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
