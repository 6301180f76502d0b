"""Windows of a long text and documents as items of their own: what a model is told, and what an epoch holds."""

import json
import tracemalloc

import pytest
import torch
from text_data import opened, prose, stream_of

from aigc_cli.data.loader import Loader, batches_in_order
from aigc_cli.modalities.tokenizers import BOS, EOS, PAD


def test_what_a_model_is_told(text):
    dataset = opened(text)
    assert dataset.spec.modality == "text"
    assert dataset.spec.shape == (17,)
    assert dataset.spec.vocab_size == 4 + len(set(text.read_text()))
    assert [dataset.spec.special(name) for name in ("pad", "bos", "eos", "unk")] == [0, 1, 2, 3]
    assert dataset.codec.start == dataset.codec.tokens("\n")[0]
    batch = Loader(dataset, batch_size=5, seed=0, device="cpu").batch(0)
    assert batch.content.dtype == torch.int64
    assert batch.content.shape == (5, 17)
    assert (batch.labels, batch.source) == (None, None)


def test_training_windows_are_of_the_text_and_move(text):
    dataset = opened(text)
    train = text.read_text()[: dataset.extent.tokens]
    loader = Loader(dataset, batch_size=len(dataset), seed=0, device="cpu")
    starts = []
    for epoch in range(8):
        windows = dataset.codec.text(loader.batch(epoch).content)
        assert all(window in train for window in windows)
        places = {train.find(window) for window in windows if train.count(window) == 1}
        starts.append(places)
        assert len(places) > len(dataset) / 2
        assert max(places) - min(places) > 0.9 * len(train)
    assert len(set.union(*starts)) > 3 * len(dataset), "each epoch cuts elsewhere"
    covered = set().union(*(range(start, start + 17) for places in starts for start in places))
    assert len(covered) > 0.95 * len(train)


def test_batches_are_a_function_of_seed_and_number(text):
    def batches(**changes):
        loader = Loader(opened(text), **{"batch_size": 6, "seed": 0, "device": "cpu", **changes})
        return {k: loader.batch(k).content for k in (40, 3, 3, 0, 17)}

    first, again, other = batches(), batches(), batches(seed=1)
    for k, content in first.items():
        assert torch.equal(again[k], content)
        assert not torch.equal(other[k], content)
    halves = [batches(batch_size=3, rank=rank, world_size=2) for rank in range(2)]
    assert all(torch.equal(torch.cat([half[k] for half in halves]), first[k]) for k in first)


def test_tokens_on_disk_give_the_same_batches(text):
    loaders = [Loader(opened(text, kind="bpe", memory_gb=gb), batch_size=6, seed=0, device="cpu") for gb in (4.0, 1e-9)]
    for k in (0, 1, 30):
        assert torch.equal(loaders[0].batch(k).content, loaders[1].batch(k).content)
    assert any("stay on disk" in line for line in loaders[1].dataset.describe())


def test_documents_end_with_eos(tmp_path):
    path = tmp_path / "a.jsonl"
    texts = [f"Document {n}.\nIt ends." for n in range(50)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    dataset = opened(path, test_fraction=0.0, val_fraction=0.0)
    tokens = torch.tensor([stream_of(dataset)])
    assert (tokens == EOS).sum() == dataset.extent.documents == 50
    assert dataset.codec.text(tokens) == [texts[0]]
    assert dataset.codec.text(tokens, stop=False) == ["".join(texts)]
    assert dataset.codec.start == EOS
    assert dataset.extent.targets == dataset.extent.tokens - 1 == sum(map(len, texts)) + 49


def test_a_held_out_split_shorter_than_a_window_is_padded(tmp_path):
    (tmp_path / "a.txt").write_text("abc " * 10)
    val = opened(tmp_path, "val", context=20)
    assert len(val) == 1
    assert val.read(0)[0].tolist() == [*val.codec.tokens("abc abc "), *[PAD] * 13]
    assert val.extent.targets == 7


@pytest.mark.parametrize("kind", ["char", "byte"])
def test_fifty_megabytes_in_little_memory(tmp_path, kind):
    path = tmp_path / "large.txt"
    block = prose(20_000)
    with path.open("w") as file:
        for n in range(50_000_000 // len(block) + 1):
            file.write(f"part {n}\n{block}")
    tracemalloc.start()
    dataset = opened(path, kind=kind, context=256, memory_gb=1e-6)
    loader = Loader(dataset, batch_size=32, seed=0, device="cpu")
    for k in range(20):
        loader.batch(k)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert dataset.extent.tokens > 0.6 * 50_000_000
    assert peak < 16e6


def test_documents_as_items(tmp_path):
    texts = ["short", "a longer line of text", "x" * 500, "last"]
    (tmp_path / "a.txt").write_text("\n".join([texts[0], "", "  ", *texts[1:]]))
    dataset = opened(
        tmp_path, lines=True, items="documents", context=30, val_fraction=0.0, test_fraction=0.0, kind="byte"
    )
    assert len(dataset) == 4
    assert dataset.spec.modality == "text"
    assert dataset.spec.shape == (31,)
    (batch,) = batches_in_order(dataset, 10, "cpu")
    assert batch.content.shape == (4, 31)
    assert batch.content[0].tolist() == [BOS, *dataset.codec.tokens("short"), EOS, *[PAD] * 24]
    assert dataset.codec.text(batch.content) == [texts[0], texts[1], "x" * 30, texts[3]]
    assert batch.content[2, -1] != EOS, "what is cut has not ended"
    assert dataset.problems() == ["1 texts of the train split are cut: too long"]
    assert dataset.extent.targets == 5 + 1 + 21 + 1 + 30 + 4 + 1
    assert dataset.extent.bytes == 5 + 21 + 30 + 4
    assert dataset.codec.start == BOS
    loader = Loader(dataset, batch_size=2, seed=0, device="cpu")
    seen = [text for k in range(2) for text in dataset.codec.text(loader.batch(k).content)]
    assert sorted(seen) == sorted([texts[0], texts[1], "x" * 30, texts[3]])
    assert loader.epoch(2) == 1
