"""A text and its tokenizer are worked out once, and again when the text changes."""

import os
import time

import pytest
from text_data import dataset_text, opened, prose

from aigc_cli.data.open import absolute_paths
from aigc_cli.errors import ConfigError, DataError


def test_a_changed_file_is_read_again(text):
    before = opened(text)
    text.write_text(prose(100, seed=1))
    os.utime(text, ns=(time.time_ns() + 10**9,) * 2)
    assert dataset_text(opened(text)) != dataset_text(before)


def test_broken_bytes_are_told_at_every_start(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff" + prose(200).encode())
    for _ in range(2):
        assert opened(tmp_path / "a.txt").problems() == [f"{tmp_path}/a.txt: 1 broken bytes (utf-8), now U+FFFD"]
    with pytest.raises(DataError, match="is not utf-8"):
        opened(tmp_path, max_broken=0.0)


def test_a_tokenizer_of_another_run(tmp_path, text):
    first = opened(text, kind="bpe", vocab_size=280)
    run = tmp_path / "run"
    run.mkdir()
    for name, content in first.codec.files().items():
        (run / name).write_text(content)
    other = tmp_path / "b.txt"
    other.write_text(prose(60, seed=2) + "nothing like it\n" * 40)
    for path in (run, run / "tokenizer.json"):
        assert opened(other, path=str(path)).codec.tokenizer.state() == first.codec.tokenizer.state()
    assert opened(other, folder=run).codec.tokenizer.state() == first.codec.tokenizer.state()
    assert opened(other, kind="bpe", vocab_size=280).codec.tokenizer.state() != first.codec.tokenizer.state()
    assert opened(text, kind="bpe", vocab_size=280, folder=run).spec == first.spec
    with pytest.raises(DataError, match=r"data\.tokenizer\.path=.*gone: there is nothing at") as caught:
        opened(text, path=str(tmp_path / "gone"))
    assert "data.root" not in str(caught.value)
    typed = absolute_paths({"name": "text", "tokenizer": {"path": ""}})
    with pytest.raises(ConfigError, match=r"data\.tokenizer\.path= has no value"):
        opened(text, path=typed["tokenizer"]["path"])


def test_a_bpe_knows_the_training_split_only(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("ab cd\n" * 70 + "xyzzy\n" * 30)
    codec = opened(path, kind="bpe").codec
    assert len(codec.tokens("ab")) == 1
    assert len(codec.tokens("xyzzy")) == 5


def test_a_vocabulary_larger_than_the_text_can_fill(text):
    dataset = opened(text, kind="bpe", vocab_size=100_000)
    assert dataset.spec.vocab_size < 1000
    assert any("vocab_size=100000 is more than the text can fill" in line for line in dataset.describe())
    assert not any("can fill" in line for line in opened(text, kind="bpe", vocab_size=280).describe())


def test_the_fingerprint_is_of_the_text_and_its_tokens(tmp_path, text):
    first = opened(text, kind="bpe").spec.fingerprint
    moved = tmp_path / "elsewhere" / "b.txt"
    moved.parent.mkdir()
    moved.write_text(text.read_text())
    assert opened(moved, kind="bpe").spec.fingerprint == first
    others = [opened(text), opened(text, kind="byte"), opened(text, kind="bpe", vocab_size=270)]
    others += [opened(text, context=8, kind="bpe"), opened(text, "val", kind="bpe")]
    moved.write_text(text.read_text().replace("fox", "fax"))
    others.append(opened(moved, kind="bpe"))
    assert len({first, *(other.spec.fingerprint for other in others)}) == 7
