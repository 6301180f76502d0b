"""What each metric sees: held-out real images, spoilt step by step, in the place of samples.

    python benchmarks/metric_controls.py [--data cifar10 --root FOLDER] [--extractor own-ssl] [--figure FILE.png]

prints a table (metric by kind of damage: which way the figure moves, and from what to what) and draws the curves.
Nothing here is trained but the network that serves as extractor: a classifier, or what learns without labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aigc_cli.data.open import Splits
from aigc_cli.metrics.evaluation import Evaluation
from aigc_cli.metrics.extractors.base import Sources
from aigc_cli.metrics.items import DatasetItems, SampledItems
from aigc_cli.metrics.views import Views
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.randomness import generator

LEVELS = 4
#: The figures that are drawn, with the way that is better.
FIGURES = {
    "fd": "lower", "fd_infinity": "lower", "kd": "lower", "precision": "higher", "density": "higher",
    "recall": "higher", "coverage": "higher", "cs": "higher", "vendi": "higher", "closer": "0.5",
    "copies": "lower", "authenticity": "higher",
}  # fmt: skip
SHARES = {"precision", "recall", "density", "coverage", "closer", "copies", "authenticity"}
METRICS: dict[str, dict[str, Any]] = {
    "fd": {},
    "fd_infinity": {"points": 8, "smallest": 0.5, "seed": 0},
    "kd": {"subsets": 50, "subset_size": 1000, "seed": 0},
    "prdc": {"k": 5, "memory_mb": 128},
    "cs": {"splits": 1, "seed": 0},
    "vendi": {},
    "memorization": {"quantile": 0.05, "pairs": 0, "memory_mb": 128},
}


def noise(images: Tensor, level: int, data: Data) -> Tensor:
    """Gaussian noise, of a standard deviation of up to three eighths of the range."""
    drawn = torch.from_numpy(generator("noise", level).standard_normal(images.shape, dtype="float32"))
    return (images.float() + drawn * 32 * level).round().clamp(0, 255).to(torch.uint8)


def blur(images: Tensor, level: int, data: Data) -> Tensor:
    """A Gaussian blur, of up to a tenth of the side."""
    from torchvision.transforms.functional import gaussian_blur

    side = images.shape[-1]
    return gaussian_blur(images, 2 * (side // 4) + 1, [level * side / 32]) if level else images


def dropped_classes(images: Tensor, level: int, data: Data) -> Tensor:
    """Fewer and fewer of the classes; as many images."""
    kept = data.classes - round(level * 0.7 * data.classes / (LEVELS - 1))
    return data.held_out[data.labels < kept][: len(images)]


def duplicates(images: Tensor, level: int, data: Data) -> Tensor:
    """The same few images again and again."""
    distinct = max(4, round(len(images) * (1, 0.3, 0.1, 0.03)[level]))
    return images[:distinct].repeat(-(-len(images) // distinct), 1, 1, 1)[: len(images)]


def memorised(images: Tensor, level: int, data: Data) -> Tensor:
    """Training images in the place of new ones."""
    copied = round(len(images) * level / (LEVELS - 1))
    return torch.cat([data.train[:copied], images[copied:]])


DAMAGES: dict[str, Callable[[Tensor, int, Data], Tensor]] = {
    "noise": noise,
    "blur": blur,
    "dropped classes": dropped_classes,
    "duplicates": duplicates,
    "memorised": memorised,
}


class Data:
    """Training images, and held-out ones in an order that mixes classes."""

    def __init__(self, values: Mapping[str, Any], device: torch.device) -> None:
        self.values, self.device = values, device
        self.splits = splits = Splits.of_config(values)
        train, test = splits["train"].resident(), splits["test"].resident()
        assert train is not None
        assert test is not None
        assert test.labels is not None
        order = torch.from_numpy(generator("controls").permutation(len(test)))
        self.held_out, self.labels = test.content[order], test.labels[order]
        self.train = train.content[torch.from_numpy(generator("copied").permutation(len(train)))]
        self.classes = len(splits["train"].spec.classes)


def stream(images: Tensor) -> SampledItems:
    def batches() -> Iterator[Batch]:
        yield from map(Batch, images.split(128))

    return SampledItems(batches, len(images), DataSpec("image", tuple(images.shape[1:])))


def curves(
    data: Data, n: int, reference: int | None = None, extractor: str = "classifier"
) -> dict[str, list[dict[str, float]]]:
    """The figures of each kind of damage, level by level; level 0 is held-out images as they are.

    The held-out images that memorisation is judged against are others than those that are spoilt.
    """
    known = {name: own for name, own in METRICS.items() if name != "cs" or extractor == "classifier"}
    metrics = {name: {"name": name, "extractor": extractor, **own} for name, own in known.items()}
    name = data.values["name"]
    sources = Sources(device=data.device, splits=data.splits)
    real = DatasetItems(data.splits["train"], "train", name, reference)
    evaluation = Evaluation(metrics, Views(sources), real, stream(data.held_out[-n:]))
    images = data.held_out[:n]
    found: dict[str, list[dict[str, float]]] = {}
    for damage, spoil in DAMAGES.items():
        found[damage] = []
        for level in range(LEVELS):
            records = evaluation.of(stream(spoil(images, level, data)))
            figures = {key: value for record in records for key, value in record.generated.figures.items()}
            found[damage].append({key: figures[key] for key in FIGURES if key in figures})
    return found


def table(found: Mapping[str, list[dict[str, float]]]) -> str:
    """A row for each metric: where each kind of damage takes it from where it was."""
    lines = ["| | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for figure in next(iter(found.values()))[0]:
        largest = max(abs(level[figure]) for levels in found.values() for level in levels)
        cells = []
        for levels in found.values():
            first, last = levels[0][figure], levels[-1][figure]
            cells.append(f"{first:.3g} to {last:.3g} {arrow(figure, first, last, largest)}")
        lines.append(f"| `{figure}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def arrow(figure: str, first: float, last: float, largest: float) -> str:
    """Up, down or level: by whether a figure changes by a tenth of its range, or, without one, by a tenth of itself and
    not by less than a fiftieth of what some damage does to it."""
    unit = 1.0 if figure in SHARES else max(abs(first), abs(last), 0.02 * largest)
    change = (last - first) / unit
    return "↑" if change > 0.1 else "↓" if change < -0.1 else "·"


def draw(found: Mapping[str, list[dict[str, float]]], path: Path, title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 4, figsize=(11, 7), sharex=True, layout="constrained")
    for axis, name in zip(axes.flat, next(iter(found.values()))[0], strict=False):
        for damage, levels in found.items():
            axis.plot(range(len(levels)), [level[name] for level in levels], marker="o", markersize=3, label=damage)
        axis.set_title(f"{name} ({FIGURES[name]} is better)", fontsize=9)
        axis.set_xticks(range(LEVELS))
        axis.tick_params(labelsize=8)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits", choices=("digits", "cifar10"))
    parser.add_argument("--root")
    parser.add_argument("--extractor", default="classifier", choices=("classifier", "own-ssl"))
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--n", type=int)
    words = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if words.data == "digits":
        values = {"name": "digits", "size": 16, "flip": False, "val_fraction": 0.0, "test_fraction": 0.5}
        n, reference = words.n or 250, None
    else:
        values = {"name": "cifar10", "root": words.root, "size": 32, "flip": False, "val_fraction": 0.02}
        n, reference = words.n or 2500, 10_000
    found = curves(Data(values, device), n, reference, words.extractor)
    print(table(found))
    if words.figure is not None:
        draw(found, words.figure, f"{n} held-out images of {words.data}, spoilt step by step (0 is untouched)")


if __name__ == "__main__":
    main()
