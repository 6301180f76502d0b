"""What ``aigc eval`` compares: the run, its data, and both sides with their floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aigc_cli.commands.drawing import Drawer
from aigc_cli.commands.eval_kinds import by_kind
from aigc_cli.commands.eval_words import check_no_controls, check_number, warn_of_ignored
from aigc_cli.config.schema import Options
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.open import Splits
from aigc_cli.errors import ConfigError, DataError, warn
from aigc_cli.files import path_of
from aigc_cli.metrics.evaluation import Evaluator, Side
from aigc_cli.metrics.extraction import LABELS, labels_of
from aigc_cli.metrics.extractors.base import Sources
from aigc_cli.metrics.images import DatasetImages, Images
from aigc_cli.metrics.report import Sides
from aigc_cli.metrics.result import Result, averaged
from aigc_cli.metrics.statistics_file import StatisticsFile, is_statistics
from aigc_cli.modalities.image_files import Drawn, FileImages, alike, open_images
from aigc_cli.registry import find
from aigc_cli.runs import Run, find_run
from aigc_cli.training.precision import resolve_device

if TYPE_CHECKING:
    import torch

    from aigc_cli.commands.eval import EvalConfig

#: The reference is cut to so many images, unless more are generated, and so is what is generated if n= is not given.
MOST = 10_000


@dataclass(frozen=True)
class Setting:
    """What all of one evaluation shares."""

    asked: EvalConfig
    device: torch.device
    #: The run that is evaluated, or whose data is the reference; None where files alone are compared.
    run: Run | None
    #: The name of the data, and how its splits are opened.
    data: str | None
    opened: Callable[[Split], Dataset] | None
    #: Whether the user named a split.
    named_split: bool

    def sources(self) -> Sources:
        """What extractors may build themselves from."""
        asked = self.asked
        return Sources(
            device=self.device,
            data=self.data,
            open_split=self.opened,
            weights=None if asked.weights is None else path_of(asked.weights),
            resize=asked.resize,
            backbone=asked.backbone,
        )

    def channels(self) -> int | None:
        """The channels that files of images are brought to: the run's, or those of the data that is the reference."""
        asked, run = self.asked, self.run
        if run is not None:
            return run.spec.shape[0] if run.spec.modality == "image" else None
        if self.data is not None and asked.real is None and asked.reference is None:
            return self.split(asked.split).spec.shape[0]
        return None

    def split(self, which: Split) -> Dataset:
        """A split of the data.

        Raises:
            ConfigError: there is no data.
        """
        if self.opened is None:
            raise ConfigError(
                "there is no data to compare with", "name a run with run=, a dataset with data=, or real="
            )
        return self.opened(which)


def open_setting(asked: EvalConfig, options: Options, run: Run | None = None) -> Setting:
    """Finds the run and the data.

    Raises:
        ConfigError: there is no such run or dataset.
    """
    words = {word.lstrip("+").partition("=")[0] for word in options.overrides}
    named_data = isinstance(asked.data.get("name"), str)
    reference = None if asked.reference is None else find_run(asked.reference)
    if run is None:
        referred = asked.real is not None or reference is not None or named_data
        alone = referred and (asked.fake is not None or asked.task == "stats")
        alone = alone or (asked.fake is not None and looks_at_nothing_else(asked))
        run = None if alone and "run" not in words else _run(asked, words)
    if run is None:
        check_no_controls(asked)
    owner = run or reference
    data, opened = None, None
    if named_data:
        data, opened = asked.data["name"], Splits.named(asked.data, None if run is None else run.path).__getitem__
    elif owner is not None:
        data, opened = owner.config["data"]["name"], Splits.of_run(owner, asked.data).__getitem__
    return Setting(asked, resolve_device(asked.device), run, data, opened, "split" in words)


def _run(asked: EvalConfig, words: set[str]) -> Run | None:
    """The run; None where none is there and none is named, and files may do without: what needs one says so."""
    try:
        return find_run(asked.run)
    except ConfigError:
        if "run" in words or (asked.fake is None and asked.task != "stats"):
            raise
        return None


def looks_at_nothing_else(asked: EvalConfig) -> bool:
    """Whether every metric looks at what is measured alone, through an extractor that learns from no data."""
    kinds = by_kind(asked.metric)
    extractors = {values.get("extractor") for values in with_extractor(asked, kinds.features).values()}
    return (
        not kinds.of_model
        and "classifier" not in extractors
        and not any(_metric(name).needs_real for name in kinds.features)
    )


def _metric(name: str) -> Any:
    return find("metric", name).build


def measure_features(setting: Setting, metrics: Mapping[str, Mapping[str, Any]]) -> tuple[list[Result], Sides]:
    """The figures of metrics on features, over one sample set or several."""
    asked = setting.asked
    metrics = with_extractor(asked, metrics)
    warn_of_ignored(asked, metrics)
    seeds = asked.seeds or 1
    if asked.fake is not None and seeds > 1:
        raise ConfigError(f"seeds={seeds}: fake= is one set", "leave seeds= out, or evaluate a run")
    fakes, sides = open_sides(setting, seeds)
    if seeds > len(fakes):
        warn("seeds= changes nothing for reconstructions")
    evaluator = make_evaluator(setting, metrics, sides)
    return averaged([evaluator.evaluate(fake) for fake in fakes]), sides


