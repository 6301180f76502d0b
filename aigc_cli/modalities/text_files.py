"""Text out of files, in bounded memory: what is there, what encoding it is in, and what is broken about it."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aigc_cli.errors import DataError, unreadable
from aigc_cli.files import about_folder, kinds_of, passed_over, some_of, stamp, walk_files
from aigc_cli.modalities import columns
from aigc_cli.modalities.image_decode import SUFFIXES as PICTURES

PLAIN = (".txt", ".md", ".markdown", ".rst")  # whose text is all there is in them
TABLES = (".jsonl", ".csv", ".tsv")
ROWS: tuple[str, ...] = (*TABLES, ".json", *columns.SUFFIXES)  # of which a field, or a column, is text
SUFFIXES: tuple[str, ...] = (*PLAIN, *ROWS)
KINDS = ".txt, .md, .jsonl, .json, .csv, .tsv, .parquet or .arrow files, text as it is or packed with gzip (.gz)"
RULES = 2  # the version of how files are read, for what is remembered of their text
BLOCK = 1 << 18  # bytes read at a time
LONGEST_LINE = 1 << 26  # characters; a row has to fit in memory
MOST_PACKED = 250  # times the packed size; text packs to a tenth, a bomb to a thousandth
SURROGATES = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
UTF_16_OR_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)


@dataclass
class Reading:
    """How files are read, and what was wrong with them."""

    encoding: str = "utf-8"
    max_broken: float = 0.0  # the share of a file's bytes that need not be text
    broken: Counter[str] = field(default_factory=Counter)  # bytes that were replaced, by file
    empty: list[str] = field(default_factory=list)  # files without a character, or rows without text

    def again(self) -> Reading:
        """The same settings, with nothing wrong yet."""
        return Reading(self.encoding, self.max_broken)

    def problems(self) -> list[str]:
        """A line for each file that something is wrong with."""
        lines = [f"{name}: {count} broken bytes ({self.encoding}), now U+FFFD" for name, count in self.broken.items()]
        return lines + [f"{name}: it is empty" for name in self.empty]


def printable(name: str | Path) -> str:
    """The name of a file, which may be any bytes, for a person to read."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def text_files(root: Path) -> tuple[list[tuple[str, Path]], list[str]]:
    """The files of text at or below `root`, by their names within it, sorted; and a line about others beside them.

    Files and folders whose names begin with a dot are passed over, and so is a link that leads back up, and, where
    there is other text, a README and its kin. Raises DataError where there is none.
    """
    files = {root.name: root} if root.is_file() else dict(walk_files(root))
    pictures = any(path.suffix.lower() in PICTURES for path in files.values())
    if root.is_file() and not pictures:
        return list(files.items()), []  # a person names it, so it is text whatever it is called
    beside = columns.unlisted(files)
    content = {name: path for name, path in files.items() if name not in beside and not about_folder(name)}
    # What is in columns, or may be anything that a program has written, is text where there is no other.
    tiers = [
        (content, (*PLAIN, *TABLES)),
        (content, columns.SUFFIXES),
        (content, (".json",)),
        ({} if pictures else files, TABLES),
        (files, PLAIN),
    ]
    found = next(filter(None, ({n: p for n, p in some.items() if kind_of(p) in kinds} for some, kinds in tiers)), None)
    if found is None:
        hint = f"point data.root= at {KINDS}" + ("; for pictures use data=image_folder" if pictures else "")
        raise DataError(f"there is no text in {printable(root)}; {kinds_of(files)}", hint)
    others = sorted(set(files) - set(found) - beside)
    about = [printable(name) for name in others if about_folder(name) and kind_of(files[name]) in (*PLAIN, *TABLES)]
    return sorted(found.items()), [*passed_over(others), *([f"not read as text: {some_of(about)}"] if about else [])]


