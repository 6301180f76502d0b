"""The look at a model in training: a grid of samples from fixed noise."""

from __future__ import annotations

from pathlib import Path

from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from aigc_cli import __version__
from aigc_cli.files import replacing
from aigc_cli.modalities.image_grid import Layout, grid
from aigc_cli.modalities.provenance import LABEL


def write_preview(path: Path, raw: Tensor, layout: Layout) -> None:
    """Writes a grid of `raw`, uint8 (n, C, H, W), as the PNG `path`, which appears whole or not at all.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    info = PngInfo()
    info.add_text("Source", LABEL)
    info.add_text("Software", f"aigc {__version__}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        grid(raw.cpu(), layout).save(part, format="PNG", pnginfo=info)
