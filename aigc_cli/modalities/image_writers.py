"""Images as PNG files, or as one NumPy array; and many small ones as one that a person can look at."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from aigc_cli import __version__
from aigc_cli.errors import ConfigError
from aigc_cli.files import replacing
from aigc_cli.modalities.arrays import ARCHIVE, ArrayWriter
from aigc_cli.modalities.base import Codec, Writer
from aigc_cli.modalities.explicit import marked
from aigc_cli.modalities.labels import xmp_packet
from aigc_cli.modalities.samples import LABEL, Arrangement, kind_of

GRID = "grid.png"


def png_info(sentence: str, about: Mapping[str, Any], kind: str | None) -> PngInfo:
    """The metadata of an image: a sentence, facts as JSON under ``aigc``, and the IPTC's source type if it has one."""
    info = PngInfo()
    info.add_text("Description", sentence)
    info.add_text("Software", f"aigc {__version__}")
    info.add_text("aigc", json.dumps(about))
    if kind is not None:
        info.add_text("Source", LABEL)
        info.add_itxt("XML:com.adobe.xmp", xmp_packet(about, kind))
    return info


class Overview(Writer):
    """Keeps the first samples, for a picture beside the files that shows them together."""

    _first: tuple[Tensor, ...] = ()

    def keep_first(self, raw: Tensor, room: int) -> None:
        """Takes of the next samples (b, ...) what is among the first `room` of the set."""
        if (left := room - sum(map(len, self._first))) > 0:
            self._first += (raw[:left].clone(),)  # a view would keep the whole batch

    def save_overview(self, picture: Image.Image, name: str, shown: int) -> None:
        """Writes a picture of the first samples, of which it shows so many, with what is to be said of them."""
        sentence = f"{self.provenance.sentence()}, samples 0 to {shown - 1}"
        info = png_info(sentence, self.provenance.of_grid(shown), self.arrangement.source_type())
        picture.save(self.folder / name, pnginfo=info)


class _WithGrid(Overview):
    """Shows the first images in a grid."""

    def _keep(self, raw: Tensor) -> None:
        """Takes the next images, uint8 (b, C, H, W), as long as the grid has room."""
        shape = raw.shape[1:]
        self.keep_first(raw, shown_of(self.arrangement.n, shape, layout_of(self.arrangement, shape)))

    def _save_grid(self) -> list[str]:
        first = torch.cat(self._first)
        self.save_overview(grid(first, layout_of(self.arrangement, first.shape[1:])), GRID, len(first))
        return [GRID]


class PNGWriter(_WithGrid):
    """Each image as its own PNG, named by its index and by what it is."""

    preview_suffix = ".png"
    suffix: ClassVar[str] = "png"

    def _name(self, index: int) -> str:
        return f"{self.arrangement.name(index)}.{self.suffix}"

    def put(self, raw: Tensor) -> None:
        """Writes the next images, uint8 (b, C, H, W)."""
        self._keep(raw)
        for index, image in enumerate(raw, start=self.written):
            about = self.provenance.of_sample(self.arrangement, index)
            picture, title = to_image(image), self.provenance.title(self.arrangement, index)
            if self.provenance.explicit and self.arrangement.generated(index):
                picture = marked(picture)
            self.save(picture, self.folder / self._name(index), title, about)

    def save(self, image: Image.Image, path: Path, sentence: str, about: Mapping[str, Any]) -> None:
        """Writes one image with what is to be said of it, see :func:`png_info`."""
        image.save(path, pnginfo=png_info(sentence, about, kind_of(about)))

    def end(self) -> tuple[list[str], list[str]]:
        """Writes the grid."""
        return [self._name(index) for index in range(self.arrangement.n)], self._save_grid()

    @classmethod
    def preview(cls, path: Path, batches: Iterable[Tensor], arrangement: Arrangement, codec: Codec, title: str) -> None:
        """Writes a grid of the images, uint8 (n, C, H, W)."""
        info = png_info(f"{LABEL}, {title}", {"label": LABEL}, arrangement.source_type())
        raw = torch.cat(list(batches)).cpu()
        image = grid(raw, replace(layout_of(arrangement, raw.shape[1:]), title=title))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            image.save(part, format="PNG", pnginfo=info)


