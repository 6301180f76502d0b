"""A folder with all kinds of video files that people have: what is to be read, and what is to be left out and named.

``python tests/trouble_video.py FOLDER`` writes it, for a look at what ``aigc data show data=video_folder`` says.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

SECONDS = 1.2
WIDTH, HEIGHT = 64, 48
#: Files that are to be read, by their names; and what is to be said of each that is left out.
READ = ("a.mp4", "b.mov", "c.webm", "d.mkv", "e.avi", "f.gif", "g.webp", "turned.mp4", "variable.mkv", "cut.avi")
BROKEN = {
    "three.mp4": "it has 3 frames at 10 a second, and a clip takes 8",
    "words.mp4": "it is not a mp4",
    "empty.mkv": "it is empty",
    "head.mov": "it is broken, or cut",
}
CUT = "cut.avi: it is "


def frame(second: float, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A frame whose grey says at what time it is to be seen, with a white corner at the upper left."""
    pixels = np.full((height, width, 3), round(30 + 100 * second), np.uint8)
    pixels[: height // 4, : width // 4] = 255
    return pixels


def write(path: Path, codec: str, rate: float, times: Iterable[float] = (), *, width: int = WIDTH, height: int = HEIGHT,
          pixels: str = "yuv420p") -> Path:  # fmt: skip
    """A file of frames at some times, or `rate` a second."""
    import av

    times = list(times) or [k / rate for k in range(round(SECONDS * rate))]
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=Fraction(rate).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.time_base = Fraction(1, 1000) if codec != "mpeg4" else Fraction(1, round(rate))
        for number, second in enumerate(times):
            picture = av.VideoFrame.from_ndarray(frame(second, width, height), format="rgb24")
            picture.pts = round(second * 1000) if codec != "mpeg4" else number
            picture.time_base = stream.codec_context.time_base
            file.mux(stream.encode(picture))
        file.mux(stream.encode())
    return path


def turned(path: Path) -> None:
    """Says in the header that the picture is to be turned by a quarter, with the clock."""
    content = bytearray(path.read_bytes())
    at = content.find(b"tkhd") + 4 + 4 + 20 + 8 + 8
    content[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
    path.write_bytes(content)


def videos(root: Path) -> None:
    """Fourteen files of seven formats."""
    root.mkdir(parents=True, exist_ok=True)
    write(root / "a.mp4", "libx264", 30)
    write(root / "b.mov", "libx264", 24)
    write(root / "c.webm", "libvpx-vp9", 25)
    write(root / "d.mkv", "ffv1", 10, pixels="bgr0")
    write(root / "e.avi", "mpeg4", 20)
    images = [Image.fromarray(frame(k / 10)) for k in range(12)]
    images[0].save(root / "f.gif", save_all=True, append_images=images[1:], duration=100, loop=0)
    images[0].save(root / "g.webp", save_all=True, append_images=images[1:], duration=100, lossless=True)
    turned(write(root / "turned.mp4", "libx264", 10))
    write(root / "variable.mkv", "libx264", 25, [0, 0.04, 0.08, 0.3, 0.5, 0.54, 0.58, 0.8, 1.0, 1.1, 1.16])
    whole = write(root / "cut.avi", "mpeg4", 20, [k / 20 for k in range(40)]).read_bytes()
    (root / "cut.avi").write_bytes(whole[: round(0.8 * len(whole))])
    write(root / "three.mp4", "libx264", 10, [0, 0.1, 0.2])
    (root / "words.mp4").write_text("#EXTM3U\n#EXTINF:1\n/etc/passwd\n")
    (root / "empty.mkv").touch()
    (root / "head.mov").write_bytes((root / "b.mov").read_bytes()[:400])


if __name__ == "__main__":
    videos(Path(sys.argv[1]))
