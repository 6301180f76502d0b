"""A person's own pictures: a folder of them, or a zip, flat or in a folder for each class."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.archives import safe_name
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.cache import find_root
from aigc_cli.data.image_sets import Encoded, open_encoded
from aigc_cli.data.images import Channels, Size
from aigc_cli.data.splits import SPLIT_WORDS, CutConfig, names_of, part_for, parts_by
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.image_decode import Unreadable, decode_image
from aigc_cli.registry import register

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LARGEST_FILE = 1 << 28  # bytes; no picture that Pillow's own limit admits is larger
KINDS = "png, jpeg, webp or bmp pictures, flat or in a folder for each class, or a zip of them"


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ImageFolderConfig(CutConfig):
    """See ``configs/data/image_folder.yaml``."""

    name: Literal["image_folder"]
    root: str | None
    size: Size
    channels: Channels
    labels: bool
    flip: bool
    max_bad: Annotated[int, Field(ge=0)]
    memory_gb: Annotated[float, Field(gt=0)]


@register("data", "image_folder", ImageFolderConfig)
def image_folder(config: ImageFolderConfig, split: Split) -> Dataset:
    """Pictures under `root`, by class folder (labelled) or flat (unlabelled).

    Where `root` holds nothing but ``train``, ``val`` and ``test`` folders, they are the splits; a part that is missing
    is cut by a hash of each path, so that adding pictures moves no other from its split. Files and folders whose names
    begin with a dot, and files that are no pictures by their suffix, are passed over.

    Raises:
        ConfigError: no `root`, or fractions that leave the split empty.
        DataError: no pictures, too many unreadable ones, or some beside and some in class folders.
    """
    if config.root is None:
        raise ConfigError("data=image_folder needs data.root=", f"name a folder of {KINDS}")
    source = _open(find_root(config.root))
    listing = source.files()
    names = _select(sorted(listing), split, config, source)
    folders = [_class_of(name, source.splits) for name in names]
    classes = sorted({_class_of(name, source.splits) for name in listing}) if config.labels else []
    if "" in classes and len(classes) > 1:
        loose = [name for name in listing if not _class_of(name, source.splits)]
        raise DataError(
            f"{len(loose)} pictures lie beside the class folders of {source.path}, such as {loose[0]}",
            "move them into a class folder, or ignore the classes with data.labels=false",
        )
    labelled = classes not in ([], [""])
    index = {name: number for number, name in enumerate(classes)}
    shape = (config.channels, config.size, config.size)
    stamps = json.dumps([str(source.path), [[name, *listing[name]] for name in names]])
    files = Encoded(
        decode=_Files(source, names, shape),
        shape=shape,
        names=[_printable(source.prefix + name) for name in names],
        identity=hashlib.sha256(stamps.encode()).hexdigest(),
        labels=np.array([index[folder] for folder in folders], dtype=np.int64) if labelled else None,
        classes=[_printable(name) for name in classes] if labelled else [],
    )
    return open_encoded(files, flip=config.flip, memory_gb=config.memory_gb, max_bad=config.max_bad)


class _Source(Protocol):
    path: Path
    prefix: str  # what the names leave out
    splits: bool  # whether the first folders are splits

    def files(self) -> dict[str, tuple[int, int]]:
        """What changes when a picture may have, by its path within: its bytes, and its time or its CRC-32."""

    def read(self, name: str) -> bytes | Path: ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.prefix = ""
        self._files, others = self._walk()
        _need_some(path, self._files, others)
        self.splits = _are_splits(self._files)

    def files(self) -> dict[str, tuple[int, int]]:
        return self._files

    def read(self, name: str) -> bytes | Path:
        return self.path / name

    def _walk(self) -> tuple[dict[str, tuple[int, int]], list[str]]:
        files, others, seen = {}, [], set()
        for folder, folders, names in os.walk(self.path, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:  # a link that leads back up
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in names:
                path = Path(folder, name)
                if _is_picture(name) and path.is_file():
                    stat = path.stat()
                    files[path.relative_to(self.path).as_posix()] = stat.st_size, stat.st_mtime_ns
                elif not name.startswith("."):
                    others.append(name)
        return files, others


class _Zip:
    """Pictures are read from the archive as it is; nothing is unpacked."""

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
            raise DataError(f"{path} is refused: {reason}", "make the archive again")
        shown = [
            info for info in infos if not any(part.startswith((".", "__MACOSX")) for part in _parts(info.filename))
        ]
        names = [info.filename for info in shown if _is_picture(info.filename)]
        _need_some(path, names, [info.filename for info in shown])
        top = {_parts(name)[0] for name in names if len(_parts(name)) > 1}
        single = len(top) == 1 and all("/" in name for name in names) and not top & set(SPLIT_WORDS)
        self.prefix = f"{top.pop()}/" if single else ""  # the folder that was packed is no class
        self._files = {
            info.filename.removeprefix(self.prefix): (info.file_size, info.CRC)
            for info in shown
            if _is_picture(info.filename)
        }
        self.splits = _are_splits(self._files)

    def files(self) -> dict[str, tuple[int, int]]:
        return self._files

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


def _open(path: Path) -> _Source:
    if path.is_dir():
        return _Folder(path)
    if zipfile.is_zipfile(path):
        return _Zip(path)
    raise DataError(f"{path} is neither a folder nor a zip", f"point data.root= at a folder of {KINDS}")


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")  # a file's name may be any bytes


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).parts


def _is_picture(name: str) -> bool:
    base = name.rsplit("/", 1)[-1]
    return not base.startswith(".") and base.lower().endswith(SUFFIXES)


def _need_some(path: Path, pictures: Collection[str], others: Sequence[str]) -> None:
    if not pictures:
        kinds = Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in others)
        seen = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(5))
        found = f"; it has {seen}" if seen else "; it is empty"
        raise DataError(f"there are no pictures in {path}{found}", f"point data.root= at a folder of {KINDS}")


def _are_splits(names: Collection[str]) -> bool:
    """Whether the first folders are splits: a class may be called "train", but then there are others beside it."""
    first = {_parts(name)[0].lower() if "/" in name else "" for name in names}
    return "train" in first and first <= set(SPLIT_WORDS)


def _class_of(name: str, splits: bool) -> str:
    """The folder that names a picture's class, "" where it lies in none."""
    folders = _parts(name)[1 if splits else 0 : -1]
    return folders[0] if folders else ""


def _select(names: Sequence[str], split: Split, config: ImageFolderConfig, source: _Source) -> list[str]:
    """The pictures of `split`, in order of their names."""
    own = parts_by([SPLIT_WORDS[_parts(name)[0].lower()] for name in names]) if source.splits else {}
    part, cut = part_for(split, own, config.cut)
    chosen = [names[place] for place in own[part]] if own else names
    return list(chosen) if part == split != "train" else names_of(split, chosen, cut, str(source.path))


@plain_dataclass(frozen=True)
class _Files:
    source: _Source
    names: Sequence[str]
    shape: tuple[int, int, int]

    def __call__(self, index: int) -> np.ndarray:
        return decode_image(self.source.read(self.names[index]), self.shape[1], self.shape[0])
