"""Images in columns: parquet files as the Hugging Face hub lays them out, and folders of its ``save_to_disk``."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.cache import find_root
from aigc_cli.data.images import EncodedImages, ImageFilesConfig
from aigc_cli.data.pictures import LABEL_NAMES, Pictures, numbered, open_pictures
from aigc_cli.data.splits import Cut, left_out, parts_named, rows_of, split_named
from aigc_cli.errors import ConfigError, DataError, ResourceError, suggest
from aigc_cli.files import kinds_of, passed_over, stamp, walk_files
from aigc_cli.modalities.columns import bytes_in, column_of, rows_in, schema_of, unlisted
from aigc_cli.modalities.unreadable import Unreadable
from aigc_cli.registry import register

if TYPE_CHECKING:
    import pyarrow as pa

Columns = tuple[str | None, str | None]  # of images and of labels; None is found by its type and name
IMAGE_NAMES = ("image", "img", "images", "picture", "pixels", "jpg", "jpeg", "png")
_LOADING = threading.Lock()  # images are decoded by many threads, of which the first reads the column


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ParquetConfig(ImageFilesConfig):
    """See ``configs/data/parquet.yaml`` and ``arrow.yaml``."""

    name: Literal["parquet", "arrow"]
    image_column: str | None


@register("data", "arrow", ParquetConfig)
@register("data", "parquet", ParquetConfig)
def parquet(config: ParquetConfig, split: Split) -> Dataset:
    """Any parquet (or Arrow) file, or folder of them, with a column of encoded images.

    Raises ConfigError without a `root` or such a column, or where the fractions leave the split empty, DataError where
    there are no images, too many unreadable ones, or a broken file, and ResourceError where the images take more than
    ``data.memory_gb`` even encoded.
    """
    return open_pictures(parquet_pictures(config), config, split)


def parquet_pictures(config: ParquetConfig) -> Pictures:
    """What the files hold, by their splits; raises what :func:`parquet` does, but for broken images."""
    suffix = f".{config.name}"
    root = find_root(config.root, f"name a {suffix} file or a folder of them")
    parts, lines = parts_of(root, suffix)
    columns = (config.image_column, config.label_column)
    files, more, broken = read_columns(
        parts, config.shape, columns=columns, labels=config.labels, memory_gb=config.memory_gb
    )
    return Pictures(parts=files, cut=config.cut, rows=_rows, lines=[*lines, *more], broken=broken)


def _rows(split: Split, files: EncodedImages, cut: Cut, same: Mapping[int, int]) -> np.ndarray:
    return rows_of(split, len(files), cut, "parquet", same)


def parts_of(root: Path, suffix: str = ".parquet") -> tuple[dict[Split, list[Path]], list[str]]:
    """The files of each split under `root`, sorted, and lines about what was passed over; all of them are "train" where
    no name says otherwise; raises DataError where there are none."""
    if root.is_file():
        return {"train": [root]}, []
    found = dict(walk_files(root))
    beside = unlisted(found)
    names = sorted(name for name in found if name.lower().endswith(suffix) and name not in beside)
    if not names:
        hint = f"point data.root= at a folder with *{suffix} files"
        raise DataError(f"there are no {suffix[1:]} files in {root}; {kinds_of(found)}", hint)
    lines = passed_over(sorted(set(found) - set(names) - beside))
    parts = parts_named(names)
    if parts:
        return {split: [found[names[place]] for place in part] for split, part in parts.items()}, [
            *lines, *left_out(names, parts)
        ]  # fmt: skip
    if named := [name for name in names if split_named(name) not in (None, "train")]:
        lines.append(f"no file is named after train beside {named[0]}: all are cut into splits together")
    return {"train": [found[name] for name in names]}, lines


def read_columns(
    parts: Mapping[Split, Sequence[Path]], shape: tuple[int, int, int], *, columns: Columns = (None, None),
    labels: bool = True, memory_gb: float = 4.0,
) -> tuple[dict[Split, EncodedImages], list[str], dict[Split, DataError]]:  # fmt: skip
    """The encoded images of each part, lines about what is not used, and why held-out parts cannot be read; `columns`
    may name images and labels.

    Labels are read of all parts, which have one numbering, and images when they are asked for. It raises what
    :func:`parquet` does.
    """
    first = parts["train"][0]
    image, label, problems = _columns(schema_of(first), columns, first, labels)
    counts: dict[Split, int] = {}
    found: dict[Split, list[Any]] = {}
    broken: dict[Split, DataError] = {}
    for split, paths in parts.items():
        try:
            counts[split] = sum(map(rows_in, paths))
            found[split] = [None] * counts[split] if label is None else _values(paths, label, counts[split])
        except DataError as error:
            if split == "train":
                raise
            broken[split] = error  # which those who ask for that part are told; training can do without it
            problems.append(f"the {split} split cannot be read: {error.message}")
    known: dict[Split, np.ndarray | None] = dict.fromkeys(found)
    classes: tuple[str, ...] = ()
    if label is not None:
        hub = _hub_classes(schema_of(first), label)
        known, classes, more = _labels(found, label, hub, named=columns[1] is not None)
        problems += more
    files = {}
    for split in found:
        paths = parts[split]
        cells = _Cells(paths, image, memory_gb)
        where, labelled = paths[0] if len(paths) == 1 else paths[0].parent, known[split]
        files[split] = EncodedImages(
            read=cells,
            keys=range(counts[split]),
            shape=shape,
            names=[f"{where} row {row}" for row in range(counts[split])],
            identity=json.dumps([image, *([str(path), *stamp(path.stat())] for path in paths)]),
            labels=labelled,
            classes=() if labelled is None else classes,
            sizes=cells.sizes,
        )
    return files, problems, broken


def _values(paths: Sequence[Path], label: str, count: int) -> list[Any]:
    """The labels of a part as they stand in its files; None for each row where no file has that column, as of a part
    whose labels are kept secret."""
    if not any(label in schema_of(path).names for path in paths):
        return [None] * count
    return [value for path in paths for value in column_of(path, label).to_pylist()]


class _Cells:
    """Encoded images in a column of some files, which are read when the first image is."""

    def __init__(self, paths: Sequence[Path], column: str, memory_gb: float) -> None:
        self._paths, self._column, self._memory_gb = paths, column, memory_gb
        self._cells: pa.ChunkedArray | None = None

    def __call__(self, index: int) -> bytes:
        """The bytes of one; raises Unreadable where it has none."""
        content: bytes | None = self._loaded()[index].as_py()
        if content is None:
            raise Unreadable("it has no bytes")
        return content

    def sizes(self) -> list[int]:
        """Bytes of each; 0 where it has none."""
        import pyarrow.compute as pc

        return [size or 0 for size in pc.binary_length(self._loaded()).to_pylist()]

    def _loaded(self) -> pa.ChunkedArray:
        import pyarrow as pa

        with _LOADING:
            if self._cells is None:
                size, folder = sum(bytes_in(path, self._column) for path in self._paths), self._paths[0].parent
                if size > self._memory_gb * 1e9:
                    raise ResourceError(
                        f"the encoded images in {folder} take {size / 1e9:.1f} GB, above data.memory_gb="
                        f"{self._memory_gb:g}",
                        f"raise data.memory_gb to {size / 1e9 * 1.1:.1f} if the machine has it, or use fewer files",
                    )
                chunks = [chunk for path in self._paths for chunk in _binary(path, self._column)]
                self._cells = pa.chunked_array(chunks, type=pa.large_binary())
        return self._cells

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cells": None}  # another process reads them itself


def _binary(path: Path, name: str) -> list[pa.Array]:
    """The chunks of a column of images; files of one data set may have them in types of other widths."""
    import pyarrow as pa

    column = column_of(path, name)
    if not holds_images(column.type):
        raise DataError(f"column {name} of {path} holds no encoded images", "make all files alike")
    chunks = [chunk.field("bytes") if pa.types.is_struct(chunk.type) else chunk for chunk in column.chunks]
    return [chunk.cast(pa.large_binary()) for chunk in chunks]


def _columns(schema: pa.Schema, named: Columns, path: Path, labels: bool) -> tuple[str, str | None, list[str]]:
    """The names of the two columns, as given, or else by their types and usual names; and what to say of others."""
    for key, name in zip(("image_column", "label_column"), named, strict=True):
        if name is not None and name not in schema.names:
            raise ConfigError(f"data.{key}={name}: {path} has no such column", suggest(name, schema.names))
    if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
        raise DataError(f"{path} has two columns called {twice[0]}", "rename one of them")
    images = [field.name for field in schema if holds_images(field.type)]
    image = named[0] or next((name for name in (*IMAGE_NAMES, *images) if name in images), None)
    if image is None or image not in images:
        what = f"column {image!r} of {path} holds no" if image else f"no column of {path} holds"
        raise DataError(f"{what} encoded images", f"name one with data.image_column=; it has {', '.join(schema.names)}")
    if not labels:
        return image, None, []
    usable = [field.name for field in schema if _holds_labels(field.type)]
    label = named[1] or next((name for name in LABEL_NAMES if name in usable), None)
    if label is not None and label not in usable:
        kind = schema.field(label).type
        raise DataError(f"column {label!r} of {path} holds {kind}, not labels", "name a column of integers or words")
    unusable = [name for name in LABEL_NAMES if name in schema.names and label is None]
    return image, label, [
        f"the column {name} holds {schema.field(name).type}, which is not used as labels" for name in unusable
    ]  # fmt: skip


def holds_images(kind: pa.DataType) -> bool:
    """Whether a column of a type holds encoded images: bytes, or a struct with such."""
    import pyarrow.types as types

    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and holds_images(kind.field(index).type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or str(kind) == "binary_view")


def _holds_labels(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):  # what pandas writes of categories
        return _holds_labels(kind.value_type)
    words = types.is_string(kind) or types.is_large_string(kind) or str(kind) == "string_view"  # polars has the others
    return bool(words or types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _labels(
    found: Mapping[Split, Sequence[Any]], name: str, known: tuple[str, ...], *, named: bool
) -> tuple[dict[Split, np.ndarray | None], tuple[str, ...], list[str]]:
    """The labels (n,) of each part by one numbering, the classes, and what to say; a part whose labels are all missing,
    or -1, has none, as held-out parts are published at times."""
    labelled = {split: values for split, values in found.items() if not {*values} <= {None, -1}}
    lines = [f"the {split} split has no labels: all are missing or -1" for split in found if split not in labelled]
    none: dict[Split, np.ndarray | None] = dict.fromkeys(found)
    kinds = {type(value) for values in labelled.values() for value in values}
    if float in kinds:  # as pandas has integers of which some are missing
        whole = all(isinstance(value, float | int) and float(value).is_integer() for values in labelled.values()
                    for value in values if value is not None and value == value)  # fmt: skip
        if not whole:
            what = f"the column {name} holds fractions, which are not used as labels"
            if named:
                raise DataError(what, "name a column of integers or words")
            return none, (), [what]
    if "train" not in labelled:
        return none, (), lines
    for split, values in labelled.items():
        if lacking := sum(value is None or value != value for value in values):
            what = f"{lacking} rows of the {split} split have no {name}"
            raise DataError(what, "drop them, name another data.label_column=, or set data.labels=false")
    if kinds <= {int, float}:
        numbers = {split: np.array(values, dtype=np.int64) for split, values in labelled.items()}
        least, most = min(part.min() for part in numbers.values()), max(part.max() for part in numbers.values())
        if least < 0 or (known and most >= len(known)):
            raise DataError(
                f"{name} holds {least} to {most}, outside of its classes",
                "number the classes from 0, give every row the number of its class, or set data.labels=false",
            )
        return {**none, **numbers}, known or tuple(str(index) for index in range(int(most) + 1)), lines
    words = {split: [str(value) for value in labelled[split]] if split in labelled else None for split in found}
    labels, classes = numbered(words)
    return labels, classes, lines


def _hub_classes(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """The names of the classes, from the metadata that the hub's own writer leaves."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[column]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()
