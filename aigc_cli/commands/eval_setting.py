"""What all of one ``aigc eval`` shares: the run, the data, the device, and the usual metrics of a run."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from typing import TYPE_CHECKING

from aigc_cli.commands.eval_config import EvalConfig, check_no_controls, run_of
from aigc_cli.config.compose import compose
from aigc_cli.config.schema import Options
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.open import Splits
from aigc_cli.errors import ConfigError
from aigc_cli.files import path_of
from aigc_cli.metrics.base import usual_metrics
from aigc_cli.metrics.extractors.base import Sources
from aigc_cli.metrics.items import DatasetItems
from aigc_cli.metrics.passages import items_of
from aigc_cli.metrics.statistics import Statistics, is_statistics
from aigc_cli.metrics.views import Views
from aigc_cli.modalities.base import Items, modality
from aigc_cli.runs import Run, find_run
from aigc_cli.sampling.controls import model_class
from aigc_cli.training.precision import resolve_device

if TYPE_CHECKING:
    import torch

    from aigc_cli.modalities.base import DataSpec


@plain_dataclass(frozen=True)
class Setting:
    """What all of one evaluation shares."""

    asked: EvalConfig
    device: torch.device
    #: The run that is evaluated, or whose data is the reference; None where files alone are compared.
    run: Run | None
    splits: Splits | None
    #: Whether the user named a split.
    named_split: bool

    def views(self) -> Views:
        """What metrics see of items, through extractors that may learn from the data."""
        asked = self.asked
        sources = Sources(
            device=self.device,
            splits=self.splits,
            weights=None if asked.weights is None else path_of(asked.weights),
            resize=asked.resize,
            backbone=asked.backbone,
        )
        return Views(sources, asked.batch_size, asked.dtype)

    def split(self, which: Split) -> Dataset:
        """A split of the data.

        Raises:
            ConfigError: there is no data.
        """
        if self.splits is None:
            hint = "name a run with run=, a dataset with data=, or real="
            raise ConfigError("there is no data to compare with", hint)
        return self.splits[which]

    def items(self, which: Split, n: int | None = None) -> DatasetItems:
        """The items of a split, or `n` that stand for them."""
        dataset = self.split(which)
        assert self.splits is not None
        return items_of(dataset, which, self.splits.name, n)

    def held_out(self, n: int | None = None) -> DatasetItems:
        """At most `n` of the first items that are not of the reference's split.

        Raises:
            ConfigError, DataError: there are none, or they cannot be read.
        """
        if self.splits is None:
            self.split(self.asked.split)
        assert self.splits is not None
        split, dataset = self.splits.held_out(self.asked.split)
        return items_of(dataset, split, self.splits.name, n)

    def measured_on(self) -> DatasetItems:
        """Items of the split that the user names, or else held-out ones."""
        return self.items(self.asked.split) if self.named_split else self.held_out()

    def like(self) -> DataSpec | None:
        """What items of files are brought to the form of: those of the run, or of the data that is the reference."""
        asked = self.asked
        if self.run is not None:
            return self.run.spec
        if self.splits is not None and asked.real is None and asked.reference is None:
            return self.split(asked.split).spec
        return None

    def read(self, word: str | None) -> Items | None:
        """The items or statistics that a user named; None for None."""
        if word is None:
            return None
        path, like = path_of(word), self.like()
        if is_statistics(path):
            return Statistics(path)
        # Without data that says so, only pictures are known by their files.
        return modality("image" if like is None else like.modality).read(path, like)


def open_setting(asked: EvalConfig, options: Options, run: Run | None = None) -> Setting:
    """Finds the run and the data.

    Raises:
        ConfigError: there is no such run or dataset.
    """
    given = options.given
    named_data = isinstance(asked.data.get("name"), str)
    reference = None if asked.reference is None else find_run(asked.reference)
    if run is None:
        referred = asked.real is not None or reference is not None or named_data
        alone = referred and (asked.fake is not None or asked.task == "stats")
        alone = alone or (asked.fake is not None and not asked.compares_with_data())
        run = None if alone and "run" not in given else _find(asked, given)
    if run is None:
        check_no_controls(asked)
    owner, splits = run or reference, None
    if named_data:
        splits = Splits.named(asked.data, None if run is None else run.path)
    elif owner is not None:
        splits = Splits.of_run(owner, asked.data)
    return Setting(asked, resolve_device(asked.device), run, splits, "split" in given)


def _find(asked: EvalConfig, given: set[str]) -> Run | None:
    """The run; None where none is there and none is named, and files may do without: what needs one says so."""
    needed = "run" in given or (asked.fake is None and asked.task != "stats")
    return find_run(asked.run) if needed else run_of(asked)


def with_usual_metrics(asked: EvalConfig, options: Options, runs: list[Run]) -> EvalConfig:
    """What was asked for, with the usual metrics of some runs where none are named; of several, those of all."""
    if "metric" in options.given or not runs:
        return asked
    each = []
    for run in runs:
        can = model_class(run.config["model"]["name"]).can
        each.append(usual_metrics(run.spec.modality, run.spec.source is not None, can))
    usual = [name for name in each[0] if all(name in others for others in each)]
    if set(usual) == set(asked.metric):
        return asked
    return replace(asked, metric=compose("eval", options.overrides, usual=usual)["metric"])
