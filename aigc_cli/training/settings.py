"""What a trainer is told, what it must remember, and what it calls out for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as typed

from aigc_cli.config.schema import STRICT
from aigc_cli.training.precision import PrecisionName

Count = Annotated[int, Field(ge=1)]
Position = Annotated[int, Field(ge=0, lt=1 << 53)]


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
    precision: PrecisionName
    compile: bool
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
    tensorboard: bool


@typed(config=STRICT)
class Sums:
    """Figures that were added up together."""

    names: list[str]
    sums: list[float]
    count: Count


@typed(config=STRICT)
class State:
    """What a run must remember beside its tensors."""

    step: Position = 0  # training steps done
    batches: Position = 0  # micro-batches taken from the loader
    batch_size: Position = 0  # of them
    updates: Position = 0  # steps done that were not skipped, for an fp16 overflow or too large a gradient
    seconds: float = 0.0  # spent in training, over all its processes
    best: float | None = None  # lowest validation figure
    best_step: Position | None = None
    fingerprint: str = ""  # of the training data
    processes: Count = 1  # that trained it last
    scalers: dict[str, dict[str, int | float]] = field(default_factory=dict)  # for fp16, by phase
    tally: list[Sums] = field(default_factory=list)  # what the next row is made of


def read_state(path: Path) -> State:
    """The state in a file, which may come from a stranger.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no state; the message names the first key that is wrong.
    """
    try:
        return TypeAdapter(State).validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(map(str, problem["loc"]))
        raise ValueError(f"{path.name}: {f'{key}: ' if key else ''}{problem['msg']}") from None


@dataclass(frozen=True)
class Hooks:
    """What the loop calls out for, so that it need not know how samples are drawn or judged."""

    preview: Callable[[int], None] | None = None
    #: Held-out figures; the first is what the best checkpoint minimises.
    validate: Callable[[], dict[str, float]] | None = None
    #: The model's own further curves, of its weights as they are.
    examine: Callable[[], dict[str, float]] | None = None
