"""Metrics of clips alone: ``frame_fd``, which sees no motion; ``physics``, whether what moves does so along straight
lines that the edges reflect, and can still be read; and ``fvd``, for those who have its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import DataError
from aigc_cli.metrics.base import Figures, Metric, Stream, Takes, require
from aigc_cli.metrics.distances import FD
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.registry import register

_OFF = 1.5  # pixels by which the centre of mass of what moves may be off that of its square
_STEPS, _PLACES = 33, 33  # velocities, and places to start from, of each axis that are tried
_ROUNDS = 4  # of tries, each about the best of the one before, at a third of its distances
_LEAST = 1.0  # of 255, of all pixels together: less is an empty frame
_AT_ONCE = 64
_SLACK = 0.15  # by which speeds may go beyond those of real clips, as a share


@dataclass(config=STRICT, frozen=True, kw_only=True)
class FramesConfig(PlainConfig):
    """What sees single frames."""

    extractor: Literal["frames"] = "frames"


@register("metric", "frame_fd", FramesConfig)
class FrameFD(FD):
    """``frame_fd``: beside ``fd``, it shows what of that is not motion."""

    figures: ClassVar[Figures] = {"frame_fd": "lower"}
    usual_for: ClassVar[Mapping[str, int]] = {}


class Bounds(NamedTuple):
    """What real clips say of the walls (2, 2), lowest and highest centre of each axis, and of the speeds (2,)."""

    walls: Tensor
    speeds: Tensor


def centres(clips: Tensor) -> Tensor:
    """The centre of mass of each frame, across and down, float64 (n, t, 2), of clips (n, c, t, h, w), uint8; NaN where
    a frame is empty."""
    mass = clips.double().mean(dim=1)
    total = mass.sum(dim=(2, 3))
    across = (mass.sum(2) * torch.arange(mass.shape[3], device=mass.device)).sum(2)
    down = (mass.sum(3) * torch.arange(mass.shape[2], device=mass.device)).sum(2)
    found = torch.stack([across, down], dim=2) / total[..., None]
    return torch.where((total >= _LEAST)[..., None], found, torch.nan)


def bounds_of(paths: Tensor) -> Bounds:
    """Of paths (n, t, 2) of real clips; speeds are each clip's fastest step, which no wall has cut short."""
    low, high = paths.flatten(0, 1).nan_to_num(0).quantile(torch.tensor([0.001, 0.999]).double(), dim=0)
    fastest = paths.diff(dim=1).norm(dim=2).nan_to_num(0).amax(dim=1)
    slow, fast = fastest.quantile(torch.tensor([0.01, 0.99]).double())
    return Bounds(torch.stack([low, high]), torch.stack([slow * (1 - _SLACK), fast * (1 + _SLACK)]))


def path_errors(paths: Tensor, bounds: Bounds) -> Tensor:
    """How far, in pixels, paths (n, t, 2) are at the mean from the nearest that goes straight, is reflected by the
    walls, and is as fast as real ones; float64 (n,). An empty frame is as far off as the walls are apart."""
    return torch.cat([_path_errors(part, bounds) for part in torch.split(paths, _AT_ONCE)])


