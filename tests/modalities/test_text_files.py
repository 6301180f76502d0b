import csv
import gzip
import json
import os
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aigc_cli.data.corpus import PIECE, FileSource, PairSource, Share, TextSource, in_pieces, selected
from aigc_cli.errors import DataError
from aigc_cli.modalities.text_files import BLOCK, Reading, lines_of, read_lines, rows_of, text_files, text_of

REPLACED = "\N{REPLACEMENT CHARACTER}"


def whole(path: Path, **reading) -> str:
    return "".join(text_of(path, Reading(**reading)))


def written(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_text_comes_as_it_is(tmp_path, name):
    text = "Ünïcödé 日本語 😀\r\n\ttab\0nul\u2028line\n" * (BLOCK // 40)
    assert whole(written(tmp_path / name, text)) == text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "gb18030"])
def test_encodings(tmp_path, encoding):
    text = "Straße, café\n" * 30_000  # longer than a block, so that characters lie across its end
    path = written(tmp_path / "a.txt", text.encode(encoding))
    assert whole(path, encoding=encoding) == text
    if encoding == "utf-8-sig":
        assert whole(path) == text, "its mark is no part of the text"


def test_broken_bytes_are_replaced_counted_and_named(tmp_path):
    path = written(tmp_path / "a.txt", b"caf\xe9 " + b"plain " * 1000 + b"\xff\xfe" + "é".encode()[:1])
    reading = Reading(max_broken=0.001)
    assert "".join(text_of(path, reading)) == f"caf{REPLACED} " + "plain " * 1000 + REPLACED * 3
    assert reading.broken == {str(path): 4}
    assert reading.problems() == [f"{path}: 4 broken bytes (utf-8), now U+FFFD"]


@pytest.mark.parametrize("size", [1000, 3 * BLOCK])
def test_too_many_broken_bytes_are_refused(tmp_path, size):
    path = written(tmp_path / "a.txt", b"caf\xe9 " * (size // 5))
    with pytest.raises(DataError, match=r"a\.txt is not utf-8: \d+ of its first") as caught:
        whole(path, max_broken=0.1)
    assert "data.encoding=cp1252" in caught.value.hint
    assert whole(path, max_broken=0.2).startswith(f"caf{REPLACED} ")
    assert whole(path, encoding="cp1252").startswith("café ")


def test_other_encodings_are_told_apart(tmp_path):
    path = written(tmp_path / "a.txt", "text".encode("utf-16"))
    with pytest.raises(DataError, match="mark of UTF-16"):
        whole(path, max_broken=1.0)
    odd = written(tmp_path / "b.txt", "text".encode("utf-16") + b"\x01")
    with pytest.raises(DataError, match="is not utf-16"):
        whole(odd, encoding="utf-16")


@pytest.mark.parametrize("content", [b"", gzip.compress(b"")], ids=["plain", "packed"])
def test_empty_files_are_named(tmp_path, content):
    path = tmp_path / f"a.txt{'.gz' if content else ''}"
    path.write_bytes(content)
    reading = Reading()
    assert "".join(text_of(path, reading)) == ""
    assert reading.problems() == [f"{path}: it is empty"]


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:20] + b"\0" * 20 + b[40:], lambda b: b"plain"])
def test_a_broken_archive(tmp_path, damage):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(damage(gzip.compress(os.urandom(999))))
    with pytest.raises(DataError, match=r"a\.txt\.gz cannot be read"):
        whole(path, max_broken=1.0)


def test_a_bomb_is_refused_in_little_memory(tmp_path):
    path = tmp_path / "a.txt.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(100):
            file.write(b"\0" * (1 << 20))
    tracemalloc.start()
    with pytest.raises(DataError, match="more than 250 times its size"):
        for _ in text_of(path, Reading()):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("", []),
        ("\n", [""]),
        ("one", ["one"]),
        ("one\n", ["one"]),
        ("\ufeffa\u2028b\r\n\nc\r\n", ["a\u2028b", "", "c"]),
    ],
)
def test_lines_of_a_file_that_fits_in_memory(tmp_path, content, lines):
    (tmp_path / "a.txt").write_bytes(content.encode())
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(content.encode()))
    assert read_lines(tmp_path / "a.txt") == read_lines(tmp_path / "a.txt.gz") == lines
    (tmp_path / "a.txt").write_bytes(content.encode() + b"caf\xe9")
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8 text: .*0xe9"):
        read_lines(tmp_path / "a.txt")


def test_only_a_line_feed_ends_a_line(tmp_path):
    path = written(tmp_path / "a.txt", "one\u2028still\x0bone\x85\r\n\r\nthree\rstill\nfour")
    assert list(lines_of(path, Reading())) == ["one\u2028still\x0bone\x85", "", "three\rstill", "four"]
    long = ["x" * n for n in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 0, 5)]
    assert list(lines_of(written(tmp_path / "b.txt", "\n".join(long) + "\n"), Reading())) == long


