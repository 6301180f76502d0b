"""Images as PNG files, or as one NumPy array."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from aigc_cli import __version__
from aigc_cli.files import replacing
from aigc_cli.modalities.base import Codec, Writer
from aigc_cli.modalities.image_grid import grid, layout_of, shown_of, to_image
from aigc_cli.modalities.samples import DIGITAL_SOURCE_TYPE, LABEL, Arrangement, Provenance
from aigc_cli.modalities.writers import ARCHIVE, ArrayWriter

GRID = "grid.png"

# Adobe's XMP Specification Part 1, with the one property of the IPTC's that says how an image came to be.
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'Iptc4xmpExt:DigitalSourceType="{kind}"/></rdf:RDF></x:xmpmeta>'
)


def png_info(sentence: str, about: Mapping[str, Any], kind: str | None) -> PngInfo:
    """The metadata of an image: a sentence, facts as JSON under ``aigc``, and the IPTC's source type if it has one."""
    info = PngInfo()
    info.add_text("Description", sentence)
    info.add_text("Software", f"aigc {__version__}")
    info.add_text("aigc", json.dumps(about))
    if kind is not None:
        info.add_itxt("XML:com.adobe.xmp", _XMP.format(kind=kind))
    return info


class PNGWriter(Writer):
    """Each image as its own PNG, named by its index and by what it is."""

    preview_suffix = ".png"

    def __init__(self, folder: Path, arrangement: Arrangement, provenance: Provenance, codec: Codec) -> None:
        super().__init__(folder, arrangement, provenance, codec)
        self._overview = _Overview(arrangement, provenance)

    def _name(self, index: int) -> str:
        return f"{self.arrangement.name(index)}.png"

    def put(self, raw: Tensor) -> None:
        """Writes the next images, uint8 (b, C, H, W)."""
        self._overview.put(raw)
        for index, image in enumerate(raw, start=self.written):
            about = self.provenance.of_sample(self.arrangement, index)
            if self.arrangement.generated(index):
                info = png_info(f"{self.provenance.sentence()}, sample {index}", about, DIGITAL_SOURCE_TYPE)
            else:
                info = png_info(f"an original of {self.provenance.data}, for comparison", about, None)
            to_image(image).save(self.folder / self._name(index), pnginfo=info)

    def end(self) -> tuple[list[str], list[str]]:
        """Writes the grid."""
        return [self._name(index) for index in range(self.arrangement.n)], self._overview.save(self.folder)

    @classmethod
    def preview(cls, path: Path, batches: Iterable[Tensor], arrangement: Arrangement, codec: Codec, title: str) -> None:
        """Writes a grid of the images, uint8 (n, C, H, W)."""
        info = PngInfo()
        info.add_text("Source", LABEL)
        info.add_text("Software", f"aigc {__version__}")
        raw = torch.cat(list(batches)).cpu()
        image = grid(raw, replace(layout_of(arrangement, raw.shape[1:]), title=title))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            image.save(part, format="PNG", pnginfo=info)


class NPZWriter(ArrayWriter):
    """All images in one archive, ``numpy.load("samples.npz")["images"]``, uint8 (n, H, W, C), beside a grid."""

    array = "images"

    def __init__(self, folder: Path, arrangement: Arrangement, provenance: Provenance, codec: Codec) -> None:
        super().__init__(folder, arrangement, provenance, codec)
        self._overview = _Overview(arrangement, provenance)

    @classmethod
    def rows(cls, raw: Tensor) -> np.ndarray:
        """(b, H, W, C)."""
        return super().rows(raw.permute(0, 2, 3, 1))

    def put(self, raw: Tensor) -> None:
        """Writes the next images, uint8 (b, C, H, W)."""
        self._overview.put(raw)
        super().put(raw)

    def end(self) -> tuple[list[str], list[str]]:
        """Writes the grid."""
        return [ARCHIVE], self._overview.save(self.folder)


class _Overview:
    """Keeps the first images for the grid."""

    def __init__(self, arrangement: Arrangement, provenance: Provenance) -> None:
        self.arrangement, self.provenance = arrangement, provenance
        self._first: list[Tensor] = []

    def put(self, raw: Tensor) -> None:
        """Takes the next images, uint8 (b, C, H, W), as long as the grid has room."""
        shape = raw.shape[1:]
        room = shown_of(self.arrangement.n, shape, layout_of(self.arrangement, shape)) - sum(map(len, self._first))
        if room > 0:
            self._first.append(raw[:room].clone())  # a view would keep the whole batch

    def save(self, folder: Path) -> list[str]:
        """Writes the grid; the names of the files."""
        first = torch.cat(self._first)
        kind = self.provenance.of_set(self.arrangement)["digital_source_type"]
        sentence = f"{self.provenance.sentence()}, samples 0 to {len(first) - 1}"
        info = png_info(sentence, self.provenance.of_grid(len(first)), kind)
        grid(first, layout_of(self.arrangement, first.shape[1:])).save(folder / GRID, pnginfo=info)
        return [GRID]
