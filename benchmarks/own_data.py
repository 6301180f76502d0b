"""Writes folders of pictures that stand in for people's own: what the recipes for own pictures were chosen on.

    python benchmarks/own_data.py scans /tmp/own/scans --items 10000
    python benchmarks/own_data.py letters /tmp/own/letters --items 5000 --flat
    python benchmarks/own_data.py photos /tmp/own/photos --items 500 --source CIFAR10_FOLDER

``scans`` are scikit-learn's digits drawn anew as strokes of 28 pixels, ``letters`` are printed in the fonts that
matplotlib brings and then bent, ``photos`` are CIFAR-10's, ``shapes`` are lit bodies before a background at 64 pixels,
and ``crops`` are cut from the two photographs that scikit-learn brings, at 64 pixels too. The same words write the same
pictures.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from sklearn.datasets import load_digits, load_sample_images

#: A picture (h, w) or (h, w, 3) of 0 to 255, and the name of its class.
Item = tuple[np.ndarray, str]
SCAN, LARGE = 28, 64
FONTS = ("DejaVuSans", "DejaVuSans-BoldOblique", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Italic", "STIXGeneral")
COLOURS = {"red": (200, 50, 40), "green": (60, 150, 60), "blue": (50, 80, 190), "yellow": (220, 190, 60)}


def bend(image: np.ndarray, draws: np.random.Generator, strength: float) -> np.ndarray:
    """An elastic warp with a small rotation, slant, scale and shift, of a grey picture (h, w) in [0, 1]."""
    side = image.shape[0]
    middle = (side - 1) / 2
    angle, slant = draws.normal(0, 0.12), draws.normal(0, 0.15)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scale = np.diag(np.exp(draws.normal(0, 0.08, 2)))
    matrix = turn @ np.array([[1, 0], [slant, 1]]) @ scale
    places = np.stack(np.mgrid[:side, :side]).reshape(2, -1) - middle
    moved = matrix @ places + middle + draws.normal(0, side / 40, (2, 1))
    waves = [ndimage.gaussian_filter(draws.normal(0, 1, (side, side)), side / 7).ravel() for _ in range(2)]
    moved += np.stack([wave / wave.std() for wave in waves]) * strength * side / 28
    return ndimage.map_coordinates(image, moved.reshape(2, side, side), order=1)


def stroke(image: np.ndarray, draws: np.random.Generator, thin: tuple[float, float]) -> np.ndarray:
    """Ink where a smooth picture in [0, 1] is above a threshold drawn from `thin`, with soft edges, 0 to 255."""
    sharpness = draws.uniform(5, 12)
    ink = 1 / (1 + np.exp(-sharpness * (image - draws.uniform(*thin))))
    ink = (ink - ink.min()) / max(float(np.ptp(ink)), 1e-6)
    return np.round(255 * np.clip(ink * draws.uniform(0.9, 1.1), 0, 1))


def scans(draws: np.random.Generator, source: Path | None) -> Iterator[Item]:
    """Handwritten digits of 28 pixels, white on black."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8) / 16
    while True:
        row = int(draws.integers(len(images)))
        large = np.clip(ndimage.zoom(np.pad(images[row], 1), 6, order=3, mode="grid-constant", grid_mode=True), 0, 1)
        large = ndimage.gaussian_filter(bend(large, draws, 1.2), draws.uniform(0.8, 2.0))
        ink = stroke(large / large.max(), draws, (0.35, 0.6))
        small = Image.fromarray(ink.astype(np.uint8)).resize((26, 26), Image.Resampling.BOX)
        yield np.pad(np.asarray(small), 1), str(labels[row])