def test_a_line_has_to_fit_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("aigc_cli.modalities.text_files.LONGEST_LINE", 1 << 19)
    path = written(tmp_path / "a.jsonl", '{"text": "' + "x" * (1 << 21))
    with pytest.raises(DataError, match="has a line of more than"):
        list(rows_of(path, ["text"], Reading()))


def test_rows(tmp_path):
    texts = ['say "hi", twice', "two\nlines", "日本語", "tab\there", "x" * 200_000]
    paths = [written(tmp_path / "a.jsonl.gz", "".join(json.dumps({"n": 1, "text": t}) + "\n\n" for t in texts))]
    for name, delimiter in (("a.csv", ","), ("a.tsv", "\t")):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows([["n", "text"], *([1, text] for text in texts)])
        paths.append(tmp_path / name)
    limit = csv.field_size_limit()
    for path in paths:
        assert [row for (row,) in rows_of(path, ["text"], Reading())] == texts
    assert csv.field_size_limit() == limit
    assert next(rows_of(paths[1], ["text", "n"], Reading())) == (texts[0], "1")


def test_halves_of_surrogate_pairs_in_json_are_replaced_and_counted(tmp_path):
    path = written(tmp_path / "a.jsonl", '{"text": "a\\ud800b \\ud83d\\ude00"}\n')
    reading = Reading()
    assert list(rows_of(path, ["text"], reading)) == [(f"a{REPLACED}b 😀",)]
    assert reading.broken == {str(path): 1}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
        ("a.jsonl", '["a"]\n', "line 1 is not a JSON object"),
        ("a.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("a.jsonl", '{"body": "a"}\n', "line 1: it has the fields body"),
        ("a.jsonl", '{"text": 3}\n', "line 1: it has no text in text"),
        ("a.csv", "body,title\nx,y\n", "columns body, title, and no text"),
        ("a.csv", "text,title\nx,y\nz\n", "line 3 has 1 columns"),
        ("a.csv", 'text,title\n"x,y\n', "line 2 is not a row"),
    ],
)
def test_malformed_rows_are_named(tmp_path, name, content, words):
    with pytest.raises(DataError, match=words) as caught:
        list(rows_of(written(tmp_path / name, content), ["text"], Reading()))
    assert name in caught.value.message


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    for name in ("b.txt", "a/z.txt.gz", "a/y.TXT", "ж/日本.txt", ".hidden.txt", ".git/x.txt", "picture.png", "c.gz"):
        written(tmp_path / name, name)
    assert [name for name, _ in text_files(tmp_path)[0]] == ["a/y.TXT", "a/z.txt.gz", "b.txt", "ж/日本.txt"]


