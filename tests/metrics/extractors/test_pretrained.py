"""Published networks: parity with torch-fidelity, any classifier of torchvision, and weights that cannot be trusted."""

import importlib.util
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.extractors.base import PlainConfig, Sources
from aigc_cli.metrics.extractors.pretrained import FILE, SHA256, Inception, TorchvisionBackbone, load_weights

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def refuse(*args: object, **kwargs: object) -> None:
        raise DataError("no connection")

    monkeypatch.setattr("aigc_cli.metrics.extractors.pretrained.download", refuse)
    return tmp_path


def test_without_weights_it_says_which_file_and_where_to_put_it(cache: Path) -> None:
    with pytest.raises(DataError, match="no connection") as caught:
        Inception(PlainConfig(name="inception"), Sources())
    assert caught.value.exit_code == 3
    for part in (FILE, SHA256, str(cache / "cache" / "weights"), "weights=FILE", "--metric fd"):
        assert part in caught.value.hint


@pytest.mark.parametrize("folder", ["cache/weights", "torch/hub/checkpoints"])
def test_weights_are_found_where_others_keep_them(cache: Path, folder: str) -> None:
    path = cache / folder / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"cut short")
    with pytest.raises(DataError, match=f"{folder}/{FILE} is corrupt"):
        Inception(PlainConfig(name="inception"), Sources())


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


def _evil(path: Path) -> None:
    path.write_bytes(pickle.dumps({"fc.weight": Evil()}))


def _evil_in_torch(path: Path) -> None:
    torch.save({"fc.weight": Evil()}, path)


def _truncated(path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])


def _no_tensors(path: Path) -> None:
    torch.save([1, 2], path)


def _nan(path: Path) -> None:
    torch.save({"a": torch.tensor([float("nan")])}, path)


@pytest.mark.parametrize("break_it", [Path.touch, _evil, _evil_in_torch, _truncated, _no_tensors, _nan])
def test_a_file_that_cannot_be_trusted_is_refused(tmp_path: Path, break_it) -> None:  # type: ignore[no-untyped-def]
    break_it(tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"w\.pth"):
        load_weights(tmp_path / "w.pth", "hint")


