"""What each metric sees: held-out real images, spoilt step by step, for samples; or clips of sound, or video.

    python benchmarks/metric_controls.py [--data cifar10 --root FOLDER] [--extractor own-ssl] [--figure FILE.png]
    python benchmarks/metric_controls.py --data fsdd --root FILE.tar.gz [--extractor own-ssl]
    python benchmarks/metric_controls.py --data moving_digits [--extractor own-ssl]

prints a table (metric by kind of damage: which way the figure moves, and from what to what) and draws the curves; of
sound and video a row for each damage, with all figures.
Nothing here is trained but the network that serves as extractor: a classifier, or what learns without labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aigc_cli.config.compose import compose
from aigc_cli.data.open import Splits
from aigc_cli.metrics.evaluation import Evaluation
from aigc_cli.metrics.extractors.base import Sources
from aigc_cli.metrics.items import DatasetItems, SampledItems
from aigc_cli.metrics.views import Views
from aigc_cli.modalities.audio import lengths
from aigc_cli.modalities.base import Batch, Codec, DataSpec
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


# sound


def as_it_is(clips: Tensor, codec: Codec) -> Tensor:
    return clips


def decoded(clips: Tensor, codec: Codec) -> Tensor:
    """What a model that reconstructs without fault would give."""
    return torch.cat([codec.decode(codec.encode(part)) for part in clips.split(64)])


def noisy(decibels: float) -> Callable[[Tensor, Codec], Tensor]:
    """White noise, as long as each clip sounds, so many decibels below it."""

    def spoil(clips: Tensor, codec: Codec) -> Tensor:
        heard = torch.arange(clips.shape[2]) < lengths(clips)[:, None, None]
        waves = clips.double()
        power = waves.square().sum(dim=(1, 2), keepdim=True) / heard.sum(dim=2, keepdim=True).clamp_min(1)
        drawn = torch.from_numpy(generator("noise", decibels).standard_normal(clips.shape))
        loud = waves + heard * drawn * (power / 10 ** (decibels / 10)).sqrt()
        return loud.round().clamp(-32767, 32767).to(torch.int16)

    return spoil


def backwards(clips: Tensor, codec: Codec) -> Tensor:
    """What sounds, from its end to its beginning."""
    found = torch.zeros_like(clips)
    for clip, other, length in zip(clips, found, lengths(clips).tolist(), strict=True):
        other[:, :length] = clip[:, :length].flip(-1)
    return found


#: Of sound each damage is of one strength.
SOUND: dict[str, Callable[[Tensor, Codec], Tensor]] = {
    "real": as_it_is,
    "through the codec": decoded,
    "noise at 20 dB": noisy(20),
    "noise at 0 dB": noisy(0),
    "reversed": backwards,
    "one clip repeated": lambda clips, codec: clips[:1].expand_as(clips).clone(),
    "silence": lambda clips, codec: torch.zeros_like(clips),
}
#: The figures of the table, as it has room.
OF_SOUND = (
    "fd", "kd", "precision", "density", "recall", "coverage", "class_accuracy", "cs", "vendi", "closer", "copies",
    "authenticity", "mel_l1", "lsd", "mcd",
)  # fmt: skip


def sound_rows(data: Data, extractor: str = "classifier") -> dict[str, dict[str, float]]:
    """The figures of each damage to the test clips, all of them; memorisation is judged against other clips."""
    splits, device = data.splits, data.device
    clips, labels, spec = data.held_out, data.labels, splits["test"].spec
    known = {**METRICS, "class_accuracy": {}}
    known["kd"] = {**known["kd"], "subset_size": min(1000, len(clips))}
    if extractor != "classifier":
        known = {name: own for name, own in known.items() if name not in ("cs", "class_accuracy")}
    known.pop("fd_infinity")
    metrics = {name: {"name": name, "extractor": extractor, **own} for name, own in known.items()}
    real = DatasetItems(splits["train"], "train", splits.name)
    evaluation = Evaluation(metrics, Views(Sources(device=device, splits=splits)), real,
                            DatasetItems(splits["val"], "val", splits.name))  # fmt: skip
    pairs = Evaluation({"reconstruction": {"name": "reconstruction"}})
    found: dict[str, dict[str, float]] = {}
    for damage, spoil in SOUND.items():
        spoilt = spoil(clips, splits["test"].codec)
        parts = [part.split(128) for part in (spoilt, labels, clips)]
        items = SampledItems(
            lambda parts=parts: (Batch(*some[:2]) for some in zip(*parts, strict=True)), len(clips), spec
        )
        both = SampledItems(lambda parts=parts: (Batch(*some) for some in zip(*parts, strict=True)), len(clips), spec)
        records = [*evaluation.of(items), *pairs.of(both, "pairs")]
        figures = {key: value for record in records for key, value in record.generated.figures.items()}
        found[damage] = {key: figures[key] for key in OF_SOUND if key in figures}
    return found


def rows_table(found: Mapping[str, dict[str, float]]) -> str:
    """A row for each damage."""
    names = list(next(iter(found.values())))
    lines = ["| | " + " | ".join(f"`{name}`" for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {damage} | " + " | ".join(f"{figures[name]:.3g}" for name in names) + " |"
        for damage, figures in found.items()
    ]
    return "\n".join(lines)


# video


def noisy_frames(clips: Tensor) -> Tensor:
    drawn = torch.from_numpy(generator("noise", "video").standard_normal(clips.shape, dtype="float32"))
    return (clips.float() + drawn * 32).round().clamp(0, 255).to(torch.uint8)


def shuffled(clips: Tensor) -> Tensor:
    """The frames of each clip in an order of its own."""
    order = torch.from_numpy(generator("shuffled").random(clips[:, 0, :, 0, 0].shape)).argsort(dim=1)
    return clips.gather(2, order[:, None, :, None, None].expand_as(clips))


#: What is done to motion, to which single frames are blind, and to frames.
VIDEO: dict[str, Callable[[Tensor], Tensor]] = {
    "real": lambda clips: clips,
    "shuffled": shuffled,
    "reversed": lambda clips: clips.flip(2),
    "repeated": lambda clips: clips[:, :, torch.arange(clips.shape[2]) // 2],
    "frozen": lambda clips: clips[:, :, clips.shape[2] // 2 :][:, :, :1].expand_as(clips).clone(),
    "noise": noisy_frames,
    "one clip repeated": lambda clips: clips[:1].expand_as(clips).clone(),
}
OF_VIDEO = (
    "fd", "frame_fd", "kd", "precision", "density", "recall", "coverage", "class_accuracy", "closer", "authenticity",
    "path_error", "digit_read",
)  # fmt: skip


def video_rows(values: Mapping[str, Any], device: torch.device, extractor: str) -> dict[str, dict[str, float]]:
    """The figures of each damage to the test clips, all of them; memorisation is judged against other clips."""
    splits = Splits.of_config(values)
    whole = DatasetItems(splits["test"], "test", splits.name)
    clips, labels = (torch.cat(some) for some in zip(*((b.content, b.labels) for b in whole.batches(128)), strict=True))
    known = {name: own for name, own in METRICS.items() if name in ("fd", "kd", "prdc", "memorization")}
    known["kd"] = {**known["kd"], "subset_size": min(1000, len(clips))}
    metrics = {name: {"name": name, "extractor": extractor, **own} for name, own in known.items()}
    if extractor == "classifier":
        metrics["class_accuracy"] = {"name": "class_accuracy", "extractor": extractor}
    metrics |= {name: {"name": name, "extractor": "frames"} for name in ("frame_fd", "physics")}
    evaluation = Evaluation(metrics, Views(Sources(device=device, splits=splits)),
                            DatasetItems(splits["train"], "train", splits.name),
                            DatasetItems(splits["val"], "val", splits.name))  # fmt: skip
    found: dict[str, dict[str, float]] = {}
    for damage, spoil in VIDEO.items():
        parts = spoil(clips).split(128), labels.split(128)
        items = SampledItems(lambda parts=parts: map(Batch, *parts), len(clips), whole.spec)
        figures = {key: value for record in evaluation.of(items) for key, value in record.generated.figures.items()}
        found[damage] = {key: figures[key] for key in OF_VIDEO if key in figures}
    return found


# images


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
    parser.add_argument("--data", default="digits", choices=("digits", "cifar10", "fsdd", "tones", "moving_digits"))
    parser.add_argument("--root")
    parser.add_argument("--extractor", default="classifier", choices=("classifier", "own-ssl"))
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--n", type=int)
    words = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if words.data == "moving_digits":
        print(rows_table(video_rows(compose("data", ["data=moving_digits"])["data"], device, words.extractor)))
        return
    if words.data in ("fsdd", "tones"):
        values = {**compose("data", [f"data={words.data}"])["data"], **({"root": words.root} if words.root else {})}
        print(rows_table(sound_rows(Data(values, device), words.extractor)))
        return
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
