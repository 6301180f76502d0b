from dataclasses import replace

import pytest
import torch

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.base import DataSpec, modality
from aigc_cli.modalities.text import LARGEST_FILE, TextCodec, read_codec
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
