"""Several processes that train one model, each on its share of every batch.

Gradients are averaged by torch's own :class:`DistributedDataParallel`, one for each phase. All processes go through the
same steps and take the same decisions; the main one alone writes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Model
from aigc_cli.nn import collective as parallel
from aigc_cli.randomness import derive, seed_step
from aigc_cli.runs import Run
from aigc_cli.training.meeting import Place, meet, place
from aigc_cli.training.precision import resolve_device
from aigc_cli.training.settings import TrainerConfig

T = TypeVar("T")
#: Nobody waits for a collective this long: that a process is gone is told by its connection, and one may well look at
#: held-out data for hours while the others wait.
TIMEOUT = timedelta(days=7)


def own_device(trainer: TrainerConfig) -> torch.device:
    """What this process computes on: ``trainer.device``, and of several GPUs one for each process of the machine.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    device, where = resolve_device(trainer.device), place()
    count = trainer.devices if where is None else where.local_world_size
    if device.type != "cuda" or count == 1:
        return device
    if trainer.device.startswith("cuda:"):
        raise ConfigError(f"trainer.device={device} is one GPU, for {count} processes", "set trainer.device=cuda")
    if count > (there := torch.cuda.device_count()):
        raise ConfigError(
            f"trainer.devices={count}: torch sees {there} GPU{'' if there == 1 else 's'} here",
            f"use trainer.devices={there}, or trainer.device=cpu",
        )
    return torch.device("cuda", 0 if where is None else where.local_rank)


class Bystander(Run):
    """A run as a process sees it that leaves the writing to the main one."""

    def save_config(
        self, config: dict[str, Any], spec: DataSpec, files: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Nothing."""

    def record_command(self) -> None:
        """Nothing."""

    def set_status(self, status: str, step: int) -> None:
        """Nothing."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The main process has it."""
        yield


class Processes:
    """Those that train together, seen from one of them; by default it is alone, and nothing waits for anybody."""

    def __init__(self, place: Place | None = None) -> None:
        where = place or Place(0, 1, 0, 1)
        self.rank, self.count = where.rank, where.world_size
        self.local_rank, self.local_count = where.local_rank, where.local_world_size

    @property
    def main(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.count == 1

    def run(self, path: Path) -> Run:
        """The run in a directory, in which the main process writes."""
        return Run(path) if self.main else Bystander(path)

    def seed(self, seed: int, step: int) -> None:
        """Seeds one training step: draws for the rows of a batch are shared, others are each process's own."""
        if self.alone:
            seed_step(seed, 0, step)
            return
        seed_step(seed, 1 + self.rank, step)
        parallel.seed_common(derive("step", seed, 0, step))  # as one process alone has it

    def from_main(self, act: Callable[[], T]) -> T:
        """What `act` gives in the main process, for all; the others wait for it."""
        if self.alone:
            return act()
        given = [act() if self.main else None]
        distributed.broadcast_object_list(given, src=0, device=torch.device("cpu"))
        return cast(T, given[0])

    def highest(self, *numbers: int) -> list[int]:
        """The highest of each number over all processes."""
        if self.alone:
            return list(numbers)
        found = torch.tensor(numbers)  # on the CPU, so that no device is waited for
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return found.tolist()

    def mean(self, figures: Iterable[float]) -> list[float]:
        """The mean of each figure over all processes, which have them in the same order."""
        found: list[float] = parallel.averaged(torch.tensor(list(figures), dtype=torch.float64)).tolist()
        return found

    def in_turn(self, act: Callable[[], T]) -> T:
        """What `act` gives, in one process of each machine before the others: what it caches, they find."""
        if self.local_rank == 0:
            made = act()
            self.highest(0)
            return made
        self.highest(0)
        return act()


@contextmanager
def join(device: torch.device) -> Iterator[Processes]:
    """Within the context, processes that were started to train together know each other, and only the main one speaks.

    Args:
        device: What this one computes on; GPUs talk by NCCL, CPUs by Gloo.

    Raises:
        ResourceError: they do not find each other.
    """
    where = place()
    if where is None or where.world_size == 1:
        yield Processes()
        return
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=meet(where, TIMEOUT), rank=where.rank, world_size=where.world_size, timeout=TIMEOUT,
    )  # fmt: skip
    with nullcontext() if where.rank == 0 else _silence():
        yield Processes(where)
    distributed.destroy_process_group()  # not after an error: it would wait for those that are gone


@contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def share_of(batch_size: int, processes: int) -> int:
    """The items of a batch that each of so many processes sees.

    Raises:
        ConfigError: they do not come out even.
    """
    if batch_size % processes:
        near = max(1, round(batch_size / processes)) * processes
        raise ConfigError(
            f"trainer.batch_size={batch_size} cannot be shared among {processes} processes",
            f"use a multiple, such as trainer.batch_size={near}",
        )
    return batch_size // processes


def synchronized(model: Model, device: torch.device) -> None:
    """Makes batch norms see the batch of all processes, in place.

    Raises:
        ConfigError: not on GPUs, which is where torch has that.
    """
    if device.type != "cuda":
        raise ConfigError(
            f"trainer.sync_batchnorm=true: torch synchronises batch norms on GPUs alone, and this is a {device.type}",
            "leave it false; each process then normalises its own share of a batch",
        )
    nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]


