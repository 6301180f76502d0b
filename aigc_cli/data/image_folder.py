"""A person's own pictures: a folder of them, or a zip, flat or in a folder for each class."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.images import EncodedImages, ImageFilesConfig
from aigc_cli.data.own_folder import Wanted, folder_parts
from aigc_cli.data.pictures import Pictures, open_pictures
from aigc_cli.modalities.image_decode import NAMED, is_picture, missing_packages
from aigc_cli.registry import register


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ImageFolderConfig(ImageFilesConfig):
    """See ``configs/data/image_folder.yaml``."""

    name: Literal["image_folder"]


@register("data", "image_folder", ImageFolderConfig)
def image_folder(config: ImageFolderConfig, split: Split) -> Dataset:
    """Pictures under `root`: labelled by a ``metadata.csv`` or ``.jsonl`` beside them, or by class folder; or flat.

    Raises what :func:`folder_parts` does, ConfigError where the fractions leave the split empty, and DataError where
    too many pictures are unreadable.
    """
    return open_pictures(folder_pictures(config), config, split)


def folder_pictures(config: ImageFolderConfig) -> Pictures:
    """What is in the folder or zip, by its splits; nothing is decoded."""
    wanted = Wanted(("picture", "pictures"), NAMED, is_picture, missing_packages())
    return folder_parts(
        config.root, wanted, partial(EncodedImages, shape=config.shape), labels=config.labels,
        label_column=config.label_column, cut=config.cut,
    )  # fmt: skip