def test_links_are_followed_but_not_around(tmp_path):
    written(tmp_path / "in" / "a.txt", "a")
    written(tmp_path / "elsewhere.txt", "b")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in" / "b.txt").symlink_to(tmp_path / "elsewhere.txt")
    (tmp_path / "in" / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    assert [name for name, _ in text_files(tmp_path / "in")[0]] == ["a.txt", "b.txt"]


def test_a_name_that_is_no_text(tmp_path):
    try:
        path = Path(os.fsdecode(bytes(tmp_path) + b"/n\xe9.txt"))
        path.write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes names of UTF-8 only")
    reading = Reading()
    source = FileSource("here", text_files(tmp_path)[0], field="text", lines=False)
    assert list(source.pieces(reading)) == []
    assert reading.problems() == [f"{tmp_path}/n\\xe9.txt: it is empty"]
    json.dumps(source.identity).encode()


def test_no_text_at_all(tmp_path):
    with pytest.raises(DataError, match="it is empty"):
        text_files(tmp_path)
    written(tmp_path / "a.png", "")
    written(tmp_path / "b.png", "")
    with pytest.raises(DataError, match=r"it has 2 x \.png") as caught:
        text_files(tmp_path)
    assert ".jsonl" in caught.value.hint
    assert "data=image_folder" in caught.value.hint
    with pytest.raises(DataError, match=r"it has 1 x \.png"):
        text_files(tmp_path / "a.png")


def test_pieces_do_not_depend_on_blocks():
    text = "".join(f"line {n}\n" for n in range(20_000)) + "x" * 200_000 + "\nend"
    found = []
    for size in (1000, 77_777, len(text)):
        blocks = [text[i : i + size] for i in range(0, len(text), size)]
        found.append(list(in_pieces(blocks, 0.5)))
    assert found[0] == found[1] == found[2]
    assert "".join(piece.texts[0] for piece in found[0]) == text
    assert [piece.ends for piece in found[0]] == [False] * (len(found[0]) - 1) + [True]
    assert max(len(piece.texts[0]) for piece in found[0]) <= PIECE
    assert found[0][0].texts[0].endswith("\n")


def joined(pieces) -> str:
    return "".join(piece.texts[0] + ("|" if piece.ends else "") for piece in pieces)


def test_shares_partition_a_source():
    source = TextSource("here", ["one two", "three", "four"])
    for bounds in ((0, 3, 7, 16), (0, 8, 12, 16), (0, 1, 1, 16)):
        parts = [joined(selected(source.pieces(Reading()), Share("characters", a, b))) for a, b in pairwise(bounds)]
        assert "".join(parts) == "one two|three|four|"
    assert joined(selected(source.pieces(Reading()), Share("characters", 3, 8))) == " two|t"
    assert joined(selected(source.pieces(Reading()), Share("documents", 1, 3))) == "three|four|"


def test_places_are_of_what_rows_hold(tmp_path):
    rows = [f"row {n}" for n in range(400)]
    for name, some in (("a.txt", rows), ("b.txt", rows[::-1])):
        written(tmp_path / name, "\n".join(some))
    found = []
    for name in ("a.txt", "b.txt"):
        source = FileSource("here", [(name, tmp_path / name)], field="text", lines=True)
        found.append({p.texts[0] for p in selected(source.pieces(Reading()), Share("places", 0.25, 0.5))})
    assert found[0] == found[1]
    assert 70 < len(found[0]) < 130


@pytest.mark.parametrize("lines", [("a\nb\nc\n", "x\ny\n"), ("a\n", "x\ny\nz")])
def test_pairs_must_match(tmp_path, lines):
    paths = [written(tmp_path / f"{n}.txt", text) for n, text in enumerate(lines)]
    counts = [len(text.split()) for text in lines]
    with pytest.raises(DataError, match=rf"0\.txt has {counts[0]} lines and .*1\.txt has {counts[1]} lines"):
        list(PairSource("here", [paths], ()).pieces(Reading()))


def test_pairs_keep_empty_lines(tmp_path):
    paths = [written(tmp_path / "a.gz", "a\n\nc\n"), written(tmp_path / "b", "x\ny\n\n")]
    found = [piece.texts for piece in PairSource("here", [paths], ()).pieces(Reading())]
    assert found == [("a", "x"), ("", "y"), ("c", "")]


def rows_in(path: Path, *fields: str) -> list[tuple[str, ...]]:
    return list(rows_of(path, fields, Reading()))


def test_a_mark_in_a_tsv_is_a_letter(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    pairs = [('"Open quote', "Offen"), ("normal", "normal"), ('closes"', "zu"), ('5" pipe', '"')]
    for some in (pairs[:3], pairs):  # of which the first could be read as one row
        path.write_text("\n".join(map("\t".join, [("en", "de"), *some])) + "\n")
        assert rows_in(path, "en", "de") == some


def test_fields_of_a_tsv_that_are_all_in_marks_lose_them(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('en\tde\n"He said ""no"""\tx\n""\t"y"\n')
    assert rows_in(path, "en", "de") == [('He said "no"', "x"), ("", "y")]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,text\na,b,c\n")
    with pytest.raises(DataError, match="two columns called text"):
        rows_in(tmp_path / "a.csv", "text")
    assert rows_in(tmp_path / "a.csv", "label") == [("b",)]


@pytest.mark.parametrize("content", ['["one", "two"]', '[{"text": "one"}, {"text": "two"}]'])
def test_an_array_of_json_is_read_by_its_field(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    assert rows_in(tmp_path / "a.json", "text") == [("one",), ("two",)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"data": ["one"]}', "not an array but one dict with the keys data"),
        ("[1, 2]", "item 1 is not"),
        ("[", "not JSON"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=reason) as caught:
        rows_in(tmp_path / "a.json", "text")
    assert ".jsonl" in caught.value.hint


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_columns_are_read_by_their_names(tmp_path: Path, kind: str) -> None:
    table = pa.table({"a": [f"row {i}" for i in range(9000)], "b": [str(i) for i in range(9000)]})
    path = tmp_path / f"x.{kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table, max_chunksize=1000)
    assert rows_in(path, "b", "a")[8999] == ("8999", "row 8999")
    with pytest.raises(DataError, match=r"has no column c; it has a, b"):
        rows_in(path, "c")


def test_what_is_text_and_what_is_passed_over(tmp_path: Path) -> None:
    for name in ("b.md", "a.txt", "README.md", "c.rst", "p.pdf", "package.json", "x.parquet"):
        (tmp_path / name).write_text("x")
    files, lines = text_files(tmp_path)
    assert [name for name, _ in files] == ["a.txt", "b.md", "c.rst"]
    assert lines == ["passed over: 1 x .pdf, 1 x .json, 1 x .parquet", "not read as text: README.md"]
    for name in ("a.txt", "b.md", "c.rst", "x.parquet"):
        (tmp_path / name).unlink()
    assert [name for name, _ in text_files(tmp_path)[0]] == ["package.json"]
    (tmp_path / "package.json").unlink()
    assert [name for name, _ in text_files(tmp_path)[0]] == ["README.md"]
    (tmp_path / "licenses.csv").write_text("text\nx\n")
    assert [name for name, _ in text_files(tmp_path)[0]] == ["licenses.csv"]
    (tmp_path / "a.txt").write_text("x")
    assert text_files(tmp_path)[1] == ["passed over: 1 x .pdf", "not read as text: README.md, licenses.csv"]
