"""What a trainer is told, what it computes on, and what it calls out for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass as typed

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError


def _listed(names: object) -> object:
    return (names,) if isinstance(names, str) else tuple(names) if isinstance(names, list) else names


Count = Annotated[int, Field(ge=1)]
#: A list of names, or one of them.
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
#: Items below which no verdict is given. With 8, an estimate of a variance is off by a factor of two now and then
#: (its relative deviation is sqrt(2/7)), but not by the five and more from which we warn.
HANDFUL = 8


@typed(config=STRICT, frozen=True, kw_only=True)
class TrainerConfig:
    """The section `trainer` of a configuration; ``configs/trainer/default.yaml`` says what each key means."""

    steps: Count
    batch_size: Count
    accumulate: Count
    auto_batch: bool
    device: str
    devices: Count
    restarts: Annotated[int, Field(ge=0)]
    sync_batchnorm: bool
    sharding: Literal["none", "full"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    compile: bool | Literal["auto"]
    deterministic: bool
    clip_grad_norm: Annotated[float, Field(gt=0)] | None
    skip_grad_norm: Annotated[float, Field(gt=0)] | None
    ema: Annotated[float, Field(ge=0, lt=1)] | None
    ema_start: Annotated[int, Field(ge=0)]
    log_every: Count
    examine_every: Count | None
    checkpoint_every: Count
    keep: Count
    sample_every: Count | None
    samples: Count | None
    validate_every: Count | None
    validate_items: Count | None
    validate_metric: Literal["auto", "score", "fd"]
    workers: Annotated[int, Field(ge=0)]
    threads: Count | None
    # Runs of before there were these have no value for them.
    compile_mode: Literal["default", "reduce-overhead", "max-autotune"] = "default"
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    first_look: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = 30.0
    logger: Names = ()
    tensorboard: bool = False  # older runs have this in place of logger=tensorboard
    early_stop: Count | None = None
    early_stop_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @property
    def loggers(self) -> list[str]:
        """The names of what a run is logged to beside its own files."""
        return [*self.logger, *(["tensorboard"] if self.tensorboard else [])]

    @property
    def brief(self) -> bool:
        """Whether a run is so short that nothing should learn for minutes before it."""
        return self.steps < 500 if self.minutes is None else self.minutes < 5


@dataclass(frozen=True)
class Plan:
    """What is left of a run, by what was measured of it so far."""

    steps: int
    seconds: float
    steps_per_second: float
    memory: int  # bytes, at the peak so far
    disk: int  # bytes of all its checkpoints at most
    share: float = 1.0  # of the steps of a full run that it has had by then


@dataclass(frozen=True)
class Hooks:
    """What the loop calls out for, so that it need not know how samples are drawn or judged."""

    preview: Callable[[int], None] | None = None
    #: Held-out scores; the first is what the best checkpoint minimises.
    validate: Callable[[], dict[str, float]] | None = None
    #: Whether a search gives the run up, by its step and its held-out score; the main process alone is asked.
    judge: Callable[[int, float], bool] | None = None
    #: The model's own further curves, of its weights as they are.
    examine: Callable[[], dict[str, float]] | None = None
    #: The lines that say what the rest of the run takes, once its rate is known.
    plan: Callable[[Plan], Sequence[str]] | None = None


def resolve_device(word: str) -> torch.device:
    """The device that `trainer.device` or `device` names; ``auto`` is a GPU where there is one.

    Raises:
        ConfigError: no such device.
    """
    if word == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(word)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={word} is not a device to compute on", "choose auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        seen = f"{count or 'no'} GPU{'' if count == 1 else 's'}"
        raise ConfigError(f"device={word}: torch sees {seen} here", "use device=auto or cpu")
    return device
