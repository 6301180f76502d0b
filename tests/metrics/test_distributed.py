"""Two processes that share the work give the figures of one, for every metric that is registered."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aigc_cli import registry
from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.metrics import reconstruction

RANK = """
import importlib.util, json, sys, warnings
import torch
spec = importlib.util.spec_from_file_location("shared", sys.argv[1])
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)
rank = int(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[3], rank=rank, world_size=2)
print(json.dumps(shared.figures((slice(0, 33), slice(33, None))[rank])))
torch.distributed.destroy_process_group()
"""
WIDTH = 6
SMALL = ("metric.kid.subset_size=20", "metric.kd.subset_size=20", "metric.fd_infinity.points=4", "metric.copied.run=4")


def kept(name: str, values: dict[str, Any], share: slice) -> dict[str, float]:
    """The figures of one metric on sets of which this process saw a share, in batches."""
    component = registry.find("metric", name)
    config = check("", component.config, values)
    rng = np.random.default_rng(0)
    kind: Any = component.build
    if hasattr(kind, "layers"):
        metric = kind(config, WIDTH)
        for side, shift in (("real", 0), ("held", 0), ("fake", 1)):
            rows = torch.from_numpy(rng.normal(shift, 1, (80, WIDTH))).float()
            images = torch.from_numpy(rng.integers(0, 256, (80, 1, 4, 4), dtype=np.uint8))
            if side == "held" and not kind.needs_held_out:
                continue
            own = {"pixels": images, "labels": torch.from_numpy(rng.integers(0, WIDTH, 80))}
            layers = [own.get(layer, rows) for layer in kind.layers]
            for batch in zip(*(layer[share].split(10) for layer in layers), strict=True):
                if side == "held":
                    metric.hold_out(*batch)
                else:
                    metric.update(*batch, real=side == "real")
    elif name == "likelihood":
        metric = kind(config)
        for batch in torch.from_numpy(rng.normal(3, 1, 80))[share].split(10):
            metric.update({"nelbo": batch, "bits_per_dim": batch / 7, "kl": batch * 2})
    elif name == "active_units":
        metric = kind(config)
        for batch in torch.from_numpy(rng.normal(3, [0.05, 0.09, 0.11, 1], (80, 4)))[share].split(10):
            metric.update(batch)
    elif name == "infill":
        metric = kind(config)
        guesses, tokens = torch.from_numpy(rng.integers(0, 3, (2, 80, 9)))
        gaps = torch.from_numpy(rng.random((80, 9)) < 0.5)
        for figure in kind.shares:
            metric.update(figure, guesses[share], tokens[share], gaps[share])
    elif issubclass(kind, reconstruction.PairMetric):
        metric = kind(config)
        images, made = torch.from_numpy(rng.integers(0, 256, (2, 80, 1, 32, 32), dtype=np.uint8))
        for pair in zip(images[share].split(10), made[share].split(10), strict=True):
            metric.update(*pair)
    else:
        metric = kind(config)
        lines = [" ".join(rng.choice(list("abcde"), 8)) for _ in range(160)]
        metric.update(lines[:80][share], lines[80:][share])
    return {f"{name}.{figure}": float(value) for figure, value in metric.compute().items()}


class Perceptual(torch.nn.Module):
    """Stands for the network of lpips, whose weights are not here."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x - y).abs().mean(dim=(1, 2, 3))


def figures(share: slice) -> dict[str, float]:
    """The figures of every metric."""
    names = registry.names("metric")
    configs = compose("eval", [f"metric=[{','.join(names)}]", *SMALL])["metric"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstruction, "weight_folders", lambda: [Path(__file__).parent])
        patch.setattr(reconstruction, "LPIPS_FILE", Path(__file__).name)
        patch.setattr(reconstruction, "load_weights", lambda path, hint, **_: ("0" * 64, {}))
        patch.setattr(reconstruction, "_lpips", lambda state, hint: Perceptual())
        return {key: value for name in names for key, value in kept(name, configs[name], share).items()}


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(tmp_path: Path) -> None:
    words = [sys.executable, "-c", RANK, __file__]
    ranks = [
        subprocess.Popen([*words, str(rank), str(tmp_path / "meet")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=240)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    told = [json.loads(text) for text in said]
    wanted = figures(slice(None))
    assert len(wanted) > 30
    for got in told:
        assert got == pytest.approx(wanted, abs=1e-9, rel=1e-9)
