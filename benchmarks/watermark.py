"""How surely marks are found, how often where there are none, and what they cost.

Of text: a run of model=transformer on text, whose samples of 100 tokens are scored, and pieces of its data; the cost is
what its own likelihood of them falls by. Of translations: a run of model=seq2seq, the lines of a file to translate, and
those of another by people; by itself each is short, and as many as make 25 tokens and more are a text. Of pictures:
tiles of photographs (those of scikit-learn, and others in a folder), through JPEG and resizing. Of sound: clips in a
folder, through FLAC and Vorbis.

    python benchmarks/watermark.py text RUN [n]
    python benchmarks/watermark.py translations RUN SOURCES REFERENCES [temperature]
    python benchmarks/watermark.py pictures [FOLDER]
    python benchmarks/watermark.py sound FOLDER
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from aigc_cli import open_run
from aigc_cli.data.open import items_at, open_dataset
from aigc_cli.modalities.text_files import read_lines
from aigc_cli.modalities.watermarks import PictureMarker, SoundMarker
from aigc_cli.nn.watermark import Key, Score, text_score

OTHERS = [Key(f"key number {number}") for number in range(10)]
KEY = Key("the key of the benchmark")


def told(what: str, scores: list[Score]) -> None:
    z = [score.z for score in scores]
    share = np.mean([score.found for score in scores])
    print(f"{what:<34} found {share:6.1%} of {len(z)}; z {np.mean(z):6.2f}, {min(z):6.2f} to {max(z):6.2f}", flush=True)


def text(name: str, n: int) -> None:
    how: dict[str, Any] = {"max_tokens": 100, "top_p": 0.95, "seed": 1}
    plain_run = open_run(name)
    codec = plain_run.restored.codec
    size = codec.tokenizer.vocab_size  # type: ignore[attr-defined]
    rows = {}
    for kind, run in (("plain", plain_run), ("marked", open_run(name, watermark="the key of the benchmark"))):
        began = time.process_time()
        texts = run.sample(n, **how)
        print(f"{kind}: {time.process_time() - began:.1f} s of processor time for {n} texts")
        nats = plain_run.score(texts)
        cost = float(nats["nll"].sum() / nats["tokens"].sum())
        print(f"{kind}: {cost:.3f} nats a token by the model itself")
        rows[kind] = [codec.tokenizer.encode(each).tolist() for each in texts]  # type: ignore[attr-defined]
    green = partial(text_score, KEY, size, range(4))
    for length in (25, 50, 100):
        told(f"marked, {length} tokens", [green([row[:length]]) for row in rows["marked"]])
    told("marked, a tenth of tokens lost", [green([[t for i, t in enumerate(r) if i % 10]]) for r in rows["marked"]])
    told("not marked", [green([row]) for row in rows["plain"]])
    data = open_dataset(plain_run.run.config["data"], "train")
    tokens = items_at(data, list(range(min(n, len(data))))).content.flatten().tolist()
    pieces = [tokens[start : start + 100] for start in range(0, len(tokens) - 99, 100)][:n]
    told("text of the data, by people", [green([piece]) for piece in pieces])
    told("the same, 10 other keys", [text_score(key, size, range(4), [p]) for key in OTHERS for p in pieces])
    told("marked by another key", [text_score(OTHERS[0], size, range(4), [row]) for row in rows["marked"]])


def joined(rows: list[list[int]], size: int) -> list[list[list[int]]]:
    """Consecutive rows of tokens in texts of `size` tokens each, the last row of each cut."""
    found, text, left = [], [], size
    for row in rows:
        text.append(row[:left])
        left -= len(text[-1])
        if not left:
            found.append(text)
            text, left = [], size
    return found


def translations(name: str, sources: Path, references: Path, temperature: float) -> None:
    how: dict[str, Any] = {"temperature": temperature, "top_p": 0.95, "seed": 1}
    plain_run, lines = open_run(name), [line for line in read_lines(sources) if line.strip()]
    codec = plain_run.restored.codec
    size = codec.tokenizer.vocab_size  # type: ignore[attr-defined]

    def tokens(texts: list[str]) -> list[list[int]]:
        return [row for text in texts if (row := codec.tokenizer.encode(text).tolist())]  # type: ignore[attr-defined]

    rows = {"people": tokens(read_lines(references))}
    for kind, run in (("plain", plain_run), ("marked", open_run(name, watermark="the key of the benchmark"))):
        texts = run.sample(prompt=lines, **how)
        pairs = [(text, line) for text, line in zip(texts, lines, strict=True) if text.strip()]
        nats = plain_run.score([text for text, _ in pairs], sources=[line for _, line in pairs])
        cost = float(nats["nll"].sum() / nats["tokens"].sum())
        rows[kind] = tokens(texts)
        each = np.mean([len(row) for row in rows[kind]])
        print(f"{kind}: {cost:.3f} nats a token by the model itself; {each:.1f} tokens each; such as {texts[:2]}")
    green = partial(text_score, KEY, size, range(4))
    told("marked, one translation", [green([row]) for row in rows["marked"]])
    for length in (25, 50, 100, 200):
        told(f"marked, {length} tokens of several", [green(text) for text in joined(rows["marked"], length)])
    for kind in ("plain", "people"):
        told(f"{kind}, one", [green([row]) for row in rows[kind]])
        found = [text_score(key, size, range(4), text) for key in (KEY, *OTHERS) for text in joined(rows[kind], 100)]
        told(f"{kind}, 100 tokens", found)
    told("marked by another key", [text_score(OTHERS[0], size, range(4), text) for text in joined(rows["marked"], 100)])


def tiles(side: int, folder: Path | None) -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    pictures = [Image.fromarray(image) for image in load_sample_images().images]
    pictures += [] if folder is None else [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())]
    found = []
    for picture in pictures:
        for part in (1, 2, 3):  # a photograph made smaller has rougher tiles
            small = np.asarray(
                picture.resize((picture.width // part, picture.height // part), Image.Resampling.LANCZOS)
            )
            for top in range(0, small.shape[0] - side + 1, side):
                for left in range(0, small.shape[1] - side + 1, side):
                    found.append(small[top : top + side, left : left + side].transpose(2, 0, 1))
    return found


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    Image.fromarray(pixels.transpose(1, 2, 0)).save(packed := io.BytesIO(), "JPEG", quality=quality)
    return np.asarray(Image.open(packed)).transpose(2, 0, 1)


def resized(pixels: np.ndarray) -> np.ndarray:
    size = pixels.shape[2] * 3 // 4, pixels.shape[1] * 3 // 4
    return np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).resize(size, Image.Resampling.BICUBIC)).transpose(
        2, 0, 1
    )


def pictures(folder: Path | None) -> None:
    marker = PictureMarker(KEY)
    for side in (32, 64, 128, 256):
        plain = tiles(side, folder)[:1000]
        began = time.process_time()
        marked = [marker.mark(each) for each in plain]
        spent = (time.process_time() - began) / len(plain)
        psnr = [
            10 * np.log10(255**2 / max(1e-9, np.mean((a.astype(float) - b) ** 2)))
            for a, b in zip(plain, marked, strict=True)
        ]
        print(f"{side} pixels: PSNR {np.mean(psnr):.1f} dB, at least {min(psnr):.1f}; {spent * 1000:.1f} ms each")
        ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "as it is": lambda each: each,
            "JPEG 75": lambda each: jpeg(each, 75),
            "JPEG 50": lambda each: jpeg(each, 50),
            "3/4 as large": resized,
            "3/4 as large, JPEG 75": lambda each: jpeg(resized(each), 75),
        }
        for what, way in ways.items():
            told(f"{side}, {what}", [marker.of(way(each)) for each in marked])
        told(f"{side}, not marked, 11 keys", [PictureMarker(key).of(each) for key in (KEY, *OTHERS) for each in plain])
        told(f"{side}, marked by another key", [PictureMarker(OTHERS[0]).of(each) for each in marked])


def packed(sound: np.ndarray, rate: int, **how: str | float) -> np.ndarray:
    soundfile.write(file := io.BytesIO(), sound.T, rate, **how)
    file.seek(0)
    return soundfile.read(file, dtype="int16", always_2d=True)[0].T


def sound(folder: Path) -> None:
    marker = SoundMarker(KEY)
    clips = [soundfile.read(path, dtype="int16", always_2d=True) for path in sorted(folder.rglob("*.wav"))[::10]]
    # As loud as data.normalize=peak makes them.
    plain = [
        (np.rint(clip.T * (29000 / abs(clip.astype(int)).max())).astype(np.int16), rate)
        for clip, rate in clips
        if clip.any()
    ]
    began = time.process_time()
    marked = [(marker.mark(clip, rate), rate) for clip, rate in plain]
    spent = (time.process_time() - began) / len(plain)
    snr = [10 * np.log10(np.mean(a[0].astype(float) ** 2) / max(1e-9, np.mean((a[0].astype(float) - b[0]) ** 2)))
           for a, b in zip(plain, marked, strict=True)]  # fmt: skip
    seconds = [clip.shape[1] / rate for clip, rate in plain]
    print(f"{spent * 1000:.1f} ms each")
    print(f"{np.mean(seconds):.2f} s each; SNR {np.mean(snr):.1f} dB, at least {min(snr):.1f}")
    ways: dict[str, dict[str, str | float]] = {
        "FLAC": {"format": "FLAC"},
        "Vorbis, quality 5": {"format": "OGG", "compression_level": 0.5},
        "Vorbis, quality 3": {"format": "OGG", "compression_level": 0.7},
        "Vorbis, quality 1": {"format": "OGG", "compression_level": 0.9},
    }
    for what, how in ways.items():
        told(what, [marker.of(packed(clip, rate, **how), rate) for clip, rate in marked])
    told("half as loud", [marker.of(clip // 2, rate) for clip, rate in marked])
    told("not marked, 11 keys", [SoundMarker(key).of(clip, rate) for key in (KEY, *OTHERS) for clip, rate in plain])


if __name__ == "__main__":
    kind, *words = sys.argv[1:] or [""]
    if kind == "text" and words:
        text(words[0], int(words[1]) if len(words) > 1 else 1000)
    elif kind == "translations" and len(words) > 2:
        translations(words[0], Path(words[1]), Path(words[2]), float(words[3]) if len(words) > 3 else 1.0)
    elif kind == "pictures":
        pictures(Path(words[0]) if words else None)
    elif kind == "sound" and words:
        sound(Path(words[0]))
    else:
        sys.exit(__doc__)
