import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from aigc_cli.config.schema import load_yaml
from aigc_cli.data import absolute_paths, open_dataset, pairs
from aigc_cli.data.base import BatchPlan
from aigc_cli.data.loader import Loader, batches_in_order
from aigc_cli.data.open import items_at
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.tokenizers import BOS, EOS, PAD

CONFIGS = Path(__file__).parents[2] / "configs/data"
N = 300


def opened(split="train", name="pairs", *, kind="byte", **changes):
    values = {**load_yaml(CONFIGS / f"{name}.yaml"), "val_fraction": 0.2, "test_fraction": 0.1, "batch_tokens": 512}
    values["tokenizer"] = {"kind": kind, "vocab_size": 400, "path": None}
    if name == "multi30k":
        del values["val_fraction"], values["test_fraction"]
    return open_dataset({**values, **changes}, split)


def sentences(n: int = N) -> list[tuple[str, str]]:
    draw = np.random.default_rng(0)
    words = [f"{i} " + "word " * draw.integers(1, 12) for i in range(n)]
    return [(f"src {text}".strip(), f"ziel {text}{text}".strip()) for text in words]


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    found = {}
    for side, key in enumerate(("source", "target")):
        path = tmp_path / f"{key}.txt"
        path.write_text("".join(f"{pair[side]}\n" for pair in sentences()))
        found[key] = str(path)
    return found


def texts(dataset) -> list[tuple[str, str]]:
    found = []
    for batch in batches_in_order(dataset, 7, "cpu"):
        found += zip(dataset.codec.text(batch.source), dataset.codec.text(batch.content), strict=True)
    return found


def test_splits_hold_each_pair_once_in_order(files):
    parts = {split: texts(opened(split, **files)) for split in ("train", "val", "test")}
    whole = sentences()
    assert sorted(pair for part in parts.values() for pair in part) == sorted(whole)
    assert all(part == sorted(part, key=whole.index) for part in parts.values())
    assert 30 < len(parts["val"]) < 90
    assert 10 < len(parts["test"]) < 60


