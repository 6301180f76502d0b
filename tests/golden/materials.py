"""Small files of every kind that the goldens train on and measure: texts, pairs, pictures, arrays, weights.

Everything follows from fixed seeds and from the digits of scikit-learn, and nothing comes from the package itself, so
that a change to the package cannot change what it is given.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import zipfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

WORDS = ["the", "a", "one", "red", "old", "dog", "cat", "bird", "sees", "hears", "naïve", "of", "moon", "tree"]
PROMPTS = ["the cat", "a red bird", "one"]


def sentences(n: int, seed: int) -> list[str]:
    """Sentences of three to eight words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 8))) + "." for _ in range(n)]


def altered(lines: list[str], seed: int) -> list[str]:
    """The lines with about a third of their words replaced, as a poor translation of them would be."""
    draw = random.Random(seed)
    return [" ".join(draw.choice(WORDS) if draw.random() < 0.3 else word for word in line.split()) for line in lines]


def write_texts(folder: Path) -> None:
    """``lines.txt``, ``squares.tsv``, ``pairs/*.en`` and ``*.de``, ``rows.jsonl.gz``, ``split-texts/``,
    ``prompts.txt``, ``fake.txt`` and ``real.txt``."""
    _write(folder / "lines.txt", sentences(160, 0))
    squares = [f"{number} times {number}\t{number * number}" for number in range(200)]
    _write(folder / "squares.tsv", ["question\tanswer", *squares])
    (folder / "pairs").mkdir()
    for split, n in (("train", 60), ("val", 20), ("test", 30)):
        lines = sentences(n, len(split))
        _write(folder / "pairs" / f"{split}.en", lines)
        _write(folder / "pairs" / f"{split}.de", [" ".join(line.split()[::-1]) for line in lines])
    _write(folder / "prompts.txt", PROMPTS)
    (folder / "split-texts").mkdir()
    for split, n in (("train", 80), ("val", 20), ("test", 30)):
        _write(folder / "split-texts" / f"{split}.txt", sentences(n, len(split) + 10))
    rows = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(sentences(120, 1)))
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(rows.encode(), mtime=0))
    real = sentences(40, 7)
    _write(folder / "real.txt", real)
    _write(folder / "fake.txt", altered(real, 8))


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def digits() -> np.ndarray:
    """The 1,797 scans of scikit-learn as grey uint8 images (n, 8, 8)."""
    from sklearn.datasets import load_digits

    scans: np.ndarray = (load_digits().images * (255 / 16)).round().astype(np.uint8)
    return scans


def write_arrays(folder: Path, n: int = 160) -> None:
    """``a.npz``, ``b.npz`` and ``c.npz``, `n` digits each, the first with noise on them and one copy of b's."""
    scans, rng = digits(), np.random.default_rng(0)
    a, b, c = (scans[start : start + n] for start in (0, n, 2 * n))
    noisy = np.clip(a.astype(int) + rng.integers(-40, 41, a.shape), 0, 255).astype(np.uint8)
    noisy[0] = b[5]
    for name, images in (("a", noisy), ("b", b), ("c", c)):
        buffer = io.BytesIO()
        np.save(buffer, images)
        with zipfile.ZipFile(folder / f"{name}.npz", "w") as archive:  # np.savez would write down the time
            archive.writestr(zipfile.ZipInfo("images.npy"), buffer.getvalue())


def colours(n: int, side: int, seed: int) -> np.ndarray:
    """Images (n, side, side, 3) of ramps under noise, the even ones brighter on the left and the odd ones above."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(120, 0, side)[None, :, None]
    noise = rng.integers(0, 130, (n, side, side, 3))
    return np.stack([noise[i] + (ramp if i % 2 == 0 else ramp.transpose(1, 0, 2)) for i in range(n)]).astype(np.uint8)


def write_pictures(folder: Path, n: int = 60) -> None:
    """``pictures/`` with two class folders, ``pictures.zip`` and ``pictures.parquet`` of the same, and
    ``split-pictures/`` with a folder for each split."""
    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    encoded, labels = [], []
    for i, pixels in enumerate(colours(n, 16, 1)):
        place = folder / "pictures" / ("left" if i % 2 == 0 else "top") / f"{i:03d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        place.write_bytes(buffer.getvalue())
        split = folder / "split-pictures" / ("test", "val", "train", "train")[i % 4] / place.name
        split.parent.mkdir(parents=True, exist_ok=True)
        split.write_bytes(buffer.getvalue())
        encoded.append({"bytes": buffer.getvalue(), "path": place.name})
        labels.append(i % 2)
    pyarrow.parquet.write_table(pyarrow.table({"image": encoded, "label": labels}), folder / "pictures.parquet")
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for path in sorted((folder / "pictures").rglob("*.png")):
            archive.writestr(zipfile.ZipInfo(str(path.relative_to(folder))), path.read_bytes())


def write_larger(folder: Path, n: int = 12) -> None:
    """``large-a/`` and ``large-b/``, pictures of 32x32 for networks that were made for photographs."""
    from PIL import Image

    for name, seed in (("large-a", 2), ("large-b", 3)):
        (folder / name).mkdir()
        for i, pixels in enumerate(colours(n, 32, seed)):
            Image.fromarray(pixels).save(folder / name / f"{i:02d}.png")


def write_weights(folder: Path) -> None:
    """``inception.pth`` and ``resnet18.pth``, random weights that keep features at the size of trained ones."""
    import torch
    import torch_fidelity.feature_extractor_inceptionv3 as inception
    import torchvision

    kind: Any = inception.FeatureExtractorInceptionV3
    with patch.object(inception, "load_state_dict_from_url"), patch.object(kind, "load_state_dict"):
        network = kind("x", ["2048"], None)
    for name, net in (("inception", network), ("resnet18", torchvision.models.resnet18(weights=None))):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for layer in net.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    layer.weight.normal_(0, (2 / layer.weight[0].numel()) ** 0.5, generator=generator)
                elif isinstance(layer, torch.nn.BatchNorm2d):
                    layer.weight.uniform_(0.8, 1.2, generator=generator)
                    layer.bias.normal_(0, 0.1, generator=generator)
                elif isinstance(layer, torch.nn.Linear):
                    layer.weight.normal_(0, 0.1, generator=generator)
                    layer.bias.zero_()
        torch.save(net.state_dict(), folder / f"{name}.pth")


def write_all(folder: Path) -> None:
    """All of them, with one date: what is told of a folder of files depends on when they were written."""
    for write in (write_texts, write_arrays, write_pictures, write_larger, write_weights):
        write(folder)
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))
