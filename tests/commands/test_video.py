"""Clips of video from the command line: a tokenizer, a model of its codes, samples that play, a clip continued."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from aigc_cli.cli import main
from aigc_cli.runs import Run, find_run

SMALL = ["data=moving_digits", "data.clips=40", "data.frames=4", "data.size=16", "data.sprite=8",
         "data.speed=[0.5,1.5]", "trainer.batch_size=8",
         "trainer.steps=4", "trainer.checkpoint_every=2", "trainer.samples=4"]  # fmt: skip
CODES = ["model.layers=1", "model.width=16", "model.heads=2", "data.tokens=latest"]


def weights(run: Run, step: int) -> str:
    return hashlib.sha256((run.checkpoints / f"step-{step}" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of a tokenizer, and one of a transformer on its codes."""
    where = tmp_path_factory.mktemp("films")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        torch.manual_seed(0)
        assert main(["train", *SMALL, "model=vqvae", "model.width=8", "model.codes=16", "model.warmup=0"]) == 0
        assert main(["train", *SMALL, "model=transformer", *CODES]) == 0
    return where


def test_two_lines_train_a_tokenizer_and_a_model_of_its_codes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run = find_run("latest")
    assert run.spec.grid == (2, 4, 4)
    assert run.config["data"]["views"] == 0  # new clips in each epoch
    assert run.config["model"]["style"]["positions"] == "grid"
    names = {path.name for path in (run.path / "samples").iterdir()}
    assert {"step-4.png", "step-4.gif"} <= names


def test_training_resumes_bit_for_bit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run = find_run("latest")
    whole = weights(run, 4)
    shutil.rmtree(run.checkpoints / "step-4")
    (run.path / "status.json").unlink()
    assert main(["train", "--resume", str(run.path)]) == 0
    assert weights(run, 4) == whole


def test_samples_play_and_do_not_depend_on_their_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for size in (2, 4):
        assert main(["sample", "n=4", "class=3,7", f"batch_size={size}", "format=webp", f"out=s{size}"]) == 0
    files = sorted(Path("s2").glob("*-*.webp"))
    assert len(files) == 4
    for path in files:
        with Image.open(path) as one, Image.open(Path("s4") / path.name) as other:
            assert one.size == (16, 16)
            assert one.convert("RGB").tobytes() == other.convert("RGB").tobytes()
    assert Path("s2/frames.png").is_file()


def test_a_clip_of_ones_own_is_continued(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    frames = [Image.new("L", (16, 16), 40 * k) for k in range(4)]
    frames[0].save("own.gif", save_all=True, append_images=frames[1:], duration=100)
    assert main(["sample", "mode=continue", "prompt=own.gif", "n=2", "out=next"]) == 0
    assert len(list(Path("next").glob("0*.gif"))) == 2
    assert main(["sample", "mode=continue", "prompt=none.gif", "out=other"]) == 2
    assert "there is no file none.gif" in capsys.readouterr().err
