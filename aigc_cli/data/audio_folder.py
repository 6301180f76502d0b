"""A person's own sound: a folder of it, or a zip, flat or in a folder for each class."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Split
from aigc_cli.data.own import Parts
from aigc_cli.data.own_folder import Wanted, folder_parts
from aigc_cli.data.sound_files import NOUN, FolderSounds, SoundFiles, SoundFilesConfig, open_sounds, sound_files
from aigc_cli.modalities.audio_decode import NAMED, is_sound, missing_packages
from aigc_cli.registry import register


@dataclass(config=STRICT, frozen=True, kw_only=True)
class AudioFolderConfig(SoundFilesConfig):
    """See ``configs/data/audio_folder.yaml``."""

    name: Literal["audio_folder"]


@register("data", "audio_folder", AudioFolderConfig)
def audio_folder(config: AudioFolderConfig, split: Split) -> FolderSounds:
    """Sound under `root`: labelled by a ``metadata.csv`` or ``.jsonl`` beside it, or by class folder; or flat.

    Raises what :func:`folder_parts` and :func:`open_sounds` do.
    """
    return open_sounds(folder_sounds(config), config, split)


def folder_sounds(config: AudioFolderConfig) -> Parts[SoundFiles]:
    """What is in the folder or zip, by its splits; nothing is decoded."""
    return folder_parts(
        config.root, Wanted(NOUN, NAMED, is_sound, missing_packages()), partial(sound_files, config),
        labels=config.labels, label_column=config.label_column, cut=config.cut,
    )  # fmt: skip
