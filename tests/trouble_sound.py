"""A folder with all kinds of sound files that people have: what is to be read, and what is to be left out and named.

``python tests/trouble_sound.py FOLDER`` writes it, for a look at what ``aigc data show data=audio_folder`` says.
"""

from __future__ import annotations

import struct
import sys
import wave
from pathlib import Path

import numpy as np
import soundfile

from aigc_cli.modalities.audio_decode import missing_packages

SECONDS = 0.6
#: The pitch in Hz of the sine in each file that is to be read, by its name.
READ: dict[str, float] = {}
#: What is to be said of each file that is left out, by its name.
BROKEN = {
    "empty.wav": "it is empty",
    "words.mp3": "not sound",
    "random.ogg": "not sound",
    "cut.wav": "it is cut: 6",
    "cut.mp3": "it is cut: ",
    "cut.flac": "it is broken",
    "cut.ogg": "it is cut",
    "cut.aiff": "it is cut: 6",
    "head.wav": "it is cut: 0%",
    "no_frames.wav": "it holds no sound",
    "nan.wav": "not finite",
    "infinite.wav": "not finite",
    "silent.flac": "it is silent",
    "constant.wav": "it is silent",
    "cancelled.wav": "cancel each other",
    "short.wav": "it has 10 ms",
    "page.wav": "not sound",
}
WRITTEN = (  # suffix, format, subtype, rate, channels
    ("wav", "WAV", "PCM_U8", 8000, 1), ("wav", "WAV", "PCM_16", 11025, 2), ("wav", "WAV", "PCM_24", 96000, 1),
    ("wav", "WAV", "PCM_32", 44100, 6), ("wav", "WAV", "FLOAT", 48000, 2), ("wav", "WAV", "DOUBLE", 22050, 1),
    ("wav", "WAV", "ULAW", 8000, 1), ("wav", "WAV", "ALAW", 8000, 1), ("wav", "WAV", "IMA_ADPCM", 16000, 1),
    ("wav", "WAV", "MS_ADPCM", 22050, 2), ("wav", "WAV", "GSM610", 8000, 1), ("wav", "WAVEX", "PCM_16", 48000, 4),
    ("w64", "W64", "PCM_16", 16000, 1), ("rf64", "RF64", "PCM_24", 44100, 2), ("flac", "FLAC", "PCM_16", 44100, 2),
    ("flac", "FLAC", "PCM_24", 96000, 1), ("ogg", "OGG", "VORBIS", 44100, 2), ("opus", "OGG", "OPUS", 48000, 1),
    ("opus", "OGG", "OPUS", 8000, 2), ("mp3", "MP3", "MPEG_LAYER_III", 44100, 2),
    ("mp3", "MP3", "MPEG_LAYER_III", 16000, 1), ("aiff", "AIFF", "PCM_16", 44100, 1), ("aif", "AIFF", "FLOAT", 8000, 2),
    ("caf", "CAF", "PCM_16", 32000, 1), ("caf", "CAF", "ALAC_16", 44100, 2), ("au", "AU", "PCM_16", 8000, 1),
)  # fmt: skip


def sine(pitch: float, rate: int, seconds: float = SECONDS) -> np.ndarray:
    """A quiet sine."""
    return 0.4 * np.sin(2 * np.pi * pitch * np.arange(int(rate * seconds)) / rate)


def write(root: Path, name: str, pitch: float, rate: int = 16000, channels: int = 1, **how: str) -> Path:
    """A file that is to be read as a sine of a pitch: other channels are fainter."""
    READ[name] = pitch
    shape = sine(pitch, rate)[:, None] * np.linspace(1, 0.5, channels)
    soundfile.write(root / name, shape, rate, **how)
    return root / name


def formats(root: Path) -> None:
    """A sine in every format that is read here."""
    for number, (suffix, kind, subtype, rate, channels) in enumerate(WRITTEN):
        write(root, f"{kind}-{subtype}-{rate}.{suffix}".lower(), 300 + 40 * number, rate, channels, format=kind,
              subtype=subtype)  # fmt: skip


def oddities(root: Path) -> None:
    """Files that are to be read although something is odd about them."""
    write(root, "wrong_suffix.wav", 500, format="FLAC", subtype="PCM_16")
    write(root, "UPPER.WAV", 520, format="WAV")
    whole = write(root, "from_a_pipe.wav", 540).read_bytes()
    at = whole.index(b"data") + 4
    (root / "from_a_pipe.wav").write_bytes(whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 :])
    listed = write(root, "with_tags.wav", 560)
    listed.write_bytes(listed.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    READ["loud.wav"] = 580
    soundfile.write(root / "loud.wav", 4 * sine(580, 16000), 16000, subtype="FLOAT")
    READ["clipped.wav"] = 600
    soundfile.write(root / "clipped.wav", (3 * sine(600, 16000)).clip(-1, 1), 16000)
    READ["shifted.wav"] = 620
    soundfile.write(root / "shifted.wav", 0.5 * sine(620, 16000) + 0.3, 16000)
    READ["faint.flac"] = 640
    soundfile.write(root / "faint.flac", 0.02 * sine(640, 16000), 16000, subtype="PCM_24")


def broken(root: Path) -> None:
    """Files that are to be left out, with the reasons in :data:`BROKEN`."""
    for suffix in ("wav", "mp3", "flac", "ogg", "aiff"):
        path = root / f"cut.{suffix}"
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, 12000)
        soundfile.write(path, noise, 16000)
        path.write_bytes(path.read_bytes()[: int(0.65 * path.stat().st_size)])
    (root / "empty.wav").write_bytes(b"")
    (root / "words.mp3").write_text("these are words\n" * 40)
    (root / "random.ogg").write_bytes(np.random.default_rng(0).bytes(4000))
    (root / "page.wav").write_text("<!DOCTYPE html><html><title>404</title></html>")
    soundfile.write(root / "head.wav", sine(440, 16000), 16000)
    (root / "head.wav").write_bytes((root / "head.wav").read_bytes()[:48])
    with wave.open(str(root / "no_frames.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
    for name, value in (("nan", np.nan), ("infinite", np.inf)):
        content = sine(440, 16000)
        content[5000] = value
        soundfile.write(root / f"{name}.wav", content, 16000, subtype="FLOAT")
    soundfile.write(root / "silent.flac", np.zeros(16000), 16000)
    soundfile.write(root / "constant.wav", np.full(16000, 0.3), 16000)
    soundfile.write(root / "cancelled.wav", np.stack([sine(440, 16000), -sine(440, 16000)], axis=1), 16000)
    soundfile.write(root / "short.wav", sine(440, 16000, 0.01), 16000)


def others(root: Path) -> None:
    """What is no sound, or none that can be read without a further package."""
    (root / "notes.txt").write_text("to do")
    (root / "README.md").write_text("about these sounds")
    (root / ".hidden.wav").write_bytes(b"RIFF")
    if missing_packages():  # else it is read as a broken file
        (root / "voice.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(100))


def trouble(root: Path) -> None:
    """All of it, flat in one folder."""
    root.mkdir(parents=True, exist_ok=True)
    for part in (formats, oddities, broken, others):
        part(root)


if __name__ == "__main__":
    trouble(Path(sys.argv[1]))
