"""What a checkpoint holds of a model in training, whole, whether or not processes keep shares of it."""

from __future__ import annotations

from collections.abc import Mapping

from torch.optim import Optimizer

from aigc_cli.models.base import Model
from aigc_cli.training.checkpoint import Checkpoint, CheckpointFolder, Tensors
from aigc_cli.training.distributed import Processes
from aigc_cli.training.ema import EMA
from aigc_cli.training.optimizers import load_optimizer_state, optimizer_state
from aigc_cli.training.sharding import as_spread, gathered


def tensors_of(model: Model, optimizers: Mapping[str, Optimizer], ema: EMA | None) -> dict[str, Tensors]:
    """The tensors by file; all processes call it together."""
    tensors: dict[str, Tensors] = {"model": gathered(model.state_dict()), "optimizer": {}}
    for phase, optimizer in optimizers.items():
        state = gathered(optimizer_state(optimizer, model.network(phase)))
        tensors["optimizer"].update({f"{phase}/{name}": tensor for name, tensor in state.items()})
    if ema is not None:
        tensors["ema"] = gathered(ema.shadow)
    return tensors


def load_tensors(checkpoint: Checkpoint, model: Model, optimizers: Mapping[str, Optimizer], ema: EMA | None) -> None:
    """Takes what :func:`tensors_of` gave.

    Raises:
        RuntimeError, KeyError: it is of another model.
    """
    live, saved = model.state_dict(), checkpoint.tensors["model"]
    model.load_state_dict({name: as_spread(saved[name], live[name]) if name in live else saved[name] for name in saved})
    if ema is not None:
        ema.load(checkpoint.tensors["ema"])
    for phase, optimizer in optimizers.items():
        state = checkpoint.tensors["optimizer"].items()
        own = {name.removeprefix(f"{phase}/"): tensor for name, tensor in state if name.startswith(f"{phase}/")}
        load_optimizer_state(optimizer, model.network(phase), own)


def newest(checkpoints: CheckpointFolder, processes: Processes) -> Checkpoint | None:
    """The newest valid checkpoint, which the main process chooses for all; what a kill left behind is gone then.

    Raises:
        DataError: there are some, and all are broken.
    """
    chosen: list[Checkpoint] = []

    def choose() -> int | None:
        checkpoints.clean()
        chosen.extend(filter(None, [checkpoints.load_newest()]))
        return chosen[0].step if chosen else None

    step = processes.from_main(choose)
    if step is not None and not chosen:
        chosen.append(checkpoints.load(step))
    return chosen[0] if chosen else None
