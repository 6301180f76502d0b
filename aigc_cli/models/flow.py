"""Flow matching: a path from noise to data, whose velocity a network learns (Lipman et al., Flow Matching for
Generative Modeling, 2023; Liu, Gong and Liu, Flow Straight and Fast, 2023)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, ModelConfig, Prompts
from aigc_cli.models.latent import EncodingControls, LatentModel, check_conditional
from aigc_cli.nn.collective import draw, normal_like
from aigc_cli.nn.dit import DiT
from aigc_cli.nn.masking import Region, in_region
from aigc_cli.nn.unet import UNet
from aigc_cli.randomness import Noise
from aigc_cli.registry import register

_SMALLEST = 4  # side of the smallest maps, at least
_TIMES = 8  # at which a held-out item's loss is looked at, evenly spread
_LEVEL = 2 / 255  # between neighbours of the 256 values that bits per dimension are of
_LIKELIHOOD_STEPS = 32  # of the path back to noise
_LEVELS = 4  # sizes of maps, at most
_PATCHES = 64  # of an item, at most, of a transformer
Velocity = Callable[[Tensor, float], Tensor]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class FlowConfig(ModelConfig):
    """The keys of ``model=flow``; configs/model/flow.yaml explains them."""

    name: Literal["flow"]
    network: Literal["unet", "dit"] = "unet"
    heads: Annotated[int, Field(ge=1)] = 4
    width: Annotated[int, Field(ge=8, multiple_of=8)]
    max_width: Annotated[int, Field(ge=8, multiple_of=8)]
    blocks: Annotated[int, Field(ge=1)]
    patch: Annotated[int, Field(ge=1)] | Literal["auto"]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    times: Literal["uniform", "logit_normal"]
    conditional: bool | Literal["auto"]
    class_dropout: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _widens(self) -> FlowConfig:
        if self.network == "dit":
            if self.width % self.heads:
                raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}")
        elif self.max_width < self.width:
            raise ValueError(f"max_width={self.max_width} is below width={self.width}")
        return self


@dataclass(config=STRICT, frozen=True, kw_only=True)
class FlowControls(EncodingControls):
    """What ``sample`` takes of it."""

    #: Steps of the solver from noise to data; more follow the path more closely, and take as much longer.
    steps: Annotated[int, Field(ge=1, le=1000)] = 16
    #: How a step is taken: by the velocity where it begins, or by two, which is more exact and takes twice as long.
    solver: Literal["euler", "midpoint", "heun"] = "heun"
    #: Above 1, how much more than usual a sample is of its class (Ho and Salimans 2022); 0 leaves the class out.
    guidance: Annotated[float, Field(ge=0, le=20)] = 1.0
    #: What is filled with mode=infill; the rest is kept.
    region: Region = "lower"
    #: How often each step is taken while a region is filled: the more often, the better it fits what is kept.
    resample: Annotated[int, Field(ge=1, le=100)] = 5


@register("model", "flow", FlowConfig)
class Flow(LatentModel):
    """A network that says which way a noisy item moves: from N(0, 1) at time 0 along straight lines to data at time 1.

    ``"loss"`` is the mean squared error of the velocity (Lipman et al. 2023, equation 23 with sigma_min = 0). A latent
    is the noise that an item's path begins with, which :meth:`encode` finds by going back.
    """

    can = frozenset({"sample", "latents", "decode", "encode", "score", "infill"})
    layouts = frozenset({"sequence", "map", "volume"})
    controls: ClassVar[type] = FlowControls
    probes = 2
    unbounded = True

    def __init__(self, config: FlowConfig, spec: DataSpec) -> None:
        super().__init__(spec)
        self.config = config
        self.conditional = check_conditional(config.conditional, spec)
        self.solver = FlowControls()
        patch = _patch(config, spec.shape)
        told_apart = self.classes + 1 if self.classes else 0
        if config.network == "dit":
            self.net: nn.Module = DiT(
                spec.shape, config.width, layers=config.blocks, heads=config.heads, patch=patch, classes=told_apart,
                dropout=config.dropout,
            )  # fmt: skip
        else:
            widths = _widths(config, max(spec.shape[1:]) // patch)
            self.net = UNet(
                spec.shape, widths, blocks=config.blocks, patch=patch, classes=told_apart, dropout=config.dropout
            )

    # training

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The loss on encoded items."""
        data, labels = batch.content, self.labels_of(batch)
        time = draw(torch.rand, len(data), device=data.device)
        if self.config.times == "logit_normal":  # the middle is the hardest (Esser et al. 2024, section 3.1)
            time = torch.sigmoid(draw(torch.randn, len(data), device=data.device))
        if labels is not None:
            forget = draw(torch.rand, len(data), device=data.device) < self.config.class_dropout
            labels = torch.where(forget, self.classes, labels)
        return {"loss": self._error(data, normal_like(data), time, labels).mean()}

    def _error(self, data: Tensor, noise: Tensor, time: Tensor, labels: Tensor | None) -> Tensor:
        """The mean squared error of the velocity of each item (n,)."""
        at = torch.lerp(noise, data, _beside(time, data))
        found: Tensor = self.net(at, time, labels)
        return (found - (data - noise)).square().flatten(1).mean(1)

    # sampling

    def prepare(self, items: Iterable[Batch], controls: FlowControls) -> None:
        """Takes note of how :meth:`decode` is to follow the path."""
        if controls.guidance != 1 and not self.conditional:
            what = f"guidance={controls.guidance:g}: this model was trained without classes"
            raise ConfigError(what, "leave guidance= out, or train with model.conditional=true on data with labels")
        self.heed(controls)

    def heed(self, controls: FlowControls) -> None:
        """How the path is followed."""
        self.solver = controls

    def sample(self, noise: Noise, controls: FlowControls, prompts: Prompts | None = None) -> Tensor:
        """Encoded items (len(noise), *spec.shape), of the classes asked for; of `prompts`, items of which the region
        that `controls` name is filled."""
        if prompts is not None and prompts.items is not None:
            return self._fill(noise, controls, prompts)
        labels = self.labels(noise.indices, controls, noise.device)
        return self._follow(self.latents(noise, controls), labels, controls)

    def _fill(self, noise: Noise, controls: FlowControls, prompts: Prompts) -> Tensor:
        """Items with a region anew. At each step what is kept is put where its own path has it by then; a step is taken
        several times, with new noise between, so that the two grow together (Lugmayr et al., RePaint: Inpainting using
        Denoising Diffusion Probabilistic Models, 2022, algorithm 1, for straight paths)."""
        assert prompts.items is not None, "there is something to keep"
        rows = [index % len(prompts.items) for index in noise.indices]
        kept, gap = prompts.items[rows], in_region(self.spec.shape[1:], controls.region).to(noise.device)
        labels = None if controls.class_ is None else self.labels(noise.indices, controls, noise.device)
        if controls.class_ is None and prompts.labels is not None and self.conditional:
            labels = torch.tensor([prompts.labels[row] for row in rows], device=noise.device)
        if labels is None and controls.guidance != 1:
            what = f"guidance={controls.guidance:g}: nothing says of which class the prompt is"
            raise ConfigError(what, "add class=, or leave guidance= out")
        velocity, shape = self._velocity(labels, controls.guidance), self.spec.shape
        x = noise.normal(*shape)
        for time, after in _steps(controls.steps, back=False):
            for left in reversed(range(controls.resample)):
                x = torch.where(gap, x, torch.lerp(noise.normal(*shape), kept, time))
                x = _STEPS[controls.solver](velocity, x, time, after)
                if left:
                    x = _back(x, after, time, noise.normal(*shape))
        return torch.where(gap, x, kept)

    def latents(self, noise: Noise, controls: FlowControls) -> Tensor:
        """What paths begin with, N(0, 1), (n, values)."""
        return noise.normal(self.values)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Where paths from `latents` (n, values) end, (n, *spec.shape), followed as :meth:`prepare` was told."""
        return self._follow(latents, labels, self.solver)

    def encode(self, batch: Batch) -> Tensor:
        """The noise (n, values) that the paths to encoded items begin with: they are followed backwards."""
        return self._follow(batch.content, self.labels_of(batch), self.solver, back=True).flatten(1)

    def held(self, controls: Any = None) -> int:
        """Features of the largest maps, for both halves of a guided step."""
        return 16 * self.config.width * self.values

    def _follow(self, start: Tensor, labels: Tensor | None, controls: FlowControls, *, back: bool = False) -> Tensor:
        """From noise to data, or `back`: (n, ...) to (n, *spec.shape)."""
        velocity = self._velocity(labels, controls.guidance)
        x = start.view(len(start), *self.spec.shape)
        for time, after in _steps(controls.steps, back):
            x = _STEPS[controls.solver](velocity, x, time, after)
        return x

    def _velocity(self, labels: Tensor | None, guidance: float = 1.0) -> Velocity:
        """The velocity of items (n, *spec.shape) at a time, moved away from that of any class by `guidance`."""
        unknown = self.classes if self.conditional else None

        def velocity(x: Tensor, time: float) -> Tensor:
            n, device = len(x), x.device
            at = torch.full((n,), time, device=device)
            nobody = None if unknown is None else torch.full((n,), unknown, device=device)
            if guidance == 1 or labels is None or nobody is None:
                found: Tensor = self.net(x, at, nobody if labels is None else labels)
                return found
            both: Tensor = self.net(torch.cat([x, x]), torch.cat([at, at]), torch.cat([labels, nobody]))
            told, untold = both.chunk(2)
            return untold + guidance * (told - untold)

        return velocity

    # looked at

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, Tensor]:
        """``"velocity_error"``, the loss at times that are spread evenly; above 1, from so many probes of the
        divergence, the negative log-likelihood ``"nll"`` too, in nats, and in bits per dimension.

        The likelihood is that of the path that the solver follows (Chen et al., Neural Ordinary Differential Equations,
        2018, equation 8), with Hutchinson's estimate of the divergence (Grathwohl et al., FFJORD, 2019, equation 7), of
        items of 256 levels with uniform noise below a level (Theis et al. 2016, section 3.1).
        """
        data, labels = batch.content.float(), self.labels_of(batch)
        if samples == 1:
            start = noise.normal(*self.spec.shape)
            times = (torch.arange(_TIMES, device=data.device) + 0.5) / _TIMES
            errors = [self._error(data, start, time.expand(len(data)), labels) for time in times]
            return {"velocity_error": torch.stack(errors).mean(0)}
        smooth = data + (noise.uniform(*self.spec.shape) - 0.5) * (0.0 if self.spec.latents else _LEVEL)
        signs = [noise.uniform(*self.spec.shape).sub(0.5).sign() for _ in range(samples)]
        nats, spread = self._nats(smooth, labels, signs)
        if self.spec.latents:  # have no levels; what is lost on the way to them counts in no likelihood of items
            return {"nats_per_latent": nats / self.values, "probe_deviation": spread}
        nats = nats - self.values * math.log(_LEVEL)  # of a level, where the density is about even
        return {"nll": nats, **self.bits(nats), "probe_deviation": spread}

    def _nats(self, data: Tensor, labels: Tensor | None, signs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """-log p of encoded items (n,), by the mean of some probes, and the deviation (n,) from probe to probe."""
        velocity = self._velocity(labels)
        with torch.inference_mode(False), torch.no_grad():
            x = data.clone()
            change = torch.zeros(len(signs), len(x), device=x.device)  # the integral of the divergence, by each probe
            for time, after in _steps(_LIKELIHOOD_STEPS, back=True):
                middle, half = (time + after) / 2, (after - time) / 2
                between = x + half * velocity(x, time)
                moves, divergence = _divergence(velocity, between, middle, signs)
                x, change = x + (after - time) * moves, change + (time - after) * divergence
        normal = -0.5 * (x.square() + math.log(2 * math.pi)).flatten(1).sum(1)
        each = change - normal  # log p(data) = log p(noise) - the integral
        return each.mean(0), each.std(0)


def _divergence(velocity: Velocity, x: Tensor, time: float, signs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The velocity at x (n, ...), and its divergence by each probe, (len(signs), n)."""
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        found = velocity(at, time)
        slopes = [
            torch.autograd.grad(found, at, sign.to(found), retain_graph=place + 1 < len(signs))[0]
            for place, sign in enumerate(signs)
        ]
    products = [(slope * sign).flatten(1).sum(1) for slope, sign in zip(slopes, signs, strict=True)]
    return found.detach(), torch.stack(products)


