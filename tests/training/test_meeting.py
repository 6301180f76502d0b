"""How processes that torchrun or SLURM starts know their place and find each other."""

import os
from datetime import timedelta

import pytest
import torch

from aigc_cli.errors import ResourceError
from aigc_cli.training import meeting
from aigc_cli.training.distributed import join
from aigc_cli.training.meeting import Place, place

STARTED_BY = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has started these tests as one process of several."""
    for name in [*STARTED_BY, *(name for name in os.environ if name.startswith("SLURM_"))]:
        monkeypatch.setenv(name, "")  # so that what a test sets in it is gone after it
        monkeypatch.delenv(name)


def srun(rank: int, local: int, node: int, each: str) -> dict[str, str]:
    names = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(local), "SLURM_NODEID": str(node)}
    tasks = sum(meeting.tasks_per_node(each))
    return {**names, "SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_TASKS_PER_NODE": each}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, Place(3, 4, 1, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),  # a batch script, which is alone
        (srun(5, 1, 1, "4(x2)"), Place(5, 8, 1, 4)),
        (srun(4, 1, 1, "3,2"), Place(4, 5, 1, 2)),
        (srun(8, 0, 2, "4(x2),1"), Place(8, 9, 0, 1)),
    ],
    ids=["alone", "torchrun", "batch script", "srun", "srun, uneven", "srun, the last node"],
)
def test_a_process_knows_its_place(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: Place | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert place() == expected


@pytest.mark.parametrize(
    ("nodes", "address"),
    [
        (None, "10.0.0.7"),
        ("gpu7", "gpu7"),
        ("node[03-05,9]", "node03"),
        ("a,node[1,2]", "a"),
        ("node[8,10-11],z[1-2]", "node8"),
        ("rack[1-2]node[3-4].site", "rack1node3.site"),
    ],
)
def test_tasks_of_slurm_meet_at_the_first_node(
    monkeypatch: pytest.MonkeyPatch, nodes: str | None, address: str
) -> None:
    monkeypatch.setenv("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.7")
    if nodes is not None:
        monkeypatch.setenv("SLURM_STEP_NODELIST", nodes)
    monkeypatch.setattr(meeting, "rendezvous", lambda *_, **__: iter([(torch.distributed.HashStore(), 0, 0)]))
    meeting.meet(Place(0, 2, 0, 1), timedelta(seconds=1))
    assert os.environ["MASTER_ADDR"] == address


def test_one_that_nobody_comes_to_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "PATIENCE", timedelta(milliseconds=10))
    for name, value in zip(STARTED_BY, ("0", "2", "127.0.0.1", "0"), strict=True):
        monkeypatch.setenv(name, value)
    reason = r"2 processes did not meet at 127.0.0.1:0: .+"
    with pytest.raises(ResourceError, match=reason), join(torch.device("cpu")):
        pass