def _path_errors(paths: Tensor, bounds: Bounds) -> Tensor:
    n, room = len(paths), bounds.walls[1] - bounds.walls[0]
    empty = paths.isnan().any(dim=2)
    seen = torch.where(empty[..., None], bounds.walls.mean(0), paths)
    fastest = bounds.speeds[1]
    velocity = torch.zeros(n, 2, dtype=paths.dtype)
    start = (room / 2).expand(n, 2)
    reach_v, reach_p = fastest.expand(2), room / 2
    for _ in range(_ROUNDS):
        steps = velocity[:, :, None] + reach_v[:, None] * torch.linspace(-1, 1, _STEPS, dtype=paths.dtype)
        places = start[:, :, None] + reach_p[:, None] * torch.linspace(-1, 1, _PLACES, dtype=paths.dtype)
        cost, best = _costs(seen, ~empty, bounds.walls[0], room, steps, places)  # (n, 2, steps)
        speed = (steps[:, 0, :, None].square() + steps[:, 1, None].square()).sqrt()
        allowed = (speed >= bounds.speeds[0]) & (speed <= fastest)
        both = torch.where(allowed, cost[:, 0, :, None] + cost[:, 1, None], torch.inf).flatten(1).argmin(1)
        chosen = torch.stack([both // _STEPS, both % _STEPS], dim=1)[..., None]
        velocity = steps.gather(2, chosen)[..., 0]
        start = places.gather(2, best.gather(2, chosen))[..., 0]
        reach_v, reach_p = reach_v / 3, reach_p / 3
    _, distance = _fitted(seen, ~empty, bounds.walls[0], room, velocity[..., None], start[..., None])
    off = distance[:, :, 0, 0].square().sum(1).sqrt()  # (n, t)
    return torch.where(empty, room.norm(), off).mean(dim=1)


def _fitted(
    seen: Tensor, counts: Tensor, low: Tensor, room: Tensor, steps: Tensor, places: Tensor
) -> tuple[Tensor, Tensor]:
    """Squared distances (n, 2, steps, places), and distances (n, 2, steps, places, t), of paths from those that start
    at `places` (n, 2, p) with velocities `steps` (n, 2, v), moved by at most 1.5 pixels to where they fit best."""
    time = torch.arange(seen.shape[1], dtype=seen.dtype)
    line = places[:, :, None, :, None] + steps[..., None, None] * time
    beyond = line.remainder(2 * room[:, None, None, None])
    at = low[:, None, None, None] + beyond.minimum(2 * room[:, None, None, None] - beyond)
    difference = seen.transpose(1, 2)[:, :, None, None] - at
    weight = counts[:, None, None, None].to(seen.dtype)
    shift = (difference * weight).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp_min(1)
    difference = difference - shift.clamp(-_OFF, _OFF)
    return (difference.square() * weight).sum(-1), difference


def _costs(
    seen: Tensor, counts: Tensor, low: Tensor, room: Tensor, steps: Tensor, places: Tensor
) -> tuple[Tensor, Tensor]:
    """For each velocity, the squared distance from the best place to start, and which place that is, (n, 2, steps)."""
    squares, _ = _fitted(seen, counts, low, room, steps, places)
    best = squares.min(dim=3)
    return best.values, best.indices


@register("metric", "physics", FramesConfig)
class Physics(Metric):
    """``physics`` of clips in which one thing moves, such as those of ``moving_digits``: ``path_error`` is how far its
    centre is, in pixels, from a straight path that the walls reflect, whose walls and speeds are those of real clips;
    ``digit_read`` the share of frames in which a classifier of single frames sees, with a probability above one half,
    the class that it sees in most frames of that clip."""

    takes: ClassVar[Takes] = {"fake": ("frames", "content"), "real": ("content",)}
    shares: Any
    figures: ClassVar[Figures] = {"path_error": "lower", "digit_read": "higher"}

    def __init__(self, config: FramesConfig, width: int = 0) -> None:
        super().__init__(config, width)
        self.add_state("real", default=[], dist_reduce_fx="cat")
        self.add_state("fake", default=[], dist_reduce_fx="cat")
        self.add_state("shares", default=[], dist_reduce_fx="cat")

    def update(self, stream: Stream, *views: Any) -> None:
        """Keeps the path of each clip (n, c, t, h, w), and the share of frames that are read of generated ones."""
        clips: Tensor = views[stream == "fake"]  # after what frames are; originals of reconstructions come last
        if clips.ndim != 5:
            raise DataError("only clips of video move", "leave this metric out")
        getattr(self, stream).append(centres(clips.cpu()))
        if stream == "fake":
            self.shares.append(frames_read(views[0].view(len(clips), clips.shape[2], -1)))

    def compute(self) -> dict[str, Tensor]:
        """The scores."""
        if self.spec is not None and any("+" in name for name in self.spec.classes):
            raise DataError("physics follows one thing that moves, and these clips have two", "use data.sprites=1")
        real, fake, read = (dim_zero_cat(getattr(self, side)) for side in ("real", "fake", "shares"))
        require(len(real), 50, "real", "the walls", "give more clips")
        require(len(fake), 1, "generated", "physics", "give more clips with n=")
        return {"path_error": path_errors(fake, bounds_of(real)).mean(), "digit_read": read.double().mean()}


def frames_read(logits: Tensor) -> Tensor:
    """The share of each clip's frames (n,) whose class, of logits (n, t, k), is that of most of them, and likelier than
    all others together."""
    shares, classes = logits.softmax(dim=2).max(dim=2)
    usual = classes.mode(dim=1, keepdim=True).values
    return ((classes == usual) & (shares > 0.5)).double().mean(dim=1)


@dataclass(config=STRICT, frozen=True, kw_only=True)
class FVDConfig(PlainConfig):
    """The Fréchet video distance: that of the features of I3D."""

    extractor: Literal["i3d"] = "i3d"


@register("metric", "fvd", FVDConfig)
class FVD(FD):
    """``fvd``: Unterthiner et al., Towards Accurate Generative Models of Video, 2018."""

    native = "i3d"
    figures: ClassVar[Figures] = {"fvd": "lower"}
    usual_for: ClassVar[Mapping[str, int]] = {}
