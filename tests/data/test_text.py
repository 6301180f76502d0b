import csv
import gzip
import hashlib
import math

import pytest
import torch
from text_data import CONFIGS, dataset_text, opened, prose, stream_of

from aigc_cli.config.schema import check, load_yaml
from aigc_cli.data import SPLITS, open_dataset
from aigc_cli.data import text as texts
from aigc_cli.data.cache import Published
from aigc_cli.data.loader import batches_in_order
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.tokenizers import BOS, EOS, PAD


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


def test_files_named_after_splits_are_the_splits(tmp_path):
    for name, content in (("train-1.txt", "aaa\n"), ("train-2.txt", "bbb\n"), ("valid.txt", "abab\n"), ("x.txt", "z")):
        (tmp_path / name).write_text(content * 20)
    train, val = opened(tmp_path, test_fraction=0.0), opened(tmp_path, "val", test_fraction=0.0)
    assert dataset_text(train) == "aaa\n" * 20 + "bbb\n" * 20
    assert dataset_text(val) == "abab\n" * 20
    with pytest.raises(ConfigError, match="test split"):
        opened(tmp_path, "test", test_fraction=0.0)
    assert len(dataset_text(opened(tmp_path))) + len(dataset_text(opened(tmp_path, "test"))) == 160


def test_files_that_are_no_splits_are_named(tmp_path):
    for name in ("train.txt", "val.txt", "x.txt", "y.txt"):
        (tmp_path / name).write_text("abab\n" * 20)
    assert opened(tmp_path).problems() == ["the splits are what is named after train and val; left out: x.txt, y.txt"]


def test_a_log_of_training_is_no_split(tmp_path, capsys):
    (tmp_path / "training_log.txt").write_text("aaa\n" * 20)
    (tmp_path / "letters.txt").write_text("bbb\n" * 20)
    dataset = opened(tmp_path, val_fraction=0.0, test_fraction=0.0)
    assert dataset_text(dataset) == "bbb\n" * 20 + "aaa\n" * 20
    assert capsys.readouterr().err == ""


def test_a_folder_of_every_kind_packed_or_not(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"first "))
    (tmp_path / "b.jsonl").write_text('{"text": "second "}\n')
    with (tmp_path / "c.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text"], [1, "third "]])
    (tmp_path / "d.tsv").write_text("text\tid\nfourth\t2\n")
    dataset = opened(tmp_path, val_fraction=0.0, test_fraction=0.0)
    assert dataset_text(dataset) == "first second third fourth"
    assert dataset.extent.documents == 4


def test_a_json_is_rows_and_no_text_as_it_stands(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "first "}, {"text": "second", "id": 2}]')
    (tmp_path / "config.json").write_text('{"text": "third"}')
    dataset = opened(tmp_path / "a.json", context=8, val_fraction=0.0, test_fraction=0.0)
    assert dataset_text(dataset) == "first second"
    with pytest.raises(DataError, match=r"config\.json is not an array"):
        opened(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("content", "changes", "error", "words"),
    [
        ("", {}, DataError, "there is no text in .*a.txt: it is empty"),
        ("one line", {"context": 256}, ConfigError, r"has 5 tokens, and a window data.context=256 \+ 1"),
        ("x", {}, ConfigError, "train split"),
        ("a b c", {"split": "val", "val_fraction": 0.0}, ConfigError, "the val split of .* is empty"),
        ("a b c", {"split_by": "document", "val_fraction": 0.8, "test_fraction": 0.1999}, ConfigError, "has 0 tokens"),
        ("a b c", {"val_fraction": 0.6, "test_fraction": 0.5}, ConfigError, "leave nothing"),
        *(("a b c", {"encoding": name}, ConfigError, f"encoding={name}") for name in ("utf-9", "rot13", "base64")),
        ("a b c", {"field": 3}, ConfigError, "data.field"),
        ("a b c", {"vocab_size": 100, "kind": "bpe"}, ConfigError, "cannot hold"),
    ],
)
def test_clear_answers(tmp_path, content, changes, error, words):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(error, match=words):
        opened(tmp_path, **changes)


def test_an_encoding_has_one_name_however_it_is_written():
    values = {**load_yaml(CONFIGS / "text.yaml"), "encoding": "latin1"}
    assert check("data", texts.TextConfig, values).encoding == "iso8859-1"


@pytest.mark.parametrize(
    ("changes", "helps"),
    [
        ({}, []),
        ({"items": "documents"}, ["data.lines=true", "data.items=windows"]),
        ({"items": "documents", "lines": True}, ["data.items=windows"]),
        (
            {"split_by": "document", "val_fraction": 0.9, "test_fraction": 0.09},
            ["data.lines=true", "data.split_by=position"],
        ),
    ],
)
def test_of_too_few_documents_an_error_says_how_there_are_more(tmp_path, changes, helps):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path / "a.txt", **changes)
    found = [
        word
        for word in ("data.lines=true", "data.items=windows", "data.split_by=position")
        if word in caught.value.hint
    ]
    assert found == helps


def test_no_file_at_all(tmp_path):
    with pytest.raises(ConfigError, match=r"needs data\.root="):
        opened(None)
    with pytest.raises(DataError, match="there is nothing at"):
        opened(tmp_path / "nowhere")
    with pytest.raises(DataError, match="there is no text in"):
        opened(tmp_path)


def test_names_in_any_script(tmp_path):
    folder = tmp_path / "Войнá и мир 日本 😀"
    folder.mkdir()
    (folder / "текст ∀.txt").write_text(prose(50))
    assert dataset_text(opened(folder)) == prose(50)[: int(len(prose(50)) * 0.7)]


def published(name, split="train", **changes):
    return open_dataset({**load_yaml(CONFIGS / f"{name}.yaml"), **changes}, split)


