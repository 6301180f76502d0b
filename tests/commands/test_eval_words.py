"""What ``aigc eval`` says of words that lack something, change nothing or name no place, with hints that work."""

from pathlib import Path

import pytest

from aigc_cli.cli import main
from aigc_cli.errors import DataError
from aigc_cli.runs import Run

pytestmark = pytest.mark.usefixtures("small_classifier", "files")


@pytest.mark.parametrize(
    ("line", "says"), [("--metric vendi", "learns from real items"), ("--metric cs", "learns from a dataset's labels")]
)
def test_what_learns_from_data_asks_for_some(line: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", *line.split(), "fake=a.npz"]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert says in message
    assert "data=" in message
    assert "no run" not in message
    assert main([*words, "data=digits", "data.size=8"]) == 0


def test_two_folders_compare_by_what_is_learnt_from_the_real_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--metric", "fd,prdc", "fake=a.npz", "real=b.npz"]) == 0
    assert "fd[own-ssl]" in capsys.readouterr().out


@pytest.mark.parametrize("metric", ["fd", "kd", "prdc", "fid", "fd_infinity", "memorization"])
def test_files_without_a_reference_are_told_of_both_that_there_may_be(
    metric: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "--metric", metric, "fake=a.npz"]) == 2
    message = capsys.readouterr().err
    assert f"{metric} needs items to compare with\n  name some with real=, or a dataset with data=" in message


def test_files_have_no_classes_and_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    for metric, says in (("class_accuracy", "learns from a dataset"), ("likelihood", "needs a model")):
        assert main(["eval", "--metric", metric, "fake=a.npz"]) == 2
        assert says in capsys.readouterr().err
    Path("a.txt").write_text("a line\n")
    assert main(["eval", "--metric", "likelihood", "fake=a.txt"]) == 2
    assert "images" not in capsys.readouterr().err
    assert main(["eval", "stats", "metric=fd", "out=s.npz"]) == 2
    assert "a dataset with data=" in capsys.readouterr().err


def test_what_follows_is_told_where_there_is_a_run_to_go_on_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--metric", "fd", "fake=a.npz", "real=b.npz", "data=digits", "data.size=8"]) == 0
    assert "next:" not in capsys.readouterr().out


def test_the_hint_for_missing_weights_works_without_a_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise DataError("no connection")

    monkeypatch.setattr("aigc_cli.metrics.extractors.pretrained.download", refuse)
    monkeypatch.setenv("TORCH_HOME", "torch")
    assert main(["eval", "--metric", "fid", "fake=a.npz", "real=b.npz"]) == 3
    message = capsys.readouterr().err
    assert "`aigc eval --metric fd,prdc` needs no such file" in message
    words = ["--metric", "fd,prdc", "data=digits", "data.size=8", "fake=a.npz", "real=b.npz"]
    assert main(["eval", *words]) == 0


def test_only_a_run_that_has_a_best_checkpoint_is_offered_it(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    best = tiny_run.path / "best.json"
    best.unlink(missing_ok=True)
    assert main(["eval", "--metric", "fd", "step=77"]) == 2
    assert "best" not in capsys.readouterr().err
    best.write_text('{"step": 5, "value": 1}')
    assert main(["eval", "--metric", "fd", "step=77"]) == 2
    assert "best" in capsys.readouterr().err


def test_a_run_that_is_named_and_not_there_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--metric", "vendi", "fake=a.npz", "run=nothing"]) == 2
    assert "there is no run 'nothing'" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc, which takes no files from anyone")
@pytest.mark.parametrize(
    "line",
    [
        "eval stats data=digits metric=fd out=/proc/s.npz", "eval stats data=digits metric=fd out=/proc/a/s.npz",
        "eval data=digits metric=fd fake=a.npz out=/proc/a", "train trainer.steps=1 run_dir=/proc/a",
        "train trainer.steps=1 outputs=/proc/a",
    ],
)  # fmt: skip
def test_a_place_that_takes_no_files_is_told_of_first(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 5
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith("aigc: cannot write to /proc")
    assert len(said.err.splitlines()) == 2


@pytest.mark.parametrize("line", ["eval data=digits fake=a.npz out=", "eval stats out=", "sample out=", "eval run="])
def test_a_name_that_no_file_can_have_is_told_of(tiny_run: Run, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(f"{line}{'a' * 300}.npz".split()) == 2
    assert "path: File name too long" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["metric=", "metric=[]"])
def test_no_metric_at_all_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", word, "fake=a.npz"]) == 2
    assert "metric= names no metric" in capsys.readouterr().err
