"""Clips as WAV or FLAC files, or as one array; and a sheet of their spectrograms, which a person can look at."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import soundfile
import torch
from torch import Tensor

from aigc_cli import __version__
from aigc_cli.files import replacing
from aigc_cli.modalities.arrays import ARCHIVE, ArrayWriter
from aigc_cli.modalities.audio_codecs import AudioCodec, MelCodec
from aigc_cli.modalities.audio_config import lengths
from aigc_cli.modalities.base import Codec
from aigc_cli.modalities.explicit import announced
from aigc_cli.modalities.image_writers import Overview, grid, layout_of, png_info
from aigc_cli.modalities.labels import embed, xmp_packet
from aigc_cli.modalities.samples import LABEL, Arrangement, kind_of

SHEET = "spectrograms.png"
_LEAST_S = 0.005  # of a file, because players refuse an empty one
_GAP_S = 0.25  # of silence between the clips of a preview
_BINS, _FRAMES = 64, 128  # pixels of a spectrogram, at least
_DARK, _LIGHT = 0.4, 0.85  # of the codec's range, from what is hardly heard to what is loud
#: Colours from quiet to loud that are as far apart in light as they look: matplotlib's viridis, at nine places.
_VIRIDIS = ("440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725")
_AFTER = 245  # the grey that is to be seen after the end of a clip
_TICK = 3  # pixels


def rate_of(codec: Codec) -> int:
    """Samples a second of what a codec of sound decodes to, be it in the end, after the codes of a tokenizer."""
    while not isinstance(codec, AudioCodec):
        codec = codec.inner  # type: ignore[attr-defined]
    return codec.rate


def trimmed(clip: Tensor, rate: int) -> Tensor:
    """A clip (channels, samples) without the silence that follows it, of a few milliseconds at least."""
    return clip[:, : max(int(lengths(clip[None])), math.ceil(_LEAST_S * rate))]


class _Clips(Overview):
    """Shows the first clips in a sheet, and counts how long all are."""

    usual = 20
    preview_suffix = ".png"
    _seconds: tuple[float, ...] = ()

    def _keep(self, raw: Tensor) -> None:
        """Takes the next clips, int16 (b, channels, samples)."""
        self.keep_first(raw, layout_of(self.arrangement, (1, _BINS, _FRAMES)).limit)
        self._seconds += tuple((lengths(raw) / rate_of(self.codec)).tolist())

    def _save_sheet(self) -> list[str]:
        first = torch.cat(self._first)
        self.save_overview(sheet(first, self.arrangement, rate_of(self.codec)), SHEET, len(first))
        return [SHEET]

    def shown(self) -> str:
        """How long they are."""
        shortest, longest, total = min(self._seconds), max(self._seconds), sum(self._seconds)
        each = f"{longest:.2f} s" if longest - shortest < 0.005 else f"{shortest:.2f} to {longest:.2f} s"
        silent = sum(seconds == 0 for seconds in self._seconds)
        more = f", {silent} of them silent" if silent else ""
        return f"{each} each, {total:.1f} s in all, at {rate_of(self.codec)} Hz{more}"

    @classmethod
    def preview(cls, path: Path, batches: Iterable[Tensor], arrangement: Arrangement, codec: Codec, title: str) -> None:
        """Writes the sheet to `path`, and beside it, as ``.wav``, the clips one after the other."""
        raw, rate = torch.cat(list(batches)).cpu(), rate_of(codec)
        gap = torch.zeros(raw.shape[1], round(_GAP_S * rate), dtype=torch.int16)
        row = torch.cat([part for clip in raw for part in (trimmed(clip, rate), gap)], dim=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path.with_suffix(".wav")) as part:
            write_clip(part, row, rate, "WAV", f"{LABEL}, {title}", {"label": LABEL})
        with replacing(path) as part:
            info = png_info(LABEL, {"label": LABEL}, arrangement.source_type())
            sheet(raw, replace(arrangement, title=title), rate).save(part, format="PNG", pnginfo=info)


class WavWriter(_Clips):
    """Each clip as its own WAV of 16 bits, named by its index and by what it is, as long as it sounds."""

    kind: ClassVar[str] = "WAV"

    def _name(self, index: int) -> str:
        return f"{self.arrangement.name(index)}.{self.kind.lower()}"

    def put(self, raw: Tensor) -> None:
        """Writes the next clips, int16 (b, channels, samples)."""
        self._keep(raw)
        rate = rate_of(self.codec)
        for index, clip in enumerate(raw, start=self.written):
            about = self.provenance.of_sample(self.arrangement, index)
            sound, title = trimmed(clip, rate), self.provenance.title(self.arrangement, index)
            if self.provenance.explicit and self.arrangement.generated(index):
                sound = torch.from_numpy(announced(sound.numpy(), rate))
            write_clip(self.folder / self._name(index), sound, rate, self.kind, title, about)

    def end(self) -> tuple[list[str], list[str]]:
        """Writes the sheet."""
        return [self._name(index) for index in range(self.arrangement.n)], self._save_sheet()


class FlacWriter(WavWriter):
    """The same as FLAC, which loses nothing and is about half as large."""

    kind = "FLAC"


class ClipArrayWriter(_Clips, ArrayWriter):
    """All clips in one archive, ``numpy.load("samples.npz")["clips"]``, int16 (n, channels, samples), each followed by
    zeros; ``rate`` is how many samples a second has. Beside it the sheet."""

    array = "clips"

    def put(self, raw: Tensor) -> None:
        """Writes the next clips, int16 (b, channels, samples)."""
        self._keep(raw)
        super().put(raw)

    def end(self) -> tuple[list[str], list[str]]:
        """Writes the rate and the sheet."""
        self.add("rate", np.array(rate_of(self.codec)))
        return [ARCHIVE], self._save_sheet()


def write_clip(path: Path, clip: Tensor, rate: int, kind: str, sentence: str, about: Mapping[str, Any]) -> None:
    """Writes one clip, int16 (channels, samples), with a sentence as its title and facts as JSON in its comment, which
    every player shows: of a WAV the entries INAM and ICMT of its chunk LIST INFO; and with its label, see
    :mod:`aigc_cli.modalities.labels`."""
    options: dict[str, Any] = {"samplerate": rate, "channels": len(clip), "subtype": "PCM_16", "format": kind}
    with soundfile.SoundFile(path, "w", **options) as file:
        file.title, file.software, file.comment = sentence, f"aigc {__version__}", json.dumps(dict(about))
        file.write(clip.T.contiguous().numpy())
    embed(path, xmp_packet(about, kind_of(about)), kind)


def sheet(raw: Tensor, arrangement: Arrangement, rate: int) -> Any:
    """Spectrograms of the first clips of `raw`, int16 (n, channels, samples), as a picture in the layout of a set; what
    the axes are stands above."""
    tiles = spectrograms(raw, rate)
    layout = layout_of(arrangement, tiles.shape[1:])
    axes = f"each 0 to {raw.shape[2] / rate:.2g} s, 0 to {rate / 2000:g} kHz (mel); ticks: 0.1 s, 1 kHz"
    return grid(tiles, replace(layout, title=f"{layout.title}; {axes}" if layout.title else axes))


def spectrograms(raw: Tensor, rate: int) -> Tensor:
    """Log-mel spectrograms of clips, int16 (n, channels, samples), as pictures, uint8 (n, 3, bins, frames): low at the
    bottom, light where it is loud, and grey after the end of a clip. Of several channels they are the mean's."""
    samples = raw.shape[2]
    hop = max(16, 2 ** int(math.log2(max(1, samples / _FRAMES))))
    codec = MelCodec(rate, 1, samples, hop, _BINS)
    mono = raw.float().mean(dim=1, keepdim=True).round().to(torch.int16)
    level = ((codec.encode(mono)[:, 0] + 1) / 2 - _DARK) / (_LIGHT - _DARK)
    colours = torch.tensor([[int(code[place : place + 2], 16) for place in (0, 2, 4)] for code in _VIRIDIS]).float()
    place = level.clamp(0, 1) * (len(colours) - 1)
    low = place.long().clamp_max(len(colours) - 2)
    share = (place - low)[..., None]
    pictures = (colours[low] * (1 - share) + colours[low + 1] * share).round()  # (n, bins, frames, 3)
    after = torch.arange(codec.frames) * hop >= lengths(raw)[:, None].clamp_min(1)
    pictures = torch.where(after[:, None, :, None], float(_AFTER), pictures)
    seconds = (torch.arange(1, 1 + int(samples / rate * 10 - 1e-6)) * rate / 10 / hop).long()
    hertz = torch.arange(1000, rate // 2, 1000)
    pictures[:, :_TICK, seconds.clamp_max(codec.frames - 1)] = 255
    pictures[:, (_mel(hertz) / _mel(torch.tensor(rate / 2)) * _BINS).long(), :_TICK] = 255
    return pictures.flip(1).permute(0, 3, 1, 2).to(torch.uint8).contiguous()


def _mel(hertz: Tensor) -> Tensor:
    return (1 + hertz / 700).log()
