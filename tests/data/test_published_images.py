import gzip
import hashlib
import io
import json
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, MNIST, FashionMNIST

from aigc_cli.config.schema import load_yaml
from aigc_cli.data import SPLITS, open_dataset
from aigc_cli.data.published_images import CIFAR10_CLASSES
from aigc_cli.errors import ConfigError, DataError

CONFIGS = Path(__file__).parents[2] / "configs/data"
N_TRAIN, N_TEST = 50, 10


def opened(name: str, split: str = "train", **changes):
    return open_dataset({**load_yaml(CONFIGS / f"{name}.yaml"), "val_fraction": 0.1, **changes}, split)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def cifar_archive(monkeypatch) -> bytes:
    """A small archive in CIFAR-10's own layout, whose sums torchvision is told to expect."""
    draw = np.random.default_rng(0)

    def batch(n: int) -> bytes:
        pixels = draw.integers(0, 256, (n, 3072), dtype=np.uint8)
        return pickle.dumps({"data": pixels, "labels": [i % 10 for i in range(n)]})

    names = [f"data_batch_{i}" for i in range(1, 6)]
    files = {name: batch(N_TRAIN // 5) for name in names} | {"test_batch": batch(N_TEST)}
    files["batches.meta"] = pickle.dumps({"label_names": list(CIFAR10_CLASSES)})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5(files[name])] for name in names])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(files["test_batch"])]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(files["batches.meta"])})
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(buffer.getvalue()))
    return buffer.getvalue()


def test_cifar10_downloads_itself_once(server, cifar_archive, monkeypatch, cache):
    monkeypatch.setattr(CIFAR10, "url", server.serve("/cifar.tar.gz", cifar_archive))
    sets = [opened("cifar10", split) for split in SPLITS]
    assert [len(data) for data in sets] == [45, 5, 10]
    assert server.asked == ["/cifar.tar.gz"]
    assert {path.name for path in (cache / "data" / "cifar10").iterdir()} == {"unpacked", "cifar-10-python.tar.gz"}
    assert sets[0].spec.classes == CIFAR10_CLASSES
    assert sets[0].spec.shape == (3, 32, 32)


def test_cifar10_from_its_archive_or_its_folder(tmp_path, cifar_archive):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(cifar_archive)
    expected = opened("cifar10", root=str(tmp_path)).spec
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz") as archive:
        archive.extractall(tmp_path / "own", filter="data")
    for root in ("cifar-10-python.tar.gz", "own", "own/cifar-10-batches-py"):
        assert opened("cifar10", root=str(tmp_path / root)).spec == expected


def test_a_cifar10_pickle_of_the_wrong_sum_is_never_opened(tmp_path, cifar_archive):
    (tmp_path / "x.tar.gz").write_bytes(cifar_archive)
    with tarfile.open(tmp_path / "x.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self):
            return Path.touch, (trap,)

    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match="damaged"):
        opened("cifar10", "test", root=str(tmp_path))
    assert not trap.exists()


@pytest.mark.parametrize("name", ["cifar10", "mnist", "fashion_mnist"])
def test_nothing_on_disk_and_no_network(name, monkeypatch, cache):
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    for source in (MNIST, FashionMNIST):
        monkeypatch.setattr(source, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DataError, match="no connection") as caught:
        opened(name)
    assert "md5" in caught.value.hint
    assert "http://127.0.0.1:9/" in caught.value.hint
    assert str(cache / "data" / name) in caught.value.hint


def test_a_page_instead_of_the_archive(server, monkeypatch, cache):
    monkeypatch.setattr(CIFAR10, "url", server.serve("/cifar.tar.gz", b"<html>moved</html>", kind="text/html"))
    with pytest.raises(DataError, match="HTML page"):
        opened("cifar10")
    assert list((cache / "data" / "cifar10").iterdir()) == []