def _steps(count: int, back: bool) -> list[tuple[float, float]]:
    """The times at which so many steps begin and end, from 0 to 1 or `back`."""
    times = [step / count for step in range(count + 1)]
    return list(pairwise(times[::-1] if back else times))


def _back(x: Tensor, time: float, before: float, noise: Tensor) -> Tensor:
    """Items on their paths at a time, with as much more noise as they have at a time `before`."""
    share = before / time
    return share * x + math.sqrt((1 - before) ** 2 - (share * (1 - time)) ** 2) * noise


def _euler(velocity: Velocity, x: Tensor, time: float, after: float) -> Tensor:
    return x + (after - time) * velocity(x, time)


def _midpoint(velocity: Velocity, x: Tensor, time: float, after: float) -> Tensor:
    middle = (time + after) / 2
    return x + (after - time) * velocity(_euler(velocity, x, time, middle), middle)


def _heun(velocity: Velocity, x: Tensor, time: float, after: float) -> Tensor:
    first = velocity(x, time)
    second = velocity(x + (after - time) * first, after)
    return x + (after - time) / 2 * (first + second)


_STEPS = {"euler": _euler, "midpoint": _midpoint, "heun": _heun}


def _beside(values: Tensor, items: Tensor) -> Tensor:
    """Values (n,) with as many dimensions as items (n, ...)."""
    return values.view(-1, *[1] * (items.ndim - 1))


def _widths(config: FlowConfig, side: int) -> list[int]:
    """Channels at each size: twice as many at half the size, until that is small."""
    widths = [config.width]
    while side > 2 * _SMALLEST - 1 and len(widths) < _LEVELS:
        side = -(-side // 2)
        widths.append(min(2 * widths[-1], config.max_width))
    return widths


def _patch(config: FlowConfig, shape: tuple[int, ...]) -> int:
    """The side of a patch: of those that divide all sides, the one asked for."""
    if config.patch == "auto" and config.network == "dit":
        common = math.gcd(*shape[1:])
        fits = [side for side in range(1, common + 1) if common % side == 0]
        return next((side for side in fits if math.prod(shape[1:]) <= _PATCHES * side ** len(shape[1:])), fits[-1])
    if config.patch == "auto":
        return 2 if all(side % 2 == 0 and side >= 4 * _SMALLEST for side in shape[1:]) else 1
    if any(side % config.patch for side in shape[1:]):
        sides = "x".join(map(str, shape[1:]))
        raise ConfigError(f"model.patch={config.patch} does not divide items of {sides}", "set model.patch=auto")
    return config.patch
