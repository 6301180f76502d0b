"""The data of a run, where it lies now."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from aigc_cli.data import open_dataset
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.selection import Opener
from aigc_cli.errors import warn
from aigc_cli.runs import Run


def opener(run: Run, moved: Mapping[str, Any]) -> Opener:
    """Opens the splits of a run's data, each once; `moved` are keys of ``data`` to change, where they are not null.

    It warns where the data is not what the run was trained on. What it returns raises a :class:`ConfigError` or a
    :class:`DataError` where the data cannot be opened.
    """
    values = {**run.config["data"], **{key: value for key, value in moved.items() if value is not None}}

    @cache
    def raw(split: Split) -> Dataset:
        return open_dataset(values, split, run.path)

    @cache
    def compared() -> None:
        if raw("train").spec.fingerprint != run.spec.fingerprint:
            warn(f"the data differs from what {run.name} was trained on")

    def opened(split: Split) -> Dataset:
        dataset = raw(split)
        compared()
        return dataset

    return opened