def text_of(dataset) -> str:
    windows = torch.cat([batch.content for batch in batches_in_order(dataset, 64, "cpu")])
    stream = torch.cat([windows[:1, 0], windows[:, 1:].flatten()])
    return dataset.codec.text(stream[None], stop=False)[0]


def test_pydocs_need_nothing_and_repeat_little():
    parts = {split: published("pydocs", split) for split in ("train", "val", "test")}
    texts = {split: text_of(dataset) for split, dataset in parts.items()}
    assert parts["train"].spec.vocab_size == 1024
    assert parts["train"].codec.start == parts["train"].spec.special("eos")
    assert 250_000 < len(texts["train"]) < 800_000
    assert len(texts["val"]) == pytest.approx(len(texts["train"]) / 18, rel=0.01)
    assert "statement" in texts["train"]
    held_out = [paragraph for paragraph in texts["val"].split("\n\n") if len(paragraph) >= 80]
    repeated = sum(paragraph in texts["train"] for paragraph in held_out)
    assert repeated / len(held_out) < 0.05
    assert parts["train"].spec.fingerprint == published("pydocs").spec.fingerprint


def test_topics_that_repeat_others_are_left_out():
    long, other = "a" * 100, "b" * 100
    topics = {"z": f"{long}\n\n{other}\n\nz", "a": f"{long}\n\nshort", "m": "short", "b": "c" * 90}
    assert texts.unrepeated(topics) == ["c" * 90, "short", f"{long}\n\n{other}\n\nz"]


@pytest.fixture
def play(monkeypatch) -> str:
    """A small text in the place of Tiny Shakespeare's."""
    text = "".join(f"LINE {n}:\nWhat light through yonder window breaks?\n\n" for n in range(100))
    publish(monkeypatch, "http://127.0.0.1:9/input.txt", text)
    return text


def publish(monkeypatch, url: str, text: str) -> None:
    sums = {"sha256": hashlib.sha256(text.encode()).hexdigest()}
    monkeypatch.setattr(texts, "SHAKESPEARE", Published("input.txt", [url], sums))


def test_shakespeare_downloads_itself_once(server, play, monkeypatch, cache):
    publish(monkeypatch, server.serve("/input.txt", play.encode()), play)
    parts = [text_of(published("shakespeare", split, context=32)) for split in ("train", "val", "test")]
    assert parts == [play[: int(len(play) * 0.9)], play[int(len(play) * 0.9) :], parts[1]]
    assert server.asked == ["/input.txt"]
    assert (cache / "data" / "shakespeare" / "input.txt").read_text() == play


def test_shakespeare_from_a_file_or_a_folder(tmp_path, play):
    (tmp_path / "input.txt").write_text(play)
    specs = {published("shakespeare", context=32, root=str(root)).spec for root in (tmp_path, tmp_path / "input.txt")}
    assert len(specs) == 1
    dataset = published("shakespeare", context=32, root=str(tmp_path))
    assert dataset.original
    assert len(dataset.describe()) == 2  # and nothing of another text
    (tmp_path / "input.txt").write_text(play.lower())
    dataset = published("shakespeare", context=32, root=str(tmp_path))
    assert not dataset.original
    assert any("not the usual" in line for line in dataset.describe())


def test_no_shakespeare(tmp_path, server, play, monkeypatch):
    with pytest.raises(DataError, match=r"there is no input\.txt in") as caught:
        published("shakespeare", root=str(tmp_path))
    assert texts.SHAKESPEARE.sums["sha256"] in caught.value.hint
    with pytest.raises(DataError, match="no connection"):
        published("shakespeare")
    publish(monkeypatch, server.serve("/input.txt", b"something else"), play)
    with pytest.raises(DataError, match="sha256"):
        published("shakespeare")


def test_the_real_shakespeare(shared_data):
    whole = (shared_data / "shakespeare" / "input.txt").read_text()
    train, val = (published("shakespeare", split, root=str(shared_data / "shakespeare")) for split in ("train", "val"))
    assert text_of(train) == whole[:1_003_854]
    assert text_of(val) == whole[1_003_854:]
    assert train.spec.vocab_size == 65 + 4
    assert (val.extent.targets, val.extent.characters, val.extent.bytes) == (111_539,) * 3
    assert len(train.describe()) == 2
    assert (train.problems(), val.problems()) == ([], [])


def test_a_likelihood_over_the_held_out_split_counts_each_target_once(shared_data):
    """The loss of a unigram model, by windows in batches, is what counting gives."""
    dataset = published("shakespeare", "val", root=str(shared_data / "shakespeare"), context=100)
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
        published("shakespeare", root=str(tmp_path))


def test_files_that_are_copies_are_on_one_side_of_a_cut(tmp_path):
    for i in range(30):
        for name in (f"{i}.txt", f"copy-{i}.txt"):
            (tmp_path / name).write_text(f"text {i:02} of many\n")
    changes = {"split_by": "document", "context": 8, "val_fraction": 0.2, "test_fraction": 0.2}
    parts = [set(dataset_text(opened(tmp_path, split, **changes)).split("\n")) - {""} for split in SPLITS]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert sum(map(len, parts)) == 30


def test_a_readme_beside_other_text_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("abab\n" * 20)
    (tmp_path / "in/README.md").write_text("about")
    assert opened(tmp_path / "in").problems() == ["not read as text: README.md"]


def test_how_much_is_held_out_is_said(tmp_path):
    (tmp_path / "a.txt").write_text("abcdefghi\n" * 100)
    notes = opened(tmp_path / "a.txt", val_fraction=0.1, test_fraction=0.2).describe()
    assert "held out at the end: 100 for val and 200 for test, of 1,000 characters" in notes
