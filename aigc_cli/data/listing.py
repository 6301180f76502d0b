"""What a person's data holds, without decoding or tokenizing any of it: for reports, and before a run is planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aigc_cli.config.schema import check
from aigc_cli.data.base import Split
from aigc_cli.data.image_folder import ImageFolderConfig, folder_pictures
from aigc_cli.data.images import EncodedImages
from aigc_cli.data.pairs import PairsConfig, pair_parts
from aigc_cli.data.parquet import ParquetConfig, parquet_pictures
from aigc_cli.data.pictures import Pictures, about_untrained
from aigc_cli.data.text import TextConfig, text_parts
from aigc_cli.registry import find


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The items of each split as training would take them, before what is broken is left out."""

    files: Mapping[Split, EncodedImages] = field(default_factory=dict)  # of images
    classes: tuple[str, ...] = ()
    texts: Mapping[Split, list[tuple[str, Path]]] = field(default_factory=dict)  # of text; of pairs, both sides
    left_out: list[str] = field(default_factory=list)  # lines about files that were passed over
    problems: list[str] = field(default_factory=list)  # others that a person should know of

    @property
    def counts(self) -> dict[Split, int]:
        """How many images each split has; of text, how many files, where "train" has those that are cut."""
        return {split: len(part) for split, part in (self.files or self.texts).items()}

    @property
    def labels(self) -> dict[Split, np.ndarray]:
        """The labels, int64 (n,), of each split that has any."""
        return {split: files.labels for split, files in self.files.items() if files.labels is not None}

    @property
    def bytes(self) -> int:
        """The size of all text on disk."""
        return sum(path.stat().st_size for part in self.texts.values() for _, path in part)


def list_data(values: Mapping[str, Any]) -> Listing | None:
    """What the data that a complete ``data`` section describes holds; None where it is not a person's own files.

    Raises ConfigError and DataError as opening it does.
    """
    component = find("data", str(values.get("name")))
    if component.config not in (ImageFolderConfig, ParquetConfig, TextConfig, PairsConfig):
        return None
    config = check("data", component.config, values)
    match config:
        case ImageFolderConfig():
            return _of_pictures(folder_pictures(config))
        case ParquetConfig():
            return _of_pictures(parquet_pictures(config))
        case TextConfig():
            texts, _, lines = text_parts(config)
            return Listing(texts=texts, left_out=lines)
    sources, lines = pair_parts(config)
    files = {split: [(path.name, path) for part in source.parts for path in part] for split, source in sources.items()}
    return Listing(texts=files, left_out=lines)


def _of_pictures(pictures: Pictures) -> Listing:
    classes = next((tuple(files.classes) for files in pictures.splits.values() if files.classes), ())
    left_out, problems = list(pictures.left_out), [*pictures.problems, *about_untrained(pictures.untrained)]
    return Listing(files=pictures.splits, classes=classes, left_out=left_out, problems=problems)
