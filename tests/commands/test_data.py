"""``aigc data`` from the command line: a report, a cleaned copy, and training on the copy without a warning."""

import io
import json
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trouble
from PIL import Image

from aigc_cli.cli import main

SMALL = {
    "gan": ["model.network=mlp", "trainer.batch_size=8"],
    "transformer": ["model.layers=1", "model.width=16", "model.heads=1", "trainer.batch_size=2"],
    "seq2seq": ["model.layers=1", "model.width=16", "model.heads=1"],
}
DATA = {
    "pictures": ["data=image_folder", "data.size=16"],
    "texts": ["data=text", "data.context=16"],
    "pairs": ["data=pairs", "data.source=a", "data.target=b"],
}


#: What a copy does not have any more.
MENDED = {
    "broken", "empty_file", "markup", "blank", "duplicates", "near_duplicates", "broken_file", "nul", "marks",
    "mixed_ends", "returns", "controls", "empty_side", "split_copies", "label_conflict", "left_out",
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["data", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def pixels(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def pictures(root: str, count: int = 12) -> Path:
    folder = Path(root)
    folder.mkdir()
    for index in range(count):
        trouble.picture(index).save(folder / f"{index}.png")
    return folder


def test_a_report_says_what_to_type_next_and_keeps_a_preview(capsys: pytest.CaptureFixture[str]) -> None:
    pictures("own")
    assert main(["data", "show", "data=image_folder", "data.root=own", "data.size=32"]) == 0
    out = capsys.readouterr().out
    assert "pictures    12:" in out
    assert out.endswith("next: aigc train model=gan data=image_folder data.root=own data.size=32\n")
    assert pixels(Path("outputs/data/own.png")).size[0] > 10 * 32


def test_what_comes_next_has_the_size_that_a_finding_proposes(capsys: pytest.CaptureFixture[str]) -> None:
    folder = pictures("own")
    for path in folder.iterdir():
        pixels(path).resize((40, 40)).save(path)
    for typed in ([], ["data.size=64"]):
        found = told(capsys, "data=image_folder", "data.root=own", *typed)
        assert [each["hint"] for each in found["findings"] if each["code"] == "small"] == [
            "data.size=32 or less enlarges few"
        ]
        assert found["next"] == "aigc train model=gan data=image_folder data.root=own data.size=32"


def test_text_is_shown_as_training_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("zh.txt").write_text("".join(chr(0x4E00 + index * index % 1999) for index in range(9000)), encoding="utf-8")
    words = ["data=text", "data.root=zh.txt"]
    found = told(capsys, *words)
    assert "recipe/text_han_kana.yaml" in found["recipes"]
    assert 900 < found["tokens"]["train"]["vocabulary"] < 2100
    assert "many_characters" not in {finding["code"] for finding in found["findings"]}
    assert told(capsys, *words, "data.tokenizer.kind=byte")["tokens"]["train"]["vocabulary"] == 260


def test_where_training_would_stop_it_does_not_come_next(capsys: pytest.CaptureFixture[str]) -> None:
    folder = pictures("own")
    (folder / "notes.txt").write_text("hi")
    found = told(capsys, "data=text", "data.root=own")
    assert [finding["code"] for finding in found["findings"]].count("refused") == 1
    assert found["next"] == "aigc data show data=image_folder data.root=own"
    assert told(capsys, "data=text", "data.root=own/notes.txt")["next"] is None
    findings = told(capsys, "data=image_folder", "data.root=own", "data.size=128", "preview=false")["findings"]
    assert "data.size=64 or less enlarges few" in [finding["hint"] for finding in findings]


def test_a_held_out_part_that_cannot_be_read_is_named_and_left_out_of_a_copy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = pictures("pictures", 8)
    rows = [{"bytes": path.read_bytes(), "path": None} for path in sorted(folder.iterdir())]
    Path("own").mkdir()
    pq.write_table(pa.table({"image": rows}), "own/train.parquet")
    Path("own/val.parquet").write_bytes(b"PAR1 and no more")
    words = ["data=parquet", "data.root=own", "data.size=16"]
    assert told(capsys, *words)["next"].startswith("aigc data prepare")
    assert main(["data", "prepare", *words, "out=copy"]) == 0
    assert "own/val.parquet cannot be read as parquet" in capsys.readouterr().out
    left_out = json.loads(Path("copy/.prepared.json").read_text())["left_out"]
    assert list(left_out.values()) == [["the val split"]]


def test_show_is_what_happens_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "data=digits", "data.size=8", "preview=false")["items"]["train"] == 1258
    assert not Path("outputs").exists()


def test_nothing_to_read_is_exit_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", "data=image_folder", "data.root=nowhere"]) == 3
    Path("empty").mkdir()
    assert main(["data", "show", "data=image_folder", "data.root=empty"]) == 3


@pytest.mark.parametrize("kind", DATA)
def test_training_on_a_copy_of_troubled_data_warns_of_nothing(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    getattr(trouble, kind)(Path(kind))
    prepared = told(capsys, "prepare", *DATA[kind], f"data.root={kind}", "out=clean", "dedup=near")
    assert prepared["left_out"]
    assert {"train", "val", "test"} == set(prepared["items"])
    assert json.loads(Path("clean/.prepared.json").read_text())["items"] == prepared["items"]
    words = shlex.split(prepared["next"])
    model = words[2].partition("=")[2]
    assert words[:2] == ["aigc", "train"]
    assert main([*words[1:], *SMALL[model], "trainer.steps=2", "trainer.device=cpu"]) == 0
    assert "warning" not in capsys.readouterr().err
    codes = {finding["code"] for finding in told(capsys, "show", *words[3:], "preview=false")["findings"]}
    assert not codes & MENDED


def test_a_copy_as_parquet_keeps_labels_and_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cat", "dog"):
        pictures(name)
    Path("own").mkdir()
    Path("cat").rename("own/cat")
    Path("dog").rename("own/dog")
    for path in Path("own/dog").iterdir():
        pixels(path).rotate(90, expand=True).save(path)
    words = ["prepare", "data=image_folder", "data.root=own", "format=parquet", "size=null", "out=table"]
    assert sum(told(capsys, *words)["items"].values()) == 24
    table = pq.read_table("table/train-00000-of-00001.parquet")
    assert table.column_names == ["image", "label"]
    found = told(capsys, "show", "data=parquet", "data.root=table", "data.size=32", "preview=false")
    assert found["classes"] == {"cat": 12, "dog": 12}
    assert found["short_side"] == [72, 72, 72]


def test_splits_follow_what_pictures_show_not_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    folder = pictures("own", 40)
    words = ["prepare", "data=image_folder", "data.root=own", "data.size=16", "data.val_fraction=0.2"]
    told(capsys, *words, "out=one")
    for path in list(folder.iterdir()):
        path.rename(folder / f"other{path.name}")
    told(capsys, *words, "out=two")
    one, two = ({pixels(path).tobytes() for path in Path(name, "val").rglob("*.png")} for name in ("one", "two"))
    assert one == two


def test_copies_that_are_kept_are_on_one_side(capsys: pytest.CaptureFixture[str]) -> None:
    folder = pictures("own", 20)
    for path in list(folder.iterdir()):
        path.with_name(f"again-{path.name}").write_bytes(path.read_bytes())
    words = ["data=image_folder", "data.root=own", "data.size=16", "dedup=false"]
    assert sum(told(capsys, "prepare", *words, "data.val_fraction=0.3", "out=whole")["items"].values()) == 40
    splits = [
        {pixels(path).tobytes() for path in Path("whole", split).rglob("*.png")} for split in ("train", "val", "test")
    ]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 20


def test_a_copy_without_classes_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    folder = pictures("own")
    (folder / "metadata.csv").write_text("file_name,label\n0.png,cat\n")
    changed = told(capsys, "prepare", "data=image_folder", "data.root=own", "data.size=16", "out=copy")["changed"]
    (why,) = changed
    assert why.startswith("without classes: 11 of 12 pictures have no row in the metadata")


@pytest.mark.parametrize("labelled", [False, True])
def test_a_single_picture_is_trained_on(labelled: bool, capsys: pytest.CaptureFixture[str]) -> None:
    folder = pictures("own", 1)
    if labelled:
        (folder / "cat").mkdir()
        (folder / "0.png").rename(folder / "cat/0.png")
    words = ["data=image_folder", "data.root=own", "data.size=16", "data.val_fraction=0.5", "data.test_fraction=0.49"]
    assert told(capsys, "prepare", *words, "out=copy")["items"] == {"train": 1}


def test_the_copy_that_is_proposed_lies_beside_the_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pictures("own")
    (folder / "copy.png").write_bytes((folder / "3.png").read_bytes())
    Path("own-clean").mkdir()
    monkeypatch.chdir(folder)
    words = shlex.split(told(capsys, "show", "data=image_folder", "data.root=.", "preview=false")["next"])
    assert main(words[1:]) == 0
    assert (folder.absolute().parent.parent / "own-clean-2" / "train").is_dir()


def test_a_folder_that_holds_something_is_not_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    pictures("own")
    words = ["data", "prepare", "data=image_folder", "data.root=own"]
    assert main([*words, "out=own"]) == 2
    assert main([*words, "out=own/within"]) == 2
    assert main(words) == 2
    assert main([*words, "out=new", "format=tsv"]) == 2
    assert not [path for path in Path().iterdir() if path.name != "own"]


def test_one_text_is_cut_at_positions_into_plain_files(capsys: pytest.CaptureFixture[str]) -> None:
    Path("book.txt").write_bytes("".join(trouble.story(seed) for seed in range(20)).replace("\n", "\r\n").encode())
    told(capsys, "prepare", "data=text", "data.root=book.txt", "out=clean")
    parts = [Path("clean", f"{split}.txt").read_bytes().decode() for split in ("train", "val", "test")]
    assert "".join(parts) == Path("book.txt").read_bytes().decode().replace("\r\n", "\n")


def test_a_modality_from_outside_is_counted_and_searched_for_copies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "plugins" / "signals")
    found = told(capsys, "--plugin", "signals", "data=signals")
    assert found["items"] == {"train": 1400, "val": 200, "test": 400}
    assert set(found["classes"].values()) == {500}
    assert found["next"] == "aigc train data=signals --plugin signals"
    assert main(["data", "prepare", "--plugin", "signals", "data=signals", "out=copy"]) == 2


@pytest.mark.parametrize("form", ["txt", "jsonl"])
def test_documents_stay_apart_in_a_copy(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own").mkdir()
    for seed in range(30):
        Path("own", f"{seed}.txt").write_text(trouble.story(seed))
    Path("own", "again.txt").write_text(trouble.story(3).upper())
    words = ["data=text", "data.split_by=document", "data.val_fraction=0.2", "data.test_fraction=0.2"]
    prepared = told(capsys, "prepare", *words, "data.root=own", f"format={form}", "dedup=near", "out=clean")
    assert sum(prepared["items"].values()) == 30
    found = told(capsys, "show", *shlex.split(prepared["next"])[3:], "preview=false")
    assert found["items"] == prepared["items"]


def test_a_split_without_classes_stays_without(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own").mkdir()
    for split in ("train", "test"):
        rows = []
        for index in range(8):
            buffer = io.BytesIO()
            trouble.picture(100 * len(split) + index).save(buffer, format="PNG")
            label = {"label": ("cat", "dog")[index % 2]} if split == "train" else {}
            rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, **label})
        pq.write_table(pa.Table.from_pylist(rows), f"own/{split}.parquet")
    words = ["prepare", "data=parquet", "data.root=own", "data.size=16"]
    assert main(["data", *words, "format=folder", "out=clean"]) == 2
    prepared = told(capsys, *words, "data.val_fraction=0.1", "out=clean")
    assert prepared["items"] == {"train": 7, "val": 1, "test": 8}
    found = told(capsys, "show", *shlex.split(prepared["next"])[3:], "preview=false")
    assert found["classes"] == {"cat": 4, "dog": 4}
    assert found["items"] == prepared["items"]
