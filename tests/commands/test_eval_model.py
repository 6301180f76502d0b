"""``aigc eval`` of what a model itself says of held-out items, and of what its controls change."""

import json
from pathlib import Path
from typing import Any

import pytest

from aigc_cli.cli import main
from aigc_cli.runs import Run

pytestmark = pytest.mark.usefixtures("small_classifier")


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert main(["eval", *words, "--json"]) == 0
    return {record["metric"]: record for record in json.loads(capsys.readouterr().out)["results"]}


def test_reconstruction_is_of_held_out_images(auto_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    record = told(capsys, "--metric", "reconstruction")["reconstruction"]
    assert set(record["figures"]) == {"mse", "psnr", "ssim"}
    assert 0 < record["figures"]["mse"] < 0.2
    assert (record["real"]["split"], record["real"]["n"]) == ("test", 359)
    assert (record["generated"]["weights"], record["generated"]["step"]) == ("raw", 7)
    assert told(capsys, "--metric", "reconstruction", "split=train")["reconstruction"]["real"]["n"] == 1258


@pytest.mark.parametrize(
    ("metrics", "deeds"), [("likelihood", ["predicted"]), ("psnr,elbo", ["reconstructed", "predicted"])]
)
def test_the_headline_says_what_was_done_with_the_images(
    auto_run: Run, capsys: pytest.CaptureFixture[str], metrics: str, deeds: list[str]
) -> None:
    assert main(["eval", "--metric", metrics, "n=20"]) == 0
    headlines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("20 test")]
    assert headlines == [f"20 test images of digits as {deed} by {auto_run.name} at step 7" for deed in deeds]


@pytest.mark.parametrize("metric", ["likelihood", "reconstruction"])
def test_more_items_than_there_are_are_not_measured(
    auto_run: Run, capsys: pytest.CaptureFixture[str], metric: str
) -> None:
    assert main(["eval", "--metric", metric, "n=360"]) == 2
    assert "n=360: there are 359 images in the test split" in capsys.readouterr().err


def test_a_number_that_is_of_samples_too_may_be_greater(auto_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    records = told(capsys, "--metric", "vendi,likelihood", "n=360")
    assert {name: record["generated"]["n"] for name, record in records.items()} == {"vendi": 360, "likelihood": 359}
    assert main(["eval", "--metric", "vendi,likelihood", "n=360"]) == 0
    assert "warning: n=360: there are 359 images" in capsys.readouterr().err


def test_active_units_are_of_held_out_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["data.size=8", "model.network=mlp", "model.hidden=8", "model.latent=4", "trainer.steps=2"]
    assert main(["train", "model=vae", *small, "trainer.device=cpu", "trainer.sample_every=null"]) == 0
    record = told(capsys, "--metric", "active_units,kl")["active_units"]
    assert 0 <= record["figures"]["active_units"] <= 4
    assert (record["real"]["split"], record["real"]["n"]) == ("test", 359)
    assert told(capsys, "--metric", "active_units", "n=50")["active_units"]["generated"]["n"] == 50


def test_controls_change_what_is_drawn_and_are_stamped(auto_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    usual = told(capsys, "--metric", "fd", "n=100")["fd"]
    cold = told(capsys, "--metric", "fd", "n=100", "temperature=0.1")["fd"]
    assert usual["figures"] != cold["figures"]
    assert cold["generated"]["controls"]["temperature"] == 0.1
    assert len(list((auto_run.path / "eval").glob("*.json"))) == 2
    assert main(["eval", "temprature=0.1"]) == 2
    assert "did you mean temperature?" in capsys.readouterr().err
    assert main(["eval", "mode=interpolate"]) == 2
    assert "cannot be evaluated" in capsys.readouterr().err


def test_reconstructions_stand_beside_their_originals(auto_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    record = told(capsys, "--metric", "fd", "mode=reconstruct", "n=200")["fd"]
    assert record["generated"]["reconstructed"] == record["floor"]["split"] == "test"
    assert record["generated"]["n"] == record["floor"]["n"] == 200
    assert record["figures"]["fd[digits-cnn]"] > record["floor"]["figures"]["fd"]
    assert main(["eval", "--metric", "fd", "mode=reconstruct", "n=400"]) == 2
    assert "there are 359 images in the test split" in capsys.readouterr().err


def test_reconstructions_are_one_set_and_do_not_compare_with_samples(
    auto_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--metric", "fd", "n=60"]
    record = told(capsys, *words, "mode=reconstruct", "seeds=2")["fd"]
    assert record["spread"] is None
    told(capsys, *words)
    made, drawn = sorted(
        (auto_run.path / "eval").glob("fd-*.json"), key=lambda path: "reconstructed" not in path.read_text()
    )
    assert main(["eval", "compare", f"run={made},{drawn}"]) == 2
    assert "reconstructed" in capsys.readouterr().err


def test_a_model_without_any_of_it_says_so(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--metric", "elbo"]) == 2
    assert "no likelihood" in capsys.readouterr().err
    assert main(["eval", "--metric", "psnr"]) == 2
    assert "cannot reconstruct" in capsys.readouterr().err
    assert main(["eval", "--metric", "active_units"]) == 2
    assert "no posterior" in capsys.readouterr().err


def test_lpips_without_its_weights(
    auto_run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(auto_run.path))
    assert main(["eval", "--metric", "lpips"]) == 3
    message = capsys.readouterr().err
    assert "alexnet-owt-7be5be79.pth" in message
    assert "weights" in message


def test_files_have_no_model(auto_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (auto_run.path / "pictures").mkdir()
    assert main(["eval", "--metric", "psnr", f"fake={auto_run.path / 'pictures'}"]) == 2
    assert "needs a model" in capsys.readouterr().err


def test_idle_words_are_warned_of_or_refused(auto_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    record = told(capsys, "--metric", "likelihood", "n=20")["likelihood"]
    words = ["dtype=bfloat16", "extractor=inception", "weights=w.pth", "resize=clean", "model=resnet18"]
    assert main(["eval", "--metric", "likelihood", "n=20", *words, "--json"]) == 0
    shown = capsys.readouterr()
    for key in ("dtype", "extractor", "weights", "resize", "model= or backbone"):
        assert f"{key}= has no effect here" in shown.err
    (idle,) = json.loads(shown.out)["results"]
    assert (idle["figures"], idle["dtype"]) == (record["figures"], None)
    for word in ("real=nowhere", f"reference={auto_run.path}", "held_out=nowhere"):
        assert main(["eval", "--metric", "likelihood", word]) == 2
        assert f"{word} has no effect" in capsys.readouterr().err


def test_gaps_are_filled_by_runs_of_text_alone(auto_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["fake=pictures"], ["compare", f"run={auto_run.name},{auto_run.path}"]):
        assert main(["eval", *words, "--metric", "infill"]) == 2
        assert "infill" in capsys.readouterr().err


def test_reconstructions_should_be_of_the_class_of_their_originals(
    auto_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    record = told(capsys, "--metric", "class_accuracy", "mode=reconstruct", "n=100")["class_accuracy"]
    figure = "class_accuracy[digits-cnn]"
    assert 0.1 < record["figures"][figure] < record["floor"]["figures"]["class_accuracy"] <= 1
    assert main(["eval", "--metric", "class_accuracy"]) == 2
    assert "conditional" in capsys.readouterr().err
