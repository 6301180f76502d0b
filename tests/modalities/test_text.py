import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities import text
from aigc_cli.modalities.base import DataSpec, modality
from aigc_cli.modalities.samples import Arrangement, Provenance
from aigc_cli.modalities.text import LARGEST_FILE, TextCodec, TextWriter, block, read_codec
from aigc_cli.modalities.tokenizers import SPECIALS, BPETokenizer, ByteTokenizer, CharTokenizer


def codec(start: int = 2) -> TextCodec:
    return TextCodec(CharTokenizer("abc \n"), start)


def test_token_ids_are_a_model_s_own_content():
    ids = torch.tensor([[4, 5, 6]])
    assert codec().encode(ids) is ids
    assert codec().decode(ids) is ids


@pytest.mark.parametrize(
    ("ids", "text", "whole"),
    [
        ([1, 6, 7, 2, 0, 0], "ab", "ab"),
        ([6, 7, 2, 8, 2, 6], "ab", "abca"),
        ([2, 6, 7, 0], "ab", "ab"),
        ([1, 2, 0, 0], "", ""),
        ([6, 3, 7], "a\N{REPLACEMENT CHARACTER}b", "a\N{REPLACEMENT CHARACTER}b"),
        ([6, 0, 7], "ab", "ab"),
        ([], "", ""),
    ],
)
def test_text_of_ids(ids, text, whole):
    rows = torch.tensor([ids, ids], dtype=torch.int64)
    assert codec().text(rows) == [text, text]
    assert codec().text(rows, stop=False) == [whole, whole]


def test_a_prompt_of_what_the_vocabulary_lacks():
    assert codec().tokens("a cab\n") == [6, 5, 8, 6, 7, 4]
    with pytest.raises(ConfigError, match="has no 'x', 'é'"):
        codec().tokens("axéa")
    with pytest.raises(ConfigError, match=r"bytes that are not text: a\\udcff"):
        TextCodec(ByteTokenizer()).tokens("a\udcff")