def letters(draws: np.random.Generator, source: Path | None) -> Iterator[Item]:
    """Bent letters of 28 pixels, white on black."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [ImageFont.truetype(folder / f"{name}.ttf", size) for name in FONTS for size in (34, 40)]
    while True:
        letter = chr(ord("a") + int(draws.integers(26)))
        page = Image.new("L", (56, 56))
        ImageDraw.Draw(page).text((28, 30), letter, 255, fonts[draws.integers(len(fonts))], anchor="mm")
        large = ndimage.gaussian_filter(bend(np.asarray(page) / 255, draws, 1.0), draws.uniform(1.0, 2.2))
        ink = stroke(large / large.max(), draws, (0.3, 0.55))
        yield np.asarray(Image.fromarray(ink.astype(np.uint8)).resize((SCAN, SCAN), Image.Resampling.BOX)), letter


def photos(draws: np.random.Generator, source: Path | None) -> Iterator[Item]:
    """CIFAR-10's training images, in an order of their own."""
    from pyarrow import parquet

    if source is None:
        raise SystemExit("photos are CIFAR-10's: --source FOLDER names the one with its train-*.parquet")
    table = parquet.read_table(sorted(source.glob("train-*.parquet"))[0])
    pictures, labels = (table.column(place) for place in range(2))
    for row in draws.permutation(len(labels)):
        encoded = pictures[int(row)].as_py()["bytes"]
        yield np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")), str(labels[int(row)].as_py())


def shapes(draws: np.random.Generator, source: Path | None) -> Iterator[Item]:
    """A lit ball, box, ring or cross of one of four colours on a rough ground, 64 pixels, in colour."""
    ys, xs = np.mgrid[:LARGE, :LARGE] / LARGE * 2 - 1
    while True:
        kind, colour = draws.choice(["ball", "box", "ring", "cross"]), draws.choice(list(COLOURS))
        angle, radius, (cy, cx) = draws.uniform(0, np.pi), draws.uniform(0.35, 0.6), draws.uniform(-0.3, 0.3, 2)
        v = ((ys - cy) * np.cos(angle) - (xs - cx) * np.sin(angle)) / radius
        u = ((ys - cy) * np.sin(angle) + (xs - cx) * np.cos(angle)) / radius
        far = {
            "ball": np.hypot(u, v) - 1,
            "box": np.maximum(abs(u), abs(v)) - 0.9,
            "ring": abs(np.hypot(u, v) - 0.75) - 0.25,
            "cross": np.minimum(np.maximum(abs(u), abs(v) * 3), np.maximum(abs(v), abs(u) * 3)) - 1,
        }[str(kind)]
        cover = np.clip(0.5 - far * radius * LARGE / 2, 0, 1)[..., None]
        light = np.clip(0.75 - 0.35 * (xs - cx + ys - cy) / radius, 0.2, 1.3)[..., None]
        grain = sum(ndimage.zoom(draws.normal(0, 10 / (1 + i), (4 << i, 4 << i)), 16 >> i, order=1) for i in range(4))
        ground = draws.uniform(60, 170, 3) + (grain + 30 * ys * draws.normal())[..., None]
        body = (np.array(COLOURS[str(colour)]) + draws.normal(0, 15, 3)) * light
        yield np.clip(cover * body + (1 - cover) * ground, 0, 255), f"{colour}-{kind}"


def crops(draws: np.random.Generator, source: Path | None) -> Iterator[Item]:
    """Pieces of a photograph of a temple or of a flower, 64 pixels, in colour."""
    pages = [Image.fromarray(page) for page in load_sample_images().images]
    while True:
        which, side = int(draws.integers(len(pages))), int(draws.integers(128, 320))
        left, top = (int(draws.integers(full - side + 1)) for full in pages[which].size)
        piece = pages[which].resize((LARGE, LARGE), Image.Resampling.BOX, (left, top, left + side, top + side))
        yield np.asarray(piece), ("temple", "flower")[which]


KINDS: dict[str, Callable[[np.random.Generator, Path | None], Iterator[Item]]] = {
    "scans": scans,
    "letters": letters,
    "photos": photos,
    "shapes": shapes,
    "crops": crops,
}


def main() -> None:
    """Writes the pictures as PNG, in a folder for each class or flat."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("kind", choices=list(KINDS))
    options.add_argument("folder", type=Path)
    options.add_argument("--items", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--flat", action="store_true", help="no folder for each class")
    options.add_argument("--source", type=Path, help="photos: the folder with CIFAR-10's parquet files")
    chosen = options.parse_args()
    items = KINDS[chosen.kind](np.random.default_rng(chosen.seed), chosen.source)
    for number, (picture, label) in enumerate(islice(items, chosen.items)):
        folder = chosen.folder if chosen.flat else chosen.folder / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{number:05}.png")


if __name__ == "__main__":
    main()
