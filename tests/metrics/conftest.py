"""An extractor that needs no weights, and small sets of images, for the tests of metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import pytest
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli import registry
from aigc_cli.config.schema import STRICT
from aigc_cli.data.images import ImageDataset
from aigc_cli.metrics.extractors.base import Sources

Images = Callable[..., Tensor]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class PixelsConfig:
    name: Literal["pixels"]


class Pixels:
    """The pixels themselves, and their means as logits."""

    name = "pixels"
    checksum = "0" * 64
    canonical = False
    facts: Mapping[str, Any] = {}

    def __init__(self, config: PixelsConfig, sources: Sources) -> None:
        self.widths = {"features": 16, "logits": 4}

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        values = images.float().flatten(1) / 255
        return {"features": values[:, :16], "logits": values[:, :4]}


@pytest.fixture
def pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the extractor for one test."""
    component = registry.Component("extractor", "pixels", Pixels, PixelsConfig)
    monkeypatch.setitem(registry._components, ("extractor", "pixels"), component)


def noise_images(n: int, shape: tuple[int, int, int] = (1, 4, 4), seed: int = 0, low: int = 0) -> Tensor:
    """Random uint8 images (n, C, H, W)."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(low, 256, size=(n, *shape), dtype=np.uint8))


@pytest.fixture
def images() -> Images:
    return noise_images


@pytest.fixture
def blobs() -> Callable[..., ImageDataset]:
    """A dataset of two classes that differ in which half is bright."""

    def make(n: int = 240, seed: int = 0, labelled: bool = True, side: int = 8, channels: int = 3) -> ImageDataset:
        content = noise_images(n, (channels, side, side), seed) // 2
        labels = torch.arange(n) % 2
        content[labels == 0, :, : side // 2] += 100
        content[labels == 1, :, side // 2 :] += 100
        return ImageDataset(content, labels, ("top", "bottom")) if labelled else ImageDataset(content, None)

    return make