def test_a_broken_safetensors_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"hello")
    with pytest.raises(DataError, match="cannot be read as weights"):
        load_weights(tmp_path / "w.safetensors", "hint")
    with pytest.raises(DataError, match="no file of weights"):
        load_weights(tmp_path / "none.pth", "hint")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="do not fit"):
        Inception(PlainConfig(name="inception"), Sources(weights=tmp_path / "w.pth"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights on which features have the size of trained ones.

    With torch's default initialisation features all but vanish, and any two implementations agree on nothing.
    """
    spec = importlib.util.spec_from_file_location("eval_fid", ROOT / "benchmarks" / "eval_fid.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    module.random_weights(path)
    return path


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two folders of pictures, 32 in all, of which the real ones have structure."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    ramps = np.arange(32, dtype=np.uint8) * np.arange(1, 17, dtype=np.uint8)[:, None, None, None]
    pixels = {
        "fake": rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8),
        "real": ramps.transpose(0, 1, 3, 2) // 2 + rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8) // 2,
    }
    folder = tmp_path_factory.mktemp("sides")
    for name, images in pixels.items():
        (folder / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / name / f"{i:02d}.png")
    return {name: folder / name for name in pixels}


@pytest.fixture(scope="module")
def reference(weights: Path, sides: dict[str, Path]) -> dict[str, float]:
    """What torch-fidelity's own command line says."""
    words = [sys.executable, "-m", "torch_fidelity.fidelity", "--fid", "--kid", "--isc", "--cpu", "--json", "--silent"]
    words += ["--kid-subset-size", "12", "--kid-subsets", "10", "--isc-splits", "2", "--batch-size", "8", "--no-cache"]
    words += ["--feature-extractor-weights-path", str(weights), "--save-cpu-ram", "--samples-find-deep"]
    words += ["--input1", str(sides["fake"]), "--input2", str(sides["real"])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {key: float(value) for key, value in json.loads(done.stdout[done.stdout.index("{") :]).items()}


def told(weights: Path, sides: dict[str, Path], capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, float]:
    """What our own command line says."""
    from aigc_cli.cli import main

    small = ["metric.kid.subsets=10", "metric.kid.subset_size=12", "metric.is.splits=2", f"weights={weights}", "--json"]
    files = [f"{side}={path}" for side, path in sides.items()]
    assert main(["eval", "--metric", "fid,kid,is", *files, *small, *words]) == 0
    records = json.loads(capsys.readouterr().out)["results"]
    return {label.split("[")[0]: value for record in records for label, value in record["figures"].items()}


@pytest.mark.slow
def test_parity_with_torch_fidelitys_command(
    weights: Path, sides: dict[str, Path], reference: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    got = told(weights, sides, capsys)
    assert got["fid"] > 0.1  # else agreement would prove nothing
    assert got["fid"] == pytest.approx(reference["frechet_inception_distance"], rel=1e-6)
    assert got["kid"] == pytest.approx(reference["kernel_inception_distance_mean"], rel=1e-5)
    assert got["kid_std"] == pytest.approx(reference["kernel_inception_distance_std"], rel=1e-4)
    assert got["is"] == pytest.approx(reference["inception_score_mean"], rel=1e-6)
    assert got["is_std"] == pytest.approx(reference["inception_score_std"], abs=1e-7)
    clean = told(weights, sides, capsys, "resize=clean")
    assert abs(clean["fid"] / got["fid"] - 1) > 1e-4  # another way to resize is another figure


@pytest.mark.slow
def test_torchmetrics_own_default_fails_the_same_check(
    weights: Path, sides: dict[str, Path], reference: dict[str, float]
) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torchmetrics.image.fid import FrechetInceptionDistance

    from aigc_cli.modalities.image_files import open_images

    metric = FrechetInceptionDistance(feature_extractor_weights_path=str(weights))  # it resizes with antialiasing
    assert isinstance(metric.inception, FeatureExtractorInceptionV3)
    metric.set_dtype(torch.float64)
    for side, path in sides.items():
        for batch in open_images(path).batches(8):
            metric.update(batch.content, real=side == "real")
    assert float(metric.compute()) != pytest.approx(reference["frechet_inception_distance"], rel=1e-4)


def test_clean_is_pils_bicubic_filter_on_each_channel(images) -> None:  # type: ignore[no-untyped-def]
    import numpy as np
    from PIL import Image

    from aigc_cli.metrics.extractors.pretrained import clean

    content = images(2, (3, 40, 40))
    wanted = Image.fromarray(content[1, 2].numpy().astype(np.float32), mode="F").resize((299, 299), Image.BICUBIC)
    assert np.array_equal(clean(content)[1, 2].numpy(), np.asarray(wanted).clip(0, 255))


@pytest.mark.slow
def test_grey_images_are_their_rgb_selves(weights: Path, images) -> None:  # type: ignore[no-untyped-def]
    extractor = Inception(PlainConfig(name="inception"), Sources(weights=weights))
    grey = images(2, (1, 16, 16))
    assert torch.equal(extractor(grey)["features"], extractor(grey.repeat(1, 3, 1, 1))["features"])


def saved(folder: Path, name: str, **options: object) -> Path:
    torch.manual_seed(0)
    path = folder / f"{name}.safetensors"
    save_file(torchvision.models.get_model(name, weights=None, **options).state_dict(), path)
    return path


def noise(channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, channels, 16, 16), dtype=np.uint8))


def test_the_features_are_what_the_classifier_sees(tmp_path: Path) -> None:
    path = saved(tmp_path, "resnet18")
    extractor = TorchvisionBackbone(PlainConfig(name="torchvision"), Sources(weights=path, backbone="resnet18"))
    found = extractor(noise())
    assert extractor.widths == {"features": 512, "logits": 1000}
    assert found["features"].shape == (2, 512)
    assert extractor.name == f"resnet18-{extractor.checksum[:8]}"
    head = extractor._network.fc
    assert torch.allclose(head(found["features"]), found["logits"], atol=1e-5)
    grey = noise(1)
    assert torch.equal(extractor(grey)["features"], extractor(grey.repeat(1, 3, 1, 1))["features"])


def test_weights_of_other_classes_fit_too(tmp_path: Path) -> None:
    path = saved(tmp_path, "mobilenet_v3_small", num_classes=7)
    extractor = TorchvisionBackbone(
        PlainConfig(name="torchvision"), Sources(weights=path, backbone="mobilenet_v3_small")
    )
    assert extractor.widths == {"features": 1024, "logits": 7}


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, "resnet18")
    build = TorchvisionBackbone
    with pytest.raises(DataError, match="do not fit torchvision's resnet34"):
        build(PlainConfig(name="torchvision"), Sources(weights=path, backbone="resnet34"))
    with pytest.raises(ConfigError, match="did you mean resnet18"):
        build(PlainConfig(name="torchvision"), Sources(weights=path, backbone="resnet19"))
    with pytest.raises(ConfigError, match="linear layer"):
        build(PlainConfig(name="torchvision"), Sources(weights=path, backbone="squeezenet1_0"))
    for missing in (Sources(backbone="resnet18"), Sources(weights=path)):
        with pytest.raises(ConfigError, match="needs"):
            build(PlainConfig(name="torchvision"), missing)


MEND = "get it again"


class Rebuilt:
    """A tensor that is rebuilt from nothing."""

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, ()


def test_a_pickle_that_trips_the_reader_is_refused(tmp_path: Path) -> None:
    torch.save({"w": Rebuilt()}, tmp_path / "w.pth", pickle_module=pickle)
    with pytest.raises(DataError, match="cannot be read as weights"):
        load_weights(tmp_path / "w.pth", MEND)


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")], ids=["sparse", "meta"])
def test_tensors_without_plain_values_are_refused(tmp_path: Path, tensor: Tensor) -> None:
    torch.save({"fine": torch.ones(2), "w": tensor}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="holds w as a tensor that is sparse, quantized or without values"):
        load_weights(tmp_path / "w.pth", MEND)


def test_a_date_in_a_name_is_no_checksum(tmp_path: Path) -> None:
    path = tmp_path / "resnet-20240101.pth"
    torch.save({"w": torch.ones(2)}, path)
    assert torch.equal(load_weights(path, MEND)[1]["w"], torch.ones(2))
    with pytest.raises(DataError, match="is corrupt"):
        load_weights(path, MEND, named_by_sum=True)
