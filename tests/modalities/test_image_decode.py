import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from aigc_cli.modalities.image_decode import decode_all, decode_image, pillow_errors
from aigc_cli.modalities.unreadable import Unreadable


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(content: bytes, size: int = 4, channels: int = 3) -> np.ndarray:
    with pillow_errors():
        return decode_image(content, size, channels)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, color: int, rows: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


RED = (255, 0, 0)
GREY_OF_RED = 76


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_formats(kind):
    pixels = decode(encoded(Image.new("RGB", (6, 4), RED), kind))
    assert pixels.shape == (3, 4, 4)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.array(RED)[:, None, None]).max() <= 3


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (Image.new("L", (4, 4), 100), {}, (100,) * 3),
        (Image.new("1", (4, 4), 1), {}, (255,) * 3),
        (Image.new("RGB", (4, 4), RED).convert("P"), {}, RED),
        (Image.new("LA", (4, 4), (0, 51)), {}, (204,) * 3),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 0)), {}, (255,) * 3),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 255)), {}, RED),
        (Image.new("RGB", (4, 4), RED), {"transparency": RED}, (255,) * 3),
        (Image.new("RGB", (4, 4), RED).convert("P"), {"transparency": bytes(256)}, (255,) * 3),
    ],
    ids=["grey", "bilevel", "palette", "grey-alpha", "transparent", "opaque", "colour-key", "palette-alpha"],
)
def test_modes(image, options, expected):
    content = encoded(image, **options)
    pixels = decode(content)
    assert np.abs(pixels.astype(int) - np.array(expected)[:, None, None]).max() <= 1
    grey = decode(content, channels=1)
    assert grey.shape == (1, 4, 4)
    weights = np.array([0.299, 0.587, 0.114])
    assert abs(int(grey[0, 0, 0]) - float(weights @ np.array(expected))) <= 1.5


def test_cmyk():
    pixels = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - np.array(RED)[:, None, None]).max() <= 6


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("value", [0, 257, 128 * 257, 65535])
def test_sixteen_bit_grey_is_scaled_not_clipped(channels, value):
    row = b"\0" + struct.pack(">H", value) * 4
    pixels = decode(png(4, 4, 16, 0, row * 4), channels=channels)
    assert np.unique(pixels).tolist() == [value // 257]


def test_sixteen_bit_colour():
    row = b"\0" + struct.pack(">HHH", 65535, 128 * 257, 0) * 4
    assert decode(png(4, 4, 16, 2, row * 4))[:, 0, 0].tolist() == [255, 128, 0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_exif_orientation_is_honoured(kind):
    stored = Image.new("RGB", (16, 16), "black")
    stored.paste("white", (0, 0, 16, 8))  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    pixels = decode(encoded(stored, kind, exif=exif, quality=95), size=16, channels=1)[0]
    assert pixels[:, 12:].min() > 240
    assert pixels[:, :4].max() < 15


def test_the_middle_square_is_kept():
    image = Image.new("RGB", (30, 10), "black")
    image.paste("white", (10, 0, 20, 10))
    assert decode(encoded(image), size=10).min() == 255
    assert decode(encoded(image), size=5).mean() > 240


def test_shrinking_antialiases():
    stripes = Image.fromarray(np.tile(np.array([0, 255], dtype=np.uint8), (256, 128)))
    pixels = decode(encoded(stripes), size=16, channels=1)
    assert np.abs(pixels.astype(int) - 127).max() < 20


def test_a_large_jpeg_keeps_its_colours():
    assert np.abs(decode(encoded(Image.new("RGB", (900, 700), RED), "JPEG"), size=16)[0].astype(int) - 254).max() <= 3


def test_a_long_strip_costs_no_memory():
    assert decode(encoded(Image.new("L", (60_000, 2), 9)), size=64, channels=1).shape == (1, 64, 64)


GOOD = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a png"),
        (b"just words", "not a png"),
        (GOOD[: len(GOOD) // 2], "."),
        (GOOD[:20], "(?i)truncated"),
        (encoded(Image.new("L", (4, 4)), "PPM"), "not a png"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "floating-point"),
        (png(30_000, 30_000, 1, 0, b""), "more than .* pixels"),
        (png(10_000, 10_000, 1, 0, b""), "more than .* pixels"),
    ],
    ids=["empty", "text", "truncated", "header", "ppm", "floats", "bomb", "large"],
)
def test_what_cannot_be_read(content, reason):
    with pytest.raises(Unreadable, match=reason):
        decode(content)


def test_many_at_once_say_which_failed():
    kept = {}
    contents = [GOOD if index % 50 else b"broken" for index in range(130)]
    failed = decode_all(lambda index: decode_image(contents[index], 8, 3), 130, kept.__setitem__, "")
    assert list(failed) == [0, 50, 100]
    assert len(kept) == 127


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "JPEG", "WEBP", "BMP", "AVIF"])
def test_every_kind_is_read(kind):
    try:
        content = encoded(Image.new("RGB", (9, 8), (200, 40, 40)), kind)
    except (KeyError, OSError):
        pytest.skip("not in this version of Pillow")
    assert np.abs(decode(content).astype(int).mean(axis=(1, 2)) - [200, 40, 40]).max() < 8


def test_the_first_frame_of_several_is_taken():
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (250, 10)]
    for kind in ("GIF", "TIFF"):
        buffer = io.BytesIO()
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
        assert decode(buffer.getvalue())[0].mean() > 240


def test_a_tiff_of_16_bits_is_scaled_and_a_turned_one_is_upright():
    deep = encoded(Image.fromarray(np.full((8, 8), 65535, np.uint16)), "TIFF")
    assert decode(deep).min() == 255
    ramp = np.linspace(0, 255, 8).astype(np.uint8)[:, None].repeat(8, 1)
    buffer, turned = io.BytesIO(), Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(ramp).rotate(90).save(buffer, "TIFF", exif=turned)
    assert np.abs(decode(buffer.getvalue(), 8, 1)[0].astype(int) - ramp).max() < 2
