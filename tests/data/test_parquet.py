import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from aigc_cli.data import SPLITS, open_dataset
from aigc_cli.data.loader import Loader
from aigc_cli.errors import ConfigError, DataError, ResourceError

CONFIG = {
    "name": "parquet",
    "root": None,
    "image_column": None,
    "label_column": None,
    "size": 8,
    "channels": 3,
    "flip": False,
    "val_fraction": 0.1,
    "test_fraction": 0.2,
    "max_bad": 0,
    "memory_gb": 4.0,
}


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def png(value: int) -> bytes:
    return encoded(Image.new("RGB", (9, 8), (value, 0, 0)), "PNG")


def table(n: int, start: int = 0, *, image: str = "img", label: str | None = "label", labels=None) -> pa.Table:
    cells = [{"bytes": png(start + i), "path": None} for i in range(n)]
    columns = {image: pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
    if label is not None:
        columns[label] = pa.array([i % 3 for i in range(n)] if labels is None else labels)
    return pa.table(columns)


def write(path: Path, content: pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path, row_group_size=7)
    return path


def opened(root: Path, split: str = "train", **changes):
    return open_dataset({**CONFIG, "root": str(root), **changes}, split)


def values(data) -> list[int]:
    return data.resident().content[:, 0, 0, 0].tolist()


def test_one_file_is_cut_into_splits(tmp_path):
    path = write(tmp_path / "pictures.parquet", table(100))
    sets = [opened(path, split) for split in SPLITS]
    assert [len(data) for data in sets] == [70, 10, 20]
    assert sorted(value for data in sets for value in values(data)) == list(range(100))
    for data in sets:
        assert data.resident().labels.tolist() == [value % 3 for value in values(data)]


@pytest.mark.parametrize(
    "layout",
    [
        {"train": "train-00000-of-00001.parquet", "val": "validation-00000-of-00001.parquet", "test": "test.parquet"},
        {"train": "data/train-0.parquet", "val": "data/valid-0.parquet", "test": "data/test-0.parquet"},
        {
            "train": "plain/train/0000.parquet",
            "val": "plain/validation/0000.parquet",
            "test": "plain/test/0000.parquet",
        },
    ],
)
def test_files_named_after_splits(tmp_path, layout):
    for start, name in zip((0, 20, 25), layout.values(), strict=True):
        write(tmp_path / name, table(20 if start == 0 else 5, start))
    assert [values(opened(tmp_path, s)) for s in SPLITS] == [[*range(20)], [*range(20, 25)], [*range(25, 30)]]


def test_a_missing_split_is_cut_from_train(tmp_path):
    for shard in range(2):
        write(tmp_path / f"train-{shard}.parquet", table(20, 20 * shard))
    write(tmp_path / "test-0.parquet", table(5, 100))
    assert [len(opened(tmp_path, split)) for split in SPLITS] == [36, 4, 5]


def test_class_names_of_the_hub(tmp_path):
    features = {"info": {"features": {"label": {"names": ["x", "y", "z", "unused"], "_type": "ClassLabel"}}}}
    content = table(30).replace_schema_metadata({"huggingface": json.dumps(features)})
    assert opened(write(tmp_path / "a.parquet", content)).spec.classes == ("x", "y", "z", "unused")


def test_columns_are_found_or_named(tmp_path):
    words = ["b", "a"] * 15
    path = write(tmp_path / "a.parquet", table(30, image="photo", label="kind", labels=words))
    assert opened(path).spec.classes == ()
    assert opened(path, label_column="kind").spec.classes == ("a", "b")
    with pytest.raises(ConfigError, match=r"data\.label_column=kimd") as caught:
        opened(path, label_column="kimd")
    assert "kind" in caught.value.hint
    with pytest.raises(DataError, match="no encoded images"):
        opened(path, image_column="kind")


def test_a_plain_binary_column_and_null_cells(tmp_path):
    content = pa.table({"image": pa.array([png(1), None, png(2)] * 10, pa.binary())})
    path = write(tmp_path / "a.parquet", content)
    data = opened(path, max_bad=10, val_fraction=0.0, test_fraction=0.0)
    assert len(data) == 20
    assert data.problems()[0].endswith("row 1: it has no bytes")
    with pytest.raises(DataError, match="10 of 30 images cannot be read"):
        opened(path, val_fraction=0.0, test_fraction=0.0)


def test_streaming_matches_residence(tmp_path):
    path = write(tmp_path / "a.parquet", table(40))
    held, streamed = opened(path, size=32), opened(path, size=32, memory_gb=5e-6)
    assert streamed.resident() is None
    loaders = [Loader(data, batch_size=8, seed=0, device="cpu", workers=w) for data, w in ((held, 0), (streamed, 1))]
    for k in range(6):
        one, other = (loader.batch(k) for loader in loaders)
        assert torch.equal(one.content, other.content)
        assert torch.equal(one.labels, other.labels)


def test_the_fingerprint_of_streamed_rows_is_of_their_pixels(tmp_path):
    def bitmaps(place: str, value: int) -> Path:
        cells = [np.full((8, 8, 3), value + i, np.uint8) for i in range(9)]
        content = pa.table({"image": pa.array([encoded(Image.fromarray(cell), "BMP") for cell in cells], pa.binary())})
        (tmp_path / place).mkdir()
        pq.write_table(content, tmp_path / place / "a.parquet", compression="none")
        return tmp_path / place / "a.parquet"

    paths = [bitmaps("first", 100), bitmaps("same", 100), bitmaps("other", 120)]
    assert paths[0].stat().st_size == paths[2].stat().st_size
    streamed = [opened(path, size=32, memory_gb=5e-6) for path in paths]
    assert streamed[0].resident() is None
    one, same, other = (data.spec.fingerprint for data in streamed)
    assert one == same != other


def test_too_much_even_encoded(tmp_path):
    with pytest.raises(ResourceError, match=r"data\.memory_gb"):
        opened(write(tmp_path / "a.parquet", table(40)), memory_gb=1e-7)


@pytest.mark.parametrize(
    ("labels", "reason"), [([0, -1] * 15, "outside of its classes"), ([0, None] * 15, "15 rows .* have no label")]
)
def test_labels_that_are_none(tmp_path, labels, reason):
    with pytest.raises(DataError, match=reason):
        opened(write(tmp_path / "a.parquet", table(30, labels=labels)))


def test_wrong_roots(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.root="):
        open_dataset(CONFIG, "train")
    with pytest.raises(DataError, match="no parquet files"):
        opened(tmp_path)
    (tmp_path / "a.parquet").write_text("words")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read as parquet"):
        opened(tmp_path)
    write(tmp_path / "a.parquet", pa.table({"text": ["a", "b"]}))
    with pytest.raises(DataError, match="text"):
        opened(tmp_path)


def test_channels(tmp_path):
    path = write(tmp_path / "a.parquet", table(30))
    data = opened(path, channels=1)
    assert data.spec.shape == (1, 8, 8)
    shown, red = data.resident().content[:, 0, 0, 0].float(), np.array(values(opened(path)))
    assert np.abs(shown.numpy() - 0.299 * red).max() < 1
