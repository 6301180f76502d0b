"""Writes the checkpoints of a run beside its training loop, and reads back the one that a run resumes from."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace

import torch
from torch.optim import Optimizer

from aigc_cli.errors import DataError, ResourceError
from aigc_cli.files import write_json
from aigc_cli.models.base import Model
from aigc_cli.progress import size
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import Checkpoint, CheckpointFolder, State, Tensors
from aigc_cli.training.distributed import Processes
from aigc_cli.training.optimizers import EMA, OptimizerConfig, load_optimizer_state, optimizer_state, state_copies
from aigc_cli.training.parallel import as_spread, whole
from aigc_cli.training.settings import TrainerConfig


class Saver:
    """Saves one checkpoint at a time, in a thread of its own; the `keep` newest ones stay, and the best.

    The run's records follow, and older checkpoints go, only when it is there. What goes wrong is raised where the loop
    looks next: :meth:`check`, :meth:`wait`, or the next :meth:`start`.
    """

    def __init__(self, run: Run, keep: int) -> None:
        self.run, self.keep = run, keep
        self.checkpoints = CheckpointFolder(run.checkpoints)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._thread.submit(int)  # it starts now, so that there is room for it when there is something to save
        self._pending: Future[None] | None = None

    def start(self, state: State, tensors: Mapping[str, Tensors], files: Mapping[str, str]) -> None:
        """Copies what is to be saved and begins to write it, once the last save has ended."""
        self.wait()
        # In this machine's memory, as they are now: the next step changes them while they are written.
        copies = {
            file: {
                name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
                for name, tensor in group.items()
            }
            for file, group in tensors.items()
        }
        with suppress(DataError):  # of a run that is trained without one
            state = replace(state, config=self.run.config)
        self._pending = self._thread.submit(self._save, replace(state), copies, files)

    def check(self) -> None:
        """Raises what went wrong with a save that has ended.

        Raises:
            NonFiniteError: a tensor held NaN or Inf; nothing was written.
            ResourceError: no space, or no permission; nothing was left behind.
        """
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Waits until all is written; raises as :meth:`check`."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _save(self, state: State, tensors: Mapping[str, Tensors], files: Mapping[str, str]) -> None:
        self.run.check_place()
        self.checkpoints.save(state.step, tensors, asdict(state), files)
        if state.best_step == state.step:
            write_json(self.run.path / "best.json", {"step": state.step, "value": state.best})
        self.checkpoints.prune(state.step, self.keep, state.best_step)
        self.run.set_status("running", state.step)

    def most(self, config: TrainerConfig, step: int) -> int:
        """How many checkpoints a run of `config` has at a time from `step` on: those that are kept, the one being
        written, and the best."""
        saves = math.ceil((config.steps - step) / config.checkpoint_every)
        count = self.keep + 1 if config.minutes is not None else min(saves, self.keep + 1)
        return count + int(config.validate_every is not None)

    def check_space(self, one: int, config: TrainerConfig, step: int) -> None:
        """Refuses, by a :class:`ResourceError`, a run of `config` from `step` on whose checkpoints do not fit on its
        disk, of `one` bytes each."""
        count = self.most(config, step)
        used = sum(path.stat().st_size for path in self.checkpoints.path.rglob("*") if path.is_file())
        free = shutil.disk_usage(self.run.path).free + used
        if count * one > free:
            elsewhere = "copy the run to another disk" if step else "choose another folder with run_dir= or outputs="
            raise ResourceError(
                f"a checkpoint takes about {size(one)}, and this run has up to {count} at a time, "
                f"but {self.run.path} has room for {size(free)}",
                f"free some space, {elsewhere}, or lower trainer.keep",
            )


def tensors_of(model: Model, optimizers: Mapping[str, Optimizer], ema: EMA | None) -> dict[str, Tensors]:
    """The tensors of a checkpoint by file, whole even where processes keep shares of them; all call it together."""
    tensors: dict[str, Tensors] = {"model": model.state_dict(), "optimizer": {}}
    for phase, optimizer in optimizers.items():
        state = optimizer_state(optimizer, model.network(phase))
        tensors["optimizer"].update({f"{phase}/{name}": tensor for name, tensor in state.items()})
    if ema is not None:
        tensors["ema"] = ema.shadow
    return {file: {name: whole(tensor) for name, tensor in group.items()} for file, group in tensors.items()}


def bytes_of(model: Model, optimizers: Mapping[str, Optimizer], ema: EMA | None, config: OptimizerConfig) -> int:
    """About what a checkpoint takes on a disk; what optimizers remember of each weight has no size before a step."""
    copies = state_copies(config)
    trained = [parameter for phase in optimizers for parameter in model.network(phase).parameters()]
    tensors = [*model.state_dict().values(), *(ema.shadow.values() if ema is not None else ()), *trained * copies]
    return sum(tensor.nbytes for tensor in tensors)


def load_tensors(checkpoint: Checkpoint, model: Model, optimizers: Mapping[str, Optimizer], ema: EMA | None) -> None:
    """Takes what :func:`tensors_of` gave, of which each process may keep a share; a :class:`RuntimeError` or a
    :class:`KeyError` where it is of another model."""
    live, saved = model.state_dict(), checkpoint.tensors["model"]
    model.load_state_dict({name: as_spread(saved[name], live[name]) if name in live else saved[name] for name in saved})
    if ema is not None:
        ema.load(checkpoint.tensors["ema"])
    for phase, optimizer in optimizers.items():
        state = checkpoint.tensors["optimizer"].items()
        own = {name.removeprefix(f"{phase}/"): tensor for name, tensor in state if name.startswith(f"{phase}/")}
        load_optimizer_state(optimizer, model.network(phase), own)


def newest_for_all(checkpoints: CheckpointFolder, processes: Processes) -> Checkpoint | None:
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
