"""Clips as GIF, WebP or MP4 files, or as one array; and a sheet of their frames, which a person can look at."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from aigc_cli import __version__
from aigc_cli.errors import ConfigError
from aigc_cli.files import replacing
from aigc_cli.modalities.arrays import ARCHIVE, ArrayWriter
from aigc_cli.modalities.base import Codec
from aigc_cli.modalities.explicit import marked
from aigc_cli.modalities.image_writers import GridLayout, Overview, grid, layout_of, png_info, shown_of, to_image
from aigc_cli.modalities.labels import embed, xmp_packet
from aigc_cli.modalities.samples import LABEL, Arrangement, kind_of
from aigc_cli.modalities.video_codec import codec_of_clips

SHEET, FILM = "frames.png", "clips.gif"
EXTRA = "'aigc-cli[video]'"
_ACROSS = 16  # frames of a clip that a sheet shows, at most
_GIF_RATE = 50  # times are hundredths of a second, and players show a frame of one hundredth for ten
_QUALITY = "12"  # x264's constant rate factor: hardly a difference to the eye, and up to 23 of 255 in a pixel


class _Films(Overview):
    """Shows the first clips in a sheet, and in motion."""

    usual = 16
    preview_suffix = ".png"
    _form = ""

    def _keep(self, raw: Tensor) -> None:
        """Takes the next clips, uint8 (b, c, t, h, w)."""
        frames, height, width = raw.shape[2:]
        rate = codec_of_clips(self.codec).rate
        self._form = f"{frames / rate:g} s each, {frames} frames of {width}x{height} at {rate} a second"
        self.keep_first(raw, max(self.usual, self.arrangement.group))

    def _save_views(self) -> list[str]:
        """The sheet, and the clips beside each other in motion."""
        first, rate = torch.cat(self._first), codec_of_clips(self.codec).rate
        self.save_overview(sheet(first, self.arrangement), SHEET, len(first))
        about = self.provenance.of_grid(len(first))
        save_gif(self.folder / FILM, side_by_side(first, self.arrangement), rate, about)
        return [SHEET, FILM]

    def shown(self) -> str:
        """How long and how large they are."""
        return self._form

    @classmethod
    def preview(cls, path: Path, batches: Iterable[Tensor], arrangement: Arrangement, codec: Codec, title: str) -> None:
        """Writes the sheet to `path`, and beside it, as ``.gif``, the clips in motion."""
        raw, titled = torch.cat(list(batches)).cpu(), replace(arrangement, title=title)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path.with_suffix(".gif")) as part:
            save_gif(part, side_by_side(raw, titled), codec_of_clips(codec).rate, {"label": LABEL})
        with replacing(path) as part:
            sheet(raw, titled).save(part, format="PNG", pnginfo=png_info(LABEL, {"label": LABEL}, titled.source_type()))


class GifWriter(_Films):
    """Each clip as its own GIF, named by its index and by what it is. Grey ones lose nothing, those in colour some."""

    suffix: ClassVar[str] = "gif"

    def _name(self, index: int) -> str:
        return f"{self.arrangement.name(index)}.{self.suffix}"

    def put(self, raw: Tensor) -> None:
        """Writes the next clips, uint8 (b, c, t, h, w)."""
        if raw.shape[1] not in (1, 3):
            raise ConfigError(f"format={self.suffix} cannot hold {raw.shape[1]} channels", "use format=npz")
        self._keep(raw)
        for index, clip in enumerate(raw, start=self.written):
            about = self.provenance.of_sample(self.arrangement, index)
            if self.provenance.explicit and self.arrangement.generated(index):
                clip = _labelled(clip)
            title = self.provenance.title(self.arrangement, index)
            self.save(self.folder / self._name(index), clip, {"description": title, **about})

    def save(self, path: Path, clip: Tensor, about: Mapping[str, Any]) -> None:
        """Writes one clip, uint8 (c, t, h, w), with facts."""
        save_gif(path, images_of(clip), codec_of_clips(self.codec).rate, about)

    def end(self) -> tuple[list[str], list[str]]:
        """Writes the sheet, and the clips in motion."""
        return [self._name(index) for index in range(self.arrangement.n)], self._save_views()


class WebPWriter(GifWriter):
    """The same as animated WebP, which loses nothing in colour either."""

    suffix = "webp"

    def save(self, path: Path, clip: Tensor, about: Mapping[str, Any]) -> None:
        """See :meth:`GifWriter.save`; the facts are in its EXIF description."""
        first, *others = [image.convert("RGB") for image in images_of(clip)]
        delays = _delays(clip.shape[1], codec_of_clips(self.codec).rate, 1)
        exif = Image.Exif()
        exif[0x010E] = json.dumps(dict(about))
        first.save(
            path, format="WEBP", save_all=True, append_images=others, duration=delays, loop=0, lossless=True,
            exact=True, exif=exif.tobytes().removeprefix(b"Exif\0\0"),  # which WebP has no place for
            xmp=xmp_packet(about, kind_of(about)).encode(),
        )  # fmt: skip
        path.write_bytes(_lasting(path.read_bytes(), sum(delays)))


class MP4Writer(GifWriter):
    """The same as MP4 (H.264 in yuv420p), which plays everywhere and loses a little."""

    suffix = "mp4"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        if find_spec("av") is None:
            raise ConfigError("format=mp4 needs PyAV", f"pip install {EXTRA}, or use format=gif, webp or npz")
        super().__init__(*arguments, **named)

    def save(self, path: Path, clip: Tensor, about: Mapping[str, Any]) -> None:
        """See :meth:`GifWriter.save`; the facts are in its comment. Odd sides are repeated by one pixel."""
        import av

        height, width = clip.shape[2:]
        padded = np.pad(_pixels(clip), ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as file:
            file.metadata.update(comment=json.dumps(dict(about)), encoder=f"aigc {__version__}")
            stream: Any = file.add_stream("libx264", rate=Fraction(codec_of_clips(self.codec).rate))
            stream.width, stream.height, stream.pix_fmt = padded.shape[2], padded.shape[1], "yuv420p"
            stream.options = {"crf": _QUALITY, "threads": "1"}
            for frame in padded.repeat(3 // padded.shape[3], axis=3):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            file.mux(stream.encode())
        embed(path, xmp_packet(about, kind_of(about)), "MP4")


class FilmArrayWriter(_Films, ArrayWriter):
    """All clips in one archive, ``numpy.load("samples.npz")["clips"]``, uint8 (n, frames, H, W, C), and ``rate``, how
    many frames a second has. Beside it the sheet."""

    array = "clips"

    @classmethod
    def rows(cls, raw: Tensor) -> np.ndarray:
        """(b, frames, H, W, C)."""
        return super().rows(raw.permute(0, 2, 3, 4, 1))

    def put(self, raw: Tensor) -> None:
        """Writes the next clips, uint8 (b, c, t, h, w)."""
        self._keep(raw)
        super().put(raw)

    def end(self) -> tuple[list[str], list[str]]:
        """Writes the rate and the sheet."""
        self.add("rate", np.array(codec_of_clips(self.codec).rate))
        return [ARCHIVE], self._save_views()


def _pixels(clip: Tensor) -> np.ndarray:
    """A clip (c, t, h, w) as (t, h, w, c)."""
    found: np.ndarray = clip.permute(1, 2, 3, 0).contiguous().numpy()
    return found


def _lasting(webp: bytes, milliseconds: int) -> bytes:
    """A WebP as an animation, where frames that are all alike have become a picture that does not say how long it is
    to be seen: one of one frame, as Google's WebP Container Specification has it. Others are left as they are."""
    chunks, at = [], 12
    while at < len(webp):
        size = int.from_bytes(webp[at + 4 : at + 8], "little")
        chunks.append((webp[at : at + 4], webp[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    if any(name == b"ANIM" for name, _ in chunks):
        return webp
    found = dict(chunks)
    head = found[b"VP8X"]  # a byte of flags, three without a use, and width and height less one
    frame = bytes(6) + head[4:10] + milliseconds.to_bytes(3, "little") + b"\x02" + _chunk(b"VP8L", found[b"VP8L"])
    rest = [(name, data) for name, data in chunks if name not in (b"VP8X", b"VP8L")]
    whole = [(b"VP8X", bytes([head[0] | 2]) + head[1:]), (b"ANIM", bytes(6)), (b"ANMF", frame), *rest]
    return _chunk(b"RIFF", b"WEBP" + b"".join(_chunk(*each) for each in whole))


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2)


def _labelled(clip: Tensor) -> Tensor:
    """A clip, uint8 (c, t, h, w), each frame of which says that it was generated."""
    frames = [np.atleast_3d(np.asarray(marked(image))) for image in images_of(clip)]
    return torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2)


def images_of(clip: Tensor) -> list[Image.Image]:
    """The frames of a clip, uint8 (c, t, h, w)."""
    return [to_image(frame) for frame in clip.unbind(1)]


def _delays(frames: int, rate: int, unit: int) -> list[int]:
    """Milliseconds from each frame to the next, in multiples of a `unit`, which add up to the length of a clip."""
    times = [round(1000 * place / rate / unit) for place in range(frames + 1)]
    return [unit * max(1, after - before) for before, after in pairwise(times)]


def save_gif(path: Path, frames: Sequence[Image.Image], rate: int, about: Mapping[str, Any]) -> None:
    """Writes images of one size as a GIF that plays again and again, with facts as JSON in its comment. Of more
    than 50 a second, those are left out that players would not show in time."""
    if rate > _GIF_RATE:
        count = max(1, round(len(frames) * _GIF_RATE / rate))
        frames, rate = [frames[place * rate // _GIF_RATE] for place in range(count)], _GIF_RATE
    first, *others = frames
    delays = _delays(len(frames), rate, 10)
    first.save(
        path, format="GIF", save_all=True, append_images=others, duration=delays, loop=0, optimize=False,
        comment=json.dumps(dict(about)).encode(),
    )  # fmt: skip
    embed(path, xmp_packet(about, kind_of(about)), "GIF")


def side_by_side(raw: Tensor, arrangement: Arrangement) -> list[Image.Image]:
    """Clips, uint8 (n, c, t, h, w), in the layout of a set: a picture for each frame, in grey where they are grey."""
    layout = layout_of(arrangement, (raw.shape[1], *raw.shape[3:]))
    return [grid(frame, layout).convert("L" if raw.shape[1] == 1 else "RGB") for frame in raw.unbind(2)]


def sheet(raw: Tensor, arrangement: Arrangement, titles: Sequence[str] = ()) -> Image.Image:
    """The frames of clips, uint8 (n, c, t, h, w): a row for each clip, a column for each frame, or for every second one
    and so on of long clips."""
    frames = raw.shape[2]
    shown = range(0, frames, -(-frames // _ACROSS))
    tiles = raw[:, :, list(shown)].transpose(1, 2)  # (n, t, c, h, w)
    rows = list(titles) or [_title(arrangement, index) for index in range(len(raw))]
    layout = GridLayout(
        columns=len(shown), limit=len(raw) * len(shown), title=arrangement.title, row_titles=rows,
        column_titles=[str(place) for place in shown],
    )  # fmt: skip
    n = shown_of(len(raw) * len(shown), tiles.shape[2:], layout) // len(shown)
    return grid(tiles[:n].flatten(0, 1), layout)


def _title(arrangement: Arrangement, index: int) -> str:
    """What a clip is."""
    if arrangement.group > 1 and not arrangement.row and arrangement.row_titles:
        return arrangement.row_titles[index % arrangement.group]
    if arrangement.turns:
        return arrangement.turns[index % len(arrangement.turns)]
    names = [str(values[index]) for values in arrangement.facts.values()]
    return ", ".join(names) or str(index)