@pytest.mark.parametrize(
    "tokenizer", [CharTokenizer("añb\0 \u2028"), ByteTokenizer(), BPETokenizer([(101, 102), (260, 103)])]
)
def test_a_codec_is_made_of_the_files_it_leaves(tmp_path, tokenizer):
    first = TextCodec(tokenizer, 2)
    for name, content in first.files().items():
        (tmp_path / name).write_text(content)
    spec = DataSpec("text", (9,), vocab_size=tokenizer.vocab_size, specials=SPECIALS)
    for found in (modality(spec.modality).codec(spec, tmp_path), read_codec(tmp_path / "tokenizer.json")):
        assert found.files() == first.files()
        assert found.start == 2
        assert found.tokens("a b") == first.tokens("a b")
    with pytest.raises(DataError, match="tokens, and the model 3"):
        modality("text").codec(replace(spec, vocab_size=3), tmp_path)
    with pytest.raises(DataError, match="made of a run"):
        modality(spec.modality).codec(spec)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "cannot be read"),
        (b"[" * 200_000, "cannot be read"),
        (b"[1]", "not a tokenizer of format 1"),
        (b'{"format": 2, "kind": "byte", "start": 1}', "not a tokenizer of format 1"),
        (b'{"format": 1, "kind": "byte"}', "start=None"),
        (b'{"format": 1, "kind": "byte", "start": 260}', "start=260"),
        (b'{"format": 1, "kind": "byte", "start": true}', "start=True"),
        (b'{"format": 1, "kind": "pickle", "start": 1}', "no tokenizer of kind"),
        (b'{"format": 1, "kind": "bpe", "start": 1, "merges": [[4, 999]]}', "range"),
        (b"\xff\xfe", "cannot be read"),
        (b" " * (LARGEST_FILE + 1), "more than"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_stranger_s_tokenizer_is_checked(tmp_path, content, words):
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_codec(tmp_path)
    assert "tokenizer.json" in caught.value.message


MakeProvenance = Callable[..., Provenance]
CODEC = TextCodec(ByteTokenizer())


def ids(*texts: str) -> Tensor:
    rows = [CODEC.tokens(text) for text in texts]
    return torch.tensor([row + [0] * (max(map(len, rows)) - len(row)) for row in rows])


def test_a_block_shows_what_stands_beside_a_text() -> None:
    facts = {"source": ["ein Hund"], "prompt": ['a "b"\nc'], "frame": [3], "long": ["x" * 99]}
    assert block(Arrangement(n=1), 0, "a\nb") == "--- 0 ---\na\nb\n"
    beside = Arrangement(n=1, facts=facts, beside=("source",), text="translation")
    assert block(beside, 0, "a dog") == "--- 0 ---\nsource:      ein Hund\ntranslation: a dog\n"
    lines = Arrangement(n=1, facts=facts, beside=("prompt",), text="filled")
    assert block(lines, 0, "x") == '--- 0 ---\nprompt:\na "b"\nc\nfilled:\nx\n'
    named = Arrangement(n=1, facts=facts, named=("prompt", "frame", "long"))
    heading = block(named, 0, "x").splitlines()[0]
    assert heading.startswith('--- 0, prompt "a \\"b\\"\\nc", frame 3, long "xxx')
    assert heading.endswith("x... ---")


def test_both_files_hold_every_text(
    tmp_path: Path, provenance: MakeProvenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ["ä\tb", "two\nlines", "", "[31mred[0m"]
    monkeypatch.setattr(text, "_SHOWN", 3)
    with TextWriter(tmp_path, Arrangement(n=4), provenance(), CODEC) as writer:
        writer.write(ids(*made[:1]))
        writer.write(ids(*made[1:]))
        assert writer.finish() == (["samples.jsonl"], ["samples.txt"])
    objects = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [one["text"] for one in objects] == made
    assert [one["index"] for one in objects] == [0, 1, 2, 3]
    assert all(one["label"] == "AI-generated" and one["model_checksum"] == "ab" * 32 for one in objects)
    written = (tmp_path / "samples.txt").read_text()
    assert written.startswith("AI-generated by gan trained on digits: run gan-digits/a, step 7, seed 3\n\n--- 0 ---\nä")
    assert "--- 3 ---\n[31mred" in written
    assert writer.shown().endswith("--- 2 ---\n\n\n... and 1 more\n")


def test_a_terminal_is_not_steered(tmp_path: Path, provenance: MakeProvenance) -> None:
    with TextWriter(tmp_path, Arrangement(n=1), provenance(), CODEC) as writer:
        writer.write(ids("a\x1b[2Jb\r\n\tc\x9bd"))
        writer.finish()
    assert writer.shown() == "--- 0 ---\na\ufffd[2Jb\ufffd\n\tc\ufffdd\n"


def test_an_item_of_the_data_is_not_said_to_be_made(tmp_path: Path, provenance: MakeProvenance) -> None:
    pair = Arrangement(n=2, facts={"role": ["original", "reconstruction"]}, named=("role",), group=2)
    with TextWriter(tmp_path, pair, provenance(), CODEC) as writer:
        writer.write(ids("a", "b"))
        writer.finish()
    original, made = (json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines())
    assert "label" not in original
    assert made["label"] == "AI-generated"
    assert '--- 0, role "original" ---' in (tmp_path / "samples.txt").read_text()


def test_a_file_of_objects_is_not_one_of_texts(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(ConfigError, match="holds JSON") as caught:
        modality("text").read(tmp_path / "rows.jsonl")
    assert "its texts as a .txt" in caught.value.hint


def test_a_set_that_is_not_complete_is_not_finished(tmp_path: Path, provenance: MakeProvenance) -> None:
    with TextWriter(tmp_path, Arrangement(n=3), provenance(), CODEC) as writer:
        writer.write(ids("a", "b"))
        with pytest.raises(RuntimeError, match="2 samples were written, not 3"):
            writer.finish()


def test_a_preview_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "samples" / "step-3.txt"
    batches = [ids("a", "bc"), ids("def")]
    TextWriter.preview(path, iter(batches), Arrangement(n=3), CODEC, "step 3")
    assert path.read_text() == "AI-generated, step 3\n\n--- 0 ---\na\n\n--- 1 ---\nbc\n\n--- 2 ---\ndef\n"
    assert list(path.parent.iterdir()) == [path]
