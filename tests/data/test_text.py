import csv
import gzip
import json
import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from aigc_cli.config.schema import load_yaml
from aigc_cli.data import open_dataset, token_files
from aigc_cli.data.loader import Loader, batches_in_order
from aigc_cli.errors import ConfigError, DataError, ResourceError
from aigc_cli.modalities.tokenizers import BOS, EOS, PAD, UNK

CONFIGS = Path(__file__).parents[2] / "configs/data"
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "then", "it", "sleeps"]


def opened(root, split="train", *, kind="char", vocab_size=300, path=None, folder=None, **changes):
    values = {**load_yaml(CONFIGS / "text.yaml"), "context": 16, "val_fraction": 0.2, "test_fraction": 0.1, **changes}
    values["tokenizer"] = {"kind": kind, "vocab_size": vocab_size, "path": path}
    return open_dataset({**values, "root": None if root is None else str(root)}, split, folder)


def prose(lines: int, seed: int = 0) -> str:
    draw = np.random.default_rng(seed)
    return "".join(" ".join(draw.choice(WORDS, 8)) + ".\n" for _ in range(lines))


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text(prose(100))
    return path


def stream_of(dataset) -> list[int]:
    """The tokens that batches in order hold, from which a target that comes twice or never would be missed."""
    windows = torch.cat([batch.content for batch in batches_in_order(dataset, 7, "cpu")])
    assert windows[1:, 0].tolist() == windows[:-1, -1].tolist(), (
        "the last target of one is the first context of the next"
    )
    return [*windows[:1, 0].tolist(), *windows[:, 1:].flatten().tolist()]


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_splits_by_position_partition_the_text(text, kind):
    parts = []
    for split in ("train", "val", "test"):
        dataset = opened(text, split, kind=kind)
        tokens = stream_of(dataset)
        assert tokens[dataset.extent.tokens :] == [PAD] * (len(tokens) - dataset.extent.tokens)
        assert PAD not in tokens[: dataset.extent.tokens]
        parts += dataset.codec.text(torch.tensor([tokens]))
    whole = text.read_text()
    assert "".join(parts) == whole
    assert [len(part) for part in parts] == [int(len(whole) * 0.7), len(parts[1]), len(whole) - int(len(whole) * 0.9)]


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


@pytest.mark.parametrize("items", ["windows", "documents"])
def test_splits_by_document_hold_each_once_and_stay(tmp_path, items):
    def contents(n):
        (tmp_path / "a.txt").write_text("".join(f"document number {i}\n" for i in range(n)))
        parts = {}
        for split in ("train", "val", "test"):
            dataset = opened(tmp_path, split, lines=True, split_by="document", items=items, context=40)
            tokens = torch.cat([batch.content.flatten() for batch in batches_in_order(dataset, 1, "cpu")])
            if items == "windows":
                tokens = torch.tensor(stream_of(dataset))
            kept = tokens[(tokens != PAD) & (tokens != BOS)].tolist()
            parts[split] = set(
                "".join(dataset.codec.tokenizer.decode([t]) if t != EOS else "|" for t in kept).split("|")
            )
            parts[split].discard("")
        return parts

    few, more = contents(200), contents(300)
    assert set.union(*few.values()) == {f"document number {i}" for i in range(200)}
    assert sum(map(len, few.values())) == 200
    assert all(few[split] <= more[split] for split in few)
    assert 20 < len(few["val"]) < 60
    assert 8 < len(few["test"]) < 40


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


def test_files_named_after_splits_are_the_splits(tmp_path):
    for name, content in (("train-1.txt", "aaa\n"), ("train-2.txt", "bbb\n"), ("valid.txt", "abab\n"), ("x.txt", "z")):
        (tmp_path / name).write_text(content * 20)
    train, val = opened(tmp_path, test_fraction=0.0), opened(tmp_path, "val", test_fraction=0.0)
    assert dataset_text(train) == "aaa\n" * 20 + "bbb\n" * 20
    assert dataset_text(val) == "abab\n" * 20
    with pytest.raises(ConfigError, match="test split"):
        opened(tmp_path, "test", test_fraction=0.0)
    assert len(dataset_text(opened(tmp_path))) + len(dataset_text(opened(tmp_path, "test"))) == 160


def test_files_that_are_no_splits_are_named(tmp_path, capsys):
    for name in ("train.txt", "val.txt", "x.txt", "y.txt"):
        (tmp_path / name).write_text("abab\n" * 20)
    opened(tmp_path)
    assert "names of files begin with train and val, which are the splits; left out: x.txt, y.txt" in (
        capsys.readouterr().err
    )


def test_a_log_of_training_is_no_split(tmp_path, capsys):
    (tmp_path / "training_log.txt").write_text("aaa\n" * 20)
    (tmp_path / "letters.txt").write_text("bbb\n" * 20)
    dataset = opened(tmp_path, val_fraction=0.0, test_fraction=0.0)
    assert dataset_text(dataset) == "bbb\n" * 20 + "aaa\n" * 20
    assert capsys.readouterr().err == ""


def test_an_unseen_character_that_a_split_begins_with_is_no_target(tmp_path):
    (tmp_path / "train.txt").write_text("abcd\n" * 20)
    (tmp_path / "val.txt").write_text("éab")
    extent = opened(tmp_path, "val", context=2, test_fraction=0.0).extent
    assert (extent.targets, extent.characters, extent.bytes) == (2, 2, 2)


