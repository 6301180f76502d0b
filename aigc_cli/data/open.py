"""Opening data: the one way to it for training, monitoring, sampling, evaluation and extractors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_cli.config.schema import check, own_keys
from aigc_cli.data.base import SPLITS, Dataset, Split
from aigc_cli.data.loader import gatherer_of, read_batch
from aigc_cli.data.tokens import TokenDataset, tokenizer_of
from aigc_cli.errors import ConfigError, DataError, no_such, warn
from aigc_cli.files import path_of
from aigc_cli.modalities.base import Batch
from aigc_cli.randomness import permutation
from aigc_cli.registry import find

if TYPE_CHECKING:
    from aigc_cli.modalities.base import Codec
    from aigc_cli.runs import Run


def open_dataset(values: Mapping[str, Any], split: Split, folder: Path | None = None) -> Dataset:
    """A split of the dataset that `values`, the `data` section of a configuration, describes.

    `folder` is of a run, whose codec is used in place of a new one, see :func:`kept_sections`. Raises ConfigError where
    there is no such dataset, or the configuration does not fit it, and DataError where the data is missing or cannot be
    trusted.
    """
    if split not in SPLITS:
        raise no_such("split", split, SPLITS)
    if not isinstance(values.get("name"), str):
        raise ConfigError("the configuration names no dataset", "give one, for example data=digits")
    tokenizer = tokenizer_of(values, folder)
    places = [folder, None if tokenizer is None else tokenizer.folder]  # where the codec is that models learnt with
    own = own_keys(values)
    for place in filter(None, places):
        own |= kept_sections(own, place)
    component = find("data", values["name"])
    dataset: Dataset = component.build(check("data", component.config, own), split)
    return dataset if tokenizer is None else TokenDataset(dataset, tokenizer, split, values)


def kept_sections(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What of a `data` section says how a codec is made, such as ``tokenizer``, with `folder` as its path.

    They are those with a `path`, if the folder, of a run, keeps what was made in a file of that name.
    """
    sections = {key: section for key, section in values.items() if isinstance(section, Mapping) and "path" in section}
    return {
        key: {**section, "path": str(folder)} for key, section in sections.items() if (folder / f"{key}.json").is_file()
    }


def absolute_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """A `data` section whose paths (of the root, of files, of a tokenizer) hold from any folder."""
    changed = dict(values)
    for key in ("root", "source", "target"):
        path = None if changed.get(key) in (None, "") else path_of(str(changed[key])).absolute()
        if path is not None and (key == "root" or path.is_file()):  # a source may be a language, or a field
            changed[key] = str(path)
    for key, section in values.items():
        if isinstance(section, Mapping) and section.get("path"):  # one of nothing is refused where it is opened
            changed[key] = {**section, "path": str(path_of(section["path"]).absolute())}
    return changed


class Splits:
    """The splits of some data, each opened when it is first asked for, and kept.

    ``splits[split]`` raises a :class:`ConfigError` or a :class:`DataError` where that split cannot be opened.
    """

    def __init__(self, name: str, open_split: Callable[[Split], Dataset]) -> None:
        self.name = name  # of the dataset, for messages and stamps
        self._opened = cache(open_split)

    @classmethod
    def of_config(cls, values: Mapping[str, Any], folder: Path | None = None) -> Splits:
        """The splits that a `data` section describes; `folder` is as in :func:`open_dataset`."""
        return cls(str(values.get("name")), lambda split: open_dataset(values, split, folder))

    @classmethod
    def named(cls, values: Mapping[str, Any], folder: Path | None = None) -> Splits:
        """The splits of a dataset that a person names beside a run (of `folder`), whose tokenizer then reads it."""
        # Of keys that are null, those of other datasets are left out: eval.yaml has keys for all of them.
        known = {field.name for field in fields(find("data", str(values["name"])).config)}
        own = {key: value for key, value in values.items() if value is not None or key in known}
        return cls.of_config(own, folder)

    @classmethod
    def of_run(cls, run: Run, moved: Mapping[str, Any] | None = None) -> Splits:
        """The splits of a run's data, where it lies now: `moved` has keys of ``data`` to change, if they are not null.

        A warning says once that the data is not what the run was trained on.
        """
        changed = {key: value for key, value in (moved or {}).items() if value is not None}
        splits = cls.of_config({**run.config["data"], **changed}, run.path)

        @cache
        def warn_if_changed() -> None:
            if splits["train"].spec.fingerprint != run.spec.fingerprint:
                warn(f"the data differs from what {run.name} was trained on")

        def open_split(split: Split) -> Dataset:
            dataset = splits[split]  # first, so that an error is that of the split which was asked for
            warn_if_changed()
            return dataset

        return cls(splits.name, open_split)

    def __getitem__(self, split: Split) -> Dataset:
        return self._opened(split)

    def held_out(self, avoid: Split | None = None) -> tuple[Split, Dataset]:
        """The split to measure on, with its name: the first of test, val and train that holds anything.

        A split that the dataset does not have is passed over, and with a warning one that cannot be read, if there is
        another. ``train`` comes last: without held-out data, training data is better than none. `avoid` will not do,
        since it is the reference, or kept for the end. Raises ConfigError where no other split holds anything, and
        DataError where what there is cannot be read.
        """
        unread: dict[Split, DataError] = {}
        refused: ConfigError | None = None
        for split in [split for split in reversed(SPLITS) if split != avoid]:
            try:
                dataset = self[split]
            except ConfigError as error:  # as a rule because there is no such split
                refused = error
                continue
            except DataError as error:
                unread[split] = error
                continue
            if len(dataset):
                for name, reason in unread.items():
                    warn(f"skipping the {name} split: {reason.message}")
                return split, dataset
        nothing = ConfigError(f"{self.name} has no held-out items", "hold some out, such as with data.test_fraction=")
        raise next(iter(unread.values()), refused or nothing)


def items_at(dataset: Dataset, rows: Sequence[int]) -> Batch:
    """The raw items of some rows, on the CPU, without augmentation; raises DataError where one cannot be read."""
    import torch

    gatherer = gatherer_of(dataset, "cpu")
    return read_batch(dataset, rows) if gatherer is None else gatherer(torch.as_tensor(rows, dtype=torch.int64))


def encoded(batch: Batch, codec: Codec) -> Batch:
    """A raw batch as a model sees it."""
    return batch.with_content(codec.encode(batch.content))


def chosen_rows(dataset: Dataset, *key: int | str) -> list[int]:
    """All rows of a dataset in an order that `key` alone decides, so that the first few are of every kind."""
    rows: list[int] = permutation(len(dataset), "rows", *key).tolist()
    return rows


def reference_rows(dataset: Dataset, split: str, n: int | None) -> list[int]:
    """The rows that stand for a split, ascending: all, or `n` that depend on its name and size and on `n` alone.

    Every score that is measured on part of a split is measured on these, so that scores compare.
    """
    total = len(dataset)
    if n is None or n >= total:
        return list(range(total))
    rows: list[int] = sorted(permutation(total, "reference", split, n)[:n].tolist())
    return rows