@pytest.mark.parametrize("name", ["cifar10", "mnist", "fashion_mnist"])
def test_roots_without_the_data(name, tmp_path):
    with pytest.raises(DataError, match="there is nothing at"):
        opened(name, root=str(tmp_path / "missing"))
    with pytest.raises(DataError, match="there is no") as caught:
        opened(name, root=str(tmp_path))
    assert str(tmp_path) in caught.value.message
    assert "md5" in caught.value.hint


def test_a_cifar10_archive_of_the_wrong_sum(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"other")
    with pytest.raises(DataError, match="wrong sum"):
        opened("cifar10", root=str(tmp_path))


def cifar_parquet(folder: Path) -> Path:
    for split, n in (("train", N_TRAIN), ("test", N_TEST)):
        cells = []
        for i in range(n):
            buffer = io.BytesIO()
            Image.new("RGB", (32, 32), (i, i, i)).save(buffer, "PNG")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        labels = [i % 10 for i in range(n)]
        pq.write_table(pa.table({"img": cells, "label": labels}), folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_cifar10_parquet(tmp_path, cache):
    root = cifar_parquet(tmp_path)
    for _ in range(2):  # decoded, then remembered
        sets = [opened("cifar10", split, root=str(root)) for split in SPLITS]
        assert [len(data) for data in sets] == [45, 5, 10]
        held = sets[0].resident()
        assert (held.content[:, 0, 0, 0] % 10).tolist() == held.labels.tolist()
        assert len(list((cache / "data" / "cifar10").glob("pixels-*.npy"))) == 2
    assert opened("cifar10", root=str(root), size=16).spec.shape == (3, 16, 16)
    (root / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match="lacks"):
        opened("cifar10", root=str(root))


def test_the_real_cifar10(shared_data):
    data = opened("cifar10", "test", root=str(shared_data / "cifar10"))
    assert data.spec.classes == CIFAR10_CLASSES
    assert np.bincount(data.resident().labels).tolist() == [1000] * 10
    means = data.resident().content.float().mean((0, 2, 3)) / 255
    assert np.allclose(means, [0.494, 0.485, 0.450], atol=0.005)


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes())