class Replicas:
    """The same model in every process: called as it is, and with gradients that a backward pass averages.

    Each phase has a :class:`DistributedDataParallel` of its own over the parameters that it trains, so that a phase
    waits for no gradient of another. A gradient penalty differentiates by images inside the forward pass; parameters
    get their gradients once, in the outer backward pass, which is what the averaging hangs on.

    Args:
        model: On its device.
        phases: Their names.
        processes: That it is replicated in.
        train_only: Leaves gradients on for one phase's network.
    """

    def __init__(
        self, model: Model, phases: Iterable[str], processes: Processes, train_only: Callable[[str], None]
    ) -> None:
        self.model, self.processes = model, processes
        self._parallel: dict[str, DistributedDataParallel] = {}
        if processes.alone:
            return
        # Of 1x1 convolutions in channels_last, whose strides are as good one way as the other.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        for phase in phases:
            train_only(phase)
            # Buffers are kept alike where they change. Looking for unused parameters also keeps the order in which
            # gradients are summed, which would otherwise differ between the first step of a process and the next.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch 2.14 gives `broadcast_buffers` another name
                self._parallel[phase] = DistributedDataParallel(
                    _Phase(model, phase), broadcast_buffers=False, find_unused_parameters=True
                )
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        buffers = [[norm.running_mean, norm.running_var] for norm in norms if not isinstance(norm, nn.SyncBatchNorm)]
        self._statistics = [buffer for pair in buffers for buffer in pair if buffer is not None]

    def __call__(self, phase: str, batch: Batch) -> Losses:
        """The losses of a phase on this process's share of a batch."""
        losses: Losses = self.model(phase, batch) if self.processes.alone else self._parallel[phase](batch)
        return losses

    def accumulating(self, phase: str, last: bool) -> AbstractContextManager[Any]:
        """Within the context gradients add up, and only those of the `last` batch are averaged, with all before."""
        if last or self.processes.alone:
            return nullcontext()
        return self._parallel[phase].no_sync()

    def whole(self) -> AbstractContextManager[Any]:
        """Within the context every process has all of the weights, which it has anyway."""
        return nullcontext()

    @torch.no_grad()
    def average_statistics(self) -> None:
        """Averages what batch norms have seen: each saw its own share of the batch."""
        if self.processes.alone or not self._statistics:
            return
        flat = parallel.averaged(torch.cat([buffer.flatten() for buffer in self._statistics]))
        sizes = [buffer.numel() for buffer in self._statistics]
        for buffer, mean in zip(self._statistics, torch.split(flat, sizes), strict=True):
            buffer.copy_(mean.view_as(buffer))


class _Phase(nn.Module):
    """One phase of a model, as the module that it is to data parallelism."""

    def __init__(self, model: Model, phase: str) -> None:
        super().__init__()
        self.model, self.phase = model, phase

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`Model.forward`."""
        losses: Losses = self.model(self.phase, batch)
        return losses
