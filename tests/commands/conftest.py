"""A model with everything that the commands can ask of one, and files of images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

if TYPE_CHECKING:
    from aigc_cli.runs import Run


@pytest.fixture
def auto_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Run":
    """An autoencoder on 16x16 digits that averages pixels in blocks, with a likelihood and a temperature; no training
    made it, and its one checkpoint is of step 7."""
    import torch
    from pydantic.dataclasses import dataclass

    from aigc_cli import registry
    from aigc_cli.config.compose import compose
    from aigc_cli.config.schema import STRICT
    from aigc_cli.data import open_dataset
    from aigc_cli.models.latent import LatentControls, LatentModel
    from aigc_cli.new_run import create_run
    from aigc_cli.training.checkpoint import CheckpointFolder

    @dataclass(config=STRICT, frozen=True, kw_only=True)
    class Controls(LatentControls):
        temperature: float = 1.0

    @dataclass(config=STRICT, frozen=True, kw_only=True)
    class Config:
        name: Literal["blocks"]

    class Blocks(LatentModel):
        layouts = frozenset({"map"})
        controls = Controls
        can = frozenset({"sample", "latents", "decode", "encode", "score"})

        def __init__(self, config: Config, spec: Any) -> None:
            super().__init__(spec)
            self.shift = torch.nn.Parameter(torch.zeros(1))

        def latents(self, noise: Any, controls: Any) -> torch.Tensor:
            return noise.normal(16) * controls.temperature

        def encode(self, batch: Any) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(batch.content, 4).flatten(1)

        def decode(self, latents: torch.Tensor, labels: Any = None) -> torch.Tensor:
            grid = latents.reshape(-1, 1, 4, 4)
            return grid.repeat_interleave(4, 2).repeat_interleave(4, 3).clamp(-1, 1) + self.shift

        def score(self, batch: Any, noise: Any, samples: int = 1) -> dict[str, torch.Tensor]:
            nats = batch.content.flatten(1).square().sum(1) + noise.normal(samples).mean(1)
            if samples > 1:
                return {"iw_bound": nats - 1, "bits_per_dim": (nats - 1) / 256}
            return {"nelbo": nats, "bits_per_dim": nats / 256, "kl": nats * 0 + 2, "reconstruction": nats - 2}

    component = registry.Component("model", "blocks", Blocks, Config)
    monkeypatch.setitem(registry._components, ("model", "blocks"), component)
    monkeypatch.chdir(tmp_path)
    config = compose("train", ["model=gan", "data=digits"])
    config["model"] = {"name": "blocks"}
    spec = open_dataset(config["data"], "train").spec
    run = create_run(config)
    run.save_config(config, spec)
    model = Blocks(Config(name="blocks"), spec)
    CheckpointFolder(run.checkpoints).save(7, {"model": model.state_dict()}, {"step": 7})
    run.set_status("complete", 7)
    return run


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``a.npz`` and ``b.npz`` of 20 images in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a.npz", 0), ("b.npz", 1)):
        np.savez(name, images=np.random.default_rng(seed).integers(0, 256, (20, 8, 8), dtype=np.uint8))
