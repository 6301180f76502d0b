"""The processes that train one model together: who this one is, how they find each other, what they agree on.

All go through the same steps and take the same decisions; the main one alone writes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
from torch import distributed
from torch.distributed import DistError
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from aigc_cli.errors import ConfigError, ResourceError
from aigc_cli.nn import collective
from aigc_cli.randomness import derive, seed_step
from aigc_cli.training.settings import TrainerConfig, resolve_device

T = TypeVar("T")
#: Processes that were started together are there by then; if not, some never will be.
PATIENCE = timedelta(minutes=10)
#: No collective is given up before: a process that is gone closes its connection, which ends the others at once, while
#: one that evaluates held-out data may well keep them waiting for hours.
TIMEOUT = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """Those that train together, seen from one of them; by default it is alone, and nothing waits for anybody."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # on its machine
    local_world_size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.world_size == 1

    def seed(self, seed: int, step: int) -> None:
        """Seeds one training step: draws for the rows of a batch are shared, others are each process's own."""
        if self.alone:
            seed_step(seed, 0, step)
            return
        seed_step(seed, 1 + self.rank, step)
        collective.seed_common(derive("step", seed, 0, step))  # as one process alone has it

    def from_main(self, act: Callable[[], T]) -> T:
        """What `act` returns in the main process, for all; the others wait for it."""
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

    def mean(self, values: Iterable[float]) -> list[float]:
        """The mean of each value over all processes, which have them in the same order."""
        return cast(list[float], collective.averaged(torch.tensor(list(values), dtype=torch.float64)).tolist())

    def in_turn(self, act: Callable[[], T]) -> T:
        """What `act` returns, in one process of each machine before the others: what it caches, they find."""
        if self.local_rank == 0:
            made = act()
            self.highest(0)
            return made
        self.highest(0)
        return act()


def launched() -> Processes | None:
    """What torchrun's agent or SLURM's ``srun`` says of this process; None where it was started by itself."""
    if "WORLD_SIZE" in os.environ and "RANK" in os.environ:
        world = int(os.environ["WORLD_SIZE"])
        local = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", world))
        return Processes(int(os.environ["RANK"]), world, *local)
    # SLURM's variables are read here and not by submitit, whose environment knows only jobs that submitit itself
    # started, and counts the tasks of the whole job: a batch script has SLURM_NTASKS, but is alone. What it starts with
    # plain `srun` is a step, which has counts of its own.
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if tasks > 1 and "SLURM_PROCID" in os.environ:
        listed, node = os.environ.get("SLURM_STEP_TASKS_PER_NODE", str(tasks)), int(os.environ.get("SLURM_NODEID", 0))
        local = int(os.environ.get("SLURM_LOCALID", 0)), tasks_per_node(listed)[node]
        return Processes(int(os.environ["SLURM_PROCID"]), tasks, *local)
    return None


def own_device(trainer: TrainerConfig) -> torch.device:
    """What this process computes on: ``trainer.device``, and of several GPUs one for each process of the machine.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    device, processes = resolve_device(trainer.device), launched()
    count = trainer.devices if processes is None else processes.local_world_size
    if device.type != "cuda" or count == 1:
        return device
    if trainer.device.startswith("cuda:"):
        raise ConfigError(f"trainer.device={device} is one GPU, for {count} processes", "set trainer.device=cuda")
    there = torch.cuda.device_count()
    if count > there:
        what = f"trainer.devices={count}: torch sees {there} GPU{'' if there == 1 else 's'} here"
        raise ConfigError(what, f"use trainer.devices={there}, or trainer.device=cpu")
    return torch.device("cuda", 0 if processes is None else processes.local_rank)


def share_of(batch_size: int, processes: int) -> int:
    """The items of a batch that each of so many processes sees; a :class:`ConfigError` where it is not divisible."""
    if batch_size % processes:
        near = max(1, round(batch_size / processes)) * processes
        what = f"trainer.batch_size={batch_size} cannot be shared among {processes} processes"
        raise ConfigError(what, f"use a multiple, such as trainer.batch_size={near}")
    return batch_size // processes


@contextmanager
def join(device: torch.device) -> Iterator[Processes]:
    """Within the context, processes that were started to train together know each other, and only the main one speaks.

    Raises:
        ResourceError: some are missing, or the address to meet at cannot be had.
    """
    processes = launched() or Processes()
    if processes.alone:
        yield processes
        return
    distributed.init_process_group(  # GPUs talk by NCCL, CPUs by Gloo
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=_store(processes), rank=processes.rank, world_size=processes.world_size, timeout=TIMEOUT,
    )  # fmt: skip
    with ExitStack() as quiet:
        if not processes.main:
            nowhere = quiet.enter_context(open(os.devnull, "w"))
            quiet.enter_context(redirect_stdout(nowhere))
            quiet.enter_context(redirect_stderr(nowhere))
        yield processes
    distributed.destroy_process_group()  # not after an error: it would wait for those that are gone


def _store(processes: Processes) -> Store:
    """The store by which processes tell each other their addresses, once all of them are there."""
    if "MASTER_ADDR" not in os.environ:
        # The step's first node has its rank 0; srun itself may have been started on any other.
        nodes, launcher = os.environ.get("SLURM_STEP_NODELIST"), os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
        os.environ["MASTER_ADDR"] = first_node(nodes) if nodes else launcher
        os.environ["MASTER_PORT"] = str(20_000 + int(os.environ.get("SLURM_JOB_ID", 0)) % 20_000)
    try:
        store, _, _ = next(rendezvous("env://", processes.rank, processes.world_size, timeout=PATIENCE))
    except DistError as error:
        address, why = f"{os.environ['MASTER_ADDR']}:{os.environ.get('MASTER_PORT')}", str(error).splitlines()[0]
        raise ResourceError(
            f"{processes.world_size} processes did not meet at {address}: {why}",
            "see that all are started and reach that address, or set MASTER_ADDR and MASTER_PORT to one that they do",
        ) from error
    store.set_timeout(TIMEOUT)
    return PrefixStore("default_pg", store)  # torchrun's agent has keys of its own there


def tasks_per_node(listed: str) -> list[int]:
    """How many tasks each node has, of SLURM's short form such as ``4(x2),1``."""
    groups = re.findall(r"(\d+)(?:\(x(\d+)\))?", listed)
    return [int(tasks) for tasks, times in groups for _ in range(int(times or 1))]


def first_node(listed: str) -> str:
    """The first node, of SLURM's short form such as ``node[03-05,9],login``."""
    return re.sub(r"\[(\w+)[^]]*(\]|$)", r"\1", re.split(r",(?![^[]*\])", listed)[0])
