"""Training on codes from the command line: a run that is whole without the one that trained its tokenizer."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from aigc_cli.cli import main
from aigc_cli.runs import Run, find_run

SMALL = ["data=digits", "data.size=8", "model.layers=1", "model.width=16", "model.heads=2", "trainer.batch_size=16"]
TRAIN = ["train", *SMALL, "data.tokens=latest", "trainer.steps=4", "trainer.checkpoint_every=2", "trainer.samples=4"]


def weights(run: Run, step: int) -> str:
    return hashlib.sha256((run.checkpoints / f"step-{step}" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def trained(tokenizer_run: Run, small_classifier: None, capsys: pytest.CaptureFixture[str]) -> Run:
    """A transformer on codes, whose tokenizer's run is gone."""
    assert main([*TRAIN, "model=transformer"]) == 0
    shutil.rmtree(tokenizer_run.path)
    return find_run("latest")


def test_a_run_moves_alone_and_resumes_bit_for_bit(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = capsys.readouterr().err
    assert "ceiling:     tokens 2x2 of 16, " in said
    # With a classifier in the cache they are.
    assert re.search("reconstructions (were not measured, which aigc eval does|of 359 test images have fd)", said)
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path / "another cache"))
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    shutil.move(trained.path, moved)
    whole = weights(Run(moved), 4)
    shutil.rmtree(moved / "checkpoints" / "step-4")
    (moved / "status.json").unlink()
    assert main(["train", "--resume", str(moved)]) == 0
    assert weights(Run(moved), 4) == whole
    capsys.readouterr()
    assert main(["sample", f"run={moved}", "n=4", "class=3", "guidance=1.5", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["files"]) == 4
    assert main(["eval", f"run={moved}", "--metric", "fd,likelihood,copied_codes", "n=20", "--json"]) == 0
    fd, likelihood, copied = json.loads(capsys.readouterr().out)["results"]
    assert list(fd["beside"]) == ["held-out through the tokenizer"]
    assert list(copied["figures"]) == ["copied_codes"]
    assert 0 < copied["beside"]["held-out"]["figures"]["copied_codes"] <= 1, "of 4 codes each, many items are alike"
    assert list(likelihood["figures"]) == ["nats_per_code", "code_bits_per_dim"]


def test_the_tokenizer_is_named_by_checkpoints_and_is_no_part_of_the_model(trained: Run) -> None:
    folder = trained.checkpoints / "step-4"
    named = json.loads((folder / "tokens.json").read_text())
    assert named["sha256"] == hashlib.sha256((trained.path / "tokenizer" / "manifest.json").read_bytes()).hexdigest()
    assert "tokens.json" in json.loads((folder / "manifest.json").read_text())
    assert trained.config["data"]["tokens_sha256"] == named["sha256"]
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert {name.partition(".")[0] for name in file.keys()} == {"decoder"}  # noqa: SIM118


def test_a_tokenizer_is_chosen_in_training_alone(tokenizer_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["data.tokens=latest"], "data.tokens= is for"),
        (["data=digits", "data.views=2"], "data.views= is"),
    ):
        assert main(["eval", *words]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("file", ["model.safetensors", "manifest.json"])
def test_a_copy_that_was_changed_is_not_used(trained: Run, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = trained.path / "tokenizer" / file
    path.write_bytes(path.read_bytes()[:-1] + b"\3")
    for words in (
        ["sample", "n=2"],
        ["eval", "--metric", "likelihood"],
        ["train", "--resume", trained.name, "trainer.steps=6"],
    ):
        assert main(words) == 3, words
        assert f"{file} does not match its sum" in capsys.readouterr().err


def test_masks_are_filled_and_own_pictures_completed(
    tokenizer_run: Run, small_classifier: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*TRAIN, "model=bert"]) == 0
    assert (find_run("latest").path / "samples" / "step-4-infilled.png").is_file()
    assert main(["sample", "mode=infill", "region=left", "n=3", f"out={tmp_path / 'a'}"]) == 0
    picture = next((tmp_path / "a").glob("000001*original.png"))
    assert main(["sample", "mode=infill", "class=3", "n=3", f"out={tmp_path / 'c'}"]) == 0
    record = json.loads((tmp_path / "c" / "samples.json").read_text())
    assert record["samples"]["class"][1::2] == ["3"] * 3, "they are told another class than the originals have"
    assert record["samples"]["class"][::2] != ["3"] * 3
    assert main(["sample", "mode=infill", f"prompt={picture}", "n=2", f"out={tmp_path / 'b'}"]) == 0
    assert len(list((tmp_path / "b").glob("0*.png"))) == 2
    other = tmp_path / "other.png"
    for content, code in ((picture, 0), (next((tmp_path / "a").glob("000002*original.png")), 2)):
        shutil.copy(content, other)
        assert main(["sample", "mode=infill", f"prompt={other}", "n=2", f"out={tmp_path / 'd'}"]) == code
    capsys.readouterr()
    assert main(["sample", f"prompt={picture}"]) == 2
    assert "add mode=infill" in capsys.readouterr().err
    assert main(["sample", "mode=infill", "prompt=nothing.png"]) == 2
    assert "prompt=nothing.png: there is no such file" in capsys.readouterr().err
    assert main(["eval", "mode=infill", "--metric", "fd"]) == 2
