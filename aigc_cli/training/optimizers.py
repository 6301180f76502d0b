"""What moves weights: optimizers by name, the learning rate, mixed precision, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from inspect import unwrap
from typing import Annotated, Any, Literal, TypeVar, cast

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.optim import Optimizer

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError
from aigc_cli.models.base import Model
from aigc_cli.registry import find, register
from aigc_cli.training.parallel import as_spread, whole

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
ParamGroups = list[dict[str, Any]]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class NetworkOverrides:
    """One network's own settings; None takes those of all."""

    lr: Positive | None = None
    weight_decay: NonNegative | None = None


@dataclass(config=STRICT, frozen=True, kw_only=True)
class OptimizerConfig:
    """What every optimizer has."""

    lr: Positive
    weight_decay: NonNegative
    schedule: Literal["constant", "linear", "cosine", "wsd"]
    warmup_steps: Annotated[int, Field(ge=0)]
    decay_fraction: Annotated[float, Field(gt=0, le=1)] = 0.2
    final_lr_fraction: Annotated[float, Field(ge=0, le=1)]
    generator: NetworkOverrides
    discriminator: NetworkOverrides

    def groups(self, network: nn.Module, parameters: list[nn.Parameter]) -> ParamGroups:
        """Those of `network` that train, in groups; ``lr_scale`` and ``weight_decay`` where a group has its own."""
        return [{"params": parameters}]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class AdamConfig(OptimizerConfig):
    """Adam and AdamW."""

    name: Literal["adam", "adamw"]
    betas: tuple[Fraction, Fraction]
    eps: Positive

    def groups(self, network: nn.Module, parameters: list[nn.Parameter]) -> ParamGroups:
        """Of AdamW, matrices and vectors."""
        return sparing_vectors(parameters) if self.name == "adamw" else super().groups(network, parameters)


@dataclass(config=STRICT, frozen=True, kw_only=True)
class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent."""

    name: Literal["sgd"]
    momentum: Fraction
    nesterov: bool

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=true needs a momentum above 0")


@dataclass(config=STRICT, frozen=True, kw_only=True)
class RMSpropConfig(OptimizerConfig):
    """RMSprop."""

    name: Literal["rmsprop"]
    alpha: Fraction
    eps: Positive
    momentum: Fraction


def sparing_vectors(parameters: list[nn.Parameter]) -> ParamGroups:
    """Groups in which biases and gains are not decayed: decoupled decay pulls a gain to 0 for no reason. L2, which
    Adam adds to the gradient, keeps to its textbook form."""
    vectors = [p for p in parameters if p.ndim < 2]
    return [{"params": [p for p in parameters if p.ndim >= 2]}, {"params": vectors, "weight_decay": 0.0}]


Kind = TypeVar("Kind", bound=type[Optimizer])


def lean(kind: Kind) -> Kind:
    """The optimizer without torch's compiler, which its methods import, in two seconds and 150 MB, to tell it to look
    away: no step of ours is compiled."""
    plain = {name: unwrap(getattr(kind, name)) for name in _TELLING}
    return cast(Kind, type(kind.__name__, (kind,), {**plain, "step": torch.no_grad()(plain["step"])}))


_TELLING = ("add_param_group", "zero_grad", "state_dict", "load_state_dict", "step")


@register("optimizer", "adam", AdamConfig)
@register("optimizer", "adamw", AdamConfig)
def adam(groups: ParamGroups, config: AdamConfig) -> Optimizer:
    """Adam (Kingma and Ba, 2015) or AdamW (Loshchilov and Hutter, 2019)."""
    kind = lean(torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam)
    return kind(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


@register("optimizer", "sgd", SGDConfig)
def sgd(groups: ParamGroups, config: SGDConfig) -> Optimizer:
    """SGD with momentum (Sutskever et al., 2013)."""
    kind = lean(torch.optim.SGD)
    return kind(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=True)


@register("optimizer", "rmsprop", RMSpropConfig)
def rmsprop(groups: ParamGroups, config: RMSpropConfig) -> Optimizer:
    """RMSprop (Hinton, 2012)."""
    kind = lean(torch.optim.RMSprop)
    return kind(groups, lr=config.lr, alpha=config.alpha, eps=config.eps, momentum=config.momentum, foreach=True)


def build_optimizers(config: OptimizerConfig, model: Model, phases: Iterable[str]) -> dict[str, Optimizer]:
    """An optimizer for each phase, over the parameters of that phase's network; :func:`check_networks` came before."""
    name: str = config.name  # type: ignore[attr-defined]
    build = cast(Callable[[ParamGroups, OptimizerConfig], Optimizer], find("optimizer", name).build)
    return {phase: build(_groups(config, phase, model.network(phase)), config) for phase in phases}


