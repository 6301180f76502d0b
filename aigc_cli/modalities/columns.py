"""Columns of parquet and Arrow files: what is there, how much of it, and their values, a column at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_cli.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

#: The suffixes of such files; the second is what Hugging Face's ``save_to_disk`` writes.
SUFFIXES: tuple[str, ...] = (".parquet", ".arrow")


def schema_of(path: Path) -> pa.Schema:
    """The names and types of a file's columns; raises DataError where it cannot be read."""
    return _tried(path, lambda: _parquet(path).schema_arrow if _is_parquet(path) else _arrow(path).schema)


def rows_in(path: Path) -> int:
    """How many rows a file has; raises DataError where it cannot be read."""
    return int(_tried(path, lambda: _parquet(path).metadata.num_rows if _is_parquet(path) else _arrow(path).num_rows))


def bytes_in(path: Path, name: str) -> int:
    """How much memory a column takes; none where it is mapped from the disk; raises DataError as :func:`rows_in`."""
    if not _is_parquet(path):
        return 0
    metadata = _tried(path, lambda: _parquet(path).metadata)
    total = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        chunks = map(group.column, range(group.num_columns))
        total += sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".")[0] == name)
    return total


def column_of(path: Path, name: str) -> pa.ChunkedArray:
    """All values of a column; raises DataError where the file has none of that name, or cannot be read."""

    def read() -> pa.ChunkedArray:
        table = _parquet(path).read(columns=[name]) if _is_parquet(path) else _arrow(path)
        return table.column(name)

    return _tried(path, read, name)


def unlisted(found: Mapping[str, Path]) -> set[str]:
    """Of the files of a folder, by name: those in Arrow's format beside a ``state.json``, as Hugging Face's
    ``save_to_disk`` writes it, that does not list them, such as caches; raises DataError where it is broken, or rows
    are in an order that only the library itself knows."""
    beside: set[str] = set()
    for name, path in found.items():
        folder, base = name.rpartition("/")[0], name.rpartition("/")[2]
        if base != "state.json":
            continue
        arrow = {other for other in found if other.endswith(".arrow") and other.rpartition("/")[0] == folder}
        if not arrow:
            continue
        try:
            state = json.loads(path.read_bytes())
            listed = {name.removesuffix(base) + file["filename"] for file in state["_data_files"]}
            ordered = bool(state.get("_indices_data_files") or state.get("_indices_files"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is not what save_to_disk writes: {error}", "save the data set again") from None
        if ordered:
            raise DataError(f"{path.parent} keeps an order of rows apart", "save it again after flatten_indices()")
        if missing := sorted(listed - set(found)):
            raise DataError(f"{path} lists {missing[0]}, which is not there", "copy the whole folder again")
        beside |= arrow - listed
    return beside


def values_of(path: Path, name: str) -> Iterator[Any]:
    """The values of a column, in order, a few thousand rows in memory at a time; raises DataError as
    :func:`column_of`."""

    def batches() -> Iterator[Sequence[Any]]:
        if _is_parquet(path):
            for batch in _parquet(path).iter_batches(batch_size=4096, columns=[name]):
                yield batch.column(name).to_pylist()
        else:
            for chunk in _arrow(path).column(name).chunks:
                yield chunk.to_pylist()

    found = _tried(path, batches, name)
    while (batch := _tried(path, lambda: next(found, None), name)) is not None:
        yield from batch


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() != ".arrow"


def _parquet(path: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path)


def _arrow(path: Path) -> pa.Table:
    """What a file of Arrow's stream or file format holds, mapped to memory."""
    import pyarrow as pa

    source = pa.memory_map(str(path))
    kind = pa.ipc.open_file if source.read(6) == b"ARROW1" else pa.ipc.open_stream
    source.seek(0)
    return kind(source).read_all()


def _tried(path: Path, read: Any, name: str | None = None) -> Any:
    import pyarrow as pa

    try:
        return read()
    except (pa.ArrowException, OSError, KeyError) as error:
        if isinstance(error, (pa.ArrowInvalid, KeyError)) and name is not None and name not in schema_of(path).names:
            columns = ", ".join(schema_of(path).names)
            raise DataError(f"{path} has no column {name}; it has {columns}", "make all files alike") from None
        kind = "parquet" if _is_parquet(path) else "Arrow data"
        raise DataError(f"{path} cannot be read as {kind}: {error}", "get the file again") from error
