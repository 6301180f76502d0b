"""Datasets, the codecs between their content and what a model sees, and the loader that makes batches of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aigc_cli.config import check
from aigc_cli.data.base import SPLITS, Batch, Codec, Dataset, DataSpec, Split
from aigc_cli.errors import ConfigError
from aigc_cli.registry import find

__all__ = ["SPLITS", "Batch", "Codec", "DataSpec", "Dataset", "Split", "open_dataset"]


def open_dataset(values: Mapping[str, Any], split: Split) -> Dataset:
    """The dataset that `values`, the `data` section of a configuration, describes.

    Raises:
        ConfigError: no such dataset, or a configuration that does not fit it.
        DataError: the data is missing or cannot be trusted.
    """
    if split not in SPLITS:
        raise ConfigError(f"there is no split named {split!r}", f"choose from: {', '.join(SPLITS)}")
    if not isinstance(values.get("name"), str):
        raise ConfigError("the configuration names no dataset", "give one, for example data=digits")
    component = find("data", values["name"])
    dataset: Dataset = component.build(check("data", component.config, values), split)
    return dataset
