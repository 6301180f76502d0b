"""Labels in a ``metadata.csv`` or ``metadata.jsonl`` beside pictures or sound, as Hugging Face's folders have them.

The file lies in any folder; its column ``file_name``, or ``filename``, has paths from there, and others what is known.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aigc_cli.data.base import Split, combined
from aigc_cli.data.pictures import LABEL_NAMES, numbered
from aigc_cli.errors import ConfigError, DataError, suggest
from aigc_cli.modalities.unreadable import Unreadable

FILE_NAME = "file_name"
_ADVICE = "fix it, or set data.labels=false"


@dataclass(frozen=True)
class Metadata:
    """The word of a label by the name of each file that has one."""

    words: Mapping[str, str]
    problems: list[str]
    columns: Sequence[str]  # that labels are in
    values: Mapping[str, Sequence[str]]  # what each label says, by column


def is_metadata(name: str) -> bool:
    """Whether a file is what this module reads."""
    return posixpath.basename(name).lower() in ("metadata.csv", "metadata.jsonl")


def read_metadata(
    names: Sequence[str], read: Callable[[str], bytes | Path], column: str | None, files: Container[str]
) -> Metadata:
    """The labels of `files` in those of some names, in a `column` or else in one of a usual name, if there are any.

    Several columns, separated by commas, make labels that are combinations, such as "seven-theo".

    Raises ConfigError where no file has the `column`, and DataError where a file is malformed.
    """
    words: dict[str, str] = {}
    values: dict[str, tuple[str, ...]] = {}
    asked: list[str] = []
    problems: list[str] = []
    seen: dict[str, None] = {}
    for name in names:
        try:
            rows = _rows(name, read(name))
        except (Unreadable, OSError) as error:
            raise DataError(f"{name} cannot be read: {error}", _ADVICE) from None
        columns = list(dict.fromkeys(key for row in rows for key in row))
        seen.update(dict.fromkeys(columns))
        usual = column or next((known for known in LABEL_NAMES if known in columns), "")
        chosen = [usual] if usual in columns else [name.strip() for name in usual.split(",")]
        asked = asked or list(filter(None, chosen))
        file_column = next((known for known in (FILE_NAME, "filename") if known in columns), None)
        if file_column is None:
            problems.append(f"{name} has no column {FILE_NAME}, and is not used")
        elif not {*chosen} <= {*columns}:
            others = ", ".join(other for other in columns if other != FILE_NAME) or "nothing else"
            problems.append(f"{name} has no labels ({others}); data.label_column= may name a column of them")
        else:
            folder = posixpath.dirname(name)
            for number, row in enumerate(rows, 1):
                file, said = row.get(file_column), {name: row.get(name) for name in chosen}
                if not isinstance(file, str) or not file:
                    raise DataError(f"row {number} of {name} has no {file_column}", "fill it in, or drop the row")
                for key, word in said.items():
                    if word is None or word == "" or isinstance(word, list | dict):
                        what = f"row {number} of {name} ({file}) has no label in {key}"
                        raise DataError(what, "fill it in, or set data.labels=false")
                label = tuple(map(str, said.values()))
                if values.setdefault(combined(label), label) != label:
                    what = f"{label} and {values[combined(label)]} in {name} make one class, {combined(label)}"
                    raise DataError(what, "rename one of them, or name a single data.label_column=")
                if posixpath.join(folder, file) not in files:
                    file = file.replace("\\", "/")  # as Windows writes a path
                words[posixpath.normpath(posixpath.join(folder, file))] = combined(label)
    if column is not None and (gone := [name for name in asked or [column] if name not in seen]):
        where = " and ".join(names) or "a metadata.csv or metadata.jsonl beside the files"
        hint = suggest(gone[0], list(seen)) or f"add one with the columns {FILE_NAME} and {gone[0]}"
        raise ConfigError(f"data.label_column={gone[0]}: no such column in {where}", hint)
    return Metadata(words, problems, asked, values)


def labels_of(
    metadata: Metadata, chosen: Mapping[Split, Sequence[str]], noun: tuple[str, str]
) -> tuple[dict[Split, np.ndarray | None], tuple[str, ...]]:
    """The labels (n,) of the files of each part, and the classes; those of the training part have rows, and another
    part of which no file has one is unlabelled; raises DataError where only some have one."""
    words: dict[Split, list[str] | None] = {}
    for split, names in chosen.items():
        lacking = [name for name in names if name not in metadata.words]
        if lacking and len(lacking) < len(names):
            what = f"{len(lacking)} of {len(names)} {noun[1]} have no row in the metadata, such as {lacking[0]}"
            raise DataError(what, f"add them with their {FILE_NAME}, or set data.labels=false")
        words[split] = None if lacking else [metadata.words[name] for name in names]
    known = {name for names in chosen.values() for name in names}
    if gone := [name for name in metadata.words if name not in known]:
        metadata.problems.append(f"{len(gone)} rows of the metadata have no {noun[0]}, such as {gone[0]}")
    numbers = all(word.isdecimal() for part in words.values() for word in part or ())
    return numbered(words, key=int if numbers else None)


def _rows(name: str, content: bytes | Path) -> list[dict[str, Any]]:
    raw = content if isinstance(content, bytes) else content.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
        if name.lower().endswith(".csv"):
            table = list(csv.reader(io.StringIO(text, newline=""), strict=True))
            header, rows = (table[0], [row for row in table[1:] if row]) if table else ([], [])
            if len(set(header)) < len(header):
                raise ValueError("two columns have one name")
            return [dict(zip(header, row, strict=True)) for row in rows]
        found = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, csv.Error, RecursionError) as error:
        raise DataError(f"{name} cannot be read: {error}", _ADVICE) from None
    if not all(isinstance(row, dict) for row in found):
        raise DataError(f"{name} has a line that is not a JSON object", _ADVICE)
    return found