@pytest.fixture(params=["mnist", "fashion_mnist"])
def idx_set(request, monkeypatch) -> tuple[str, str, dict[str, bytes]]:
    """A small set in MNIST's own layout, whose sums torchvision is told to expect."""
    files = {}
    for prefix, n in (("train", N_TRAIN), ("t10k", N_TEST)):
        images = np.zeros((n, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = np.arange(n)
        files[f"{prefix}-images-idx3-ubyte.gz"] = idx(images)
        files[f"{prefix}-labels-idx1-ubyte.gz"] = idx((np.arange(n) % 10).astype(np.uint8))
    source = {"mnist": MNIST, "fashion_mnist": FashionMNIST}[request.param]
    monkeypatch.setattr(source, "resources", [(name, md5(content)) for name, content in files.items()])
    return request.param, source.__name__, files


def test_idx_sets_download_themselves_once(idx_set, server, monkeypatch):
    name, kind, files = idx_set
    source = {"MNIST": MNIST, "FashionMNIST": FashionMNIST}[kind]
    monkeypatch.setattr(source, "mirrors", [f"{server.url}/gone/", f"{server.url}/"])
    for file, content in files.items():
        server.serve(f"/{file}", content)
    for _ in range(2):
        sets = [opened(name, split) for split in SPLITS]
        assert [len(data) for data in sets] == [45, 5, 10]
    assert len([path for path in server.asked if "gone" not in path]) == 4
    data = sets[0].resident()
    assert data.content.shape == (45, 1, 32, 32)
    assert (data.content[:, 0, 2, 2] % 10).tolist() == data.labels.tolist()  # padded by two
    assert len(sets[0].spec.classes) == 10


def test_idx_sets_from_disk(idx_set, tmp_path):
    name, kind, files = idx_set
    packed, torchvision_layout = tmp_path / "packed", tmp_path / "own" / kind / "raw"
    packed.mkdir()
    torchvision_layout.mkdir(parents=True)
    for file, content in files.items():
        (packed / file).write_bytes(content)
        (torchvision_layout / file.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    specs = {opened(name, root=str(root), size=28).spec for root in (packed, tmp_path / "own", torchvision_layout)}
    assert len(specs) == 1
    assert specs.pop().shape == (1, 28, 28)
    (torchvision_layout / "train-images-idx3-ubyte").write_bytes(b"short")
    with pytest.raises(DataError, match="damaged"):
        opened(name, root=str(tmp_path / "own"))
    (packed / "train-images-idx3-ubyte.gz").write_bytes(b"other")
    with pytest.raises(DataError, match="wrong sum"):
        opened(name, root=str(packed))


def test_the_parquet_of_other_images_is_no_cifar10(tmp_path):
    root = cifar_parquet(tmp_path)
    path = root / "train-00000-of-00001.parquet"
    content = pq.read_table(path)
    pq.write_table(content.set_column(1, "label", [list(range(len(content)))]), path)
    with pytest.raises(DataError, match="does not hold the labels"):
        opened("cifar10", root=str(root))


def test_every_yaml_names_every_key():
    from aigc_cli.registry import find, names

    for name in names("data"):
        path = CONFIGS / f"{name}.yaml"
        if path.exists():
            keys = set(find("data", name).config.__dataclass_fields__)
            assert set(load_yaml(path)) == keys, json.dumps(sorted(keys))


CONFIG = {"name": "digits", "size": 16, "flip": False, "val_fraction": 0.1, "test_fraction": 0.2}


def test_splits_are_disjoint_and_cover_everything():
    sets = {split: open_dataset({**CONFIG, "size": 8}, split) for split in SPLITS}
    assert {split: len(data) for split, data in sets.items()} == {"train": 1258, "val": 180, "test": 359}
    counts = sum(torch.bincount(data.resident().labels, minlength=10) for data in sets.values())
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len({data.spec.fingerprint for data in sets.values()}) == 3


@pytest.mark.parametrize("size", [7, 8, 16, 32])
def test_sizes(size):
    data = open_dataset({**CONFIG, "size": size}, "val")
    assert data.spec.shape == (1, size, size)
    content = data.resident().content
    assert content.dtype == torch.uint8
    assert content.max() > 230
    assert content.min() == 0


def test_the_fingerprint_is_of_the_content():
    first, again = (open_dataset(CONFIG, "val").spec.fingerprint for _ in range(2))
    assert first == again
    assert open_dataset({**CONFIG, "size": 32}, "val").spec.fingerprint != first


def test_the_test_part_does_not_depend_on_the_validation_part():
    other = open_dataset({**CONFIG, "val_fraction": 0.3}, "test")
    assert other.spec.fingerprint == open_dataset(CONFIG, "test").spec.fingerprint


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"size": 0}, "data.size"),
        ({"size": "16"}, "data.size"),
        ({"val_fraction": 1.5}, "data.val_fraction"),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, "leave nothing"),
        ({"sise": 8}, "data.sise"),
    ],
)
def test_wrong_configurations(change, word):
    with pytest.raises(ConfigError, match=word):
        open_dataset({**CONFIG, **change}, "train")


def test_a_split_that_is_left_empty():
    with pytest.raises(ConfigError, match="val split of digits is empty"):
        open_dataset({**CONFIG, "val_fraction": 0.0}, "val")


def test_unknown_names():
    with pytest.raises(ConfigError, match="there is no data named 'digit'") as caught:
        open_dataset({**CONFIG, "name": "digit"}, "train")
    assert "digits" in caught.value.hint
    with pytest.raises(ConfigError, match="split"):
        open_dataset(CONFIG, "valid")


def test_how_many_each_split_has_is_said():
    values = {**load_yaml(Path(__file__).parents[2] / "configs/data/digits.yaml")}
    sets = {split: open_dataset(values, split) for split in SPLITS}
    assert sets["train"].describe() == [", ".join(f"{split} {len(data):,}" for split, data in sets.items())]