def state_copies(config: OptimizerConfig) -> int:
    """How many tensors an optimizer remembers for each parameter, of the parameter's size."""
    match config:
        case SGDConfig():
            return int(config.momentum > 0)
        case RMSpropConfig():
            return 1 + int(config.momentum > 0)
        case _:
            return 2  # Adam's, to which most of a plugin's are kin


def check_networks(config: OptimizerConfig, phases: Iterable[str]) -> None:
    """Refuses, by a :class:`ConfigError`, settings for a network that the model does not train."""
    known = tuple(phases)
    for network in ("generator", "discriminator"):
        if network not in known and getattr(config, network) != NetworkOverrides():
            what = f"optimizer.{network} is set, but this model trains {', '.join(known)}"
            raise ConfigError(what, "leave it null and set optimizer.lr instead")


def _groups(config: OptimizerConfig, phase: str, network: nn.Module) -> ParamGroups:
    own: NetworkOverrides = getattr(config, phase, None) or NetworkOverrides()
    lr = config.lr if own.lr is None else own.lr
    decay = config.weight_decay if own.weight_decay is None else own.weight_decay
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [{"weight_decay": decay, "lr_scale": 1.0, **group} for group in config.groups(network, parameters)]
    rates = [lr * group.pop("lr_scale") for group in groups]
    return [
        {**group, "lr": rate, "base_lr": rate} for group, rate in zip(groups, rates, strict=True) if group["params"]
    ]


def lr_factor(config: OptimizerConfig, step: float, steps: int) -> float:
    """The share of the base rate at `step` of `steps`: a linear warm-up, then the schedule."""
    if step < config.warmup_steps:
        return min(1.0, (step + 1) / config.warmup_steps)
    done = min(1.0, (step - config.warmup_steps) / max(1, steps - config.warmup_steps))
    fallen = max(0.0, 1.0 - (steps - step) / (config.decay_fraction * steps))
    shapes = {
        "constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
        "wsd": 1.0 - math.sqrt(min(1.0, fallen)),  # 1-sqrt: Hagele et al. 2024, section 3
    }  # fmt: skip
    return config.final_lr_fraction + (1.0 - config.final_lr_fraction) * shapes[config.schedule]


def set_lr(optimizer: Optimizer, factor: float) -> None:
    """Sets every group's rate to `factor` of its base."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def clip(network: nn.Module, most: float | None) -> Tensor:
    """The norm of a network's gradient, a scalar, which is then scaled down to `most` if that is given."""
    parameters = [p for p in network.parameters() if p.grad is not None]
    norm = whole(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    if most is not None:
        nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm


def _names(network: nn.Module, optimizer: Optimizer) -> list[str]:
    """The names of an optimizer's parameters, in the order of its state."""
    names = {parameter: name for name, parameter in network.named_parameters()}
    return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]


