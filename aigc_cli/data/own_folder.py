"""A person's own folder of files, or a zip of them, flat or in a folder for each class: pictures, and sound."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from aigc_cli.data.base import Attributes, Split, attributes_of
from aigc_cli.data.cache import find_root
from aigc_cli.data.image_metadata import is_metadata, labels_of, read_metadata
from aigc_cli.data.own import EncodedFiles, Files, Parts
from aigc_cli.data.pictures import numbered
from aigc_cli.data.splits import Cut, left_out, names_of, parts_by, split_word
from aigc_cli.errors import DataError
from aigc_cli.files import kinds_of, passed_over, stamp, walk_files
from aigc_cli.modalities.text_files import printable
from aigc_cli.modalities.unreadable import Unreadable

LARGEST_FILE = 1 << 28  # bytes in a zip; any picture that Pillow's own limit admits is smaller


@dataclass(frozen=True)
class Wanted:
    """Which files of a folder are read, and how a person knows them."""

    noun: tuple[str, str]  # one and several
    suffixes: str  # for messages
    takes: Callable[[str], bool]  # whether a file of that name is one
    needs: Mapping[str, str]  # suffixes of others, each with the package that would read them

    @property
    def layout(self) -> str:
        """What there should be."""
        return f"{self.suffixes} {self.noun[1]}, flat or in a folder for each class, or a zip of them"


def folder_parts(
    root: str | None, wanted: Wanted, make: Callable[..., Files], *, labels: bool, label_column: str | None, cut: Cut
) -> Parts[Files]:
    """What is in the folder or zip, by its splits, where `make` makes an :class:`EncodedFiles` of its arguments.

    Where folders of `root` are named after splits, as ``train`` is, they are the splits; a part that is missing is cut
    by a hash of each path, so that adding files moves no other from its split. Files and folders whose names begin with
    a dot are passed over, and files of other kinds named. Raises ConfigError without a `root`, and DataError where
    nothing is there that is wanted, or some lies beside and some in class folders.
    """
    path = find_root(root, f"name a folder of {wanted.layout}")
    if not path.is_dir() and not zipfile.is_zipfile(path):
        raise DataError(f"{path} is neither a folder nor a zip", f"point data.root= at a folder of {wanted.layout}")
    source = _Folder(path, wanted.takes) if path.is_dir() else _Zip(path, wanted.takes)
    if not source.files:
        seen = kinds_of(source.others)
        raise DataError(
            f"there are no {wanted.noun[1]} in {path}; {seen}", f"point data.root= at a folder of {wanted.layout}"
        )
    names = sorted(source.files)
    own = _own_splits(names)
    chosen = {split: [names[place] for place in part] for split, part in own.items()} or {"train": names}
    known: dict[Split, np.ndarray | None] = dict.fromkeys(chosen)
    classes: tuple[str, ...] = ()
    attributes: Attributes = ()
    problems: list[str] = []
    if labels:
        metadata = read_metadata(
            [name for name in source.others if is_metadata(name)], source.read, label_column, source.files
        )
        problems = metadata.problems
        if metadata.words.keys() & set(chosen["train"]):
            known, classes = labels_of(metadata, chosen, wanted.noun)
            attributes = attributes_of(metadata.columns, [map(printable, metadata.values[name]) for name in classes])
        else:  # what names no training item is of other data, as a rule
            known, classes = _folders(source.path, chosen, 1 if own else 0, wanted.noun[1])
            unused = f"no training {wanted.noun[0]} has a row in the metadata, which is not used"
            problems += [unused] if metadata.words else []
    return Parts(
        parts={
            split: make(**_files(source, part, known[split], classes, attributes)) for split, part in chosen.items()
        },
        cut=cut,
        rows=partial(_rows, str(source.path)),
        lines=[*passed_over(source.others, wanted.needs), *left_out(names, own), *problems],
    )


def _files(
    source: _Folder | _Zip, chosen: list[str], labels: np.ndarray | None, classes: Sequence[str], attributes: Attributes
) -> dict[str, Any]:
    """What an :class:`EncodedFiles` says of some files."""
    stamps = json.dumps([str(source.path), [[name, *source.files[name]] for name in chosen]])
    return {
        "read": source.read,
        "keys": chosen,
        "names": [printable(source.prefix + name) for name in chosen],
        "identity": hashlib.sha256(stamps.encode()).hexdigest(),
        "labels": labels,
        "classes": () if labels is None else [printable(name) for name in classes],
        "attributes": () if labels is None else attributes,
        "sizes": lambda: [source.files[name][0] for name in chosen],
    }


def _rows(where: str, split: Split, files: EncodedFiles, cut: Cut, same: Mapping[int, int]) -> np.ndarray:
    names = files.keys
    copies = {names[row]: names[first] for row, first in same.items()}
    place = {name: row for row, name in enumerate(names)}
    return np.array([place[name] for name in names_of(split, names, cut, where, copies)])


def _own_splits(names: Sequence[str]) -> dict[Split, list[int]]:
    """Where the files of each split lie among `names`, by the folder of each; none where folders are classes.

    A class may be called "train" too: then it has files itself, as the folders of other classes beside it do.
    """
    words = [split_word(_parts(name)[0]) if "/" in name else None for name in names]
    found = parts_by(words)
    deep = all(len(_parts(names[place])) > 2 for place in found.get("train", ()))
    return found if None not in words or len(found) > 1 or deep else {}


def _folders(
    path: Path, chosen: Mapping[Split, Sequence[str]], within: int, noun: str
) -> tuple[dict[Split, np.ndarray | None], tuple[str, ...]]:
    """The labels (n,) of each part, and the classes: the folders at depth `within`; raises DataError where some lie
    beside the class folders."""
    words = {split: [next(iter(_parts(name)[within:-1]), "") for name in names] for split, names in chosen.items()}
    loose = [
        name for split, names in chosen.items() for name, word in zip(names, words[split], strict=True) if not word
    ]
    if len(loose) == sum(map(len, chosen.values())):
        return dict.fromkeys(chosen), ()
    if loose:
        raise DataError(
            f"{len(loose)} {noun} lie beside the class folders of {path}, such as {loose[0]}",
            "move them into a class folder, or ignore the classes with data.labels=false",
        )
    return numbered(words)


class _Folder:
    """Files by their names, with what changes when one may have: its size, and its time, or in a zip its CRC-32."""

    prefix = ""  # what the names leave out

    def __init__(self, path: Path, wanted: Callable[[str], bool]) -> None:
        self.path = path
        found = dict(walk_files(path))
        stats = {name: file.stat() for name, file in found.items() if wanted(name)}
        self.files = {name: stamp(stat) for name, stat in stats.items()}
        self.others = sorted(set(found) - set(stats))  # names of files that are not wanted

    def read(self, name: str) -> bytes | Path:
        return self.path / name


class _Zip:
    """The same of a zip: files are read from the archive as it is; nothing is unpacked."""

    def __init__(self, path: Path, wanted: Callable[[str], bool]) -> None:
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        self._owner = -1
        try:
            infos = [info for info in self._open().infolist() if not info.is_dir()]
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise DataError(f"{path} is not a zip that can be read: {error}", "make the archive again") from error
        listed = [info.filename for info in infos]
        outside = next((name for name in listed if safe_name(name) is None), None)
        if outside is not None or len(set(listed)) < len(listed):
            reason = "it holds a name twice" if outside is None else f"{outside!r} leads outside of it"
            raise DataError(f"{path} is not safe to read: {reason}", "make the archive again")
        shown = [
            info for info in infos if not any(part.startswith((".", "__MACOSX")) for part in _parts(info.filename))
        ]
        found = {info.filename: (info.file_size, info.CRC) for info in shown if wanted(info.filename)}
        top = {_parts(name)[0] if "/" in name else "" for name in found}
        packed = len(top) == 1 and not any(not name or split_word(name) for name in top)
        self.prefix = f"{top.pop()}/" if packed else ""  # the folder that was packed is not a class
        self.files = {name.removeprefix(self.prefix): stamp for name, stamp in found.items()}
        others = (info.filename for info in shown if info.filename not in found)
        self.others = sorted(name.removeprefix(self.prefix) for name in others)

    def read(self, name: str) -> bytes | Path:
        try:
            with self._open().open(self.prefix + name) as file:
                content = file.read(LARGEST_FILE + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise Unreadable(str(error)) from error
        if len(content) > LARGEST_FILE:
            raise Unreadable(f"it has more than {LARGEST_FILE} bytes")
        return content

    def _open(self) -> zipfile.ZipFile:
        if self._archive is None or self._owner != os.getpid():  # a worker must not share a file position
            self._archive, self._owner = zipfile.ZipFile(self.path), os.getpid()
        return self._archive

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_archive": None}


def safe_name(name: str) -> str | None:
    """The path of a zip's member, normalised; None where it is absolute, leads outside, or is not a path at all."""
    path = PurePosixPath(name)
    odd = "\\" in name or "\0" in name or ":" in name.split("/")[0]
    return None if odd or path.is_absolute() or ".." in path.parts else str(path)


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).parts