def dataset_text(dataset) -> str:
    return dataset.codec.text(torch.tensor([stream_of(dataset)]), stop=False)[0]


def test_a_folder_of_every_kind_packed_or_not(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"first "))
    (tmp_path / "b.jsonl").write_text('{"text": "second "}\n')
    with (tmp_path / "c.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text"], [1, "third "]])
    (tmp_path / "d.tsv").write_text("text\tid\nfourth\t2\n")
    dataset = opened(tmp_path, val_fraction=0.0, test_fraction=0.0)
    assert dataset_text(dataset) == "first second third fourth"
    assert dataset.extent.documents == 4


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


def test_a_vocabulary_larger_than_the_text_can_fill(text):
    dataset = opened(text, kind="bpe", vocab_size=100_000)
    assert dataset.spec.vocab_size < 1000
    assert any("vocab_size=100000 is more than the text can fill" in line for line in dataset.describe())
    assert not any("can fill" in line for line in opened(text, kind="bpe", vocab_size=280).describe())


def test_a_bpe_knows_the_training_split_only(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("ab cd\n" * 70 + "xyzzy\n" * 30)
    codec = opened(path, kind="bpe").codec
    assert len(codec.tokens("ab")) == 1
    assert len(codec.tokens("xyzzy")) == 5


@pytest.mark.parametrize(
    ("content", "changes", "error", "words"),
    [
        ("", {}, DataError, "there is no text in .*a.txt: it is empty"),
        ("one line", {"context": 256}, ConfigError, r"has 5 tokens, and a window data.context=256 \+ 1"),
        ("x", {}, ConfigError, "train split"),
        ("a b c", {"split": "val", "val_fraction": 0.0}, ConfigError, "the val split of .* is empty"),
        ("a b c", {"split_by": "document", "val_fraction": 0.8, "test_fraction": 0.1999}, ConfigError, "has 0 tokens"),
        ("a b c", {"val_fraction": 0.6, "test_fraction": 0.5}, ConfigError, "leave nothing"),
        ("a b c", {"encoding": "utf-9"}, ConfigError, "no such encoding"),
        ("a b c", {"field": 3}, ConfigError, "data.field"),
        ("a b c", {"vocab_size": 100, "kind": "bpe"}, ConfigError, "cannot hold"),
    ],
)
def test_clear_answers(tmp_path, content, changes, error, words):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(error, match=words):
        opened(tmp_path, **changes)


def test_no_file_at_all(tmp_path):
    with pytest.raises(ConfigError, match=r"needs data\.root="):
        opened(None)
    with pytest.raises(DataError, match="there is nothing at"):
        opened(tmp_path / "nowhere")
    with pytest.raises(DataError, match="there is no text in"):
        opened(tmp_path)


def test_a_held_out_split_shorter_than_a_window_is_padded(tmp_path):
    (tmp_path / "a.txt").write_text("abc " * 10)
    val = opened(tmp_path, "val", context=20)
    assert len(val) == 1
    assert val.read(0)[0].tolist() == [*val.codec.tokens("abc abc "), *[PAD] * 13]
    assert val.extent.targets == 7


def test_broken_bytes_are_told_at_every_start(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff" + prose(200).encode())
    for _ in range(2):
        assert opened(tmp_path).problems() == [f"{tmp_path}/a.txt: 1 broken bytes (utf-8), now U+FFFD"]
    with pytest.raises(DataError, match="is not utf-8"):
        opened(tmp_path, max_broken=0.0)


def test_names_in_any_script(tmp_path):
    folder = tmp_path / "Войнá и мир 日本 😀"
    folder.mkdir()
    (folder / "текст ∀.txt").write_text(prose(50))
    assert dataset_text(opened(folder)) == prose(50)[: int(len(prose(50)) * 0.7)]


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


def test_tokens_are_found_again_and_mended(text, cache, monkeypatch):
    expected = stream_of(opened(text, kind="bpe"))
    with monkeypatch.context() as patch:
        for place in ("corpus.train_tokenizer", "token_files._together"):
            patch.setattr(f"aigc_cli.data.{place}", lambda *_: pytest.fail("done again"))
        patch.setattr("aigc_cli.data.text_sources.text_of", lambda *_: pytest.fail("read again"))
        assert stream_of(opened(text, kind="bpe")) == expected
    for path in cache.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-3])
    assert stream_of(opened(text, kind="bpe")) == expected
    assert not list(cache.glob("tokens/.*"))


def test_a_changed_file_is_read_again(text):
    before = opened(text)
    text.write_text(prose(100, seed=1))
    os.utime(text, ns=(time.time_ns() + 10**9,) * 2)
    assert dataset_text(opened(text)) != dataset_text(before)


def test_a_cache_that_is_full(text, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aigc_cli.data.token_files._flush", full)
    with pytest.raises(ResourceError, match="No space left") as caught:
        opened(text)
    assert "AIGC_CACHE" in caught.value.hint


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
    with pytest.raises(DataError, match="there is nothing at"):
        opened(text, path=str(tmp_path / "gone"))


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
