"""Datasets, the codecs between their content and what a model sees, and the loader that makes batches of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aigc_cli.config.schema import check
from aigc_cli.data.base import SPLITS, Dataset, Split
from aigc_cli.errors import ConfigError
from aigc_cli.files import path_of
from aigc_cli.modalities.base import Batch, Codec, DataSpec
from aigc_cli.modalities.text import TOKENIZER_FILE
from aigc_cli.registry import find

__all__ = ["SPLITS", "Batch", "Codec", "DataSpec", "Dataset", "Split", "absolute_paths", "open_dataset"]


def absolute_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """A `data` section with its paths as they are from any folder: of the root, of files, of a tokenizer."""
    changed = dict(values)
    for key in ("root", "source", "target"):
        path = None if changed.get(key) is None else path_of(str(changed[key])).absolute()
        if path is not None and (key == "root" or path.is_file()):  # a source may be a language, or a field
            changed[key] = str(path)
    tokenizer = changed.get("tokenizer")
    if isinstance(tokenizer, Mapping) and tokenizer.get("path") is not None:
        changed["tokenizer"] = {**tokenizer, "path": str(path_of(tokenizer["path"]).absolute())}
    return changed


def open_dataset(values: Mapping[str, Any], split: Split, folder: Path | None = None) -> Dataset:
    """The dataset that `values`, the `data` section of a configuration, describes.

    Args:
        values: the section.
        split: which part of it.
        folder: of a run, whose tokenizer is used if it has one, in place of one made anew.

    Raises:
        ConfigError: no such dataset, or a configuration that does not fit it.
        DataError: the data is missing or cannot be trusted.
    """
    if split not in SPLITS:
        raise ConfigError(f"there is no split named {split!r}", f"choose from: {', '.join(SPLITS)}")
    if not isinstance(values.get("name"), str):
        raise ConfigError("the configuration names no dataset", "give one, for example data=digits")
    if folder is not None and (folder / TOKENIZER_FILE).is_file() and isinstance(values.get("tokenizer"), Mapping):
        values = {**values, "tokenizer": {**values["tokenizer"], "path": str(folder)}}
    component = find("data", values["name"])
    dataset: Dataset = component.build(check("data", component.config, values), split)
    return dataset
