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
from aigc_cli.metrics import reconstructions, speech
from aigc_cli.metrics.extractors.base import FeatureStatistics
from aigc_cli.metrics.model_scores import Fills, Infill
from aigc_cli.modalities.base import DataSpec

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
BATCH = 80
OF_SOUND = ("dnsmos", "f0", "pitch")
SMALL = (
    "metric.kid.subset_size=20", "metric.kd.subset_size=20", "metric.fd_infinity.points=4", "metric.copied.run=4",
    "metric.dnsmos.most=20",
)  # fmt: skip


def kept(name: str, values: dict[str, Any], share: slice) -> dict[str, float]:
    """The figures of one metric on sets of which this process saw a share, in batches."""
    component = registry.find("metric", name)
    config = check("", component.config, values)
    rng = np.random.default_rng(0)
    kind: Any = component.build
    metric = kind(config, WIDTH)
    metric.spec = DataSpec("audio", (1, 2048), content=(1, 2048), rate=8000) if name in OF_SOUND else None
    for stream, views in kind.takes.items():
        times = 2 if stream == "pairs" else 1
        seen = [part_of(what_is_seen(name, view, rng), share) for view in views * times]
        metric.update(stream, *seen)
    if torch.distributed.is_initialized():
        metric.sync()
    return {f"{name}.{figure}": float(value) for figure, value in metric.compute().items()}


def what_is_seen(name: str, view: str, rng: np.random.Generator) -> Any:
    """A batch of what a metric sees by that name; those of sound see clips alone."""
    if name in OF_SOUND:
        return clips(rng)
    if (name, view) == ("physics", "content"):
        return torch.from_numpy(rng.integers(0, 256, (BATCH, 1, 2, 8, 8), dtype=np.uint8))
    return seen_as(view, rng)


def seen_as(view: str, rng: np.random.Generator) -> Any:
    """A batch of what a metric sees."""
    rows = torch.from_numpy(rng.normal(3, [0.05, 0.09, 0.11, 1, 2, 3], (BATCH, WIDTH))).float()
    images = torch.from_numpy(rng.integers(0, 256, (BATCH, 1, 32, 32), dtype=np.uint8))
    tokens, guesses = torch.from_numpy(rng.integers(0, 3, (2, BATCH, 9)))
    gaps = dict.fromkeys(Infill.shares, torch.from_numpy(rng.random((BATCH, 9)) < 0.5))
    views = {
        "labels": torch.from_numpy(rng.integers(0, WIDTH, BATCH)),
        "glance": images,
        "content": images,
        "text": [" ".join(rng.choice(list("abcde"), 8)) for _ in range(BATCH)],
        "scores": {"nelbo": rows[:, 0], "bits_per_dim": rows[:, 0] / 7, "kl": rows[:, 1]},
        "fills": Fills(range(BATCH), tokens, gaps, dict.fromkeys(gaps, guesses), "anything"),
    }
    return views.get(view, rows) if view != "moments" else ("moments", rows)


def clips(rng: np.random.Generator) -> torch.Tensor:
    """Tones of any pitch, of which some have noise beside them, int16 (n, 1, samples)."""
    waves = np.sin(np.arange(2048) / 8000 * 2 * np.pi * rng.uniform(150, 600, (BATCH, 1, 1)))
    waves = waves + rng.normal(0, 1, (*waves.shape[:2], 1)) * rng.normal(0, 0.3, waves.shape)
    return torch.from_numpy((waves * 6000).clip(-32767, 32767).astype(np.int16))


def part_of(seen: Any, share: slice) -> Any:
    """The rows of a batch that a process sees."""
    if isinstance(seen, Fills):
        gaps, guesses = ({name: each[share] for name, each in some.items()} for some in (seen.gaps, seen.guesses))
        return Fills(seen.rows[share], seen.tokens[share], gaps, guesses, seen.fills_from)
    if isinstance(seen, tuple):
        return FeatureStatistics.of(seen[1][share])
    return {name: each[share] for name, each in seen.items()} if isinstance(seen, dict) else seen[share]


class Perceptual(torch.nn.Module):
    """Stands for the network of lpips, whose weights are not here."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x - y).abs().mean(dim=(1, 2, 3))


class Judge:
    """Stands for the network of dnsmos, which a package brings."""

    def run(self, outputs: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        (wave,) = inputs["input_1"]
        return [np.array([[wave.std(), wave.max(), np.abs(wave).mean()]], dtype=np.float64)]


def figures(share: slice) -> dict[str, float]:
    """The figures of every metric."""
    names = registry.names("metric")
    configs = compose("eval", [f"metric=[{','.join(names)}]", *SMALL])["metric"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speech, "find_spec", lambda name: True)
        patch.setattr(speech, "_session", Judge)
        patch.setattr(reconstructions, "weight_folders", lambda: [Path(__file__).parent])
        patch.setattr(reconstructions, "LPIPS_FILE", Path(__file__).name)
        patch.setattr(reconstructions, "load_weights", lambda path, hint, **_: ("0" * 64, {}))
        patch.setattr(reconstructions, "_lpips", lambda state, hint: Perceptual())
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
