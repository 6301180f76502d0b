"""Images as PNG files, or as one NumPy array."""

from __future__ import annotations

import json
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from aigc_cli import __version__
from aigc_cli.sampling.grid import grid, shown_of, to_image
from aigc_cli.sampling.provenance import DIGITAL_SOURCE_TYPE, Provenance
from aigc_cli.sampling.writers import Writer, register_writer

GRID = "grid.png"
ARCHIVE = "samples.npz"
_SHOWN = 64
_DIGITS = 6  # at least, so that the names of the first million do not depend on how many there are

# Adobe's XMP Specification Part 1, with the one property of the IPTC's that says how an image came to be.
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{DIGITAL_SOURCE_TYPE}"/></rdf:RDF></x:xmpmeta>'
)


def png_info(provenance: Provenance, indices: range) -> PngInfo:
    """The metadata of an image or a grid: a sentence, the provenance as JSON under ``aigc``, the IPTC's source type."""
    info = PngInfo()
    which = f"sample {indices[0]}" if len(indices) == 1 else f"samples {indices[0]} to {indices[-1]}"
    info.add_text("Description", f"{provenance.sentence()}, {which}")
    info.add_text("Software", f"aigc {__version__}")
    info.add_text("aigc", json.dumps(provenance.of_samples(indices)))
    info.add_itxt("XML:com.adobe.xmp", _XMP)
    return info


class _ImageWriter(Writer):
    """Keeps the first images for the grid."""

    def __init__(self, folder: Path, n: int, provenance: Provenance) -> None:
        super().__init__(folder, n, provenance)
        self.written = 0
        self._first: list[Tensor] = []

    def write(self, raw: Tensor) -> None:
        """Writes the next images, uint8 (b, C, H, W)."""
        if self.written < _SHOWN:
            self._first.append(raw[: _SHOWN - self.written].clone())  # a view would keep the whole batch
        self._put(raw)
        self.written += len(raw)

    def _put(self, raw: Tensor) -> None:
        raise NotImplementedError

    def finish(self) -> tuple[list[str], list[str]]:
        """Writes the grid; the names of the files that hold the images, and of the grid."""
        if self.written != self.n:
            raise RuntimeError(f"{self.written} samples were written, not {self.n}")
        first = torch.cat(self._first)
        info = png_info(self.provenance, range(shown_of(first)))
        grid(first).save(self.folder / GRID, pnginfo=info)
        return self._names(), [GRID]

    def _names(self) -> list[str]:
        raise NotImplementedError


@register_writer("image", "png")
class PNGWriter(_ImageWriter):
    """Each image as its own PNG, named by its index."""

    def _name(self, index: int) -> str:
        return f"{index:0{max(_DIGITS, len(str(self.n - 1)))}d}.png"

    def _put(self, raw: Tensor) -> None:
        for offset, image in enumerate(raw):
            index = self.written + offset
            info = png_info(self.provenance, range(index, index + 1))
            to_image(image).save(self.folder / self._name(index), pnginfo=info)

    def _names(self) -> list[str]:
        return [self._name(index) for index in range(self.n)]


@register_writer("image", "npz")
class NPZWriter(_ImageWriter):
    """All images in one archive: ``numpy.load("samples.npz")["images"]`` is uint8 (n, H, W, C).

    The array's header and rows go straight into the archive, so memory holds one batch. Nothing in it is pickled.
    """

    def __init__(self, folder: Path, n: int, provenance: Provenance) -> None:
        super().__init__(folder, n, provenance)
        self._open = ExitStack()
        self._rows: IO[bytes] | None = None

    def _put(self, raw: Tensor) -> None:
        rows = raw.permute(0, 2, 3, 1).contiguous().numpy()
        if self._rows is None:
            self._rows = self._begin(rows.shape[1:])
        self._rows.write(rows.data)

    def _begin(self, shape: tuple[int, ...]) -> IO[bytes]:
        archive = self._open.enter_context(zipfile.ZipFile(self.folder / ARCHIVE, "w"))
        archive.comment = self.provenance.sentence().encode()[:65535]
        # A ZipInfo of its own has a fixed date, so that the same samples are the same bytes.
        rows = self._open.enter_context(archive.open(zipfile.ZipInfo("images.npy"), "w", force_zip64=True))
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.n, *shape)}
        np.lib.format.write_array_header_1_0(rows, header)
        return rows

    def release(self) -> None:
        """Closes the archive."""
        self._open.close()

    def _names(self) -> list[str]:
        self.release()
        return [ARCHIVE]
