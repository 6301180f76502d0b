"""Where a process stands among those that train together, and how they find each other."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta

from torch.distributed import DistError
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from aigc_cli.errors import ResourceError

#: Processes that were started together are there by then; if not, some never will be.
PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True)
class Place:
    """Where a process stands among those that train together."""

    rank: int
    world_size: int
    local_rank: int  # on its machine
    local_world_size: int


def place() -> Place | None:
    """What torchrun's agent or SLURM's ``srun`` says of this process; None where it was started by itself."""
    if "WORLD_SIZE" in os.environ and "RANK" in os.environ:
        world = int(os.environ["WORLD_SIZE"])
        local = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", world))
        return Place(int(os.environ["RANK"]), world, *local)
    # A batch script has SLURM_NTASKS, but is alone; what it starts with srun is a step.
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if tasks > 1 and "SLURM_PROCID" in os.environ:
        listed, node = os.environ.get("SLURM_STEP_TASKS_PER_NODE", str(tasks)), int(os.environ.get("SLURM_NODEID", 0))
        local = int(os.environ.get("SLURM_LOCALID", 0)), tasks_per_node(listed)[node]
        return Place(int(os.environ["SLURM_PROCID"]), tasks, *local)
    return None


def meet(where: Place, timeout: timedelta) -> Store:
    """What processes tell each other their addresses by, once all of them are there.

    Args:
        where: This one stands.
        timeout: Of what they ask each other from then on.

    Raises:
        ResourceError: some are missing, or the address to meet at cannot be had.
    """
    if "MASTER_ADDR" not in os.environ:
        _meet_by_slurm()
    try:
        store, _, _ = next(rendezvous("env://", where.rank, where.world_size, timeout=PATIENCE))
    except DistError as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ.get('MASTER_PORT')}"
        raise ResourceError(
            f"{where.world_size} processes did not meet at {address}: {str(error).splitlines()[0]}",
            "see that all are started and reach that address, or set MASTER_ADDR and MASTER_PORT to one that they do",
        ) from error
    store.set_timeout(timeout)
    return PrefixStore("default_pg", store)  # torchrun's agent has keys of its own there


def _meet_by_slurm() -> None:
    job, nodes = int(os.environ.get("SLURM_JOB_ID", 0)), os.environ.get("SLURM_STEP_NODELIST")
    # The step's first node has its rank 0; srun itself may have been started on any other.
    launcher = os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
    os.environ["MASTER_ADDR"] = first_node(nodes) if nodes else launcher
    os.environ["MASTER_PORT"] = str(20_000 + job % 20_000)


def tasks_per_node(listed: str) -> list[int]:
    """How many tasks each node has, of SLURM's short form such as ``4(x2),1``."""
    groups = re.findall(r"(\d+)(?:\(x(\d+)\))?", listed)
    return [int(tasks) for tasks, times in groups for _ in range(int(times or 1))]


def first_node(listed: str) -> str:
    """The first node, of SLURM's short form such as ``node[03-05,9],login``."""
    return re.sub(r"\[(\w+)[^]]*(\]|$)", r"\1", re.split(r",(?![^[]*\])", listed)[0])