class JPEGWriter(PNGWriter):
    """The same as JPEG, which loses a little and is a tenth as large."""

    suffix = "jpg"

    def save(self, image: Image.Image, path: Path, sentence: str, about: Mapping[str, Any]) -> None:
        """See :meth:`PNGWriter.save`."""
        plain = image if image.mode in ("L", "RGB") else image.convert("RGB")
        packet = xmp_packet(about, kind_of(about)).encode()
        plain.save(path, format="JPEG", quality=95, subsampling=0, comment=sentence.encode(), xmp=packet)


class WebPWriter(PNGWriter):
    """The same as WebP, which loses nothing and is smaller."""

    suffix = "webp"

    def save(self, image: Image.Image, path: Path, sentence: str, about: Mapping[str, Any]) -> None:
        """See :meth:`PNGWriter.save`."""
        image.save(path, format="WEBP", lossless=True, exact=True, xmp=xmp_packet(about, kind_of(about)).encode())


class NPZWriter(_WithGrid, ArrayWriter):
    """All images in one archive, ``numpy.load("samples.npz")["images"]``, uint8 (n, H, W, C), beside a grid."""

    array = "images"

    @classmethod
    def rows(cls, raw: Tensor) -> np.ndarray:
        """(b, H, W, C)."""
        return super().rows(raw.permute(0, 2, 3, 1))

    def put(self, raw: Tensor) -> None:
        """Writes the next images, uint8 (b, C, H, W)."""
        self._keep(raw)
        super().put(raw)

    def end(self) -> tuple[list[str], list[str]]:
        """Writes the grid."""
        return [ARCHIVE], self._save_grid()


_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_TILE = 64  # pixels that a tile has at least, so that an 8x8 digit can be read
_SIDE = 2048  # pixels that a grid has at most, unless it shows a single image, or its columns are given
_WHOLE = 1024  # images in a grid that would mean little in part, such as one of walks
_ACROSS = 8  # groups that stand side by side
_GAP = 2
_TITLE = 22
_MARGIN = 160  # pixels that the titles of rows take at most
_FONTS = (12, 11, 10, 9)  # sizes: a title takes the first in which it fits
_BACKGROUND, _INK = (255, 255, 255), (40, 40, 40)


@dataclass(frozen=True, kw_only=True)
class GridLayout:
    """Where images stand in a grid, and what is written beside them."""

    columns: int | None = None  # None is as square as can be
    stack: int = 1  # so many consecutive images stand above one another, such as an original and its reconstruction
    limit: int = 64  # images that are shown at most, but for the rest of the last row
    title: str | None = None
    column_titles: Sequence[str] = ()  # above each column
    row_titles: Sequence[str] = ()  # before the rows; where there are more rows, they begin again

    def place(self, index: int, columns: int) -> tuple[int, int]:
        """The row and the column of an image in a grid of `columns`."""
        group, within = divmod(index, self.stack)
        return group // columns * self.stack + within, group % columns


