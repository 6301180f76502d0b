from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aigc_cli import registry
from aigc_cli.cli import main
from aigc_cli.data.open import open_dataset
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.arrays import ArrayWriter, find_writer
from aigc_cli.modalities.base import Codec, DataSpec, Modality, modality
from aigc_cli.modalities.image_writers import NPZWriter, PNGWriter
from aigc_cli.modalities.text import TextWriter


class Smell(Modality):
    name, axes, noun = "smell", ("molecules",), ("smell", "smells")

    def codec(self, spec, folder=None):
        raise NotImplementedError


def test_a_name_and_a_shape_need_nothing_heavy():
    code = (
        "import sys\n"
        "from aigc_cli.modalities.base import modality\n"
        "assert [modality(name).axes[0] for name in ('image', 'text')] == ['channels', 'tokens']\n"
        "print(*{name.split('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "PIL", "tokenizers", "hydra"}


def test_a_modality_is_one_object():
    assert modality("image") is modality("image")
    with pytest.raises(ConfigError, match="no modality named 'imaeg'") as caught:
        modality("imaeg")
    assert "did you mean image?; name the plugin that adds it with --plugin" in caught.value.hint


def test_the_first_format_is_the_usual_one():
    assert find_writer("image") == ("png", PNGWriter)
    assert find_writer("image", "npz") == ("npz", NPZWriter)
    assert find_writer("text") == find_writer("text", "txt") == ("txt", TextWriter)
    with pytest.raises(ConfigError, match="format=pgn") as caught:
        find_writer("image", "pgn")
    assert caught.value.hint == "did you mean png?"


def test_a_plugin_may_add_a_format(monkeypatch):
    monkeypatch.setitem(modality("image").writers, "webp", PNGWriter)
    assert find_writer("image", "webp") == ("webp", PNGWriter)
    assert find_writer("image")[0] == "png"


def test_a_modality_without_a_format_is_written_as_an_array(monkeypatch):
    component = registry.Component("modality", "smell", Smell, object)
    monkeypatch.setitem(registry._components, ("modality", "smell"), component)
    assert find_writer("smell") == ("npz", ArrayWriter)
    modality.cache_clear()


def test_what_a_modality_does_not_have_is_said():
    smell = Smell()
    with pytest.raises(ConfigError, match="no classifier of smells"):
        smell.network(DataSpec("smell", (9,)))
    with pytest.raises(ConfigError, match="smells take no prompts"):
        smell.parse("a rose", Codec)
    content = torch.arange(6).view(2, 3)
    assert smell.glance(content) is content
    assert smell.memory_format is None


@pytest.mark.parametrize(
    ("spec", "layout"),
    [
        (DataSpec("image", (3, 8, 8)), "map"),
        (DataSpec("smell", (2, 9)), "sequence"),
        (DataSpec("video", (3, 4, 8, 8)), "volume"),
        (DataSpec("image", (64,), vocab_size=512), "tokens"),
    ],
)
def test_the_layout_follows_from_the_shape(spec, layout):
    assert spec.layout == layout


def test_what_is_made_from_a_source_says_so():
    side = DataSpec("text", (9,), vocab_size=7)
    assert (side.kind, DataSpec("text", (9,), vocab_size=7, source=side).kind) == ("text", "text from text")


PLUGIN = Path(__file__).parents[1] / "plugins" / "signals"
SMALL = ("trainer.steps=30", "trainer.checkpoint_every=30", "trainer.device=cpu", "data.count=200", "seed=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder, from which the plugin can be imported."""
    root = tmp_path_factory.mktemp("signals")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.syspath_prepend(str(PLUGIN))
        yield root


def aigc(*words: str) -> None:
    assert main([words[0], "--plugin", "signals", *words[1:]]) == 0


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, str]:
    """The names of a VAE and a GAN, trained."""
    for model in ("vae", "gan"):
        aigc("train", f"model={model}", "data=signals", f"run_dir=outputs/{model}/run", *SMALL)
    return {model: f"outputs/{model}/run" for model in ("vae", "gan")}


def test_content_comes_back_and_classes_can_be_told(folder: Path) -> None:
    registry.import_plugin("signals")
    values = {"name": "signals", "count": 40, "length": 32, "val_fraction": 0, "test_fraction": 0.2}
    data = open_dataset(values, "train")
    content = data.codec.encode(data.resident().content)  # type: ignore[union-attr]
    assert content.abs().max() <= 1
    assert data.codec.decode(content).equal(data.resident().content)  # type: ignore[union-attr]
    layers = modality("signal").network(data.spec)(content)
    assert {name: values.shape for name, values in layers.items()} == {"features": (32, 64), "logits": (32, 4)}


def test_the_plugin_is_short() -> None:
    assert len((PLUGIN / "signals.py").read_text().splitlines()) <= 150


@pytest.mark.parametrize("model", ["vae", "gan"])
def test_a_run_has_previews_and_samples(runs: dict[str, str], model: str) -> None:
    run = Path(runs[model])
    assert json.loads((run / "data.json").read_text())["modality"] == "signal"
    assert Image.open(run / "samples" / "step-30.png").text["Source"] == "AI-generated"  # type: ignore[attr-defined]
    aigc("sample", f"run={run}", "n=5", f"out={model}-samples")
    made = np.load(f"{model}-samples/samples.npz")["samples"]
    assert (made.shape, made.dtype) == ((5, 1, 64), np.int16)
    record = json.loads(Path(f"{model}-samples/samples.json").read_text())
    assert (record["modality"], record["format"], record["overview"]) == ("signal", "npz", ["overview.png"])


def test_walks_and_reconstructions(runs: dict[str, str]) -> None:
    aigc("sample", f"run={runs['gan']}", "mode=interpolate", "n=2", "frames=4", "out=walks")
    assert np.load("walks/samples.npz")["samples"].shape == (8, 1, 64)
    aigc("sample", f"run={runs['vae']}", "mode=reconstruct", "n=3", "out=pairs")
    made = np.load("pairs/samples.npz")
    assert made["samples"].shape == (6, 1, 64)
    assert set(made["classes"][made["labels"]]) <= {"sine", "square", "triangle", "sawtooth"}


def test_evaluation(runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    aigc("eval", f"run={runs['vae']}", "--metric", "fd,prdc,memorization,likelihood", "n=40", "--json")
    records = {record["metric"]: record for record in json.loads(capsys.readouterr().out)["results"]}
    assert set(records) == {"fd", "prdc", "memorization", "likelihood"}
    assert records["fd"]["extractor"]["name"] == "signals-cnn"
    assert records["fd"]["floor"]["figures"]["fd"] < records["fd"]["figures"]["fd[signals-cnn]"]
    aigc("eval", f"run={runs['vae']}", "--metric", "class_accuracy", "mode=reconstruct", "n=30")
    assert "30 test signals of signals as reconstructed" in capsys.readouterr().out
    aigc("eval", "compare", f"run={runs['vae']},{runs['gan']}", "--metric", "fd", "n=40", "seeds=2")
    assert "fd[signals-cnn]" in capsys.readouterr().out
    aigc("eval", "stats", f"run={runs['vae']}", "metric=fd", "out=signals.npz")
    aigc("eval", f"run={runs['gan']}", "--metric", "fd", "n=40", "real=signals.npz")
    assert "items summed up in signals.npz" in capsys.readouterr().out
