"""What `aigc export format=onnx` writes runs elsewhere with any number of items, and computes what the model does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_families import ALWAYS, EVERYTHING, TEXT, words_of
from exported_table import BEGIN, KEPT, PAGE, sampled, table
from untrained import EVERY, check_no_place, restored, text, untrained

from aigc_cli import open_run
from aigc_cli.cli import main
from aigc_cli.errors import ConfigError
from aigc_cli.export import graphs
from aigc_cli.export.graphs import NotTheSame
from aigc_cli.export.parts import parts_of
from aigc_cli.export.wrap import Part
from aigc_cli.files import checksum
from aigc_cli.metrics.record import Record, Score, file_name
from aigc_cli.training.onnx_model import Graph, needs

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
GAN = EVERYTHING["gan (mlp)"][0]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in ALWAYS else EVERY) for name in EVERYTHING])
def test_every_family_runs_elsewhere_at_all_sizes(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    untrained(words_of(name, tmp_path))
    assert main(["export", "run=run", "out=there", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    folder = tmp_path / "there"
    record = json.loads((folder / "export.json").read_text())
    assert sorted(Path(file).stem for file in record["files"]) == EVERYTHING[name][1]
    assert {*record["sha256"], "export.json"} == {*told["written"]}
    assert all(checksum(folder / file) == wanted for file, wanted in record["sha256"].items())
    for about in record["files"].values():
        assert {1, 5, 64} <= {size[0] for size in about["tried"]}
        assert all(each["shape"][0] == "batch" for each in about["inputs"].values())
        differences = {key: value for key, value in about["greatest_difference"].items() if key != "raw"}
        assert max(differences.values(), default=0) < 1e-4
    assert sampled(open_run, Path("run"), "there") in ("equal", "1 level")
    done = subprocess.run([sys.executable, "there/example.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_one_file_takes_batches_of_1_5_and_64_and_texts_of_1_7_and_128(tmp_path: Path) -> None:
    lines = text(tmp_path, "data.context=128", "data.tokenizer.kind=char")
    [part] = parts_of(restored(["model=transformer", *TEXT, *lines])).parts
    graphs.to_onnx(part, graphs.trace(part), tmp_path / "model.onnx", "fp32", {"run": "mine", "step": 3})
    graph = Graph(tmp_path / "model.onnx")
    call, shapes = graph.run, graph.shapes
    assert shapes["input_ids"] == ["batch", "sequence"]
    assert shapes["past_key_values.0.key"][::2] == ["batch", "past"]
    for batch in (1, 5, 64):
        for length in (1, 7, 128):
            given = part.inputs(batch, length, 0)
            wanted, found = part.run(given)[0], call(given)[0]
            assert np.abs(found - wanted.numpy()).max() < 1e-4
    assert onnxruntime.InferenceSession("model.onnx").get_modelmeta().custom_metadata_map == {
        "run": "mine",
        "step": "3",
    }


class _Fixed(torch.nn.Module):
    """It goes through items one by one, so that tracing makes a number of how many there are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([row * 2 for row in x])


def test_a_part_whose_sizes_are_fixed_is_refused() -> None:
    part = Part("mine", _Fixed(), lambda n: {"x": torch.ones(n, 2)}, ((3,), (5,)), ("y",))
    with pytest.raises(NotTheSame, match="mine cannot be traced"):
        graphs.trace(part)


def test_a_file_that_computes_something_else_is_refused() -> None:
    part = Part("mine", torch.nn.Identity(), lambda n: {"x": torch.ones(n, 2)}, ((3,), (5,)), ("y",))
    with pytest.raises(NotTheSame, match=r"mine: y differs from the model's by 0\.5"):
        graphs.check(part, lambda given: [given["x"] + 0.5], "fp32")
    with pytest.raises(NotTheSame, match=r"mine: axis 0 of x is fixed at 3"):
        graphs.check(part, lambda given: [given["x"]], "fp32", {"x": [3, 2]})


@EVERY
def test_half_precision_is_within_and_int8_says_what_it_costs(tmp_path: Path) -> None:
    untrained(words_of("transformer", tmp_path))
    for dtype in ("fp16", "int8"):
        assert main(["export", "run=run", f"out={dtype}", f"dtype={dtype}"]) == 0
        record = json.loads((tmp_path / dtype / "export.json").read_text())["files"]["model.onnx"]
        assert record["inputs"]["past_key_values.0.key"]["dtype"] == "float32"
        assert record["greatest_difference"]["logits"] > 0


def test_torch_reads_its_own_format(tmp_path: Path) -> None:
    found = restored(GAN)
    assert main(["export", "run=run", "out=there", "format=torch_export"]) == 0
    check_no_place(tmp_path / "there", tmp_path)
    module = torch.export.load("there/generator.pt2").module()
    latent, label = torch.randn(7, found.model.config.latent), torch.arange(7)  # type: ignore[union-attr]
    torch.testing.assert_close(module(latent, label)[0], found.model.decode(latent, label))


def test_the_weights_alone_are_those_that_are_sampled(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    found = restored(GAN)
    assert main(["export", "run=run", "out=there", "format=safetensors"]) == 0
    tensors = load_file("there/model.safetensors")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in found.model.state_dict().items())


def test_the_card_says_what_was_measured_at_that_step(tmp_path: Path) -> None:
    run = untrained(GAN)
    (run.path / "eval").mkdir()
    for step, value in ((2, 40.5), (3, 12.25)):
        record = Record(
            metric="fd", config={}, better={"fd": "lower"}, generated=Score({"fd": value}, 100), made={"step": step}
        ).plain_json()
        (run.path / "eval" / file_name(record)).write_text(json.dumps(record))
    assert main(["export", "run=run", "format=safetensors", "out=there"]) == 0
    rows = [line for line in (tmp_path / "there" / "README.md").read_text().splitlines() if line.startswith("| fd")]
    assert rows == ["| fd: fd | 12.25 |"]


def test_what_is_there_is_kept_and_what_is_wrong_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    untrained(GAN)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    for words, message in (
        (["out=mine"], "holds something that aigc export did not write"),
        (["out=mine", "overwrite=true"], "holds something that aigc export did not write"),
        (["format=onx"], "there is no such format"),
        (["format=torch_export", "dtype=int8"], "format=torch_export does not have it"),
        (["format=huggingface"], "transformers has no class for"),
    ):
        assert main(["export", "run=run", *words]) == 2
        assert message in capsys.readouterr().err
    for more in ([], ["overwrite=true"]):
        assert main(["export", "run=run", "format=safetensors", "out=two", *more]) == 0
    assert main(["export", "run=run", "format=safetensors", "out=two"]) == 2


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="need onnx") as refused:
        needs("onnx")
    assert "aigc-cli[export]" in refused.value.hint


def test_every_model_that_comes_with_the_install_is_exported_and_stands_in_the_table() -> None:
    words = {word for words, _ in EVERYTHING.values() for word in words}
    told_by_data = {"transformer_codes", "bert_codes", "seq2seq_audio"}  # which are chosen by the data, not by name
    presets = {path.stem for path in (PAGE.parents[1] / "configs" / "model").glob("*.yaml")} - told_by_data
    assert {f"model={name}" for name in presets} <= words
    page = PAGE.read_text(encoding="utf-8")
    assert table(json.loads(KEPT.read_text())) in page.partition(BEGIN)[2]