def kind_of(path: Path) -> str:
    """The suffix that says what is in a file, in lower case, without the .gz of a packed one."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def identity_of(files: Sequence[tuple[str, Path]]) -> list[list[Any]]:
    """What changes when one of some files does, as far as one can see without reading them."""
    return [[printable(name), *stamp(path.stat())] for name, path in files]


def blocks(path: Path) -> Iterator[bytes]:
    """The content of a file, unpacked where its name ends in .gz, a block at a time; raises DataError where it cannot
    be read, is broken, or unpacks to far more than text does."""
    packed = path.suffix.lower() == ".gz"
    size = 0
    try:
        most = max(path.stat().st_size, 1 << 16) * MOST_PACKED
        with gzip.open(path) if packed else path.open("rb") as file:
            while block := file.read(BLOCK):
                size += len(block)
                if packed and size > most:
                    raise DataError(
                        f"{printable(path)} unpacks to more than {MOST_PACKED} times its size",
                        "no text does; unpack it yourself if you trust it",
                    )
                yield block
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(printable(path), error, "get it again") from error


def text_of(path: Path, reading: Reading) -> Iterator[str]:
    """The text of a file, a block at a time; without the mark of the encoding at its beginning; raises DataError as
    :func:`blocks`; or more of it is broken than `reading` allows."""
    plain = codecs.lookup(reading.encoding).name
    decoder = codecs.getincrementaldecoder("utf-8-sig" if plain == "utf-8" else plain)(errors="surrogateescape")
    name, total, broken, some = printable(path), 0, 0, False

    def not_text(what: str) -> DataError:
        hint = "name its encoding, such as data.encoding=cp1252, or allow more broken bytes with data.max_broken="
        return DataError(f"{name} is not {reading.encoding}: {what}", hint)

    def decoded(block: bytes, final: bool = False) -> str:
        nonlocal broken
        try:
            text, count = without_surrogates(decoder.decode(block, final))
        except UnicodeDecodeError as error:  # not all that is broken can be carried on, unless a byte is a character
            raise not_text(f"{error.reason} near byte {total}") from None
        broken += count
        return text

    for block in blocks(path):
        if not total and plain == "utf-8" and block.startswith(UTF_16_OR_32):
            raise DataError(f"{name} begins with the mark of UTF-16 or UTF-32", "name it: data.encoding=utf-16")
        text = decoded(block)
        total += len(block)
        if broken > reading.max_broken * max(total, BLOCK):
            break
        some = some or bool(text)
        yield text
    if broken > reading.max_broken * total:
        raise not_text(f"{broken} of its first {total} bytes")
    yield decoded(b"", final=True)
    if broken:
        reading.broken[name] = broken
    if not some:
        reading.empty.append(name)


def without_surrogates(text: str) -> tuple[str, int]:
    """`text` with U+FFFD for each half of a surrogate pair, which is not a character, and how many there were."""
    try:
        text.encode()  # several times as fast as the search
        return text, 0
    except UnicodeEncodeError:
        return SURROGATES.subn(REPLACEMENT, text)


def lines_of(path: Path, reading: Reading) -> Iterator[str]:
    """The lines of a file, without their ends; only a line feed, perhaps after a carriage return, ends one; raises
    DataError as :func:`text_of`, or a line is too long for memory."""
    rest = ""
    for text in text_of(path, reading):
        rest, *others = (rest + text).split("\n") if "\n" in text else (rest + text,)
        if others:
            yield from (line.removesuffix("\r") for line in (rest, *others[:-1]))
            rest = others[-1]
        if len(rest) > LONGEST_LINE:
            raise DataError(f"{printable(path)} has a line of more than {LONGEST_LINE} characters", "break it up")
    if rest:
        yield rest.removesuffix("\r")


def read_lines(path: Path, hint: str = "save it as UTF-8") -> list[str]:
    """The lines of a file of UTF-8 that fits in memory, unpacked where its name ends in .gz, without their ends; only a
    line feed, perhaps after a carriage return, ends one.

    Raises:
        DataError: as :func:`blocks`, or it is not UTF-8, which `hint` is for.
    """
    try:
        lines = b"".join(blocks(path)).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(path)} is not UTF-8 text: {error}", hint) from None
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def rows_of(path: Path, fields: Sequence[str], reading: Reading) -> Iterator[tuple[str, ...]]:
    """The `fields` of each row of a file of :data:`ROWS`, as text; raises DataError as :func:`lines_of`; a row is
    malformed, or has no such field with text."""
    kind = kind_of(path)
    if kind in columns.SUFFIXES:
        found_rows = _column_rows(path, fields)
    elif kind in (".jsonl", ".json"):
        found_rows = _json_rows(path, reading) if kind == ".jsonl" else _array_rows(path, fields, reading)
    else:
        found_rows = _csv_rows(path, fields, reading)
    for where, row in found_rows:
        found = []
        for name in fields:
            value = row.get(name)
            if not isinstance(value, str):
                what = f"has the fields {', '.join(map(str, row))}" if name not in row else f"has no text in {name}"
                key = "data.field=" if len(fields) == 1 else "data.source= and data.target="
                raise DataError(f"{where}: it {what}", f"name what holds the text, with {key}, or fix the row")
            text, count = without_surrogates(value)
            if count:
                reading.broken[printable(path)] += count
            found.append(text)
        yield tuple(found)


def _json_rows(path: Path, reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(lines_of(path, reading), 1):
        if not line.strip():
            continue
        where = f"{printable(path)} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is not JSON: {error}", "a .jsonl has one JSON object a line") from None
        if not isinstance(row, dict):
            raise DataError(f"{where} is not a JSON object", "a .jsonl has one JSON object a line")
        yield where, row


def _array_rows(path: Path, fields: Sequence[str], reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a .json: an array of objects, or, where one field is asked for, of texts."""
    hint = "a .json has one array of objects, or of texts; put what else it holds into a .jsonl, an object a line"
    try:
        rows = json.loads("".join(text_of(path, reading)))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{printable(path)} is not JSON: {error}", hint) from None
    if not isinstance(rows, list):
        keys = f" with the keys {', '.join(map(str, rows))[:80]}" if isinstance(rows, dict) else ""
        raise DataError(f"{printable(path)} is not an array but one {type(rows).__name__}{keys}", hint)
    for number, row in enumerate(rows, 1):
        if isinstance(row, str) and len(fields) == 1:
            row = {fields[0]: row}
        if not isinstance(row, dict):
            raise DataError(f"{printable(path)} item {number} is not an object", hint)
        yield f"{printable(path)} item {number}", row


