"""``aigc eval``: from words to figures, files and exit codes."""

import errno
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aigc_cli.cli import main
from aigc_cli.runs import Run

pytestmark = pytest.mark.usefixtures("small_classifier")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three folders of pictures: noise, darker noise, and more noise."""
    monkeypatch.chdir(tmp_path)
    for name, high, seed in (("real", 256, 0), ("fake", 128, 1), ("more", 256, 2)):
        (tmp_path / name).mkdir()
        for i, pixels in enumerate(np.random.default_rng(seed).integers(0, high, (12, 8, 8, 3), dtype=np.uint8)):
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return tmp_path


def read(folder: Path) -> dict[str, dict[str, Any]]:
    return {json.loads(path.read_text())["metric"]: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_no_words_at_all(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval"]) == 0
    shown = capsys.readouterr().out
    for part in ("fd[digits-cnn]", "coverage[digits-cnn]", "generated (n=1,258)", "held-out real (n=359)", "accuracy"):
        assert part in shown
    assert shown.splitlines()[-1] == f"next: aigc eval --metric memorization run={tiny_run.name}"
    records = read(tiny_run.path / "eval")
    assert set(records) == {"fd", "prdc"}
    record = records["fd"]
    assert record["figures"]["fd[digits-cnn]"] > 5 * record["floor"]["figures"]["fd"] > 0
    assert record["floor"]["n"] == record["generated_at_floor_n"]["n"] == 359
    assert (record["floor"]["split"], record["real"]["split"], record["real"]["n"]) == ("test", "train", 1258)
    assert (record["generated"]["n"], record["generated"]["seed"], record["generated"]["step"]) == (1258, 0, 5)
    assert all(len(record[side][key]) == 64 for side, key in (("extractor", "sha256"), ("generated", "checkpoint")))
    assert len(record["real"]["fingerprint"]) == 64
    assert record["extractor"]["accuracy"] > 0.5
    assert record["versions"]["torch"] == version("torch")
    assert set(records["prdc"]["figures"]) == {
        f"{x}[digits-cnn]" for x in ("precision", "recall", "density", "coverage")
    }


def test_a_run_that_its_minutes_cut_short_is_to_be_trained_on(
    tiny_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = {**tiny_run.config["trainer"], "minutes": 2, "steps": 50}
    tiny_run.save_config({**tiny_run.config, "trainer": trainer}, tiny_run.spec)
    assert main(["eval", "n=40", "--metric", "prdc", "metric.prdc.k=3"]) == 0
    note, following = capsys.readouterr().out.splitlines()[-2:]
    assert note == "note: it was trained for 10% of the 50 steps of a full run: rougher results"
    assert following == f"next: aigc train --resume {tiny_run.name} trainer.minutes=20"


def test_what_to_type_next_does_not_go_in_a_circle(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "n=40", "truncation=0.7", "--metric", "prdc", "metric.prdc.k=3"]) == 0
    following = capsys.readouterr().out.splitlines()[-1]
    assert following == f"next: aigc eval --metric memorization n=40 truncation=0.7 run={tiny_run.name}"
    assert main(following.split()[2:]) == 0
    following = capsys.readouterr().out.splitlines()[-1]
    assert following == f"next: aigc sample truncation=0.7 run={tiny_run.name}"
    assert main([*following.split()[2:], "n=2"]) == 0
    capsys.readouterr()
    assert main(["eval", "n=40", "--metric", "prdc"]) == 0
    longer = f"next: aigc train --resume {tiny_run.name} trainer.steps={2 * tiny_run.step}"
    assert capsys.readouterr().out.splitlines()[-1] == longer
    (tiny_run.path / "best.json").write_text('{"step": 2, "value": 1.0}')
    assert main(["eval", "n=40", "--metric", "prdc"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"next: aigc eval step=best n=40 run={tiny_run.name}"


def test_json_is_all_there_is_on_stdout(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "eval",
        "n=40",
        "--metric",
        "fd,prdc,kid,is",
        "metric.kid.extractor=classifier",
        "metric.is.extractor=classifier",
    ]
    assert main([*words, "metric.kid.subset_size=30", "metric.kid.subsets=4", "metric.prdc.k=3", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    results = {record["metric"]: record for record in shown["results"]}
    assert set(results) == {"fd", "prdc", "kid", "is"}
    assert "fewer than the 128 features" in results["fd"]["notes"][0]
    assert results["prdc"]["config"]["k"] == 3
    assert {path.name for path in (tiny_run.path / "eval").iterdir()} == {Path(file).name for file in shown["files"]}


def test_the_same_words_give_the_same_figures_and_others_others(tiny_run: Run) -> None:
    def figure(*words: str) -> float:
        assert main(["eval", "--metric", "fd", "n=30", *words]) == 0
        newest = max((tiny_run.path / "eval").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        return float(json.loads(newest.read_text())["figures"]["fd[digits-cnn]"])

    first = figure()
    assert figure() == first
    assert len(list((tiny_run.path / "eval").iterdir())) == 1
    assert figure("batch_size=7") == pytest.approx(first, rel=1e-3)
    for other in ("seed=1", "step=3", "split=test"):
        assert figure(other) != pytest.approx(first, rel=1e-6)


def test_two_folders_need_no_run(folders: Path, capsys: pytest.CaptureFixture[str], random_inception: Path) -> None:
    words = ["eval", "--metric", "fid", "fake=fake", "real=real", "held_out=more", f"weights={random_inception}"]
    assert main([*words, "out=figures", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["results"]
    ((label, figure),) = record["figures"].items()
    assert label.startswith("fid[inception-v3-compat-")  # random weights are not FID's
    assert figure > record["floor"]["figures"]["fid"]
    assert len(list((folders / "figures").iterdir())) == 1


def test_what_looks_at_no_real_image_needs_neither_run_nor_reference(
    folders: Path, capsys: pytest.CaptureFixture[str], random_inception: Path
) -> None:
    words = ["eval", "--metric", "is", "fake=fake", "metric.is.splits=2", f"weights={random_inception}", "--json"]
    assert main(words) == 0
    (record,) = json.loads(capsys.readouterr().out)["results"]
    assert (record["generated"]["n"], record["real"], record["floor"]) == (12, {"n": 0}, None)
    assert main([*words, "data=digits"]) == 0  # of another size, which only its floor is of
    (beside,) = json.loads(capsys.readouterr().out)["results"]
    assert beside["floor"]["split"] == "test"


def test_folders_need_no_labels(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "fake=fake", "real=real"]) == 0
    assert "fd[own-ssl]" in capsys.readouterr().out


def test_a_folder_against_the_data_of_a_run(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("pictures")
    folder.mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i}.png")  # colour, which becomes the data's grey
    assert main(["eval", "--metric", "fd", "fake=pictures", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["results"]
    assert record["generated"]["n"] == 40
    assert record["real"]["data"] == "digits"


def _empty(run: Run) -> list[str]:
    Path("no-pictures").mkdir()
    return ["fake=no-pictures"]


def _wrong_size(run: Run) -> list[str]:
    Path("pictures").mkdir()
    Image.new("L", (9, 9)).save("pictures/a.png")
    return ["fake=pictures"]


def _text(run: Run) -> list[str]:
    Path("pictures").mkdir()
    Path("pictures/a.png").write_text("not a picture")
    return ["fake=pictures"]


def _broken_config(run: Run) -> list[str]:
    (run.path / "config.yaml").write_text("model:\n  name: gan\n")
    return []


def _corrupt_weights(run: Run) -> list[str]:
    Path("w.pth").write_bytes(b"not weights")
    return ["--metric", "fid", "weights=w.pth"]


@pytest.mark.parametrize(
    "wrong", [_empty, _wrong_size, _text, _corrupt_weights, _broken_config], ids=lambda f: f.__name__
)
def test_what_cannot_be_trusted_gives_no_number(tiny_run: Run, wrong: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *wrong(tiny_run), "--json"]) == 3
    shown, notes = capsys.readouterr()
    assert not shown
    assert "Traceback" not in notes
    assert not (tiny_run.path / "eval").exists()


@pytest.mark.parametrize("words", [["n=1"], ["n=5", "--metric", "prdc"]], ids=" ".join)
def test_too_few_images_give_no_number(tiny_run: Run, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *words]) == 3
    assert "too few" in capsys.readouterr().err


def test_a_model_that_draws_nan_gives_no_number(
    tiny_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from aigc_cli.models.gan.gan import GAN

    monkeypatch.setattr(GAN, "sample", lambda self, noise, *_: torch.full((len(noise), 1, 8, 8), float("nan")))
    assert main(["eval", "--metric", "fd", "n=20"]) == 3
    assert "NaN or Inf" in capsys.readouterr().err


def test_without_inceptions_weights(
    tiny_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from aigc_cli.errors import DataError

    def refuse(*args: object, **kwargs: object) -> None:
        raise DataError("no connection")

    monkeypatch.setattr("aigc_cli.metrics.extractors.pretrained.download", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tiny_run.path))
    assert main(["eval", "--metric", "fid"]) == 3
    message = capsys.readouterr().err
    assert "are not here: no connection" in message  # of ours: nothing was asked of the network
    for part in ("pt_inception-2015-12-05-6726825d.pth", "SHA-256 6726825d", "weights=FILE", "--metric fd,prdc"):
        assert part in message


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["n=0"], "n=0"),
        (["split=trian"], "split=trian"),
        (["step=-1"], "step=-1"),
        (["step=4"], "step 4"),
        (["batch_size=0"], "batch_size=0"),
        (["device=cuda:99"], "cuda:99"),
        (["run=no-such-run"], "no-such-run"),
        (["metric.prdc.k=0"], "metric.prdc.k=0"),
        (["metric.fd.extractor=clasifier"], "clasifier"),
        (["--metric", "fdi"], "fdi"),
        (["data.root=/nowhere"], "data.root"),
    ],
    ids=str,
)
def test_wrong_words(tiny_run: Run, words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *words]) == 2
    message = capsys.readouterr().err
    assert named in message
    assert len(message.strip().splitlines()) <= 3
    assert not (tiny_run.path / "eval").exists()


def test_a_place_that_cannot_be_written_is_told_of_before_anything_is_measured(
    tiny_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from aigc_cli.metrics.evaluation import Evaluation

    monkeypatch.setattr(Evaluation, "__init__", lambda *words, **named: pytest.fail("it was measured"))
    (tiny_run.path / "eval").touch()
    assert main(["eval", "--metric", "fd", "n=30"]) == 5
    assert f"{tiny_run.path / 'eval'} is not a folder" in capsys.readouterr().err

    def refuse(**where: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    for words in (["--metric", "fd", "n=30", "out=here"], ["stats", "metric=fd", "out=s.npz"]):
        assert main(["eval", *words]) == 5
        assert "choose another folder with out=" in capsys.readouterr().err
