"""The VQ-VAE on items that end early, its tokens along time, and how its codebook begins."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.vae.config import VQVAEConfig
from aigc_cli.models.vae.vq import VQVAE
from aigc_cli.nn.padding import before_end
from aigc_cli.randomness import Noise

SMALL = {"width": 16, "codes": 16, "code_dimensions": 4, "blocks": 1, "usage_window": 5, "decay": 0.9}
SHAPE = (1, 16, 24)


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    """The keys of model=vqvae without a recipe."""
    values: dict[str, Any] = compose("train", ["model=vqvae", "data=tones", "recipe=null"])["model"]
    return values


def build(defaults: dict[str, Any], **changes: Any) -> VQVAE:
    torch.manual_seed(0)
    spec = DataSpec("audio", SHAPE, content=(1, 3072), rate=8000, padding=-1.0)
    return VQVAE(check("model", VQVAEConfig, {**defaults, **SMALL, **changes}), spec)


def sounds(n: int, seed: int = 1) -> Batch:
    """Bands at one of a few heights, which end early."""
    random = torch.Generator().manual_seed(seed)
    height = torch.randint(0, 4, (n, 1, 1, 1), generator=random)
    x = torch.where(torch.arange(16)[:, None] // 4 == height, 0.7, -0.6).expand(n, *SHAPE).clone()
    ends = torch.randint(0, 25, (n, 1, 1, 1), generator=random)
    return Batch(torch.where(torch.arange(24) < ends, x, -1.0))


def train(model: VQVAE, optimizer: torch.optim.Optimizer, steps: range) -> list[dict[str, float]]:
    seen = []
    for number in steps:
        torch.manual_seed(number)
        (phase,) = model.phases(number)
        losses = model(phase.name, sounds(16, seed=number))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        seen.append({name: value.item() for name, value in losses.items()})
    return seen


def adam(model: VQVAE) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), 3e-3)


@pytest.mark.parametrize("reconstruction", ["mse", "logistic"])
@pytest.mark.parametrize("quantizer", ["ema", "fsq"])
@pytest.mark.parametrize("tokens", ["map", "time"])
def test_every_form_trains_and_comes_back(
    defaults: dict[str, Any], tokens: str, quantizer: str, reconstruction: str
) -> None:
    model = build(defaults, tokens=tokens, quantizer=quantizer, reconstruction=reconstruction, levels=[4, 4], warmup=2)
    train(model, adam(model), range(4))
    assert model.token_grid == ((4, 6) if tokens == "map" else (1, 6))
    assert (model.end, model.vocab_size) == (16, 17)
    batch, model = sounds(5, seed=9), model.eval()
    with torch.no_grad():
        found = model.encode(batch)
        made = model.decode(found)
        scores = model.score(batch, Noise(0, range(5)))
        assert model.decode(torch.randint(0, 17, (3, math.prod(model.token_grid)))).shape == (3, *SHAPE)
    assert found.shape == (5, math.prod(model.token_grid))
    assert made.shape == batch.content.shape
    assert all(torch.isfinite(value).all() and value.shape == (5,) for value in scores.values())


@pytest.mark.parametrize("tokens", ["map", "time"])
def test_what_comes_after_the_end_costs_nothing_and_uses_no_code(defaults: dict[str, Any], tokens: str) -> None:
    model, batch = build(defaults, tokens=tokens), sounds(16)
    losses = model("main", batch)
    going = torch.unflatten(before_end(batch.content, -1.0), 1, (6, 4)).any(dim=2)
    assert model.quantizer.counts.sum() == going.sum() * model.token_grid[0]
    outputs: list[Tensor] = []
    model.decoder.register_forward_hook(lambda *given: outputs.append(given[-1].requires_grad_()))
    outputs.clear()
    model("main", batch)["loss"].backward()
    frames = going.repeat_interleave(4, dim=1)
    made = outputs[0].detach().requires_grad_()
    model._reconstruction(made, batch.content, going).sum().backward()
    assert made.grad is not None
    assert not made.grad.movedim(3, 1)[~frames].any()
    assert math.isfinite(losses["loss"].item())
    tokens_found = model.eval().encode(batch).view(16, *model.token_grid)
    assert torch.equal(tokens_found != model.end, going[:, None].expand_as(tokens_found))
    decoded = model.decode(tokens_found.flatten(1))
    assert (decoded.movedim(3, 1)[~frames] == -1).all()


def test_a_warmup_ends_in_a_codebook_that_is_all_in_use_and_resumes_bit_for_bit(defaults: dict[str, Any]) -> None:
    model = build(defaults, warmup=40, tokens="time")
    optimizer = adam(model)
    first = train(model, optimizer, range(30))
    assert all(row["commitment"] == 0 and row["usage"] == 0 for row in first)
    again, copied = build(defaults, warmup=40, tokens="time"), copy.deepcopy(optimizer.state_dict())
    again.load_state_dict(copy.deepcopy(model.state_dict()))
    other = adam(again)
    other.load_state_dict(copied)
    rows = train(model, optimizer, range(30, 60))
    assert train(again, other, range(30, 60)) == rows
    assert rows[9]["usage"] == 0 < rows[10]["usage"]
    assert rows[-1]["usage"] > 0.7
    assert rows[-1]["reconstruction"] < 1.5 * rows[9]["reconstruction"] + 0.02


def test_images_have_no_end_and_old_runs_have_the_old_keys(defaults: dict[str, Any]) -> None:
    new = {"tokens", "quantizer", "levels", "warmup"}
    config = check("model", VQVAEConfig, {key: value for key, value in defaults.items() if key not in new})
    model = VQVAE(config, DataSpec("image", (1, 16, 16)))
    assert (model.end, model.vocab_size) == (None, 512)
    names = {"sums", "sizes", "counts", "batches", "windows", "usage", "perplexity"}
    assert {name for name, _ in model.quantizer.named_buffers()} == names


def test_frames_that_do_not_divide_are_refused(defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="downsampling=16 does not divide"):
        build(defaults, downsampling=16)
    with pytest.raises(ConfigError, match="cosine belongs to quantizer=ema"):
        build(defaults, quantizer="fsq", cosine=True)
