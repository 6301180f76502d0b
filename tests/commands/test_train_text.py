"""``aigc train`` on a person's own text, at the command line: what it makes of files that are odd, short or broken."""

import gzip
import json
from pathlib import Path

import pytest

from aigc_cli.cli import main

SMALL = ["model.layers=1", "model.width=8", "model.heads=2", "data.context=16", "trainer.batch_size=2"]
TRAIN = ["train", "model=transformer", "data=text", *SMALL, "trainer.steps=2", "trainer.device=cpu"]
TEXT = "To be, or not to be: that is the question.\n"
ROWS = "".join(json.dumps({"body": TEXT}) + "\n" for _ in range(20))

#: Files by their names.
FILES: dict[str, bytes] = {
    "ok.txt": 40 * TEXT.encode(),
    "ok.txt.gz": gzip.compress(40 * TEXT.encode()),
    "line.txt": 40 * TEXT.replace("\n", " ").encode(),
    "body.jsonl": ROWS.encode(),
    "empty.txt": b"",
    "empty.jsonl": b"",
    "header.csv": b"id,text\n",
    "short.txt": b"hello\n",
    "latin.txt": 40 * "café\n".encode("latin-1"),
    "utf16.txt": TEXT.encode("utf-16"),
    "broken.jsonl": b'{"text": "one"}\n{"text": two}\n',
    "ragged.csv": b"id,text\n1,one,more\n",
    "cut.txt.gz": gzip.compress(40 * TEXT.encode())[:-9],
    "mixed/a.txt": 40 * TEXT.encode(),
    "mixed/nothing.txt": b"",
    "pictures/a.png": b"\x89PNG",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("data.root=empty.txt", 3, "empty.txt: it is empty"),
        ("data.root=empty.jsonl", 3, "empty.jsonl: it is empty"),
        ("data.root=header.csv", 3, "no text in"),
        ("data.root=short.txt", 2, "data.context=4 or less"),
        ("data.root=ok.txt data.context=9999", 2, "and a window data.context=9999 + 1"),
        ("data.root=ok.txt data.tokenizer.vocab_size=100", 2, "cannot hold the 256 bytes"),
        ("data.root=latin.txt", 3, "data.encoding=cp1252"),
        ("data.root=utf16.txt", 3, "data.encoding=utf-16"),
        ("data.root=broken.jsonl", 3, "line 2 is not JSON"),
        ("data.root=body.jsonl", 3, "data.field="),
        ("data.root=ragged.csv", 3, "line 2 has 3 columns, and the first 2"),
        ("data.root=cut.txt.gz", 3, "cannot be read"),
        ("data.root=pictures", 3, "it has 1 x .png"),
        ("data.root=nowhere", 3, "there is nothing at"),
        ("data.root=null", 2, "needs data.root="),
    ],
)
def test_what_cannot_be_trained_on(words: str, code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, *words.split()]) == code
    said = [line for line in capsys.readouterr().err.splitlines() if "is given several times" not in line]
    assert len(said) <= 2
    assert says in " ".join(said)
    assert not Path("outputs").exists()


SEQUENCES = [*SMALL[:3], "trainer.steps=2", "trainer.device=cpu", "trainer.sample_every=null"]
PAIRS = "model=seq2seq data=pairs data.source={0}.txt data.target={1}.txt"
DOCUMENTS = "model=vae data=text data.items=documents data.lines=true data.root={0}.txt"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (PAIRS.format("empty", "empty"), 3, "there is no text in"),
        (PAIRS.format("short", "empty"), 3, "has 1 lines and"),
        (PAIRS.format("short", "short"), 0, "in 1 pair"),
        (DOCUMENTS.format("empty"), 3, "empty.txt: it is empty"),
        (DOCUMENTS.format("short"), 2, "the train split of"),
        (PAIRS.format("ok", "ok") + " data.tokenizer.vocab_size=9000", 0, "is more than the text can fill"),
        (DOCUMENTS.format("ok") + " data.tokenizer.vocab_size=9000", 0, "is more than the text can fill"),
    ],
)
def test_pairs_and_documents(words: str, code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words.split(), *SEQUENCES]) == code
    said = capsys.readouterr().err.splitlines()
    assert len(said) <= 2 or not code
    assert says in " ".join(said)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("data.root=line.txt data.tokenizer.kind=char", "in 1 document"),
        ("data.root=ok.txt.gz data.tokenizer.vocab_size=100000", "vocab_size=100000 is more than the text can fill"),
        ("data.root=body.jsonl data.field=body", "documents"),
        ("data.root=mixed", "nothing.txt: it is empty"),
        ("data.root=latin.txt data.encoding=latin-1 data.context=8", "bpe vocabulary"),
    ],
)
def test_what_can(words: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "trainer.sample_every=null", *words.split()]) == 0
    assert says in capsys.readouterr().err
