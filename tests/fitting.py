"""What the trainer does with a model of one phase, on one batch."""

from __future__ import annotations

import torch

from aigc_cli.modalities.base import Batch
from aigc_cli.models.base import Model


def fit(
    model: Model, batch: Batch, steps: int, optimizer: torch.optim.Optimizer | None = None
) -> list[dict[str, float]]:
    """Trains on a batch over and over, by AdamW at 0.01 where no other optimizer is given, and leaves the model in
    evaluation mode; the curves of each step."""
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), 1e-2)
    seen = []
    model.train()
    for step in range(steps):
        torch.manual_seed(step)
        assert [phase.name for phase in model.phases(step)] == ["main"]
        optimizer.zero_grad()
        losses = model("main", batch)
        losses["loss"].backward()
        optimizer.step()
        assert all(value.ndim == 0 and not (name != "loss" and value.requires_grad) for name, value in losses.items())
        seen.append({name: value.item() for name, value in losses.items()})
    model.eval()
    return seen
