"""One rule for labels, splits, copies and names of a person's own pictures, whatever files they lie in."""

import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from aigc_cli.config.schema import load_yaml
from aigc_cli.data import SPLITS, Dataset, open_dataset
from aigc_cli.data.raw import raw_of
from aigc_cli.errors import ConfigError, DataError

CONFIGS = Path(__file__).parents[2] / "configs/data"
WHOLE = {"val_fraction": 0.0, "test_fraction": 0.0}


def png(value: int, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (value, 50, 200)).save(buffer, "PNG")
    return buffer.getvalue()


def section(name: str, root: Path, **changes: Any) -> dict[str, Any]:
    return {**load_yaml(CONFIGS / f"{name}.yaml"), "root": str(root), "size": 8, **changes}


def opened(name: str, root: Path, split: str = "train", **changes: Any) -> Dataset:
    return open_dataset(section(name, root, **changes), split)


def labels(data: Dataset) -> list[str] | None:
    held = data.resident()
    assert held is not None
    return None if held.labels is None else [data.spec.classes[label] for label in held.labels.tolist()]


def write(path: Path, n: int, start: int = 0, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": pa.array([png(start + i) for i in range(n)], pa.binary()), **columns})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table, max_chunksize=7)
    return path


def saved(folder: Path, **splits: dict[str, Any]) -> Path:
    """What Hugging Face's ``save_to_disk`` writes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    for number, (split, columns) in enumerate(splits.items()):
        write(folder / split / "data-00000-of-00001.arrow", start=50 * number, **columns)
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": split}
        (folder / split / "state.json").write_text(json.dumps(state))
        (folder / split / "dataset_info.json").write_text("{}")
    return folder


def paint(folder: Path, *names: str, same: bool = False) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (0 if same else number, 50, 200)).save(path)
    return folder


def test_words_have_one_numbering_in_all_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", 6, label=["b", "c", "d"] * 2)
    write(tmp_path / "test.parquet", 4, label=["c", "a", "d", "c"])
    train, test = opened("parquet", tmp_path), opened("parquet", tmp_path, "test")
    assert train.spec.classes == test.spec.classes == ("b", "c", "d", "a")  # training's come first
    assert labels(test) == ["c", "a", "d", "c"]
    assert train.problems() == ["no training item has the class a"]
    assert train.spec.untrained == ("a",)


def test_class_folders_have_one_numbering_in_all_splits(tmp_path: Path) -> None:
    paint(tmp_path, "train/dog/0.png", "train/cat/1.png", "test/ant/2.png", "test/dog/3.png")
    assert labels(opened("image_folder", tmp_path, "test")) == ["ant", "dog"]
    assert opened("image_folder", tmp_path, **WHOLE).spec.untrained == ("ant",)


def test_classes_that_a_cut_left_no_training_item_are_named(tmp_path: Path) -> None:
    root = paint(tmp_path, *[f"c{i:02}/0.png" for i in range(20)])
    train = opened("image_folder", root)
    assert len(train.spec.untrained) == 20 - len(train) > 0
    assert train.problems()[0].startswith(f"no training item has the classes {train.spec.untrained[0]}, ")


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["b", "a"] * 10, pa.large_string()),
        pa.array(["b", "a"] * 10, pa.string_view()) if hasattr(pa, "string_view") else pa.array(["b", "a"] * 10),
        pa.array(["b", "a"] * 10).dictionary_encode(),
    ],
    ids=["large", "view", "dictionary"],
)
def test_words_of_every_type_are_labels(tmp_path: Path, column: pa.Array) -> None:
    try:
        path = write(tmp_path / "a.parquet", 20, label=column)
    except pa.ArrowNotImplementedError:  # older versions cannot write a view
        pytest.skip("not in this version of pyarrow")
    assert labels(opened("parquet", path, **WHOLE)) == ["b", "a"] * 10


def test_whole_floats_are_labels_and_fractions_are_not(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", 4, label=[0.0, 2.0, 1.0, 2.0])
    assert labels(opened("parquet", path, **WHOLE)) == ["0", "2", "1", "2"]
    path = write(tmp_path / "b.parquet", 4, label=[0.5, 2.0, 1.0, 2.0])
    data = opened("parquet", path, **WHOLE)
    assert data.spec.classes == ()
    assert data.problems() == ["the column label holds fractions, which are not used as labels"]
    with pytest.raises(DataError, match="fractions"):
        opened("parquet", path, label_column="label", **WHOLE)
    path = write(tmp_path / "c.parquet", 2, label=[float("inf"), 2.0])
    assert opened("parquet", path, **WHOLE).spec.classes == ()


def test_a_column_of_labels_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", 2, label=[[1, 0], [0, 1]])
    assert "the column label holds list<" in opened("parquet", path, **WHOLE).problems()[0]
    with pytest.raises(DataError, match="holds list<"):
        opened("parquet", path, label_column="label", **WHOLE)


def test_a_part_whose_labels_are_all_minus_one_is_unlabelled(tmp_path: Path) -> None:
    write(tmp_path / "p/train.parquet", 4, label=[0, 1, 0, 1])
    write(tmp_path / "p/test.parquet", 2, label=[-1, -1])
    assert labels(opened("parquet", tmp_path / "p", **WHOLE)) == ["0", "1", "0", "1"]
    assert labels(opened("parquet", tmp_path / "p", "test")) is None
    assert opened("parquet", tmp_path / "p").problems() == ["the test split has no labels: all are missing or -1"]
    assert opened("parquet", tmp_path / "p", labels=False).spec.classes == ()


def test_a_part_without_the_column_of_labels_is_unlabelled(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", 4, label=["a", "b", "a", "b"])
    write(tmp_path / "test.parquet", 2)
    assert opened("parquet", tmp_path, val_fraction=0.0).spec.classes == ("a", "b")
    assert labels(opened("parquet", tmp_path, "test")) is None


def test_a_held_out_part_that_is_broken_does_not_stop_training(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", 4, label=["a", "b", "a", "b"])
    (tmp_path / "test.parquet").write_text("words")
    train = opened("parquet", tmp_path, val_fraction=0.0)
    assert len(train) == 4
    assert "the test split cannot be read" in train.problems()[0]
    with pytest.raises(DataError, match=r"test\.parquet cannot be read as parquet"):
        opened("parquet", tmp_path, "test")


def test_shards_may_differ_in_the_width_of_their_types(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", 3, label=pa.array([0, 1, 2], pa.int32()))
    write(tmp_path / "train-1.parquet", 2, start=3, label=pa.array([2, 0], pa.int64()))
    table = pq.read_table(tmp_path / "train-1.parquet")
    pq.write_table(table.set_column(0, "image", table.column(0).cast(pa.large_binary())), tmp_path / "train-1.parquet")
    assert labels(opened("parquet", tmp_path, **WHOLE)) == ["0", "1", "2", "2", "0"]


def test_shards_without_a_column_are_named(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", 3, label=[0, 1, 2])
    write(tmp_path / "train-1.parquet", 2)
    with pytest.raises(DataError, match=r"train-1\.parquet has no column label"):
        opened("parquet", tmp_path)


def test_which_column_is_read_is_part_of_what_is_remembered(tmp_path: Path) -> None:
    root = tmp_path / "root"
    other = [png(200 - i) for i in range(24)]
    write(root / "train.parquet", 24, depth=pa.array(other, pa.binary()))
    prints = [
        opened("parquet", root, image_column=column, memory_gb=3e-5, size=32, **WHOLE).spec.fingerprint
        for column in ("image", "depth", "image")
    ]
    assert prints[0] == prints[2] != prints[1]


@pytest.mark.parametrize("word", ["eval", "evaluation", "testing", "holdout", "held-out"])
@pytest.mark.parametrize("layout", ["{}-00000-of-00001", "{}/0000"])
def test_other_words_for_the_test_part(tmp_path: Path, word: str, layout: str) -> None:
    write(tmp_path / f"{layout.format('train')}.parquet", 10)
    write(tmp_path / f"{layout.format(word)}.parquet", 5, start=100)
    assert [len(opened("parquet", tmp_path, split, val_fraction=0.0)) for split in ("train", "test")] == [10, 5]


@pytest.mark.parametrize("word", ["extra", "unlabeled"])
def test_what_lies_beside_a_training_part_is_left_out_and_named(tmp_path: Path, word: str) -> None:
    write(tmp_path / "p/train.parquet", 10)
    write(tmp_path / f"p/{word}.parquet", 5)
    paint(tmp_path / "f", "train/cat/0.png", "train/dog/1.png", f"{word}/cat/2.png")
    saved(tmp_path / "a", train={"n": 10}, **{word: {"n": 5}})
    for name, root, n in (("parquet", "p", 10), ("image_folder", "f", 2), ("arrow", "a", 10)):
        data = opened(name, tmp_path / root, **WHOLE)
        assert len(data) == n
        assert data.problems()[0].startswith(f"the splits are what is named after train; left out: {word}")


def test_split_folders_by_other_words_are_no_classes(tmp_path: Path) -> None:
    names = [f"{split}/{kind}/{i}.png" for split in ("train", "eval") for kind in ("cat", "dog") for i in range(3)]
    root = paint(tmp_path, *names)
    for split in ("train", "test"):
        data = opened("image_folder", root, split, val_fraction=0.0)
        assert data.spec.classes == ("cat", "dog")
        assert len(data) == 6


def test_a_class_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    root = paint(tmp_path, *[f"{kind}/{i}.png" for kind in ("boat", "train") for i in range(3)])
    assert opened("image_folder", root, **WHOLE).spec.classes == ("boat", "train")


def test_copies_are_on_one_side_of_a_cut(tmp_path: Path) -> None:
    root = paint(tmp_path / "f", *[f"{i}.png" for i in range(40)])
    for i in range(40):
        shutil.copyfile(root / f"{i}.png", root / f"copy-{i}.png")
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as packed:
        for path in sorted(root.iterdir()):
            packed.write(path, path.name)
    cells = [png(i) for i in range(40)] * 2
    pq.write_table(pa.table({"image": pa.array(cells, pa.binary())}), tmp_path / "a.parquet")
    for name, place in (("image_folder", "f"), ("image_folder", "f.zip"), ("parquet", "a.parquet")):
        shares = {"val_fraction": 0.2, "test_fraction": 0.2}
        parts = [opened(name, tmp_path / place, split, **shares).resident() for split in SPLITS]
        seen = [{int(value) for value in part.content[:, 0, 0, 0]} for part in parts if part is not None]
        assert sum(map(len, seen)) == len(set().union(*seen)) == 40
        assert min(map(len, seen)) >= 4


def test_pictures_that_are_all_alike_can_still_be_trained_on(tmp_path: Path) -> None:
    for n in range(2, 9):
        root = paint(tmp_path / str(n), *[f"{i}.png" for i in range(n)], same=True)
        assert len(opened("image_folder", root)) > 0


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    root = paint(tmp_path, "0.png", "1.tif", "2.gif", "3.jfif.png")
    for i in range(3):
        (root / f"{i}.heic").write_bytes(b"")
        (root / f"{i}.PDF").write_bytes(b"")
    for name in ("README.md", "Thumbs.db", "._0.png"):
        (root / name).write_text("")
    data = opened("image_folder", root, **WHOLE)
    assert len(data) == 4
    (line,) = data.problems()
    assert "3 x .pdf" in line
    assert "3 x .heic" in line
    assert "README" not in line


@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_files_beside_those_with_columns_are_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / f"0.{name}", 4)
    for other in ("2.png", "1.csv", "README.md"):
        (tmp_path / other).write_text("")
    data = opened(name, tmp_path, **WHOLE)
    assert (len(data), data.problems()) == (4, ["passed over: 1 x .csv, 1 x .png"])


def metadata(folder: Path, text: str, name: str = "metadata.csv") -> Path:
    paint(folder, "a/0.png", "a/1.png", "2.png")
    (folder / name).write_text(text)
    return folder


def test_labels_in_a_metadata_file(tmp_path: Path) -> None:
    root = metadata(
        tmp_path / "csv", 'file_name,text,label\na/0.png,"one, two",10\na/1.png,,9\n2.png,x,10\ngone.png,x,9\n'
    )
    data = opened("image_folder", root, **WHOLE)
    assert data.spec.classes == ("9", "10")
    assert labels(data) == ["10", "10", "9"]  # 2.png comes first
    assert data.problems() == ["1 rows of the metadata have no picture, such as gone.png"]
    rows = [{"file_name": name, "kind": kind} for name, kind in (("a/0.png", "x"), ("a/1.png", "y"), ("2.png", "y"))]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    root = metadata(tmp_path / "jsonl", lines, "metadata.jsonl")
    assert labels(opened("image_folder", root, label_column="kind", **WHOLE)) == ["y", "x", "y"]
    without = opened("image_folder", root, labels=False, label_column="kind", **WHOLE)
    assert without.spec.classes == ()
    assert without.problems() == ["data.label_column=kind has no effect with data.labels=false"]
    with pytest.raises(ConfigError, match=r"data\.label_column=kimd"):
        opened("image_folder", root, label_column="kimd")


def test_labels_in_two_columns_are_combinations(tmp_path: Path) -> None:
    rows = ["file_name,kind,hue", "a/0.png,cat,red", "a/1.png,dog,red", "2.png,cat,red"]
    data = opened("image_folder", metadata(tmp_path, "\n".join(rows)), label_column="kind, hue", **WHOLE)
    assert labels(data) == ["cat-red", "cat-red", "dog-red"]
    assert data.spec.attributes == (("kind", ("cat", "dog")), ("hue", ("red", "red")))
    with pytest.raises(ConfigError, match=r"data\.label_column=hug: no such column") as caught:
        opened("image_folder", tmp_path, label_column="kind,hug")
    assert caught.value.hint == "did you mean hue?"
    metadata(tmp_path, "file_name,kind,hue\na/0.png,a-b,c\na/1.png,a,b-c\n2.png,a,c\n")
    with pytest.raises(DataError, match="make one class, a-b-c"):
        opened("image_folder", tmp_path, label_column="kind,hue")


def test_metadata_whose_paths_are_those_of_windows(tmp_path: Path) -> None:
    data = opened("image_folder", metadata(tmp_path, "file_name,label\na\\0.png,x\na\\1.png,y\n2.png,y\n"), **WHOLE)
    assert (labels(data), data.problems()) == (["y", "x", "y"], [])


def test_metadata_in_a_zip(tmp_path: Path) -> None:
    root = metadata(tmp_path / "pets", "file_name,label\na/0.png,x\na/1.png,y\n2.png,y\n")
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "pets")
    data = opened("image_folder", Path(archive), **WHOLE)
    assert labels(data) == labels(opened("image_folder", root, **WHOLE)) == ["y", "x", "y"]


def test_metadata_in_each_split_folder(tmp_path: Path) -> None:
    for split in ("train", "test"):
        paint(tmp_path / split, "0.png", "1.png")
        (tmp_path / split / "metadata.csv").write_text(f"file_name,label\n0.png,{split}\n1.png,both\n")
    assert labels(opened("image_folder", tmp_path, "test")) == ["test", "both"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("file_name,label\na/0.png,x\n", "2 of 3 pictures have no row"),
        ("file_name,label\n,x\n", "row 1 .* has no file_name"),
        ("file_name,label\na/0.png\n", "cannot be read"),
        ("file_name,label,label\na/0.png,x,y\n", "two columns"),
        ("file_name,label\na/0.png,\n", "has no label"),
    ],
)
def test_broken_metadata_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        opened("image_folder", metadata(tmp_path, text))


def test_metadata_without_labels_leaves_folders_their_say(tmp_path: Path) -> None:
    root = paint(tmp_path, "a/0.png", "b/1.png")
    (root / "metadata.csv").write_text("file_name,text\na/0.png,a cat\nb/1.png,a dog\n")
    data = opened("image_folder", root, **WHOLE)
    assert data.spec.classes == ("a", "b")
    assert data.problems() == ["metadata.csv has no labels (text); data.label_column= may name a column of them"]


def test_metadata_of_other_pictures_leaves_folders_their_say(tmp_path: Path) -> None:
    root = paint(tmp_path, "train/a/0.png", "train/b/1.png", "test/a/2.png")
    (root / "test/metadata.csv").write_text("file_name,label\na/2.png,z\n")
    data = opened("image_folder", root, **WHOLE)
    assert data.spec.classes == ("a", "b")
    assert data.problems() == ["no training picture has a row in the metadata, which is not used"]


def test_a_saved_data_set_of_hugging_face(tmp_path: Path) -> None:
    kinds = {"n": 6, "label": ["x", "y", "z"] * 2}
    root = saved(
        tmp_path / "both", train=kinds, validation={"n": 3, "label": ["z"] * 3}, test={"n": 2, "label": ["y", "x"]}
    )
    (root / "train" / "cache-12ab.arrow").write_bytes((root / "test" / "data-00000-of-00001.arrow").read_bytes())
    sets = [opened("arrow", root, split) for split in SPLITS]
    assert [len(data) for data in sets] == [6, 3, 2]
    assert labels(sets[2]) == ["y", "x"]
    assert sets[0].describe()[0] == "train 6, val 3, test 2"
    held = sets[2].resident()
    assert held is not None
    assert held.content[:, 0, 0, 0].tolist() == [100, 101]
    assert len(opened("arrow", root / "train", **WHOLE)) == 6  # one data set, without splits


def test_a_saved_data_set_with_an_order_of_its_own_is_refused(tmp_path: Path) -> None:
    root = saved(tmp_path, train={"n": 6})
    state = {
        "_data_files": [{"filename": "data-00000-of-00001.arrow"}],
        "_indices_data_files": [{"filename": "i.arrow"}],
    }
    (root / "train" / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="order of rows") as caught:
        opened("arrow", root)
    assert "flatten_indices" in caught.value.hint
    (root / "train" / "state.json").write_text('{"_data_files": [{"filename": "data-9.arrow"}]}')
    with pytest.raises(DataError, match=r"lists .*data-9\.arrow"):
        opened("arrow", root)


def test_streamed_arrow_is_what_is_held(tmp_path: Path) -> None:
    root = saved(tmp_path, train={"n": 20})
    held, streamed = opened("arrow", root, **WHOLE), opened("arrow", root, memory_gb=1e-9, **WHOLE)
    content = held.resident()
    assert content is not None
    assert streamed.resident() is None
    assert all(np.array_equal(streamed.read(i)[0], content.content[i]) for i in range(20))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    cells = pa.array([png(1)], pa.binary())
    pq.write_table(
        pa.Table.from_arrays([cells, pa.array([1]), pa.array([2])], ["image", "label", "label"]), tmp_path / "a.parquet"
    )
    with pytest.raises(DataError, match="two columns called label"):
        opened("parquet", tmp_path / "a.parquet")


def test_what_was_not_taken_is_offered_with_the_files(tmp_path: Path) -> None:
    root = paint(tmp_path, *[f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(20)])
    (root / "notes.pdf").write_text("")
    raw = raw_of(lambda: opened("image_folder", root))
    assert raw.content.lines == ["passed over: 1 x .pdf"]
    assert len(raw.content) == len(opened("image_folder", root))


def test_a_mirror_is_offered_for_colour_alone(tmp_path: Path) -> None:
    root = paint(tmp_path, *[f"{i}.png" for i in range(9)])
    said = [any("data.flip=true" in line for line in opened("image_folder", root, **changes).describe())
            for changes in ({}, {"channels": 1}, {"flip": True}, {"augment": ["flip"]})]  # fmt: skip
    assert said == [True, False, False, False]


def test_folders_are_walked_by_one_rule(tmp_path: Path) -> None:
    paint(tmp_path / "real", "a/0.png", ".ipynb_checkpoints/0.png", "a/._1.png")
    paint(tmp_path / "b", "2.png")
    os.symlink("../b", tmp_path / "real" / "b")
    os.symlink("..", tmp_path / "real" / "up")
    assert len(opened("image_folder", tmp_path / "real", **WHOLE)) == 2
    write(tmp_path / "p" / "train" / "0.parquet", 3)
    write(tmp_path / "p" / ".cache" / "0.parquet", 3)
    os.symlink("train", tmp_path / "p" / "valid")
    assert len(opened("parquet", tmp_path / "p", **WHOLE)) == 3


def test_the_configuration_of_an_older_run_opens_the_same_pictures(tmp_path: Path) -> None:
    paint(tmp_path / "f", *[f"{kind}/{i}.png" for kind in "ab" for i in range(10)])
    write(tmp_path / "a.parquet", 20, label=[0, 1] * 10)
    for name, place in (("image_folder", "f"), ("parquet", "a.parquet")):
        values = {**section(name, tmp_path / place), "flip": True}
        new = ("augment", "label_column") if name == "image_folder" else ("augment", "labels")
        older = open_dataset({key: value for key, value in values.items() if key not in new}, "train")
        assert older.spec == open_dataset(values, "train").spec