def make_evaluator(setting: Setting, metrics: Mapping[str, Mapping[str, Any]], sides: Sides) -> Evaluator:
    """The evaluator of one reference; its extractors are built and the reference's features are there.

    Raises:
        ConfigError: as :class:`Evaluator`, and generated images without the classes that a metric asks for.
    """
    asked = setting.asked
    if isinstance(sides.fake, Images) and any(LABELS in _metric(name).layers for name in metrics):
        labels_of(sides.fake, "generated")  # an extractor may take minutes to train
    return Evaluator(
        metrics, setting.sources(), sides.real, sides.held_out, sides.all_held_out,
        batch_size=asked.batch_size, dtype=asked.dtype,
    )  # fmt: skip


def with_extractor(asked: EvalConfig, metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The metrics' configurations with ``extractor=`` in each, where it is given."""
    changed = {} if asked.extractor is None else {"extractor": asked.extractor}
    return {name: {**values, **changed} for name, values in metrics.items()}


def open_sides(setting: Setting, seeds: int) -> tuple[list[Side], Sides]:
    """The sample sets, and both sides with the floor.

    Raises:
        ConfigError: words that contradict each other, or name nothing.
        DataError: files that cannot be trusted.
    """
    asked, run, channels = setting.asked, setting.run, setting.channels()
    fake, real, held_out = (open_side(word, channels) for word in (asked.fake, asked.real, asked.held_out))
    if isinstance(held_out, StatisticsFile):
        raise ConfigError(f"held_out={asked.held_out} holds statistics", "name a folder or .npz of images")
    if isinstance(fake, FileImages) and asked.n is not None:
        fake = Drawn(fake, asked.n)
    if real is not None and asked.reference is not None:
        raise ConfigError("real= and reference= are two references", "leave one of them out")
    drawer = None
    if fake is None:
        if run is None:
            raise ConfigError("there is nothing to evaluate", "name a run with run=, or images with fake=")
        drawer = Drawer(setting, run)
    n = _number(setting, fake, real, drawer)
    if real is None and setting.opened is not None:  # else nothing is compared with it
        real = _reference(setting, n, seeds)
    own = asked.real is None or (isinstance(real, StatisticsFile) and _of_own_data(setting, real))
    apart = [_held_out(setting, held_out, most, own) for most in (n or MOST, max(n, MOST))]
    fake, real, held_out, whole = alike((fake, real, *apart), channels)
    fakes: list[Side] = [fake] if fake is not None else []
    if drawer is not None:
        fakes = [drawer.images(n, asked.seed + k) for k in range(seeds if drawer.mode == "sample" else 1)]
        if len(fakes) > 1:
            fakes[0].facts["seeds"] = seeds
    return fakes, Sides(fakes[0], real, held_out, whole)


def open_side(word: str | None, channels: int | None) -> Side | None:
    """The images or statistics that a user named; None for None."""
    if word is None:
        return None
    path = path_of(word)
    return StatisticsFile(path) if is_statistics(path) else open_images(path, channels)


def _number(setting: Setting, fake: Side | None, real: Side | None, drawer: Drawer | None) -> int:
    """How many images are generated."""
    asked = setting.asked
    if fake is not None:
        return len(fake)
    assert drawer is not None
    if real is not None or asked.reference is None:
        size = len(real) if real is not None else len(setting.split(asked.split))
    else:
        size = MOST
    most = min(drawer.most(), asked.n or min(size or MOST, MOST))
    check_number(asked.n, most, "held-out images to reconstruct")
    return most


def _reference(setting: Setting, n: int, seeds: int) -> Images:
    asked = setting.asked
    if asked.reference is not None:
        run = find_run(asked.reference)
        # Its noise follows that of the sample sets, so that a run against itself is not compared with the same samples.
        images = Drawer(setting, run, controls={}).images(n, asked.seed + seeds)
        images.facts["called"] = run.name
        return images
    return DatasetImages(setting.split(asked.split), asked.split, setting.data or "", max(n, MOST))


def _of_own_data(setting: Setting, statistics: StatisticsFile) -> bool:
    """Whether a stamp says that statistics are of the very split that is the reference without them."""
    images = statistics.stamp.get("images")
    if not isinstance(images, dict):
        return False
    fingerprint = images.get("fingerprint")
    if fingerprint is None or setting.opened is None or images.get("split") != setting.asked.split:
        return False
    return bool(setting.split(setting.asked.split).spec.fingerprint == fingerprint)


def _held_out(setting: Setting, named: Images | None, most: int, own: bool) -> Images | None:
    """At most so many of the images that the user named, or of the first split that is neither reference nor empty.

    Args:
        setting: Where the splits are.
        named: What ``held_out=`` names.
        most: How many.
        own: Whether the reference is of the setting's own data.
    """
    if named is not None:
        return Drawn(named, most) if isinstance(named, FileImages) and most < len(named) else named
    if not own or setting.asked.reference is not None:
        return None
    for other, dataset in other_splits(setting):
        return DatasetImages(dataset, other, setting.data or "", most)
    return None


def other_splits(setting: Setting) -> Iterator[tuple[Split, Dataset]]:
    """The splits that are not the reference and hold something, best first."""
    others: tuple[Split, ...] = ("test", "val", "train")
    for other in others:
        if other == setting.asked.split:
            continue
        try:
            dataset = setting.split(other)
        except ConfigError:  # a dataset without such a split
            continue
        except DataError as error:
            warn(f"no floor on the {other} split: {error.message}")
            continue
        if len(dataset):
            yield other, dataset
