"""Any of torchvision's classifiers as an extractor."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.extractors.base import PlainConfig, Sources
from aigc_cli.metrics.extractors.torchvision import TorchvisionBackbone


def weights(folder: Path, name: str, **options: object) -> Path:
    torch.manual_seed(0)
    path = folder / f"{name}.safetensors"
    save_file(torchvision.models.get_model(name, weights=None, **options).state_dict(), path)
    return path


def images(channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, channels, 16, 16), dtype=np.uint8))


def test_the_features_are_what_the_classifier_sees(tmp_path: Path) -> None:
    path = weights(tmp_path, "resnet18")
    extractor = TorchvisionBackbone(PlainConfig(name="torchvision"), Sources(weights=path, backbone="resnet18"))
    found = extractor(images())
    assert extractor.widths == {"features": 512, "logits": 1000}
    assert found["features"].shape == (2, 512)
    assert extractor.name == f"resnet18-{extractor.checksum[:8]}"
    head = extractor._network.fc
    assert torch.allclose(head(found["features"]), found["logits"], atol=1e-5)
    grey = images(1)
    assert torch.equal(extractor(grey)["features"], extractor(grey.repeat(1, 3, 1, 1))["features"])


def test_weights_of_other_classes_fit_too(tmp_path: Path) -> None:
    path = weights(tmp_path, "mobilenet_v3_small", num_classes=7)
    extractor = TorchvisionBackbone(
        PlainConfig(name="torchvision"), Sources(weights=path, backbone="mobilenet_v3_small")
    )
    assert extractor.widths == {"features": 1024, "logits": 7}


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = weights(tmp_path, "resnet18")
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
