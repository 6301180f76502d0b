"""Samples within a page: pictures, sound, video and text as part of it, as far as there is room."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

_TYPES = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp",
    ".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".mp4": "video/mp4",
}  # fmt: skip
_AS_IT_IS = 60_000  # bytes of a picture that is not made smaller
_PIXELS = 50_000_000  # of one that is opened at all
_SIDE = 1200  # pixels of a picture at most
_LONGEST = 20.0  # seconds of sound
_TEXT = 20_000  # characters of text
#: What models may write and HTML may not hold, each shown as a character that is not known.
_CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), 127) if chr(code) not in "\t\n\r"}
#: The rates that MP3 knows; other sound is kept as FLAC.
_MP3 = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def inside(path: Path, folder: Path) -> bool:
    """Whether a file lies in a folder, wherever links lead: those of a folder from a stranger may lead to what is
    nobody else's business."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


@dataclass
class Album:
    """Makes samples of a run, which lie in `folder`, part of a page, of `room` bytes together."""

    room: int
    folder: Path
    left_out: list[str] = field(default_factory=list)

    def show(self, path: Path, *, about: str = "") -> str:
        """A file as HTML; "" where there is no room for it, which :attr:`left_out` then says, or it cannot be shown."""
        if not inside(path, self.folder):
            self.left_out.append(f"{path.name} (it is not in the run)")
            return ""
        make: Callable[[Path], tuple[str, bytes]] | None = _MAKERS.get(path.suffix.lower())
        try:
            if path.suffix.lower() in (".txt", ".jsonl"):
                return self._text(path)
            if make is None:
                return ""
            kind, content = make(path)
        except (OSError, ValueError, RuntimeError):  # it is broken, or gone
            self.left_out.append(f"{path.name} (it cannot be read)")
            return ""
        encoded = base64.b64encode(content).decode()
        if len(encoded) > self.room:
            self.left_out.append(path.name)
            return ""
        self.room -= len(encoded)
        said, source = escape(about or path.name), f"data:{kind};base64,{encoded}"
        if kind.startswith("image"):
            return f'<img alt="{said}" src="{source}">'
        tag = kind.partition("/")[0]
        return f'<{tag} controls preload="metadata" aria-label="{said}" src="{source}"></{tag}>'

    def _text(self, path: Path) -> str:
        text = path.read_text(encoding="utf-8", errors="replace").translate(_CONTROLS)
        more = f"\n... and {len(text) - _TEXT:,} characters more" if len(text) > _TEXT else ""
        shown = text[:_TEXT] + more
        if len(shown) > self.room:
            self.left_out.append(path.name)
            return ""
        self.room -= len(shown)
        return f"<pre>{escape(shown)}</pre>"


def _picture(path: Path) -> tuple[str, bytes]:
    """A picture as it is, or where it is large as a JPEG of at most :data:`_SIDE` pixels."""
    from PIL import Image

    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        if image.width * image.height > _PIXELS:
            raise ValueError("it is too large")  # a run may be a stranger's
        if len(content) <= _AS_IT_IS or getattr(image, "is_animated", False):  # one that moves is to move
            return _TYPES[path.suffix.lower()], content
        picture = image.convert("RGB")
    picture.thumbnail((_SIDE, _SIDE))
    picture.save(file := io.BytesIO(), format="JPEG", quality=82, optimize=True)
    smaller = file.getvalue()
    return ("image/jpeg", smaller) if len(smaller) < len(content) else (_TYPES[path.suffix.lower()], content)


def _sound(path: Path) -> tuple[str, bytes]:
    """The beginning of a sound, as it is where that is short."""
    import soundfile

    content = path.read_bytes()
    if len(content) <= _AS_IT_IS:
        return _TYPES[path.suffix.lower()], content
    samples, rate = soundfile.read(path, frames=round(soundfile.info(path).samplerate * _LONGEST), dtype="float32")
    kind = ("MP3", "audio/mpeg") if rate in _MP3 else ("FLAC", "audio/flac")
    soundfile.write(file := io.BytesIO(), samples, rate, format=kind[0])
    return kind[1], file.getvalue()


def _as_it_is(path: Path) -> tuple[str, bytes]:
    return _TYPES[path.suffix.lower()], path.read_bytes()


_MAKERS: dict[str, Callable[[Path], tuple[str, bytes]]] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp"), _picture),
    **dict.fromkeys((".wav", ".flac"), _sound), **dict.fromkeys((".gif", ".mp3", ".mp4"), _as_it_is),
}  # fmt: skip
