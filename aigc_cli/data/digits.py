"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Split
from aigc_cli.data.images import ImageDataset, ImagesConfig, rescale
from aigc_cli.data.splits import CutConfig, rows_of
from aigc_cli.registry import register


@dataclass(config=STRICT, frozen=True, kw_only=True)
class DigitsConfig(ImagesConfig, CutConfig):
    """See ``configs/data/digits.yaml``."""

    name: Literal["digits"]


@register("data", "digits", DigitsConfig)
def digits(config: DigitsConfig, split: Split) -> ImageDataset:
    """1,797 scans of 8x8 with 17 grey levels (UCI ML hand-written digits, Alpaydin and Kaynak 1998), rescaled."""
    import torch
    from sklearn.datasets import load_digits

    scans, targets = load_digits(return_X_y=True)
    rows = rows_of(split, len(scans), config.cut, "digits")
    pixels = np.round(scans[rows].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    content = rescale(torch.from_numpy(pixels), config.size)
    labels = torch.from_numpy(targets[rows].astype(np.int64))
    return ImageDataset(content, labels, [str(digit) for digit in range(10)], flip=config.flip)
