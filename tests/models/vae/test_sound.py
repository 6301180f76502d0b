"""VAEs on items that end early: what is drawn ends too, and training sees no difference after the end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from draws import sampled

from aigc_cli.config.compose import compose
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Model, build_model
from aigc_cli.nn.padding import before_end
from aigc_cli.randomness import Noise

SMALL = {"vae": {"latent": 4, "width": 4, "hidden": 16}, "hvae": {"latent": 2, "width": 8, "layout": ["1x1", "4x1"]}}


def build(name: str, **changes: Any) -> Model:
    torch.manual_seed(0)
    values = compose("train", [f"model={name}", "data=tones", "recipe=null"])["model"]
    spec = DataSpec("audio", (1, 16, 24), ("short", "long"), content=(1, 3072), rate=8000, padding=-1.0)
    return build_model({**values, **SMALL[name], "conditional": True, **changes}, spec)


def clips(n: int) -> Batch:
    """Noise bands of 6 or of 18 frames."""
    labels = torch.arange(n) % 2
    x = torch.rand(n, 1, 16, 24) * 0.4
    return Batch(torch.where(torch.arange(24) < (6 + 12 * labels)[:, None, None, None], x, -1.0), labels)


@pytest.mark.parametrize("likelihood", ["gaussian_fixed", "logistic_mixture"])
@pytest.mark.parametrize("name", sorted(SMALL))
def test_what_is_drawn_ends_where_clips_of_its_class_do(name: str, likelihood: str) -> None:
    model = build(name, likelihood=likelihood)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(60):
        torch.manual_seed(step)
        model.phases(step)
        loss = model("main", clips(16))["loss"]
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.no_grad():
        drawn = sampled(model.eval(), Noise(0, range(8)))
        scores = model.score(clips(4), Noise(0, range(4)))
    assert not {"bits_per_dim"} & scores.keys(), "which would count levels that spectrograms do not have"
    ends = before_end(drawn, -1.0).sum(1)
    assert all(torch.isfinite(each).all() and each.shape == (4,) for each in scores.values())
    assert ends[0::2].float().mean() < 10 < 14 < ends[1::2].float().mean()
