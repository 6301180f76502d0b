"""Many small images as one that a person can look at."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from aigc_cli.errors import ConfigError

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_TILE = 64  # pixels that a tile has at least, so that an 8x8 digit can be read
_SIDE = 2048  # pixels that a grid has at most, unless it shows a single image
_GAP = 2
_TITLE = 22
_BACKGROUND, _INK = (255, 255, 255), (40, 40, 40)


def to_image(raw: Tensor) -> Image.Image:
    """One image, uint8 (C, H, W) with 1, 2, 3 or 4 channels: grey, grey and alpha, RGB, RGBA.

    Raises:
        ConfigError: another number of channels.
    """
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


def shown_of(raw: Tensor, limit: int = 64) -> int:
    """How many images of `raw`, (n, C, H, W), a grid shows: at most `limit`, and no more than fit well."""
    height, width = raw.shape[2:]
    tile = _scale(height, width) * max(height, width) + _GAP
    return min(len(raw), limit, max(1, (_SIDE - _GAP) // tile) ** 2)


def _scale(height: int, width: int) -> int:
    return max(1, math.ceil(_TILE / max(height, width)))


def grid(raw: Tensor, *, limit: int = 64, title: str | None = None) -> Image.Image:
    """A grid of the first images of `raw`, uint8 (n, C, H, W) on the CPU: :func:`shown_of` of them.

    Tiny images are enlarged by a whole factor without smoothing, so that what is seen is what was generated.
    """
    height, width = raw.shape[2:]
    scale = _scale(height, width)
    n = shown_of(raw, limit)
    columns = columns_of(n)
    rows = math.ceil(n / columns)
    top = _TITLE if title else 0
    size = (columns * (scale * width + _GAP) + _GAP, rows * (scale * height + _GAP) + _GAP + top)
    sheet = Image.new("RGB", size, _BACKGROUND)
    for index in range(n):
        image = to_image(_drawable(raw[index])).convert("RGBA")
        image = image.resize((scale * width, scale * height), Image.Resampling.NEAREST)
        row, column = divmod(index, columns)
        at = (_GAP + column * (scale * width + _GAP), top + _GAP + row * (scale * height + _GAP))
        sheet.paste(image, at, image)
    if title:
        _write_title(sheet, title)
    return sheet


def _drawable(raw: Tensor) -> Tensor:
    return raw if raw.shape[0] in _MODES else raw[:1]  # of many channels, such as a stack of slices, the first


def _write_title(sheet: Image.Image, title: str) -> None:
    plain = title.encode("latin-1", "replace").decode("latin-1")  # all that every build of Pillow's own font has
    font = ImageFont.load_default(size=12)
    draw = ImageDraw.Draw(sheet)
    while plain and draw.textlength(plain, font=font) > sheet.width - 2 * _GAP:
        plain = plain[:-1]
    draw.text((_GAP + 1, 3), plain, fill=_INK, font=font)
