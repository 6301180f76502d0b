"""Images in parquet files, as the Hugging Face hub lays them out: a column of encoded images, perhaps one of labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.cache import find_root
from aigc_cli.data.images import EncodedImages, ImageFilesConfig, open_encoded
from aigc_cli.data.splits import SPLIT_WORDS, part_for, parts_by, rows_of, split_named
from aigc_cli.errors import ConfigError, DataError, ResourceError, suggest
from aigc_cli.modalities.image_decode import Unreadable
from aigc_cli.registry import register

if TYPE_CHECKING:
    import pyarrow as pa

Columns = tuple[str | None, str | None]  # of images and of labels; None is found by its type and name
IMAGE_NAMES = ("image", "img", "images", "picture", "pixels", "jpg", "jpeg", "png")
LABEL_NAMES = ("label", "labels", "class", "target", "fine_label", "coarse_label", "category")


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ParquetConfig(ImageFilesConfig):
    """See ``configs/data/parquet.yaml``."""

    name: Literal["parquet"]
    image_column: str | None
    label_column: str | None


@register("data", "parquet", ParquetConfig)
def parquet(config: ParquetConfig, split: Split) -> Dataset:
    """Any parquet file, or folder of them, with a column of encoded images.

    Raises ConfigError without a `root` or such a column, or where the fractions leave the split empty, DataError where
    there are no images, too many unreadable ones, or a broken file, and ResourceError where the images take more than
    ``data.memory_gb`` even encoded.
    """
    parts = parts_of(find_root(config.root, "name a parquet file or a folder of them"))
    part, cut = part_for(split, parts, config.cut)
    columns = (config.image_column, config.label_column)
    files = read_parquet(parts[part], config.shape, columns=columns, memory_gb=config.memory_gb)
    if part == "train":
        files = files.take(rows_of(split, len(files), cut, "parquet"))
    return open_encoded(files, config)


def read_parquet(
    paths: Sequence[Path], shape: tuple[int, int, int], *, columns: Columns = (None, None), memory_gb: float = 4.0
) -> EncodedImages:
    """All images of some parquet files, in memory as they are encoded; `columns` may name images and labels.

    It raises what :func:`parquet` does.
    """
    images, labels, classes = _read(paths, columns, memory_gb)
    where = paths[0] if len(paths) == 1 else paths[0].parent
    return EncodedImages(
        read=partial(_cell, images),
        keys=range(len(images)),
        shape=shape,
        names=[f"{where} row {row}" for row in range(len(images))],
        identity=json.dumps([[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]),
        labels=labels,
        classes=classes,
    )


def parts_of(root: Path) -> dict[Split, list[Path]]:
    """The parquet files of each split under `root`, sorted; all of them are "train" where no name says otherwise;
    raises DataError where there are none."""
    found = [root] if root.is_file() else sorted(root.rglob("*.parquet"))
    paths = [path for path in found if not path.name.startswith(".")]
    if not paths:
        raise DataError(f"there are no parquet files in {root}", "point data.root= at a folder with *.parquet files")
    words = [split_named(path.name) or SPLIT_WORDS.get(path.parent.name.lower()) for path in paths]
    if root.is_file() or "train" not in words:
        return {"train": paths}
    places = parts_by([word or "train" for word in words])  # files of any other name are trained on
    return {split: [paths[place] for place in part] for split, part in places.items()}


def _read(
    paths: Sequence[Path], columns: Columns, memory_gb: float
) -> tuple[pa.ChunkedArray, np.ndarray | None, tuple[str, ...]]:
    """The image column as binary, the labels, and the names of the classes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(paths[0])
        image, label = _columns(schema, columns, paths[0])
        wanted = [name for name in (image, label) if name is not None]
        size = sum(_column_bytes(pq.ParquetFile(path).metadata, image) for path in paths)
        if size > memory_gb * 1e9:
            raise ResourceError(
                f"the encoded images in {paths[0].parent} take {size / 1e9:.1f} GB, above data.memory_gb={memory_gb:g}",
                f"raise data.memory_gb to {size / 1e9 * 1.1:.1f} if the machine has it, or use fewer files",
            )
        table = pa.concat_tables([pq.read_table(path, columns=wanted) for path in paths])
    except (pa.ArrowException, OSError, KeyError) as error:
        listed = ", ".join(str(path) for path in paths[:3])
        raise DataError(f"{listed} cannot be read as parquet: {error}", "get the files again") from error
    cells = table.column(image)
    if pa.types.is_struct(cells.type):
        cells = pa.chunked_array([chunk.field("bytes") for chunk in cells.chunks], type=cells.type.field("bytes").type)
    if label is None:
        return cells, None, ()
    return cells, *_labels(table.column(label), label, schema)


def _column_bytes(metadata: pa.FileMetaData, column: str) -> int:
    total = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        chunks = map(group.column, range(group.num_columns))
        total += sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] == column)
    return total


def _columns(schema: pa.Schema, named: Columns, path: Path) -> tuple[str, str | None]:
    """The names of the two columns, as given, or else by their types and usual names."""
    import pyarrow.types as types

    for key, name in zip(("image_column", "label_column"), named, strict=True):
        if name is not None and name not in schema.names:
            raise ConfigError(f"data.{key}={name}: {path} has no such column", suggest(name, schema.names))
    images = [field.name for field in schema if _holds_images(field.type)]
    labels = [f.name for f in schema if types.is_integer(f.type) or types.is_string(f.type) or types.is_boolean(f.type)]
    image = named[0] or next((name for name in (*IMAGE_NAMES, *images) if name in images), None)
    if image is None or image not in images:
        what = f"column {image!r} of {path} holds no" if image else f"no column of {path} holds"
        raise DataError(f"{what} encoded images", f"name one with data.image_column=; it has {', '.join(schema.names)}")
    label = named[1] or next((name for name in LABEL_NAMES if name in labels), None)
    if label is not None and label not in labels:
        raise DataError(f"column {label!r} of {path} holds no labels", "name a column of integers or words")
    return image, label


def _holds_images(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_images(kind.field(index).type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _labels(column: pa.ChunkedArray, name: str, schema: pa.Schema) -> tuple[np.ndarray, tuple[str, ...]]:
    import pyarrow.types as types

    if column.null_count:
        raise DataError(f"{column.null_count} rows have no {name}", "drop them, or name another data.label_column=")
    values = column.to_pylist()
    if not types.is_integer(column.type):
        words, labels = np.unique(np.array([str(value) for value in values]), return_inverse=True)
        return labels.astype(np.int64), tuple(words.tolist())
    labels = np.array(values, dtype=np.int64)
    known = _hub_classes(schema, name)
    if labels.min() < 0 or (known and labels.max() >= len(known)):
        raise DataError(
            f"{name} holds {labels.min()} to {labels.max()}, outside of its classes",
            "number the classes from 0, and give every row the number of its class",
        )
    return labels, known or tuple(str(index) for index in range(int(labels.max()) + 1))


def _hub_classes(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """The names of the classes, from the metadata that the hub's own writer leaves."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[column]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()


def _cell(images: pa.ChunkedArray, index: int) -> bytes:
    content: bytes | None = images[index].as_py()
    if content is None:
        raise Unreadable("it has no bytes")
    return content
