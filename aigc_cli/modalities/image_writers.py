"""Images as PNG files, or as one NumPy array."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from aigc_cli import __version__
from aigc_cli.files import replacing
from aigc_cli.modalities.base import Codec, Writer
from aigc_cli.modalities.image_grid import grid, layout_of, shown_of, to_image
from aigc_cli.modalities.samples import DIGITAL_SOURCE_TYPE, LABEL, Arrangement, Provenance

GRID = "grid.png"
ARCHIVE = "samples.npz"

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


class _ImageWriter(Writer):
    """Keeps the first images for the grid."""

    usual = 64
    preview_suffix = ".png"

    def __init__(self, folder: Path, arrangement: Arrangement, provenance: Provenance, codec: Codec) -> None:
        super().__init__(folder, arrangement, provenance, codec)
        self.written = 0
        self._first: list[Tensor] = []
        self._kept = 0

    def write(self, raw: Tensor) -> None:
        """Writes the next images, uint8 (b, C, H, W)."""
        if self.written == 0:
            self._kept = shown_of(self.arrangement.n, raw.shape[1:], layout_of(self.arrangement, raw.shape[1:]))
        if self.written < self._kept:
            self._first.append(raw[: self._kept - self.written].clone())  # a view would keep the whole batch
        self._put(raw)
        self.written += len(raw)

    def _put(self, raw: Tensor) -> None:
        raise NotImplementedError

    def finish(self) -> tuple[list[str], list[str]]:
        """Writes the grid; the names of the files that hold the images, and of the grid."""
        n = self.arrangement.n
        if self.written != n:
            raise RuntimeError(f"{self.written} samples were written, not {n}")
        first = torch.cat(self._first)
        kind = self.provenance.of_set(self.arrangement)["digital_source_type"]
        sentence = f"{self.provenance.sentence()}, samples 0 to {len(first) - 1}"
        info = png_info(sentence, self.provenance.of_grid(len(first)), kind)
        grid(first, layout_of(self.arrangement, first.shape[1:])).save(self.folder / GRID, pnginfo=info)
        return self._names(), [GRID]

    def _names(self) -> list[str]:
        raise NotImplementedError

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


class PNGWriter(_ImageWriter):
    """Each image as its own PNG, named by its index and by what it is."""

    def _name(self, index: int) -> str:
        return f"{self.arrangement.name(index)}.png"

    def _put(self, raw: Tensor) -> None:
        for index, image in enumerate(raw, start=self.written):
            about = self.provenance.of_sample(self.arrangement, index)
            if self.arrangement.generated(index):
                info = png_info(f"{self.provenance.sentence()}, sample {index}", about, DIGITAL_SOURCE_TYPE)
            else:
                info = png_info(f"an original of {self.provenance.data}, for comparison", about, None)
            to_image(image).save(self.folder / self._name(index), pnginfo=info)

    def _names(self) -> list[str]:
        return [self._name(index) for index in range(self.arrangement.n)]


class NPZWriter(_ImageWriter):
    """All images in one archive: ``numpy.load("samples.npz")["images"]`` is uint8 (n, H, W, C).

    Where classes are known there are also ``labels``, int64 (n,), and ``classes``, the names that they number. The
    images' header and rows go straight into the archive, so memory holds one batch. Nothing in it is pickled.
    """

    def __init__(self, folder: Path, arrangement: Arrangement, provenance: Provenance, codec: Codec) -> None:
        super().__init__(folder, arrangement, provenance, codec)
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
        if self.arrangement.labels is not None:
            _add(archive, "labels", np.asarray(self.arrangement.labels, dtype=np.int64))
            _add(archive, "classes", np.asarray(self.arrangement.classes, dtype=np.str_))
        rows = self._open.enter_context(archive.open(_entry("images"), "w", force_zip64=True))
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.arrangement.n, *shape)}
        np.lib.format.write_array_header_1_0(rows, header)
        return rows

    def release(self) -> None:
        """Closes the archive."""
        self._open.close()

    def _names(self) -> list[str]:
        self.release()
        return [ARCHIVE]


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy")  # it has a fixed date, so that the same samples are the same bytes


def _add(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(_entry(name), "w") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)
