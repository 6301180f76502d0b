"""Moving digits: clips whose truth is known, made when they are asked for, on the device that trains on them.

A clip is a pure function of its split and its number, or in training of its class and its draws of the epoch: so no
epoch repeats another. Digits of held-out clips are never trained on. Each starts in the middle half of its room and
moves at a constant speed along a straight line that the edges reflect: so a clip has a direction of time, since what
moves spreads outwards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import copy
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from aigc_cli.config import folders
from aigc_cli.config.schema import STRICT, check, load_yaml
from aigc_cli.data.base import DRAWS, Dataset, Split
from aigc_cli.data.cache import digest_of
from aigc_cli.errors import ConfigError, DataError, no_such
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.modalities.video_codec import VideoCodec
from aigc_cli.randomness import uniform_at
from aigc_cli.registry import find, register

if TYPE_CHECKING:
    import torch
    from torch import Tensor

RECIPE = 1  # the version of how clips are made
HELD_OUT: Mapping[Split, int] = {"val": 200, "test": 500}  # clips, however many there are to train on
DIRECTIONS = ("right-down", "left-down", "left-up", "right-up")
SPEEDS = ("slow", "fast")
_EACH = 3  # draws for each of what moves: which it is, where it starts, how it moves


@dataclass(config=STRICT, frozen=True, kw_only=True)
class MovingDigitsConfig:
    """See ``configs/data/moving_digits.yaml``."""

    name: Literal["moving_digits"]
    of: str
    root: str | None
    clips: Annotated[int, Field(ge=1, le=10_000_000)]
    frames: Annotated[int, Field(ge=2, le=256)]
    size: Annotated[int, Field(ge=8, le=512)]
    sprite: Annotated[int, Field(ge=4)]
    sprites: Literal[1, 2]
    speed: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
    fps: Annotated[int, Field(ge=1, le=100)]
    labels: Literal["digit", "motion", "none"]

    @model_validator(mode="after")
    def _consistent(self) -> MovingDigitsConfig:
        if self.sprite >= self.size:
            raise ValueError(f"what moves needs room: sprite must be below size={self.size}")
        if not 0 < self.speed[1] < self.size - self.sprite or self.speed[0] > self.speed[1]:
            raise ValueError(f"speed must rise from 0 or more to less than {self.size - self.sprite} pixels a frame")
        if self.labels == "motion" and self.sprites > 1:
            raise ValueError("labels=motion is of a single sprite: use sprites=1, or labels=digit")
        return self


@register("data", "moving_digits", MovingDigitsConfig)
class MovingDigits(Dataset):
    """Clips, uint8 (channels, frames, size, size); the label is a function of a clip's number alone.

    Raises:
        ConfigError: ``data.of`` is not a dataset of images that needs no more than a root.
        DataError: its images cannot be had, or a split has none of a class.
    """

    def __init__(self, config: MovingDigitsConfig, split: Split) -> None:
        import torch

        self.config, self.split = config, split
        images = _images(config, split)
        held = images.resident()
        assert held is not None, "datasets of that name are held in memory"
        self._sprites, kinds = held.content, images.spec.classes
        labels = torch.zeros(len(held), dtype=torch.int64) if held.labels is None else held.labels
        known = config.labels == "digit" and len(kinds) > 0
        #: The sprites sorted by their classes; where each class begins, and how many it has.
        self._order = torch.argsort(labels, stable=True)
        groups = len(kinds) if known else 1
        counts = torch.bincount(labels, minlength=groups) if known else torch.tensor([len(labels)])
        if not counts.all():
            what = f"data.of={config.of} has no {split} image of {kinds[int(counts.argmin())] if known else 'any kind'}"
            raise DataError(what, "add some, or use data.labels=none")
        self._starts, self._counts = counts.cumsum(0) - counts, counts
        #: The classes of what moves, for each class of clips.
        self._pairs = torch.tensor(list(combinations_with_replacement(range(groups), config.sprites)))
        classes = ["+".join(kinds[one] for one in pair) for pair in self._pairs.tolist()] if known else []
        if config.labels == "motion":
            classes = [f"{way} {speed}" for way in DIRECTIONS for speed in SPEEDS]
        self.codec = VideoCodec((self._sprites.shape[1], config.frames, config.size, config.size), config.fps)
        made = [RECIPE, split, len(self), images.spec.fingerprint, json.loads(json.dumps(vars(config), default=list))]
        made[-1].pop("root")
        self.spec = DataSpec("video", self.codec.shape, tuple(classes), fingerprint=digest_of(made), rate=config.fps)

    def __len__(self) -> int:
        return HELD_OUT.get(self.split, self.config.clips)

    def resident(self) -> None:
        """None: clips are made when they are asked for."""
        return

    def read(self, index: int) -> tuple[Tensor, int | None]:
        """One clip, and its label."""
        import torch

        batch = self(torch.tensor([index]))
        return batch.content[0], None if batch.labels is None else int(batch.labels[0])

    def gatherer(self, device: torch.device | str) -> MovingDigits:
        """Makes clips on the device."""
        moved = copy(self)
        for name in ("_sprites", "_order", "_starts", "_counts", "_pairs"):
            setattr(moved, name, getattr(self, name).to(device))
        return moved

    @property
    def device(self) -> torch.device:
        """Where it takes item numbers, and where its batches are."""
        return self._sprites.device

    def describe(self) -> list[str]:
        """How many clips each split has, and of how many images."""
        held = ", ".join(f"{split} {count:,}" for split, count in HELD_OUT.items())
        return [f"{self.config.clips:,} new clips an epoch, of {len(self._sprites):,} images; {held} of other images"]

    def truth(self, index: int) -> dict[str, np.ndarray]:
        """What is known of a clip: ``centres``, float64 (sprites, frames, 2), across and down, of what moves, in pixels
        of which the first is at 0."""
        import torch

        corners, _ = self._paths(self._own(torch.tensor([index])), torch.tensor([index]))
        return {"centres": corners[0].double().numpy() + (self.config.sprite - 1) / 2}

    def __call__(self, index: Tensor, uniform: Tensor | None = None) -> Batch:
        """The clips (n, channels, frames, size, size) at `index`; with `uniform`, (n, 8), new ones of their classes."""
        import torch

        draws = self._own(index) if uniform is None else uniform
        corners, sprites = self._paths(draws, index)
        drawn = [_drawn(sprites[:, place], corners[:, place], self.config.size) for place in range(self.config.sprites)]
        content = torch.stack(drawn).amax(dim=0) if len(drawn) > 1 else drawn[0]
        labels = index % len(self.spec.classes) if self.spec.classes else None
        return Batch(content.round_().to(torch.uint8), labels)

    def _own(self, index: Tensor) -> Tensor:
        """The draws (n, 8) of clips by themselves."""
        import torch

        items = index.cpu().numpy()
        key = ("moving_digits", RECIPE, self.split)
        own = np.stack([uniform_at(items, *key, place) for place in range(DRAWS)], axis=1)
        return torch.from_numpy(own).to(index.device)

    def _paths(self, draws: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Where the corner of each sprite is in each frame, float32 (n, sprites, frames, 2), across and down; and the
        sprites, uint8 (n, sprites, c, s, s)."""
        import torch

        config = self.config
        own = draws[:, : _EACH * config.sprites].reshape(-1, config.sprites, _EACH)
        kinds = self._pairs[index % len(self._pairs)]
        nth = (own[..., 0] * self._counts[kinds]).long().minimum(self._counts[kinds] - 1)
        sprites = self._sprites[self._order[self._starts[kinds] + nth]]
        (across, down), (turn, pace) = (_two(own[..., place]) for place in (1, 2))
        if config.labels == "motion":  # the class says in which quarter and half of their ranges these lie
            label = (index % (len(DIRECTIONS) * len(SPEEDS)))[:, None]
            turn = (label // len(SPEEDS) + turn) / len(DIRECTIONS)
            pace = (label % len(SPEEDS) + pace) / len(SPEEDS)
        room = config.size - config.sprite
        angle = 2 * torch.pi * turn
        speed = config.speed[0] + (config.speed[1] - config.speed[0]) * pace
        start = (0.25 + 0.5 * torch.stack([across, down], dim=-1)) * room
        step = speed[..., None] * torch.stack([angle.cos(), angle.sin()], dim=-1)
        time = torch.arange(config.frames, device=draws.device)[:, None]
        return folded(start[:, :, None] + step[:, :, None] * time, room), sprites


def folded(place: Tensor, room: float) -> Tensor:
    """Where what moves along a line is between walls at 0 and `room` that reflect it."""
    beyond = place.remainder(2 * room)
    return beyond.minimum(2 * room - beyond)


def _two(uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Two draws out of one, of 12 bits each: an item has but eight."""
    scaled = uniform * 4096
    first = scaled.floor()
    return first / 4096, scaled - first


def _drawn(sprites: Tensor, corners: Tensor, size: int) -> Tensor:
    """Frames (n, c, t, size, size), float32, with sprites (n, c, s, s) at corners (n, t, 2) between pixels, each pixel
    spread over the four that it touches. Nothing is summed in an order that depends on the batch."""
    import torch
    from torch.nn.functional import pad

    side, frames = sprites.shape[-1], corners.shape[1]
    padded = pad(sprites.float(), (1, 1, 1, 1))
    whole = corners.floor()
    share = corners - whole
    # The place in the padded sprite of the pixel that each pixel of a frame takes, and of the one before it.
    at = torch.arange(size, device=corners.device) - whole.long()[..., None] + 1  # (n, t, 2, size)
    columns, rows = (at[:, :, axis].clamp(0, side + 1) for axis in (0, 1))
    before_columns, before_rows = ((at[:, :, axis] - 1).clamp(0, side + 1) for axis in (0, 1))
    n, c = sprites.shape[:2]
    wide = padded[:, :, None].expand(n, c, frames, side + 2, side + 2)

    def taken(part: Tensor, index: Tensor, axis: int) -> Tensor:
        shape = [n, c, frames, part.shape[3], part.shape[4]]
        shape[axis] = size
        view = index[:, None, :, :, None] if axis == 3 else index[:, None, :, None, :]
        return part.gather(axis, view.expand(shape))

    across, down = (share[:, None, :, axis, None, None] for axis in (0, 1))
    tall = taken(wide, rows, 3) * (1 - down) + taken(wide, before_rows, 3) * down
    return taken(tall, columns, 4) * (1 - across) + taken(tall, before_columns, 4) * across


def _images(config: MovingDigitsConfig, split: Split) -> Dataset:
    """A split of what moves, at the size of a sprite, as its own YAML file has it otherwise."""
    files = folders.options("data")
    if config.of not in files:
        raise no_such("data.of", config.of, sorted(files))
    if folders.modality_of(config.of) != "image":
        raise ConfigError(f"data.of={config.of} is not a dataset of images", "choose digits, mnist or fashion_mnist")
    values: dict[str, Any] = load_yaml(files[config.of])
    if config.root is not None and "root" in values:
        values["root"] = config.root
    component = find("data", config.of)
    typed = check("data", component.config, {**values, "size": config.sprite})
    dataset: Dataset = component.build(typed, split)
    return dataset