def _column_rows(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a parquet or Arrow file."""
    for number, values in enumerate(zip(*(columns.values_of(path, name) for name in fields), strict=True), 1):
        yield f"{printable(path)} row {number}", dict(zip(fields, values, strict=True))


def _quoted(path: Path, reading: Reading) -> bool:
    """Whether a .tsv has fields in quotation marks: where every one that begins with a mark ends with one, on its line,
    or where lines would not all have as many fields as the first without them. Else marks are letters, as in most files
    of that kind, and one at the beginning of a sentence swallows no lines."""
    some = open_ended = uneven = False
    width = None
    for line in lines_of(path, reading.again()):
        width = line.count("\t") if width is None else width
        uneven = uneven or (bool(line) and line.count("\t") != width)
        for text in line.split("\t") if '"' in line else ():
            if text.startswith('"'):
                some = True
                open_ended = open_ended or len(text) < 2 or not text.endswith('"')
    return some and (uneven or not open_ended)


def _csv_rows(path: Path, fields: Sequence[str], reading: Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    tabs = kind_of(path) == ".tsv"
    quoting: Literal[0, 3] = csv.QUOTE_NONE if tabs and not _quoted(path, reading) else csv.QUOTE_MINIMAL
    lines = (f"{line}\n" for line in lines_of(path, reading))
    rows = csv.reader(lines, delimiter="\t" if tabs else ",", quoting=quoting, strict=True)
    header: list[str] | None = None
    usual = csv.field_size_limit(LONGEST_LINE)  # the limit is the whole process's
    try:
        for row in rows:
            where = f"{printable(path)} line {rows.line_num}"
            if header is None:
                header = row
                if missing := [name for name in fields if name not in header]:
                    raise DataError(
                        f"{printable(path)} has the columns {', '.join(header)}, and no {missing[0]}",
                        "its first line names the columns; name the one that holds the text",
                    )
                if twice := [name for name in fields if header.count(name) > 1]:
                    raise DataError(f"{printable(path)} has two columns called {twice[0]}", "rename one of them")
            elif row:
                if len(row) != len(header):
                    raise DataError(f"{where} has {len(row)} columns, and the first {len(header)}", "fix the row")
                yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise DataError(f"{printable(path)} line {rows.line_num} is not a row: {error}", "fix it") from None
    finally:
        csv.field_size_limit(usual)
