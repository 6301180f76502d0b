import gzip
import hashlib
import math
from pathlib import Path

import pytest
import torch

from aigc_cli.config.schema import load_yaml
from aigc_cli.data import open_dataset
from aigc_cli.data import text as texts
from aigc_cli.data.download import Published
from aigc_cli.data.loader import batches_in_order
from aigc_cli.errors import DataError

CONFIGS = Path(__file__).parents[2] / "configs/data"


def opened(name, split="train", **changes):
    return open_dataset({**load_yaml(CONFIGS / f"{name}.yaml"), **changes}, split)


def text_of(dataset) -> str:
    windows = torch.cat([batch.content for batch in batches_in_order(dataset, 64, "cpu")])
    stream = torch.cat([windows[:1, 0], windows[:, 1:].flatten()])
    return dataset.codec.text(stream[None], stop=False)[0]


def test_pydocs_need_nothing_and_repeat_little():
    parts = {split: opened("pydocs", split) for split in ("train", "val", "test")}
    texts = {split: text_of(dataset) for split, dataset in parts.items()}
    assert parts["train"].spec.vocab_size == 1024
    assert parts["train"].codec.start == parts["train"].spec.special("eos")
    assert 250_000 < len(texts["train"]) < 800_000
    assert len(texts["val"]) == pytest.approx(len(texts["train"]) / 18, rel=0.01)
    assert "statement" in texts["train"]
    held_out = [paragraph for paragraph in texts["val"].split("\n\n") if len(paragraph) >= 80]
    repeated = sum(paragraph in texts["train"] for paragraph in held_out)
    assert repeated / len(held_out) < 0.05
    assert parts["train"].spec.fingerprint == opened("pydocs").spec.fingerprint


def test_topics_that_repeat_others_are_left_out():
    long, other = "a" * 100, "b" * 100
    topics = {"z": f"{long}\n\n{other}\n\nz", "a": f"{long}\n\nshort", "m": "short", "b": "c" * 90}
    assert texts.unrepeated(topics) == ["c" * 90, "short", f"{long}\n\n{other}\n\nz"]


@pytest.fixture
def play(monkeypatch) -> str:
    """A small text in the place of Tiny Shakespeare's."""
    text = "".join(f"LINE {n}:\nWhat light through yonder window breaks?\n\n" for n in range(100))
    published(monkeypatch, "http://127.0.0.1:9/input.txt", text)
    return text


def published(monkeypatch, url: str, text: str) -> None:
    sums = {"sha256": hashlib.sha256(text.encode()).hexdigest()}
    monkeypatch.setattr(texts, "SHAKESPEARE", Published("input.txt", [url], sums))


def test_shakespeare_downloads_itself_once(server, play, monkeypatch, cache):
    published(monkeypatch, server.serve("/input.txt", play.encode()), play)
    parts = [text_of(opened("shakespeare", split, context=32)) for split in ("train", "val", "test")]
    assert parts == [play[: int(len(play) * 0.9)], play[int(len(play) * 0.9) :], parts[1]]
    assert server.asked == ["/input.txt"]
    assert (cache / "data" / "shakespeare" / "input.txt").read_text() == play


def test_shakespeare_from_a_file_or_a_folder(tmp_path, play):
    (tmp_path / "input.txt").write_text(play)
    specs = {opened("shakespeare", context=32, root=str(root)).spec for root in (tmp_path, tmp_path / "input.txt")}
    assert len(specs) == 1
    dataset = opened("shakespeare", context=32, root=str(tmp_path))
    assert dataset.original
    assert len(dataset.describe()) == 1
    (tmp_path / "input.txt").write_text(play.lower())
    dataset = opened("shakespeare", context=32, root=str(tmp_path))
    assert not dataset.original
    assert any("not the usual" in line for line in dataset.describe())


def test_no_shakespeare(tmp_path, server, play, monkeypatch):
    with pytest.raises(DataError, match=r"there is no input\.txt in") as caught:
        opened("shakespeare", root=str(tmp_path))
    assert texts.SHAKESPEARE.sums["sha256"] in caught.value.hint
    with pytest.raises(DataError, match="no connection"):
        opened("shakespeare")
    published(monkeypatch, server.serve("/input.txt", b"something else"), play)
    with pytest.raises(DataError, match="sha256"):
        opened("shakespeare")


def test_the_real_shakespeare(shared_data):
    whole = (shared_data / "shakespeare" / "input.txt").read_text()
    train, val = (opened("shakespeare", split, root=str(shared_data / "shakespeare")) for split in ("train", "val"))
    assert text_of(train) == whole[:1_003_854]
    assert text_of(val) == whole[1_003_854:]
    assert train.spec.vocab_size == 65 + 4
    assert (val.extent.targets, val.extent.characters, val.extent.bytes) == (111_539,) * 3
    assert len(train.describe()) == 1
    assert (train.problems(), val.problems()) == ([], [])


def test_a_likelihood_over_the_held_out_split_counts_each_target_once(shared_data):
    """The loss of a unigram model, by windows in batches, is what counting gives."""
    dataset = opened("shakespeare", "val", root=str(shared_data / "shakespeare"), context=100)
    whole = (shared_data / "shakespeare" / "input.txt").read_text()[1_003_854:]
    counts = torch.bincount(torch.tensor(dataset.codec.tokens(whole)), minlength=69).double()
    nats = -(counts / counts.sum()).log()
    expected = sum(-math.log(whole.count(c) / len(whole)) * whole[1:].count(c) for c in set(whole))
    total = count = 0.0
    for batch in batches_in_order(dataset, 33, "cpu"):
        targets = batch.content[:, 1:]
        real = targets != dataset.spec.special("pad")
        total += float(nats[targets][real].sum())
        count += int(real.sum())
    assert count == dataset.extent.targets
    assert total == pytest.approx(expected, rel=1e-12)


def test_a_gzip_of_it_is_no_shakespeare(tmp_path):
    (tmp_path / "input.txt").write_bytes(gzip.compress(b"x" * 10_000))
    with pytest.raises(DataError, match="is not utf-8"):
        opened("shakespeare", root=str(tmp_path))
