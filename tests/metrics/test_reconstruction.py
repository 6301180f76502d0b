"""What is lost of an image, against the formulas and against torchmetrics' own classes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.image import StructuralSimilarityIndexMeasure

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.metrics.reconstruction import LPIPS, LPIPS_FILE, Reconstruction


def images(n: int, seed: int, shape: tuple[int, ...] = (3, 16, 16)) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8))


def measured(x: torch.Tensor, y: torch.Tensor, batch: int = 4) -> dict[str, float]:
    metric = Reconstruction(PlainConfig(name="reconstruction"))
    for originals, made in zip(x.split(batch), y.split(batch), strict=True):
        metric.update("pairs", made, originals)
    return {name: float(value) for name, value in metric.compute().items()}


def test_the_formulas() -> None:
    x, y = images(10, 0), images(10, 1)
    error = float(((x.double() - y.double()) / 255).square().mean())
    got = measured(x, y)
    assert got["mse"] == pytest.approx(error, rel=1e-9)
    assert got["psnr"] == pytest.approx(-10 * math.log10(error), rel=1e-9)
    wanted = StructuralSimilarityIndexMeasure(data_range=1.0)(y.float() / 255, x.float() / 255)
    assert got["ssim"] == pytest.approx(float(wanted), abs=1e-5)
    assert measured(x, y, batch=10) == pytest.approx(got, abs=1e-6)


def test_the_best_end_of_the_scale_is_a_number() -> None:
    x = images(4, 0)
    assert measured(x, x) == {"mse": 0, "psnr": pytest.approx(100), "ssim": pytest.approx(1)}


def test_small_images_have_no_ssim() -> None:
    x = images(4, 0, (1, 8, 8))
    assert set(measured(x, x)) == {"mse", "psnr"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    return tmp_path / "cache" / "weights" / LPIPS_FILE


def test_lpips_without_its_weights_says_where_to_put_them(cache: Path) -> None:
    with pytest.raises(DataError, match="AlexNet weights") as caught:
        LPIPS(PlainConfig(name="lpips"))
    assert LPIPS_FILE in caught.value.hint
    assert str(cache.parent) in caught.value.hint


def test_lpips_refuses_a_file_of_another_sum(cache: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(1)}, cache)
    with pytest.raises(DataError, match="corrupt"):
        LPIPS(PlainConfig(name="lpips"))


def test_lpips_is_torchmetrics_own_on_the_same_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchmetrics.functional.image.lpips import _LPIPS
    from torchvision.models import alexnet

    from aigc_cli.metrics import reconstruction

    torch.manual_seed(0)
    state = alexnet(weights=None).state_dict()
    monkeypatch.setattr(reconstruction, "load_weights", lambda path, hint, **_: ("0" * 64, state))
    cache.touch()
    metric = LPIPS(PlainConfig(name="lpips"))
    x, y = images(3, 0, (3, 32, 32)), images(3, 1, (3, 32, 32))
    metric.update("pairs", y, x)
    own = _LPIPS(net="alex", pnet_rand=True)
    for part in (child for child in own.net.children() if isinstance(child, torch.nn.Sequential)):
        for name, layer in part.named_children():
            layer.load_state_dict({key: state[f"features.{name}.{key}"] for key in layer.state_dict()})
    wanted = own.eval()(x.float() / 127.5 - 1, y.float() / 127.5 - 1).mean()
    assert float(metric.compute()["lpips"]) == pytest.approx(float(wanted), rel=1e-6)
    assert float(wanted) > 1e-4
    with pytest.raises(ConfigError, match="32x32"):
        metric.update("pairs", images(2, 0), images(2, 1))
