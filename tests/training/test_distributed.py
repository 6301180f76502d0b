"""How processes that torchrun or SLURM starts know their rank, find each other, and share devices and batches."""

import os
from datetime import timedelta

import pytest
import torch

from aigc_cli.config.compose import compose
from aigc_cli.errors import ConfigError, ResourceError
from aigc_cli.training import distributed
from aigc_cli.training.distributed import Processes, join, launched, own_device, share_of
from aigc_cli.training.settings import TrainerConfig

STARTED_BY = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has started these tests as one process of several."""
    for name in [*STARTED_BY, *(name for name in os.environ if name.startswith("SLURM_"))]:
        monkeypatch.setenv(name, "")  # so that what a test sets in it is gone after it
        monkeypatch.delenv(name)


def srun(rank: int, local: int, node: int, each: str) -> dict[str, str]:
    names = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(local), "SLURM_NODEID": str(node)}
    tasks = sum(distributed.tasks_per_node(each))
    return {**names, "SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_TASKS_PER_NODE": each}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, Processes(3, 4, 1, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None),  # a batch script, which is alone
        (srun(5, 1, 1, "4(x2)"), Processes(5, 8, 1, 4)),
        (srun(4, 1, 1, "3,2"), Processes(4, 5, 1, 2)),
        (srun(8, 0, 2, "4(x2),1"), Processes(8, 9, 0, 1)),
    ],
    ids=["alone", "torchrun", "batch script", "srun", "srun, uneven", "srun, the last node"],
)
def test_a_process_knows_its_rank(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: Processes | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched() == expected


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
    monkeypatch.setattr(distributed, "rendezvous", lambda *_, **__: iter([(torch.distributed.HashStore(), 0, 0)]))
    distributed._store(Processes(0, 2, 0, 1))
    assert os.environ["MASTER_ADDR"] == address


def test_one_that_nobody_comes_to_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "PATIENCE", timedelta(milliseconds=10))
    for name, value in zip(STARTED_BY, ("0", "2", "127.0.0.1", "0"), strict=True):
        monkeypatch.setenv(name, value)
    reason = r"2 processes did not meet at 127.0.0.1:0: .+"
    with pytest.raises(ResourceError, match=reason), join(torch.device("cpu")):
        pass


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size=10 cannot be shared among 4") as caught:
        share_of(10, 4)
    assert "trainer.batch_size=8" in caught.value.hint


def test_processes_on_gpus_have_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def device(*words: str) -> torch.device:
        return own_device(TrainerConfig(**compose("train", words)["trainer"]))

    with pytest.raises(ConfigError, match=r"trainer.devices=4: torch sees 2 GPUs here"):
        device("trainer.devices=4", "trainer.device=cuda")
    with pytest.raises(ConfigError, match=r"trainer.device=cuda:1 is one GPU, for 2 processes"):
        device("trainer.devices=2", "trainer.device=cuda:1")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert device("trainer.device=auto") == torch.device("cuda:1")
