"""An exported folder, or a file of it, stands for its run in `aigc sample`, `aigc eval` and from Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from untrained import check_no_place, restored, text, untrained

import aigc_cli
from aigc_cli.cli import main
from aigc_cli.runs import list_runs
from aigc_cli.training import restore

pytest.importorskip("onnxscript", reason="onnxscript is not installed")
VAE = ["model=vae", "data=digits", "data.size=8", "model.network=mlp", "model.hidden=8", "model.latent=4",
       "model.conditional=true"]  # fmt: skip


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of a VAE, and what was exported of it as ONNX."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        untrained(VAE)
        assert main(["export", "run=run", "out=there"]) == 0
    return folder


@pytest.fixture
def here(there: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same as the current folder, and put back as it was."""
    monkeypatch.chdir(there)
    kept = {path: path.read_bytes() for path in (there / "there").rglob("*") if path.is_file()}
    yield there
    for path, content in kept.items():
        path.write_bytes(content)


def test_a_file_and_its_folder_are_sampled_as_the_run_is(here: Path) -> None:
    for mode in ("sample", "reconstruct", "interpolate"):
        words = ["n=2", "seed=5", f"mode={mode}", "class=3"]
        words = [word for word in words if mode != "reconstruct" or "class" not in word]
        for run in ("run", "there", "there/decoder.onnx"):
            out = f"{mode}-{run.replace('/', '-')}"
            assert main(["sample", f"run={run}", f"out={out}", *words]) == 0
        wanted, *found = (json.loads((here / f"{mode}-{name}" / "samples.json").read_text())
                          for name in ("run", "there", "there-decoder.onnx"))  # fmt: skip
        for record in found:
            assert record["run"] == wanted["run"]
            assert record["model_checksum"] == wanted["model_checksum"]
            assert record["source"]["exported"] == "onnx fp32"
    mine, theirs = (aigc_cli.open_run(run).sample(20, seed=1, temperature=0.5) for run in ("run", "there"))
    assert (mine.int() - theirs.int()).abs().max() <= 1


def test_it_is_measured_as_the_run_is(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for run in ("run", "there"):
        assert main(["eval", f"run={run}", "metric=reconstruction", "n=16", "mode=reconstruct", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["results"][0])
    assert found[0]["figures"]["psnr"] == pytest.approx(found[1]["figures"]["psnr"], rel=1e-3)
    assert [record["generated"]["weights"] for record in found] == ["raw", "onnx fp32"]


def test_what_files_cannot_do_is_refused_by_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["eval", "run=there", "metric=likelihood"], "name the run itself"),
        (["sample", "run=there", "step=2"], "was exported at step 3"),
        (["sample", "run=there", "device=cuda"], "cuda"),
        (["train", "--resume", "there"], "name the run itself"),
        (["train", "model=vae", "data=digits", "model.init_from=there"], "name the run itself"),
        (["export", "run=there"], "name the run itself"),
        (["sample", "run=lone.onnx"], "there is no export.json beside it"),
        (["sample", "run=none.onnx"], "there is nothing at none.onnx"),
        (["sample", "run=there/decodr.onnx"], "there is nothing at there/decodr.onnx"),
        (["sample", "run=there/decoder"], "there is no run 'there/decoder'"),
    ):
        (here / "lone.onnx").touch()
        assert main(words) == 2, words
        assert message in capsys.readouterr().err
    record = json.loads((here / "there" / "export.json").read_text())
    for format, hint in (
        ("torch_export", "torch.export.load"),
        ("web", "in a browser"),
        ("huggingface", "init_from=hf:"),
    ):
        (here / "there" / "export.json").write_text(json.dumps({**record, "format": format}))
        assert main(["sample", "run=there"]) == 2
        assert hint in capsys.readouterr().err


def test_a_sample_is_proven_by_the_files_that_drew_it_and_not_called_altered_by_others(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", "run=there", "n=2", "seed=1", "out=drawn"]) == 0

    def verdict(run: str) -> str:
        capsys.readouterr()
        main(["verify", "drawn/000001-1.png", f"run={run}", "--json"])
        (found,) = json.loads(capsys.readouterr().out)
        return f"{found['verdict']}: {found['why']}"

    assert verdict("there").startswith("proven")
    with Image.open("drawn/000001-1.png") as picture:
        pixels = np.array(picture)
    pixels[2, 2] ^= 8
    Image.fromarray(pixels).save("drawn/000001-1.png")
    assert verdict("there").startswith("altered")
    assert verdict("run").startswith("claimed: it was drawn by files of onnx fp32, and ")


def test_an_export_that_samples_were_drawn_from_is_not_replaced_unasked(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["export", "run=run", "format=safetensors"]
    assert main(again) == main(again) == 0
    assert main(["sample", "run=run/exported/safetensors-step-3", "n=2"]) == 0
    assert main(again) == 2
    assert "what was made of it since, such as run/generated/" in capsys.readouterr().err
    assert main([*again, "overwrite=true"]) == 0


@pytest.mark.parametrize("file", ["decoder.onnx", "run/config.yaml"])
def test_what_was_tampered_with_is_not_used(here: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = here / "there" / file
    path.write_bytes(path.read_bytes() + b"\n")
    assert main(["sample", "run=there", "out=never"]) == 3
    assert f"{file} does not match its sum" in capsys.readouterr().err
    path.unlink()
    assert main(["sample", "run=there", "out=never"]) == 3
    assert f"{path.name} is missing" in capsys.readouterr().err
    (here / "there" / "export.json").write_text("[]")
    assert main(["eval", "run=there"]) == 3
    assert not (here / "never").exists()


def test_no_path_of_this_machine_leaves_with_it(here: Path) -> None:
    check_no_place(here / "there", here)


def test_weights_alone_stand_for_a_run_and_data_is_found_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = restored(["model=transformer", "model.layers=1", "model.heads=2", "model.width=16", *text(tmp_path)])
    assert main(["export", "run=run", "format=safetensors", "out=there"]) == 0
    assert str(tmp_path) not in (tmp_path / "there" / "run" / "config.yaml").read_text()
    theirs = aigc_cli.open_run("there")
    assert theirs.sample(3, seed=2) == aigc_cli.LoadedRun(mine).sample(3, seed=2)
    assert "score" in theirs.model.can
    monkeypatch.setattr(restore, "resolve_device", lambda word: torch.device("meta" if word == "auto" else word))
    assert aigc_cli.open_run("there").restored.device.type == "meta"  # weights run where those of a run would
    assert tmp_path / "there" / "run" not in [run.path for run in list_runs(tmp_path.parent)]
