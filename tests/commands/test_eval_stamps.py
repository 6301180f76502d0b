"""``aigc eval --json`` of every metric that is registered parses, and holds all that its figures depend on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from aigc_cli import registry
from aigc_cli.cli import main
from aigc_cli.metrics import reconstructions
from aigc_cli.metrics.base import kind_of
from aigc_cli.runs import Run

OF_SOUND = {"dnsmos", "f0", "fad", "pitch"}
OF_VIDEO = {"frame_fd", "fvd", "physics"}


def taking(*wanted: str) -> list[str]:
    """The metrics, but for those of sound and of video, that take such views."""
    names = set(registry.names("metric")) - OF_SOUND - OF_VIDEO
    takes = {name: {view for views in kind_of(name).takes.values() for view in views} for name in sorted(names)}
    return [name for name, views in takes.items() if views & set(wanted)]


pytestmark = pytest.mark.usefixtures("small_classifier")


def told(capsys: pytest.CaptureFixture[str], names: list[str], *words: str) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert main(["eval", "--metric", ",".join(names), *words, "--json"]) == 0, capsys.readouterr().err
    records = {record["metric"]: record for record in json.loads(capsys.readouterr().out)["results"]}
    assert set(records) == set(names)
    for name, record in records.items():
        assert record["figures"], name
        assert set(record["better"]) == set(record["figures"]), name
        assert record["comparable_to_literature"] is False, name
        for key in ("comparable_because", "device", "versions", "time", "config"):
            assert record[key], (name, key)
        assert record["dtype"] == (None if record["extractor"] is None else "float32"), name
        assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
        assert record["generated"]["n"] > 0, name
    return records


@pytest.mark.slow
def test_metrics_on_features(auto_run: Run, random_inception: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judging = taking("labels")
    others = [name for name in taking("features", "logits", "moments") if name not in judging]
    records = told(capsys, others, "n=200", "seeds=2", f"weights={random_inception}")
    records |= told(capsys, judging, "n=200", "mode=reconstruct")  # whose classes are those of the originals
    for name, record in records.items():
        assert len(record["extractor"]["sha256"]) == len(record["generated"]["checkpoint"]) == 64, name
        assert record["extractor"]["preprocessing"], name
        assert record["generated"]["weights"] == "raw", name
        if not kind_of(name).compares():
            assert record["real"] == {"n": 0}, name
        else:
            assert (record["real"]["data"], record["real"]["split"]) == ("digits", "train"), name
            assert len(record["real"]["fingerprint"]) == 64, name
        if name in others:
            assert record["generated"]["seeds"] == 2, name
            assert set(record["spread"]) == set(record["figures"]), name
        assert record["floor"]["n"] == (180 if name == "memorization" else 200), name
    assert len(list((auto_run.path / "eval").glob("memorization*.png"))) == 1


def test_metrics_that_ask_the_model(
    auto_run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Perceptual(torch.nn.Module):
        """Stands for the network of lpips, whose weights are not here."""

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return (x - y).abs().mean(dim=(1, 2, 3))

    Path("weights.pth").touch()
    monkeypatch.setattr(reconstructions, "weight_folders", lambda: [Path.cwd()])
    monkeypatch.setattr(reconstructions, "LPIPS_FILE", "weights.pth")
    monkeypatch.setattr(reconstructions, "load_weights", lambda path, hint, **_: ("0" * 64, {}))
    monkeypatch.setattr(reconstructions, "_lpips", lambda state, hint: Perceptual())
    monkeypatch.setattr(reconstructions, "_LPIPS_SIDE", 16)
    for name, record in told(capsys, taking("content", "scores"), "n=60").items():
        assert len(record["generated"]["checkpoint"]) == 64, name
        assert (record["real"]["data"], record["real"]["split"], record["real"]["n"]) == ("digits", "test", 60), name
        assert len(record["real"]["fingerprint"]) == 64, name


def test_metrics_of_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hyp.txt").write_text("the cat sat on the mat\na dog barks at the moon\n")
    Path("ref.txt").write_text("the cat sat on a mat\nthe dog barked at the moon\n")
    for name, record in told(capsys, taking("text"), "fake=hyp.txt", "real=ref.txt", "out=figures").items():
        assert record["generated"]["lines_of"] == "hyp.txt", name
        assert len(record["generated"]["sha256"]) == len(record["real"]["sha256"]) == 64, name
