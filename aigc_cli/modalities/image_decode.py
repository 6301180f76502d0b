"""Image files to pixels of one size and one number of channels.

The short side is resized and the middle square kept, with Pillow's Lanczos filter, which antialiases. Transparent
pixels are laid on white. 16 bits become 8 by dividing by 257, so that white stays white. The EXIF orientation holds. Of
several frames or pages the first is taken.
"""

from __future__ import annotations

import importlib
import io
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aigc_cli.modalities.unreadable import Unreadable, decoding

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")
#: What not every installation can read: suffixes, Pillow's name of the format, and the package that brings it.
OTHERS = ((".avif", "AVIF", "'pillow>=11.3'"), (".heic", "HEIF", "pillow-heif"), (".heif", "HEIF", "pillow-heif"))
NAMED = "png, jpeg, webp, bmp, tiff or gif"  # for messages
DECODED = 2  # the version of what becomes of a file's pixels here, for what is remembered of them
ORIENTED = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")  # where the orientation may stand
MODES = {1: "L", 3: "RGB"}
_BYTES = 4  # of a pixel, at most: on the way it may be RGBA, or 32 bits of grey


@cache
def _formats() -> tuple[str, ...]:
    """The formats that can be read here, as Pillow calls them."""
    from PIL import features

    found = [*FORMATS]
    if "avif" in features.modules and features.check("avif"):  # else older versions of Pillow warn
        found.append("AVIF")
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
        found.append("HEIF")
    return tuple(found)


@cache
def picture_suffixes() -> tuple[str, ...]:
    """The suffixes of files that can be read here, in lower case."""
    return (*SUFFIXES, *(suffix for suffix, kind, _ in OTHERS if kind in _formats()))


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture that can be read here, and not a hidden one."""
    base = name.rsplit("/", 1)[-1]
    return not base.startswith(".") and base.lower().endswith(picture_suffixes())


@cache
def missing_packages() -> dict[str, str]:
    """The suffixes of pictures that cannot be read here, each with the package that would read them."""
    return {suffix: package for suffix, kind, package in OTHERS if kind not in _formats()}


def decode_image(source: bytes | Path, size: int, channels: int) -> np.ndarray:
    """The pixels of an encoded image, uint8 (channels, size, size).

    Call it within :func:`pillow_errors`. Raises Unreadable where it is not an image of a known format, or broken, or
    larger than Pillow's decompression limit.
    """
    with opened(source) as image:
        if min(image.size) >= 4 * size:
            image.draft(None, (2 * size, 2 * size))  # a JPEG can decode at a half, a quarter or an eighth
        decoding(_BYTES * image.width * image.height)
        image.load()
        return planes(square(plain(upright(image), MODES[channels]), size))


def upright(image: Image) -> Image:
    """The image as its EXIF orientation says that it is to be seen."""
    from PIL import ImageOps

    tagged = any(key in image.info for key in ORIENTED)  # asking is cheap, transposing parses
    return ImageOps.exif_transpose(image) if tagged else image


def is_turned(image: Image) -> bool:
    """Whether :func:`upright` changes an image, whose pixels need not be decoded."""
    tagged = image.format == "TIFF" or any(key in image.info for key in ORIENTED)
    return tagged and image.getexif().get(0x0112, 1) in range(2, 9)


@contextmanager
def opened(source: bytes | Path) -> Iterator[Image]:
    """An image whose pixels are not decoded yet; raises Unreadable where it cannot be read, there or by what is done
    within the context."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats()) as image:
            yield image
    except MemoryError:
        raise
    except Exception as error:  # a broken file may make Pillow's decoders raise anything
        raise error if isinstance(error, Unreadable) else Unreadable(_reason(error)) from error


def planes(image: Image) -> np.ndarray:
    """The pixels of an L or RGB image, uint8 (channels, height, width)."""
    return np.array(np.atleast_3d(np.asarray(image)).transpose(2, 0, 1), order="C")  # a copy, which may be written to


def _reason(error: Exception) -> str:
    """Why Pillow could not read a file, for a person."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"it is not a {NAMED} image"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has more than {Image.MAX_IMAGE_PIXELS} pixels"
    return str(error) or type(error).__name__


def plain(image: Image, mode: str) -> Image:
    """Any mode to L or RGB, 8 bits, opaque."""
    from PIL import Image

    if image.mode == "F":
        raise Unreadable("its pixels are floating-point numbers, and nothing says which of them is white")
    if image.mode.startswith("I"):  # 16 bits, which older versions of Pillow hold in 32
        values = np.asarray(image).astype(np.float64)
        image = Image.fromarray(np.rint(values.clip(0, 65535) / 257).astype(np.uint8))
    if image.mode in ("LA", "PA", "La", "RGBa", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image if image.mode == mode else image.convert(mode)


def square(image: Image, size: int) -> Image:
    """The middle square of an image, resized; the crop comes first because a strip would become huge."""
    from PIL import Image

    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    if image.size == (size, size):
        return image
    if side == size:
        return image.crop((int(left), int(top), int(left) + side, int(top) + side))
    return image.resize((size, size), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


@contextmanager
def pillow_errors() -> Iterator[None]:
    """Pillow's warning about very large images becomes an error, and its other warnings about files are dropped.

    Filters are those of the whole process, so this goes around threads, not within them.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode_all(
    decode: Callable[[int], np.ndarray], n: int, keep: Callable[[int, np.ndarray], None], label: str
) -> dict[int, str]:
    """Decodes items 0 to `n` on all cores, hands each to `keep`, and returns the reason for each that is unreadable."""
    from tqdm import tqdm

    failed: dict[int, str] = {}

    def run(start: int) -> int:
        stop = min(start + step, n)
        for index in range(start, stop):
            try:
                keep(index, decode(index))
            except Unreadable as reason:
                failed[index] = str(reason)
        return stop - start

    step = 64  # enough work for a thread to be worth its hand-over
    with (
        pillow_errors(),
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
        tqdm(total=n, desc=label, unit="image", disable=None, leave=False, delay=1.0) as bar,
    ):
        for done in pool.map(run, range(0, n, step)):
            bar.update(done)
    return dict(sorted(failed.items()))
