"""Updates that are left out because their gradient is too large."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aigc_cli.config.compose import compose
from aigc_cli.data.images import ImageDataset
from aigc_cli.data.loader import Loader
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Model
from aigc_cli.runs import Run, read_rows
from aigc_cli.training.build import check_config
from aigc_cli.training.settings import Hooks
from aigc_cli.training.trainer import Trainer

STEPS = 8


class Wild(Model):
    """Every third step's gradient is a hundred times as large."""

    layouts = frozenset({"map"})

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.weight = nn.Parameter(torch.ones(3))
        self.step = 0

    def phases(self, step: int) -> Any:
        self.step = step
        return super().phases(step)

    def forward(self, phase: str, batch: Batch) -> Losses:
        return {"loss": self.weight.sum() * (100 if self.step % 3 == 2 else 1) + torch.randn(()) * self.weight[0]}


def make(folder: Path, *words: str) -> Trainer:
    base = ["data=mnist", f"trainer.steps={STEPS}", "trainer.batch_size=2", "trainer.log_every=1"]
    config = compose("train", [*base, "trainer.device=cpu", "trainer.ema=0.5", *words])
    settings = check_config(config)
    dataset = ImageDataset(torch.zeros(10, 1, 8, 8, dtype=torch.uint8), None)
    run = Run(folder)
    run.path.mkdir(exist_ok=True)
    return Trainer(
        model=Wild(dataset.spec), loader=Loader(dataset, batch_size=2, seed=0, device="cpu"),
        optimizer=settings.optimizer, config=settings.trainer, seed=0, run=run, device=torch.device("cpu"),
    )  # fmt: skip


def tensors(trainer: Trainer) -> dict[str, Tensor]:
    groups = trainer.checkpoints.load(trainer.config.steps).tensors
    return {f"{file}/{name}": tensor for file, group in groups.items() for name, tensor in group.items()}


@pytest.mark.parametrize("words", [(), ("trainer.precision=bf16",), ("trainer.accumulate=2",)], ids=str)
def test_a_large_gradient_moves_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    trainer = make(tmp_path / "run", "trainer.skip_grad_norm=50", *words)
    seen: list[tuple[Tensor, Tensor]] = []
    step = trainer.train_step

    def watched(number: int) -> None:
        step(number)
        assert trainer.ema is not None
        seen.append((trainer.model.weight.detach().clone(), trainer.ema.shadow["weight"].clone()))

    trainer.train_step = watched  # type: ignore[method-assign]
    trainer.fit(Hooks())
    for number in range(1, STEPS):
        still = number % 3 == 2
        for before, after in zip(seen[number - 1], seen[number], strict=True):
            assert torch.equal(before, after) == still, number
    assert trainer.state.updates == STEPS - 2
    rows = read_rows(trainer.run.path / "metrics.jsonl")
    assert [row["main/skipped"] for row in rows] == [0, 0, 1, 0, 0, 1, 0, 0]


def test_without_the_key_nothing_is_left_out(tmp_path: Path) -> None:
    trainer = make(tmp_path / "run")
    trainer.fit(Hooks())
    assert trainer.state.updates == STEPS
    assert not any("main/skipped" in row for row in read_rows(trainer.run.path / "metrics.jsonl"))


def test_it_looks_at_the_gradient_before_it_is_clipped(tmp_path: Path) -> None:
    trainer = make(tmp_path / "run", "trainer.skip_grad_norm=50", "trainer.clip_grad_norm=0.1")
    trainer.fit(Hooks())
    assert trainer.state.updates == STEPS - 2


def test_a_run_in_two_parts_equals_the_whole_bit_for_bit(tmp_path: Path) -> None:
    words = ("trainer.skip_grad_norm=50", "optimizer.schedule=cosine")
    whole = make(tmp_path / "whole", *words)
    whole.fit(Hooks())
    for steps in (2, 3, 6):  # before a step that is left out, and after one
        first = make(tmp_path / f"parts-{steps}", *words, "trainer.checkpoint_every=1", "trainer.keep=9")
        first.fit(Hooks())
        for later in range(steps + 1, STEPS + 1):
            shutil.rmtree(first.checkpoints.folder(later))
        second = make(tmp_path / f"parts-{steps}", *words)
        assert second.restore()
        assert second.state.step == steps
        second.fit(Hooks())
        left, right = tensors(whole), tensors(second)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_bound_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="skip_grad_norm"):
        check_config(compose("train", ["data=mnist", "trainer.skip_grad_norm=0"]))
