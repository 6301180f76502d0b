"""``aigc eval`` of files: images, statistics and text on either side, without a run or beside one."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import pictures, told
from PIL import Image

from aigc_cli.cli import main
from aigc_cli.config.compose import compose
from aigc_cli.data import open_dataset
from aigc_cli.runs import Run

DOCS = Path(__file__).resolve().parents[2] / "docs" / "evaluate.md"


pytestmark = pytest.mark.usefixtures("small_classifier")


# statistics


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["stats", "data=digits"], "out="),
        (["stats", "data=digts", "out=s.npz"], "did you mean digits?"),
        (["data=digts", "--metric", "fd"], "did you mean digits?"),
        (["stats", "data=digits", "out=s.txt"], ".npz"),
        (["stats", "data=digits", "metric=fd,fid", "out=s.npz"], "one extractor"),
        (["stats", "data=digits", "metric=[fd,likelihood]", "out=s.npz"], "likelihood uses no features"),
        (["stats", "data=digits", "metric=bleu", "out=s.npz"], "bleu uses no features"),
        (["stats", "data=digits", "metric=fd", "n=5000", "out=s.npz"], "there are 1,258 images in the train split"),
        (["statz", "data=digits"], "did you mean stats?"),
        (["comapre", "run=a,b"], "did you mean compare?"),
        (["compare", "run=latest"], "several runs"),
        (["compare", "run=a.json,b"], "records and runs"),
        (["reference=nothing", "fake=x"], "nothing"),
        (["resize=lanczos"], "lanczos"),
        (["extractor=clasifier"], "clasifier"),
        (["--metric", "bleu"], "bleu does not measure images"),
        (["--metric", "bleu,fd", "fake=hyp.txt"], "one of them at a time"),
        (["seeds=0"], "seeds=0"),
        (["fake=i.npz", "seeds=2"], "fake= is one set"),
        (["fake="], "fake="),
        (["out=i.npz"], "i.npz is not a folder"),
        (["out=i.npz/figures"], "i.npz is not a folder"),
        (["stats", "metric=fd", "out=i.npz/s.npz"], "i.npz is not a folder"),
        (["stats", "metric=fd", "out=d.npz"], "d.npz is a folder"),
    ],
    ids=str,
)
def test_wrong_words(tiny_run: Run, words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(Path("i.npz"), 4, 0)
    Path("d.npz").mkdir()
    assert main(["eval", *words]) == 2
    message = capsys.readouterr().err
    assert named in message
    assert len(message.strip().splitlines()) <= 3


@pytest.mark.parametrize(
    "line",
    [
        "fake=absent", "fake=i.npz real=absent", "fake=i.npz held_out=absent", "--metric bleu fake=absent real=i.npz",
        "--metric bleu fake=line.txt real=absent", "compare run=absent.json,line.json", "weights=absent --metric fid",
    ],
)  # fmt: skip
def test_a_path_that_is_not_there_is_data_that_is_missing(
    tiny_run: Run, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(Path("i.npz"), 4, 0)
    Path("line.txt").write_text("a line\n")
    assert main(["eval", *line.split()]) == 3
    assert ("absent" if "--metric" in line or "compare" in line else f"{line.split()[-1]}: ") in capsys.readouterr().err
    assert not (tiny_run.path / "eval").exists()


def test_the_floor_from_class_folders_is_of_all_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = open_dataset(compose("train", ["data=digits", "data.size=8"])["data"], "train")
    items = [dataset.read(i) for i in range(500)]
    for i, (image, label) in enumerate(items[100:]):
        folder = Path("held") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / f"{i}.png")
    np.savez("mixed.npz", images=torch.stack([image for image, _ in items[100:]])[:, 0].numpy())
    np.savez("fake.npz", images=torch.stack([image for image, _ in items[:60]])[:, 0].numpy())
    words = ["--metric", "fd", "fake=fake.npz", "real=mixed.npz", "data=digits", "data.size=8"]
    sorted_by_class, mixed = (
        told(capsys, *words, f"held_out={name}")["results"][0]["floor"] for name in ("held", "mixed.npz")
    )
    assert sorted_by_class["n"] == mixed["n"] == 60
    assert sorted_by_class["figures"]["fd"] == pytest.approx(mixed["figures"]["fd"], rel=0.5)


def test_what_is_near_is_told_by_all_held_out_images_however_few_are_judged(
    tiny_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    records = {n: told(capsys, "--metric", "fd,memorization", f"n={n}")["results"] for n in (2, 60)}
    assert {n: memorization["held_out"]["n"] for n, (_, memorization) in records.items()} == {2: 359, 60: 359}
    assert {n: fd["floor"]["n"] for n, (fd, _) in records.items()} == {2: 2, 60: 60}
    assert records[2][1]["floor"]["figures"] == records[60][1]["floor"]["figures"]
    assert main(["eval", "--metric", "fd,memorization", "n=60"]) == 0
    assert "held-out real (n=60)" in (printed := capsys.readouterr().out)
    assert re.search(r"^closer\S* .* \(n=180\)", printed, flags=re.MULTILINE)
    assert main(["eval", "--metric", "memorization", "n=1"]) == 3
    assert "1 generated items are too few" in capsys.readouterr().err


# runs


def test_another_run_as_the_reference(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    record = told(capsys, "--metric", "fd", "n=200", f"reference={tiny_run.name}")["results"][0]
    assert record["real"]["seed"] == 1  # not the very samples that it is compared with
    assert record["real"]["n"] == record["generated"]["n"] == 200
    assert record["floor"] is None
    against_data = told(capsys, "--metric", "fd", "n=200")["results"][0]
    assert 0 < record["figures"]["fd[digits-cnn]"] < against_data["figures"]["fd[digits-cnn]"] / 5


# extractors


def test_an_extractor_of_ones_own_as_the_documentation_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (block,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    Path("my_grid.py").write_text(block)
    sides = [f"fake={pictures(Path('a.npz'), 40, 0)}", f"real={pictures(Path('b.npz'), 40, 1)}"]
    words = ["run=null", "--metric", "fd,prdc", *sides, "extractor=grid", "--plugin", "my_grid"]
    records = {record["metric"]: record for record in told(capsys, *words)["results"]}
    assert set(records["prdc"]["figures"]) == {
        f"{name}[grid4]" for name in ("precision", "recall", "density", "coverage")
    }
    assert records["fd"]["extractor"]["name"] == "grid4"
    assert main(["eval", "--metric", "cs", *sides, "extractor=grid"]) == 2
    assert "needs logits" in capsys.readouterr().err


@pytest.mark.slow
def test_a_network_of_torchvisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torchvision

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), "w.pth")
    sides = [f"fake={pictures(Path('a.npz'), 6, 0)}", f"real={pictures(Path('b.npz'), 6, 1)}"]
    words = ["--metric", "fd", *sides, "extractor=torchvision", "model=resnet18", "weights=w.pth"]
    record = told(capsys, *words)["results"][0]
    assert record["extractor"]["name"].startswith("resnet18-")
    assert "ImageNet" in record["extractor"]["preprocessing"]
    lower = told(capsys, *words, "dtype=bfloat16")["results"][0]
    assert lower["dtype"] == "bfloat16"
    assert lower["figures"] != record["figures"]


# text


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("hyp.txt").write_text("the cat sat on the mat\r\na dog barks at the moon\r\n")
    Path("ref.txt").write_text("the cat sat on a mat\nthe dog barked at the moon\n")
    return tmp_path


def test_text_files_with_a_line_an_item(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sacrebleu.metrics import BLEU

    names = "bleu,chrf,rouge,distinct,self_bleu,repetition,copied"
    shown = told(capsys, "--metric", names, "fake=hyp.txt", "real=ref.txt", "out=figures", "metric.repetition.n=2")
    records = {record["metric"]: record for record in shown["results"]}
    assert set(records) == set(names.split(","))
    lines = [(texts / name).read_text().splitlines() for name in ("hyp.txt", "ref.txt")]
    assert records["bleu"]["figures"]["bleu"] == BLEU().corpus_score(lines[0], [lines[1]]).score
    assert "version:2" in records["bleu"]["facts"]["signature"]
    assert records["bleu"]["generated"]["n"] == records["bleu"]["real"]["n"] == 2
    assert len(list((texts / "figures").iterdir())) == len(names.split(","))
    assert main(["eval", "--metric", "bleu", "fake=hyp.txt", "real=ref.txt"]) == 0
    Path("hyp.jsonl").write_text('{"text": "a line"}\n')
    assert main(["eval", "--metric", "bleu", "fake=hyp.jsonl", "real=ref.txt"]) == 2
    out = capsys.readouterr().out
    assert "2 lines of hyp.txt, against 2 lines of ref.txt" in out
    assert "bleu: nrefs:1" in out


def test_words_that_text_does_not_hear(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--metric", "distinct", "fake=hyp.txt", "real=ref.txt"]
    assert main(["eval", *words]) == 0
    assert capsys.readouterr().err.count("has no effect") == 1  # real=
    idle = ["seed=3", "seeds=2", "extractor=classifier", "run=another", "data=digits"]
    assert main(["eval", *words, *idle, "n=1"]) == 0
    warned = capsys.readouterr().err
    for key in ("seed", "seeds", "extractor", "real", "run", "data"):
        assert f"warning: {key}= has no effect here" in warned
    assert " n= " not in warned
    assert main(["eval", *words, "temperature=2"]) == 2
    assert "no key temperature" in capsys.readouterr().err


def test_more_lines_than_there_are_are_not_measured(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--metric", "bleu", "fake=hyp.txt", "real=ref.txt", "n=2"]) == 0
    assert main(["eval", "--metric", "bleu", "fake=hyp.txt", "real=ref.txt", "n=3"]) == 2
    assert "n=3: there are 2 lines in hyp.txt" in capsys.readouterr().err


def test_text_that_does_not_fit_gives_no_number(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("one.txt").write_text("one line\n")
    Path("empty.txt").write_text("")
    Path("latin.txt").write_bytes("naïve\n".encode("latin-1"))
    for fake in ("one.txt", "empty.txt", "latin.txt"):
        assert main(["eval", "--metric", "bleu", f"fake={fake}", "real=ref.txt", "--json"]) == 3
        assert not capsys.readouterr().out
    assert main(["eval", "--metric", "bleu", "fake=hyp.txt"]) == 2