def test_the_same_pair_is_never_in_two_splits(files):
    for key in files:
        path = Path(files[key])
        path.write_text(path.read_text() * 2)
    parts = [set(texts(opened(split, **files))) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == N


def test_a_batch_is_padded_on_each_side_apart(files):
    dataset = opened(**files)
    assert dataset.spec.kind == "text from text"
    assert dataset.spec.shape == (128,)
    assert dataset.codec.start == BOS
    batch = Loader(dataset, batch_size=1, seed=0, device="cpu").batch(3)
    for side in (batch.source, batch.content):
        assert side.dtype == torch.int64
        assert (side[:, 0] == BOS).all()
        assert (side == EOS).sum(1).tolist() == [1] * len(side)
        lengths = (side != PAD).sum(1)
        assert lengths.max() == side.shape[1]
        assert all(row[length - 1] == EOS and not row[length:].any() for row, length in zip(side, lengths, strict=True))
    assert batch.source.shape[1] < batch.content.shape[1]
    assert len(batch) * batch.content.shape[1] <= 512


def test_an_epoch_holds_each_pair_once_and_needs_no_past(files):
    dataset = opened(**files)
    loader, other = (Loader(dataset, batch_size=1, seed=4, device="cpu") for _ in range(2))
    seen, k = [], 0
    while loader.epoch(k) < 2:
        batch = loader.batch(k)
        seen += zip(dataset.codec.text(batch.source), dataset.codec.text(batch.content), strict=True)
        assert round(loader.epoch(k + 1) * len(dataset)) == len(seen)
        k += 1
    assert sorted(seen[: len(dataset)]) == sorted(seen[len(dataset) :]) == sorted(texts(dataset))
    assert seen[: len(dataset)] != seen[len(dataset) :]
    for place in (k - 1, 2, k // 2):
        first, second = loader.batch(place), other.batch(place)
        assert torch.equal(first.content, second.content)
        assert torch.equal(first.source, second.source)


def test_ranks_share_each_batch(files):
    dataset = opened(**files)
    ranks = [Loader(dataset, batch_size=1, seed=4, device="cpu", rank=rank, world_size=2) for rank in range(2)]
    seen, k = [], 0
    while ranks[0].epoch(k) < 1:
        for loader in ranks:
            batch = loader.batch(k)
            assert len(batch) * batch.content.shape[1] <= 512
            seen += dataset.codec.text(batch.source)
        k += 1
    assert sorted(set(seen)) == sorted(source for source, _ in texts(dataset))
    assert len(seen) <= len(dataset) + 1


def test_batches_of_so_many_pairs(files):
    dataset = opened(**files, batch_tokens=None)
    sizes = [len(Loader(dataset, batch_size=8, seed=0, device="cpu").batch(k)) for k in range(20)]
    assert sizes.count(8) >= 19


def test_padding_is_counted(files):
    dataset = opened(**files)
    loader = Loader(dataset, batch_size=1, seed=0, device="cpu")
    padded = total = k = 0
    while loader.epoch(k) < 1:
        for side in (loader.batch(k).source, loader.batch(k).content):
            padded += int((side == PAD).sum())
            total += side.numel()
        k += 1
    assert dataset.padding(BatchPlan(1, 0)) == pytest.approx(padded / total)
    assert any(f"{padded / total:.1%} are padding" in line for line in dataset.describe())
    assert padded / total < 0.15


def test_one_tokenizer_serves_both_sides(files):
    dataset = opened(**files, kind="bpe")
    assert len(dataset.codec.tokens("src")) == len(dataset.codec.tokens("ziel")) == 1
    assert texts(opened("val", **files, kind="bpe")) == texts(opened("val", **files))


def test_long_and_empty_pairs(tmp_path):
    rows = [("a", "b"), ("a" * 50, "b"), ("", "c"), ("d", "e" * 30)] * 20
    for name, side in (("train.x", 0), ("train.y", 1), ("val.x", 0), ("val.y", 1)):
        (tmp_path / name).write_text("".join(f"{row[side]}\n" for row in rows))
    given = {"root": str(tmp_path), "source": "x", "target": "y", "max_length": 22, "test_fraction": 0.0}
    train, val = opened("train", **given), opened("val", **given)
    assert texts(train) == [("a", "b")] * 20
    assert train.problems() == ["60 pairs of the train split are left out: too long (data.max_length), or empty"]
    assert texts(val) == [("a", "b"), ("a" * 21, "b"), ("", "c"), ("d", "e" * 21)] * 20
    assert val.problems() == ["40 texts of the val split are cut: too long"]
    assert val.extent.bytes == 20 * (1 + 1 + 1 + 21)
    assert val.extent.targets == 20 * (2 + 2 + 2 + 21)
    for name in ("train.x", "train.y"):
        (tmp_path / name).write_text("a line that is long\n" * 80)
    with pytest.raises(ConfigError, match="80 pairs that are too long or empty"):
        opened("train", **{**given, "max_length": 4})


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_splits(tmp_path, packed):
    whole = sentences()
    for name, some in (("train.part1", whole[:50]), ("train.part2", whole[50:90]), ("dev", whole[90:])):
        for side, suffix in enumerate(("en", "de")):
            content = "".join(f"{pair[side]}\r\n" for pair in some).encode()
            path = tmp_path / f"{name}.{suffix}{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    (tmp_path / "train.fr").write_text("other")
    given = {"root": str(tmp_path), "source": "en", "target": "de", "test_fraction": 0.0}
    assert texts(opened("train", **given)) == whole[:90]
    assert texts(opened("val", **given)) == whole[90:]
    back = opened("val", **{**given, "source": "de", "target": "en"})
    assert texts(back) == [(target, source) for source, target in whole[90:]]


@pytest.mark.parametrize("folder", [False, True])
def test_rows_with_two_fields(tmp_path, folder):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"q": source, "a": target}) + "\n" for source, target in sentences(40)))
    given = {"source": "q", "target": "a", "val_fraction": 0.0, "test_fraction": 0.0}
    assert texts(opened(root=str(tmp_path if folder else path), **given)) == sentences(40)
    with pytest.raises(DataError, match="it has the fields q, a"):
        opened(root=str(path), **{**given, "source": "question"})


def test_clear_answers(tmp_path, files):
    with pytest.raises(ConfigError, match=r"needs data\.source= and data\.target="):
        opened(source=files["source"])
    with pytest.raises(DataError, match=r"data\.target=gone: there is no file"):
        opened(source=files["source"], target="gone")
    with pytest.raises(DataError, match=r"there are no pairs in .*: no NAME\.en beside NAME\.de"):
        opened(root=str(tmp_path), source="en", target="de")
    with Path(files["source"]).open("a") as file:
        file.write("one more\n")
    with pytest.raises(DataError, match=rf"source\.txt has {N + 1} lines and .*target\.txt has {N} lines"):
        opened(**files)


