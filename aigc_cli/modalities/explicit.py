"""Labels that a person sees, reads or hears, on request: a mark on pictures, the Morse signs of "AI" before sound.

GB 45438-2025 asks for one of a twentieth of the shorter side in pictures, and names the rhythm of "AI" for sound.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WORDS = "AI-generated"
_LEAST = 64  # pixels of a side on which the words have room
_SHARE = 0.06  # of the shorter side, that the words are high
_MARGIN = 3
#: Dot, dash, gap, dot, dot: "A" is ``.-``, "I" is ``..``; in units of a dot, which sound or are silent.
_MORSE = "1011100101"
_DOT, _PITCH, _LOUD, _AFTER = 0.06, 880.0, 0.25, 0.2  # seconds, Hz, of full scale, seconds of silence


def marked(image: Image.Image) -> Image.Image:
    """A picture with the words in its lower right corner; on a strip below it where it is too small for them."""
    mode = image.mode if image.mode in ("L", "RGB") else "RGB" if image.mode != "LA" else "L"
    short = min(image.size)
    font = ImageFont.load_default(max(10, round(_SHARE * short)))
    left, top, right, bottom = font.getbbox(WORDS)
    wide, high = round(right - left) + 2 * _MARGIN, round(bottom - top) + 2 * _MARGIN
    if short >= _LEAST and wide <= image.width:
        canvas = image.convert(mode)
        corner = image.width - wide, image.height - high
    else:
        canvas = Image.new(mode, (max(wide, image.width), image.height + high))
        canvas.paste(image.convert(mode), ((canvas.width - image.width) // 2, 0))
        corner = (canvas.width - wide) // 2, image.height
    draw = ImageDraw.Draw(canvas)
    white: Any = 255 if mode == "L" else (255, 255, 255)
    draw.rectangle((*corner, corner[0] + wide, corner[1] + high), fill=0)
    draw.text((corner[0] + _MARGIN - left, corner[1] + _MARGIN - top), WORDS, fill=white, font=font)
    return canvas


def announced(clip: np.ndarray, rate: int) -> np.ndarray:
    """A clip, int16 (channels, samples), after the Morse signs of "AI"."""
    signs = announcement(rate)
    return np.concatenate([np.broadcast_to(signs, (len(clip), len(signs))), clip], axis=1)


def announcement(rate: int) -> np.ndarray:
    """The signs, and a moment of silence, int16 (samples,)."""
    dot = round(_DOT * rate)
    pitch = min(_PITCH, rate / 4)
    on = np.repeat([float(sign) for sign in _MORSE], dot)
    ramp = max(1, dot // 8)  # a tone that starts at once clicks
    smooth = np.convolve(np.pad(on, ramp, mode="edge"), np.ones(2 * ramp + 1) / (2 * ramp + 1), mode="valid")
    tone = np.sin(2 * np.pi * pitch * np.arange(len(on)) / rate) * smooth * _LOUD * 32767
    return np.concatenate([tone, np.zeros(round(_AFTER * rate))]).round().astype(np.int16)
