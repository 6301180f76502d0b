"""A model with latents that is small enough to know what it draws: the tests of sampling and watching share it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import STRICT
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, build_model
from aigc_cli.models.latent import LatentControls, LatentModel, check_conditional
from aigc_cli.new_run import create_run
from aigc_cli.randomness import Noise
from aigc_cli.registry import Component
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import CheckpointFolder

SIZE = 8
LATENT = 4
DATA = ["data=digits", f"data.size={SIZE}"]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ToyConfig:
    name: Literal["toy"]
    conditional: bool = False


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ToyControls(LatentControls):
    prior: Literal["normal", "fitted"] = "normal"
    temperature: float = 1.0


class Toy(LatentModel):
    """The latent is the brightness of each quarter of an image, weighted; what it decodes is four flat quarters."""

    can = frozenset({"sample", "latents", "decode", "encode", "score"})
    layouts = frozenset({"map"})
    controls: ClassVar[type] = ToyControls

    def __init__(self, config: ToyConfig, spec: DataSpec) -> None:
        super().__init__(spec)
        self.conditional = check_conditional(config.conditional, spec)
        self.gain = nn.Parameter(torch.tensor([1.0, 2.0, 4.0, 3.0]))
        self.fitted: Tensor | None = None
        self.read = 0

    def forward(self, phase: str, batch: Batch) -> Losses:
        latents = self.encode(batch)
        made = self.decode(latents + torch.randn_like(latents), batch.labels if self.conditional else None)
        return {"loss": (made - batch.content).square().mean()}

    def latents(self, noise: Noise, controls: ToyControls) -> Tensor:
        drawn = noise.normal(LATENT) * controls.temperature
        if controls.prior == "normal":
            return drawn
        assert self.fitted is not None
        return 0.01 * drawn + self.fitted

    def encode(self, batch: Batch) -> Tensor:
        halves = [quarter.mean(dim=(1, 2, 3)) for rows in batch.content.chunk(2, 2) for quarter in rows.chunk(2, 3)]
        return torch.stack(halves, dim=1) * self.gain

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        assert (labels is not None) == self.conditional
        quarters = (latents / self.gain).unflatten(1, (1, 2, 2))
        if labels is not None:
            quarters = 0.1 * quarters.tanh() + labels[:, None, None, None] * 0.2 - 0.9
        return quarters.repeat_interleave(SIZE // 2, 2).repeat_interleave(SIZE // 2, 3)

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, Tensor]:
        assert len(batch) == len(noise)
        return {"nelbo": batch.content.square().mean(dim=(1, 2, 3)) + noise.normal()}

    def prepare(self, items: Iterable[Batch], controls: ToyControls) -> None:
        if controls.prior == "fitted":
            found = torch.cat([self.encode(batch) for batch in items])
            self.read, self.fitted = len(found), found.mean(dim=0)


#: What the registry knows of it, once a test says so: the tests over everything registered need not know it.
TOY = Component("model", "toy", Toy, ToyConfig)
#: The words that train it on digits, but for how long.
TRAIN_TOY = ["train", "model=toy", "data=digits", "data.size=8", "trainer.batch_size=8", "trainer.device=cpu"]


def toy_config(*, conditional: bool = False) -> dict[str, Any]:
    """The configuration of a run on digits, which no YAML file describes."""
    config = copy.deepcopy(compose("train", ["model=gan", *DATA]))
    return {**config, "model": {"name": "toy", "conditional": conditional}}


def toy_run(root: Path, *, conditional: bool = False) -> Run:
    """A run of the toy with one checkpoint, under `root`; the newest there."""
    from aigc_cli.data import open_dataset

    config = {**toy_config(conditional=conditional), "outputs": str(root / "outputs")}
    run = create_run(config)
    spec = open_dataset(config["data"], "train").spec
    run.save_config(config, spec)
    model = build_model(config["model"], spec)
    CheckpointFolder(run.checkpoints).save(7, {"model": model.state_dict()}, {"step": 7})
    run.set_status("complete", 7)
    return run
