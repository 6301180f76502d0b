"""A person's own pictures: a folder of them, or a zip, flat or in a folder for each class."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.cache import find_root
from aigc_cli.data.images import EncodedImages, ImageFilesConfig, open_encoded
from aigc_cli.data.splits import SPLIT_WORDS, names_of, part_for, parts_by
from aigc_cli.errors import DataError
from aigc_cli.files import kinds_of, walk_files
from aigc_cli.modalities.image_decode import SUFFIXES, Unreadable
from aigc_cli.modalities.text_files import printable
from aigc_cli.registry import register

LARGEST_FILE = 1 << 28  # bytes; any picture that Pillow's own limit admits is smaller
KINDS = "png, jpeg, webp or bmp pictures, flat or in a folder for each class, or a zip of them"


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ImageFolderConfig(ImageFilesConfig):
    """See ``configs/data/image_folder.yaml``."""

    name: Literal["image_folder"]
    labels: bool


@register("data", "image_folder", ImageFolderConfig)
def image_folder(config: ImageFolderConfig, split: Split) -> Dataset:
    """Pictures under `root`, by class folder (labelled) or flat (unlabelled).

    Where `root` holds nothing but ``train``, ``val`` and ``test`` folders, they are the splits; a part that is missing
    is cut by a hash of each path, so that adding pictures moves no other from its split. Files and folders whose names
    begin with a dot, and files whose suffix is not that of a picture, are passed over. Raises ConfigError
    without a `root`, or where the fractions leave the split empty, and DataError where there are no pictures, too many
    unreadable ones, or some beside and some in class folders.
    """
    source = _source(config)
    names = sorted(source.files)
    own = _own_splits(names)
    part, cut = part_for(split, own, config.cut)
    chosen = [names[place] for place in own[part]] if own else names
    if part == "train":
        chosen = names_of(split, chosen, cut, str(source.path))
    labels, classes = _labels(source, names, chosen, within=1 if own else 0) if config.labels else (None, [])
    stamps = json.dumps([str(source.path), [[name, *source.files[name]] for name in chosen]])
    files = EncodedImages(
        read=source.read,
        keys=chosen,
        shape=config.shape,
        names=[printable(source.prefix + name) for name in chosen],
        identity=hashlib.sha256(stamps.encode()).hexdigest(),
        labels=labels,
        classes=[printable(name) for name in classes],
    )
    return open_encoded(files, config)


def _source(config: ImageFolderConfig) -> _Folder | _Zip:
    path = find_root(config.root, f"name a folder of {KINDS}")
    if not path.is_dir() and not zipfile.is_zipfile(path):
        raise DataError(f"{path} is neither a folder nor a zip", f"point data.root= at a folder of {KINDS}")
    source = _Folder(path) if path.is_dir() else _Zip(path)
    if not source.files:
        raise DataError(f"there are no pictures in {path}; {source.others}", f"point data.root= at a folder of {KINDS}")
    return source


def listed(config: ImageFolderConfig) -> tuple[dict[Split, int], list[str]]:
    """How many pictures lie in each split's own folder, or all in "train" where there are none, and the classes."""
    source = _source(config)
    names = sorted(source.files)
    own = _own_splits(names)
    classes = _labels(source, names, names, within=1 if own else 0)[1] if config.labels else []
    return {split: len(places) for split, places in own.items()} or {"train": len(names)}, classes


def _own_splits(names: Sequence[str]) -> dict[Split, list[int]]:
    """Where the pictures of each split lie among `names`, if every picture lies in the folder of a split.

    A class may be called "train" too, but then there are folders of other classes beside it.
    """
    words = [SPLIT_WORDS.get(_parts(name)[0].lower()) if "/" in name else None for name in names]
    return {} if None in words else parts_by(words)


def _labels(
    source: _Folder | _Zip, names: Sequence[str], chosen: Sequence[str], within: int
) -> tuple[np.ndarray | None, list[str]]:
    """The labels (n,) of the `chosen` pictures, and the classes of all `names`: their folders at depth `within`; raises
    DataError where some lie beside the class folders."""

    def folder(name: str) -> str:
        return next(iter(_parts(name)[within:-1]), "")

    classes = sorted({folder(name) for name in names})
    if classes == [""]:
        return None, []
    if "" in classes:
        loose = [name for name in names if not folder(name)]
        raise DataError(
            f"{len(loose)} pictures lie beside the class folders of {source.path}, such as {loose[0]}",
            "move them into a class folder, or ignore the classes with data.labels=false",
        )
    index = {name: number for number, name in enumerate(classes)}
    return np.array([index[folder(name)] for name in chosen], dtype=np.int64), classes


class _Folder:
    """Pictures by their names, with what changes when one may have: its size, and its time, or in a zip its CRC-32."""

    prefix = ""  # what the names leave out

    def __init__(self, path: Path) -> None:
        self.path = path
        found = dict(walk_files(path))
        stats = {name: file.stat() for name, file in found.items() if _is_picture(name)}
        self.files = {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}
        self.others = kinds_of(found)

    def read(self, name: str) -> bytes | Path:
        return self.path / name


class _Zip:
    """The same of a zip: pictures are read from the archive as it is; nothing is unpacked."""

    def __init__(self, path: Path) -> None:
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
        pictures = {info.filename: (info.file_size, info.CRC) for info in shown if _is_picture(info.filename)}
        top = {_parts(name)[0] if "/" in name else "" for name in pictures}
        packed = len(top) == 1 and not top & {"", *SPLIT_WORDS}
        self.prefix = f"{top.pop()}/" if packed else ""  # the folder that was packed is not a class
        self.files = {name.removeprefix(self.prefix): stamp for name, stamp in pictures.items()}
        self.others = kinds_of(info.filename for info in shown)

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


def _is_picture(name: str) -> bool:
    base = name.rsplit("/", 1)[-1]
    return not base.startswith(".") and base.lower().endswith(SUFFIXES)
