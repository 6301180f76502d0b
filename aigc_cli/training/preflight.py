"""Before the first step: whether the disk has room for the checkpoints that a run will write."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from aigc_cli.errors import ResourceError
from aigc_cli.training.optimizers import state_copies
from aigc_cli.training.settings import TrainerConfig
from aigc_cli.training.trainer import Trainer


def check_space(trainer: Trainer) -> None:
    """Refuses a run whose checkpoints do not fit on its disk.

    Raises:
        ResourceError: they do not; the message gives both sizes.
    """
    one = checkpoint_size(trainer)
    many = at_once(trainer.config, trainer.state.step)
    folder = trainer.run.path
    free = shutil.disk_usage(folder).free + _size_of(trainer.checkpoints.path)
    if many * one > free:
        raise ResourceError(
            f"a checkpoint takes about {_readable(one)}, and this run has up to {many} at a time, "
            f"but {folder} has room for {_readable(free)}",
            "free some space, choose another folder with run_dir= or outputs=, or lower trainer.keep",
        )


def checkpoint_size(trainer: Trainer) -> int:
    """The bytes of a checkpoint, estimated before the optimizers have a state: weights, average, and their moments."""
    weights = _bytes(trainer.model.state_dict().values())
    average = _bytes(trainer.ema.shadow.values()) if trainer.ema is not None else 0
    networks = (trainer.model.network(phase).parameters() for phase in trainer.optimizers)
    return weights + average + state_copies(trainer.optimizer_config) * sum(map(_bytes, networks))


def at_once(config: TrainerConfig, step: int) -> int:
    """The most checkpoints a run has on disk: those kept, the best, and the one being written."""
    saves = -(-(config.steps - step) // config.checkpoint_every)
    best = int(config.validate_every is not None)
    return min(saves, config.keep + 1) + best


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
