"""``aigc eval stats``: statistics of data and of files, written once and compared with later."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from evaluations import figure, pictures, told

from aigc_cli.cli import main
from aigc_cli.runs import Run

pytestmark = pytest.mark.usefixtures("small_classifier")


def test_statistics_of_the_reference_give_the_figure_of_the_reference(
    tiny_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    made = told(capsys, "stats", "out=s.npz", "metric=fd")
    assert made["n"] == 1258
    assert made["images"]["split"] == "train"
    wanted = figure(capsys, "--metric", "fd", "n=50")
    record = told(capsys, "--metric", "fd", "n=50", "real=s.npz")["results"][0]
    assert record["figures"]["fd[digits-cnn]"] == pytest.approx(wanted, abs=1e-9)
    assert (record["floor"]["split"], record["floor"]["n"]) == ("test", 50)
    assert main(["eval", "--metric", "prdc", "n=50", "real=s.npz"]) == 2
    assert "prdc needs the reference items" in capsys.readouterr().err


def test_statistics_need_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made = told(capsys, "stats", "data=digits", "data.size=8", "data.test_fraction=0.2", "metric=fd", "out=d.npz")
    assert made["extractor"] == "digits-cnn"
    words = ["--metric", "fd", "data=digits", "data.size=8"]
    own = told(capsys, *words, f"fake={pictures(tmp_path / 'i.npz', 30, 0)}")["results"][0]
    assert own["real"]["data"] == "digits"
    assert own["floor"]["n"] == 30
    again = told(capsys, *words, f"fake={tmp_path / 'i.npz'}", "real=d.npz")["results"][0]
    assert again["figures"] == pytest.approx(own["figures"], rel=1e-9)
    swapped = told(capsys, *words, "fake=d.npz", f"real={tmp_path / 'i.npz'}")["results"][0]["figures"]
    assert swapped["fd[digits-cnn]"] == pytest.approx(own["figures"]["fd[digits-cnn]"], rel=1e-9)


def test_statistics_of_files_through_the_classifier_of_a_dataset(
    tiny_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"real={pictures(Path('i.npz'), 30, 0)}", "data=digits", "data.size=8", "metric=vendi"]
    assert main(["eval", "stats", *words, "out=of files.npz"]) == 0
    (following,) = re.findall("^next: aigc (.*)$", capsys.readouterr().out, flags=re.MULTILINE)
    assert "data=digits" in following
    (record,) = told(capsys, *shlex.split(following)[1:])["results"]
    assert record["extractor"]["name"] == "digits-cnn"
    assert record["real"]["n"] == 30


def test_one_image_has_no_statistics(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "stats", "metric=fd", "n=1", "out=s.npz"]) == 3
    assert "too few" in capsys.readouterr().err
    assert not Path("s.npz").exists()


def test_a_torn_file_of_statistics_gives_no_number(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("s.npz", mu=np.full(128, np.nan), sigma=np.eye(128))
    assert main(["eval", "--metric", "fd", "n=50", "real=s.npz", "--json"]) == 3
    shown = capsys.readouterr()
    assert not shown.out
    assert "NaN" in shown.err


def test_statistics_that_do_not_say_of_how_many_images(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("s.npz", mu=np.zeros(128), sigma=np.eye(128))
    record = told(capsys, "--metric", "fd", "n=50", "real=s.npz")["results"][0]
    assert record["real"]["n"] is None
    record = told(capsys, "--metric", "fd", "fake=s.npz", "out=figures")["results"][0]
    assert record["generated"]["n"] is None
    assert main(["eval", "--metric", "fd", "fake=s.npz", "n=7", "out=figures"]) == 0
    shown = capsys.readouterr()
    assert "n unknown" in shown.out
    assert "n= has no effect here" in shown.err


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("word", ["fake=a.npz", "reference=latest", "truncation=0.5"])
def test_statistics_are_of_nothing_that_a_run_generates(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "stats", "data=digits", "data.size=8", "metric=fd", "out=s.npz"]
    assert main([*words, word]) == 2
    message = capsys.readouterr().err
    assert ("no key truncation" if word.startswith("trunc") else "name such items with real=") in message
    assert not Path("s.npz").exists()
    assert main([*words, "real=a.npz"]) == 0  # and so a folder that aigc sample has written


@pytest.mark.usefixtures("files")
def test_statistics_tell_of_words_that_change_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "stats", "data=digits", "data.size=8", "metric=fd", "out=s.npz"]
    idle = ["held_out=b.npz", "seeds=2", "seed=4", "step=3", "resize=clean", "weights=w.pth", "model=resnet18"]
    assert main([*words, *idle]) == 0
    said = capsys.readouterr().err
    for key in ("held_out", "seeds", "seed", "step", "resize", "weights", "model= or backbone"):
        assert f"warning: {key}= has no effect here" in said
    assert main([*words, "n=30", "batch_size=7", "split=test", "dtype=bfloat16"]) == 0
    assert "has no effect" not in capsys.readouterr().err


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("words", "idle"),
    [
        (["real=a.npz", "data=digits", "extractor=inception", "weights=none.pth"], "data"),
        (["data=digits", "metric=fd", "run=another"], "run"),
        (["data=digits", "real=a.npz", "metric=fd", "data.size=8"], None),  # it trains the extractor
    ],
)
def test_statistics_tell_of_a_source_that_is_not_asked(
    words: list[str], idle: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["eval", "stats", *words, "out=s.npz"])
    warned = re.findall("warning: (.*)= has no effect here", capsys.readouterr().err)
    assert warned == ([] if idle is None else [idle])
