"""Tokens on disk: counted right, found again, whole or not there at all."""

import pytest
import torch
from text_data import opened, prose, stream_of

from aigc_cli.data import token_files
from aigc_cli.errors import ConfigError, ResourceError
from aigc_cli.modalities.tokenizers import UNK


def test_the_extent_is_of_the_targets(text):
    text.write_text("é" + prose(100))
    train = text.read_text()[: int(len(text.read_text()) * 0.7)]
    count, size = len(train), len(train.encode())
    byte, char = opened(text, kind="byte").extent, opened(text, kind="char").extent
    assert (byte.tokens, byte.targets, byte.characters, byte.bytes) == (size, size - 1, count - 1, size - 1)
    assert (char.tokens, char.targets, char.characters, char.bytes) == (count, count - 1, count - 1, size - 2)
    bpe = opened(text, kind="bpe")
    assert bpe.extent.targets == bpe.extent.tokens - 1 < count / 2
    assert (bpe.extent.characters, bpe.extent.bytes) == (
        count - 1,
        size - len(bpe.codec.text(torch.tensor([[4 + 0xC3]]))),
    )
    assert char.documents == 0, "the one there is ends in another split"


def test_an_unseen_character_that_a_split_begins_with_is_no_target(tmp_path):
    (tmp_path / "train.txt").write_text("abcd\n" * 20)
    (tmp_path / "val.txt").write_text("éab")
    extent = opened(tmp_path, "val", context=2, test_fraction=0.0).extent
    assert (extent.targets, extent.characters, extent.bytes) == (2, 2, 2)


def test_unseen_characters_of_a_held_out_split_are_told(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("abcd\n" * 70 + "abßé\n" * 20 + "abcd\n" * 10)
    val = opened(path, "val")
    assert val.problems() == [
        "40 of 99 characters of the val split are not in the vocabulary, and are read as unk: 'ß', 'é'"
    ]
    assert stream_of(val).count(UNK) == 40
    assert opened(path, "val", kind="byte").problems() == []
    with pytest.raises(ConfigError, match="the vocabulary of this run has no 'ß'") as caught:
        val.codec.tokens("aß")
    assert "byte or bpe" in caught.value.hint


def test_tokens_are_found_again_and_mended(text, cache, monkeypatch):
    expected = stream_of(opened(text, kind="bpe"))
    with monkeypatch.context() as patch:
        for place in ("corpus.train_tokenizer", "token_files._together"):
            patch.setattr(f"aigc_cli.data.{place}", lambda *_: pytest.fail("done again"))
        patch.setattr("aigc_cli.data.corpus.text_of", lambda *_: pytest.fail("read again"))
        assert stream_of(opened(text, kind="bpe")) == expected
    for path in cache.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-3])
    assert stream_of(opened(text, kind="bpe")) == expected
    assert not list(cache.glob("tokens/.*"))


def test_a_cache_that_is_full(text, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aigc_cli.data.token_files._flush", full)
    with pytest.raises(ResourceError, match="No space left") as caught:
        opened(text)
    assert "AIGC_CACHE" in caught.value.hint


def test_tokens_that_another_process_made_meanwhile_are_kept(text, cache, monkeypatch):
    folders = []

    def slowly(corpus):
        monkeypatch.undo()
        monkeypatch.setenv("AIGC_CACHE", str(cache))
        opened(text)  # the faster one's
        folders.extend((path, path.stat().st_ino) for path in (cache / "tokens").iterdir() if path.name[0] != ".")
        return together(corpus)

    together = token_files._together
    monkeypatch.setattr(token_files, "_together", slowly)
    opened(text)
    assert folders
    assert [(path, path.stat().st_ino) for path in (cache / "tokens").iterdir()] == folders