def optimizer_state(optimizer: Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """The tensors that the optimizer of `network` remembers, as ``<parameter>/<what>``."""
    names = _names(network, optimizer)
    return {
        f"{names[index]}/{what}": value
        for index, values in optimizer.state_dict()["state"].items()
        for what, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_state(optimizer: Optimizer, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Takes what :func:`optimizer_state` gave."""
    parameters = dict(network.named_parameters())
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, what = key.rsplit("/", 1)
        like = parameters[name]
        # In the parameter's own memory format, so that resumed steps run the same kernels as uninterrupted ones.
        value = torch.empty_like(like).copy_(as_spread(tensor, like)) if tensor.shape == like.shape else tensor
        by_name.setdefault(name, {})[what] = value.detach()
    state = {index: by_name[name] for index, name in enumerate(_names(network, optimizer)) if name in by_name}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


class Precision:
    """Autocast for forward passes and, for fp16, a loss scaler (Micikevicius et al., Mixed Precision Training, 2018)
    for each phase: one may come several times within a step, and each time ends with its scaler's update."""

    def __init__(self, name: str, device: torch.device, phases: Iterable[str] = ()) -> None:
        if name == "auto":  # bf16 on a GPU that computes in it, else fp32
            emulated = device.type != "cuda" or not torch.cuda.is_bf16_supported(including_emulation=False)
            name = "fp32" if emulated else "bf16"
        self.name, self.device = name, device
        self.scales = self.name == "fp16"
        self.scalers = {phase: torch.amp.GradScaler(device.type, enabled=self.scales) for phase in phases}

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.name)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def step(self, phase: str, optimizer: Optimizer) -> bool:
        """Steps the optimizer on unscaled gradients; False where an fp16 overflow made the scaler leave it out."""
        scaler = self.scalers[phase]
        scaler.step(optimizer)
        if not self.scales:
            return True
        before = scaler.get_scale()
        scaler.update()
        return scaler.get_scale() >= before

    def state_dict(self) -> dict[str, Any]:
        """The scalers' state, plain numbers by phase; empty without scaling."""
        return {phase: scaler.state_dict() for phase, scaler in self.scalers.items()} if self.scales else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the scalers' state from a checkpoint."""
        for phase, scaler in self.scalers.items() if self.scales else ():
            scaler.load_state_dict(state[phase])


class EMA:
    """The exponential moving average of a module's floating-point state, which is what is sampled.

    Without a warm-up the average of a short run would still hold its initial weights: the decay grows as
    ``(1 + t) / (10 + t)``. With a `start` after the first update, the average is a copy until then, and has its full
    decay at once (Brock et al., Large Scale GAN Training for High Fidelity Natural Image Synthesis, 2019, appendix C).
    What is not floating point, such as a batch norm's counter, is copied.
    """

    def __init__(self, module: nn.Module, decay: float, start: int = 0) -> None:
        self.module = module
        self.decay, self.start = decay, start
        self.shadow = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        live = module.state_dict()  # tensors that share memory with the module for as long as it lives
        floating = [name for name, tensor in live.items() if tensor.is_floating_point()]
        self._floating = [live[name] for name in floating]
        self._shadow_floating = [self.shadow[name] for name in floating]
        self._copied = [(self.shadow[name], tensor) for name, tensor in live.items() if name not in set(floating)]

    @torch.no_grad()
    def update(self, updates_done: int, scheduled: float | None = None) -> None:
        """Moves the average towards the module, after `updates_done` earlier updates; `scheduled` is where its start
        is counted, which in a run by minutes is another number."""
        decay = min(self.decay, (1 + updates_done) / (10 + updates_done))
        if self.start:
            decay = self.decay if (updates_done if scheduled is None else scheduled) >= self.start else 0.0
        torch._foreach_lerp_(self._shadow_floating, self._floating, 1 - decay)
        for shadow, tensor in self._copied:
            shadow.copy_(tensor)

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes the average from a checkpoint."""
        for name, shadow in self.shadow.items():
            shadow.copy_(as_spread(state[name], shadow))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the context the module holds its average."""
        own = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        self.module.load_state_dict(self.shadow)
        try:
            yield
        finally:
            self.module.load_state_dict(own)
