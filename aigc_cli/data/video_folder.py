"""A person's own videos: a folder of them, or a zip, flat or in a folder for each class."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Split
from aigc_cli.data.own import Parts
from aigc_cli.data.own_folder import Wanted, folder_parts
from aigc_cli.data.video_files import NOUN, FolderVideos, VideoFiles, VideoFilesConfig, open_videos, video_files
from aigc_cli.modalities.video_decode import NAMED, is_video, missing_packages
from aigc_cli.registry import register


@dataclass(config=STRICT, frozen=True, kw_only=True)
class VideoFolderConfig(VideoFilesConfig):
    """See ``configs/data/video_folder.yaml``."""

    name: Literal["video_folder"]


@register("data", "video_folder", VideoFolderConfig)
def video_folder(config: VideoFolderConfig, split: Split) -> FolderVideos:
    """Videos under `root`: labelled by a ``metadata.csv`` or ``.jsonl`` beside them, or by class folder; or flat.

    Raises what :func:`folder_parts` and :func:`open_videos` do.
    """
    return open_videos(folder_videos(config), config, split)


def folder_videos(config: VideoFolderConfig) -> Parts[VideoFiles]:
    """What is in the folder or zip, by its splits; nothing is decoded."""
    return folder_parts(
        config.root, Wanted(NOUN, NAMED, is_video, missing_packages()), partial(video_files, config),
        labels=config.labels, label_column=config.label_column, cut=config.cut,
    )  # fmt: skip