def test_paths_hold_from_any_folder(tmp_path, files, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {"root": None, "source": "source.txt", "target": "de", "tokenizer": {"kind": "bpe", "path": "run"}}
    assert absolute_paths(values) == {
        "root": None, "source": files["source"], "target": "de",
        "tokenizer": {"kind": "bpe", "path": str(tmp_path / "run")},
    }  # fmt: skip
    assert absolute_paths({"root": "x"}) == {"root": str(tmp_path / "x")}
    assert absolute_paths({"size": 3}) == {"size": 3}


def test_some_pairs_at_their_places(files):
    dataset = opened(**files)
    batch = items_at(dataset, [5, 2])
    assert list(zip(dataset.codec.text(batch.source), dataset.codec.text(batch.content), strict=True)) == [
        texts(dataset)[place] for place in (5, 2)
    ]


def test_pairs_on_disk_are_the_same(files):
    held, mapped = (opened(**files, memory_gb=gb) for gb in (4.0, 1e-9))
    assert texts(held) == texts(mapped)
    assert held.spec == mapped.spec


@pytest.fixture
def official(monkeypatch) -> dict[str, bytes]:
    """Small files in the place of Multi30k's, whose sums are expected."""
    found = {}
    for part, n in (("train", 60), ("val", 8), ("test_2016_flickr", 5), ("test_2017_flickr", 6)):
        for side, language in enumerate(("en", "de")):
            content = "".join(f"{part} {pair[side]}\n" for pair in sentences(n))
            found[f"{part}.{language}.gz"] = gzip.compress(content.encode())
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
    monkeypatch.setattr(pairs, "MULTI30K_SHA256", sums)
    return found


def test_multi30k_downloads_itself_once(server, official, monkeypatch):
    monkeypatch.setattr(pairs, "MULTI30K_URL", f"{server.url}/")
    for name, content in official.items():
        server.serve(f"/{name}", content)
    for _ in range(2):
        assert [len(opened(split, "multi30k")) for split in ("train", "val", "test")] == [60, 8, 5]
    assert len(opened("test", "multi30k", test="test_2017_flickr")) == 6
    assert sorted(server.asked) == sorted(f"/{name}" for name in official)


def test_multi30k_from_a_folder(tmp_path, official):
    for name, content in official.items():
        plain = name.startswith("val")
        path = tmp_path / (name.removesuffix(".gz") if plain else name)
        path.write_bytes(gzip.decompress(content) if plain else content)
    assert texts(opened("val", "multi30k", root=str(tmp_path)))[0] == tuple(f"val {text}" for text in sentences(8)[0])
    assert opened("test", "multi30k", root=str(tmp_path)).original
    alone = opened("val", "multi30k", root=str(tmp_path), only="de")
    assert not alone.original, "it is unpacked, so that its sum is not known"
    assert alone.spec.modality == "text"
    (batch,) = batches_in_order(alone, 8, "cpu")
    assert batch.source is None
    assert alone.codec.text(batch.content) == [f"val {target}" for _, target in sentences(8)]
    with pytest.raises(ConfigError, match=r"no test_2017_mscoco\.en"):
        opened("test", "multi30k", root=str(tmp_path), test="test_2017_mscoco")
    (tmp_path / "train.en.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(DataError, match="wrong sum") as caught:
        opened("train", "multi30k", root=str(tmp_path))
    assert "files of your own" in caught.value.hint
    (tmp_path / "train.en.gz").unlink()
    with pytest.raises(DataError, match=r"there is no train\.en\.gz"):
        opened("train", "multi30k", root=str(tmp_path))


def test_the_real_multi30k(shared_data):
    given = {"name": "multi30k", "root": str(shared_data / "multi30k"), "kind": "byte", "max_length": 512}
    given["tokenizer"] = {"kind": "char", "vocab_size": 1, "path": None}
    del given["kind"]
    val, test = opened("val", **given), opened("test", **given)
    assert (len(val), len(test)) == (1014, 1000)
    assert texts(val)[0] == (
        "A group of men are loading cotton onto a truck",
        "Eine Gruppe von Männern lädt Baumwolle auf einen Lastwagen",
    )
    assert len(opened("test", **given, test="test_2017_flickr")) == 1000
    assert test.problems() == []
    batch = next(batches_in_order(test, 3, "cpu"))
    assert test.codec.text(batch.source)[0].startswith("A man in an orange hat")
