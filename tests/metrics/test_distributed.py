"""Two processes that share the work give the figures of one."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from aigc_cli.metrics.base import FeatureMetric
from aigc_cli.metrics.frechet import FDConfig, FrechetDistance
from aigc_cli.metrics.inception_score import InceptionScore, ISConfig
from aigc_cli.metrics.kid import KernelDistance, KIDConfig
from aigc_cli.metrics.prdc import PRDC, PRDCConfig

RANK = """
import importlib.util, json, sys
import torch
spec = importlib.util.spec_from_file_location("shared", sys.argv[1])
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)
rank = int(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[3], rank=rank, world_size=2)
print(json.dumps(shared.figures((slice(0, 33), slice(33, None))[rank])))
torch.distributed.destroy_process_group()
"""


def metrics() -> list[FeatureMetric]:
    return [
        FrechetDistance(FDConfig(name="fd", extractor="x"), 6),
        PRDC(PRDCConfig(name="prdc", extractor="x", k=3, memory_mb=1), 6),
        KernelDistance(KIDConfig(name="kid", extractor="x", subsets=5, subset_size=20, seed=0), 6),
        InceptionScore(ISConfig(name="is", extractor="x", splits=3, seed=0), 6),
    ]


def figures(share: slice) -> dict[str, float]:
    """The figures of sets of which this process saw a share, in batches."""
    real, fake = (torch.from_numpy(np.random.default_rng(seed).normal(seed, 1, (80, 6))).float() for seed in (0, 1))
    found = {}
    for metric in metrics():
        for rows, is_real in ((real, True), (fake, False)):
            for batch in rows[share].split(10):
                metric.update(batch, is_real)
        found.update({name: float(value) for name, value in metric.compute().items()})
    return found


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(tmp_path: Path) -> None:
    words = [sys.executable, "-c", RANK, __file__]
    ranks = [
        subprocess.Popen([*words, str(rank), str(tmp_path / "meet")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    told = [json.loads(rank.communicate(timeout=120)[0]) for rank in ranks]
    wanted = figures(slice(None))
    assert len(wanted) == 9
    for got in told:
        assert got == pytest.approx(wanted, abs=1e-9)