def layout_of(arrangement: Arrangement, shape: Sequence[int]) -> GridLayout:
    """How a grid shows a set of images of a `shape` (C, H, W).

    Images that stand alone have a column for each class, or several where classes are few.
    """
    group, room = arrangement.group, fitting_columns(shape)
    if group > 1:
        return GridLayout(
            columns=group if arrangement.row else max(1, min(arrangement.n // group, _ACROSS, room)),
            stack=1 if arrangement.row else group,
            limit=_WHOLE,
            title=arrangement.title,
            column_titles=arrangement.column_titles,
            row_titles=arrangement.row_titles,
        )
    names = arrangement.turns[: arrangement.n]
    if len(names) == 1:
        return GridLayout(title=names[0])
    if not 0 < len(names) <= room:
        return GridLayout(title=arrangement.title)
    wanted = columns_of(min(arrangement.n, GridLayout.limit))
    times = max(1, min(room, round(wanted / len(names)) * len(names)) // len(names))
    return GridLayout(columns=times * len(names), column_titles=names * times)


def to_image(raw: Tensor) -> Image.Image:
    """One image, uint8 (C, H, W) with 1, 2, 3 or 4 channels: grey, grey and alpha, RGB, RGBA; raises ConfigError for
    another number of channels."""
    channels = raw.shape[0]
    if channels not in _MODES:
        raise ConfigError(f"a PNG cannot hold {channels} channels", "write the samples with format=npz")
    pixels = raw.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)


def columns_of(n: int) -> int:
    """The columns of a grid of `n`: as square as can be, and with a full last row where one is near."""
    side = math.ceil(math.sqrt(n))
    exact = [columns for columns in range(side, 2 * side + 1) if n % columns == 0]
    return exact[0] if exact else side


def fitting_columns(shape: Sequence[int]) -> int:
    """The columns of images of a `shape` (C, H, W) that a grid has room for."""
    _, height, width = shape
    return max(1, (_SIDE - _GAP) // (_scale(height, width) * width + _GAP))


def shown_of(n: int, shape: Sequence[int], layout: GridLayout | None = None) -> int:
    """How many of `n` images of a `shape` (C, H, W) a grid shows: no more than its layout allows, or than fit well."""
    layout = layout or GridLayout()
    _, height, width = shape
    tile = _scale(height, width) * max(height, width) + _GAP
    if layout.columns is None:
        return min(n, layout.limit, max(1, (_SIDE - _GAP) // tile) ** 2)
    line = layout.columns * layout.stack  # columns are not cut, so that a large image makes a wide grid of few rows
    lines = max(1, min(math.ceil(layout.limit / line), 4 * _SIDE**2 // (line * tile**2)))
    return min(n, lines * line)


def _scale(height: int, width: int) -> int:
    return max(1, math.ceil(_TILE / max(height, width)))


def grid(raw: Tensor, layout: GridLayout | None = None) -> Image.Image:
    """A grid of the first images of `raw`, uint8 (n, C, H, W) on the CPU: :func:`shown_of` of them.

    Tiny images are enlarged by a whole factor without smoothing, so that what is seen is what was generated.
    """
    layout = layout or GridLayout()
    height, width = raw.shape[2:]
    scale = _scale(height, width)
    n = shown_of(len(raw), raw.shape[1:], layout)
    columns = layout.columns or columns_of(n)
    across, down = scale * width + _GAP, scale * height + _GAP
    rows = layout.place(n - 1, columns)[0] + 1
    sheet = _Sheet(layout, across, down, columns, rows)
    for index in range(n):
        shown = raw[index] if raw.shape[1] in _MODES else raw[index, :1]  # of many channels, such as slices, the first
        image = to_image(shown).convert("RGBA")
        sheet.put(image.resize((scale * width, scale * height), Image.Resampling.NEAREST), index)
    return sheet.image


class _Sheet:
    """The picture with its titles: the columns' above, the rows' to the left, its own on top of all."""

    def __init__(self, layout: GridLayout, across: int, down: int, columns: int, rows: int) -> None:
        self.layout, self.across, self.down, self.columns = layout, across, down, columns
        self.top = _TITLE * (bool(layout.title) + bool(layout.column_titles))
        wanted = [ImageFont.load_default(_FONTS[0]).getlength(_plain(text)) for text in layout.row_titles[:rows]]
        self.left = min(_MARGIN, math.ceil(max(wanted)) + 3 * _GAP) if wanted else 0
        size = (self.left + columns * across + _GAP, self.top + rows * down + _GAP)
        self.image = Image.new("RGB", size, _BACKGROUND)
        self._pen = ImageDraw.Draw(self.image)
        if layout.title:
            self._write(layout.title, (_GAP + 1, 3), self.image.width - 2 * _GAP)
        for column, text in enumerate(layout.column_titles[:columns]):
            self._write(text, (self.left + _GAP + column * across, self.top - _TITLE + 3), across - _GAP, centred=True)
        for row in range(rows if layout.row_titles else 0):
            text = layout.row_titles[row % len(layout.row_titles)]
            self._write(text, (_GAP + 1, self.top + _GAP + row * down + (down - _GAP) // 2 - 7), self.left - 2 * _GAP)

    def put(self, image: Image.Image, index: int) -> None:
        """Pastes the image of an index."""
        row, column = self.layout.place(index, self.columns)
        self.image.paste(image, (self.left + _GAP + column * self.across, self.top + _GAP + row * self.down), image)

    def _write(self, text: str, at: tuple[int, int], room: int, *, centred: bool = False) -> None:
        plain = _plain(text)
        fonts = [ImageFont.load_default(size) for size in _FONTS]
        font = next((font for font in fonts if font.getlength(plain) <= room), fonts[-1])
        while plain and font.getlength(plain) > room:
            plain = plain[:-1]
        shift = (room - font.getlength(plain)) / 2 if centred else 0
        self._pen.text((at[0] + shift, at[1]), plain, fill=_INK, font=font)


def _plain(text: str) -> str:
    return text.encode("latin-1", "replace").decode("latin-1")  # all that every build of Pillow's own font has
