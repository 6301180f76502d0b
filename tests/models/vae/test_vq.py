"""The VQ-VAE: tokens there and back, a codebook that lives, and training whose whole state is in its buffers."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.vae.config import VQVAEConfig
from aigc_cli.models.vae.vq import VQVAE
from aigc_cli.randomness import Noise
from aigc_cli.sampling.modes import modes_of

SMALL = {"width": 16, "codes": 16, "code_dimensions": 4, "blocks": 1, "usage_window": 5, "decay": 0.9}


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    """The keys of model=vqvae without a recipe."""
    return compose("train", ["model=vqvae", "data=mnist", "recipe=null"])["model"]


def build(defaults: dict[str, Any], shape: tuple[int, int, int] = (1, 16, 16), **changes: Any) -> VQVAE:
    torch.manual_seed(0)
    config = check("model", VQVAEConfig, {**defaults, **SMALL, **changes})
    return VQVAE(config, DataSpec("image", shape)).to(memory_format=torch.channels_last)


def images(n: int, shape: tuple[int, ...] = (1, 16, 16), seed: int = 1) -> Batch:
    """Squares of 4x4, each of one of a few greys."""
    random = torch.Generator().manual_seed(seed)
    channels, height, width = shape
    greys = torch.randint(0, 4, (n, channels, height // 4, width // 4), generator=random) / 1.5 - 1
    return Batch(((greys * 127.5).round() / 127.5).repeat_interleave(4, 2).repeat_interleave(4, 3))


def train(model: VQVAE, optimizer: torch.optim.Optimizer, steps: range) -> list[dict[str, float]]:
    seen = []
    for number in steps:
        torch.manual_seed(number)
        losses = model("main", images(16, model.spec.shape, seed=number))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        seen.append({name: value.item() for name, value in losses.items()})
    return seen


def adam(model: VQVAE) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), 3e-3)


@pytest.fixture(scope="module")
def trained(defaults: dict[str, Any]) -> VQVAE:
    model = build(defaults)
    train(model, adam(model), range(150))
    return model.eval()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (3, 16, 32), (3, 128, 128)])
@pytest.mark.parametrize("downsampling", [2, 4])
def test_it_serves_images_that_divide(defaults: dict[str, Any], shape: tuple[int, int, int], downsampling: int) -> None:
    model = build(defaults, shape, downsampling=downsampling)
    losses = model("main", Batch(torch.rand(2, *shape) * 2 - 1))
    losses["loss"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert model.token_grid == (shape[1] // downsampling, shape[2] // downsampling)
    with torch.no_grad():
        drawn = model.eval().decode(torch.randint(16, (3, math.prod(model.token_grid))))
    assert drawn.shape == (3, *shape)
    assert drawn.abs().max() <= 1


def test_other_images_are_refused(defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model\.downsampling=8 does not divide items of 28x28") as error:
        build(defaults, (1, 28, 28), downsampling=8)
    assert "data.size=" in error.value.hint


def test_patches_of_clips_are_refused_where_items_are_images(defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model\.stem=patches is for clips"):
        build(defaults, stem="patches")


def test_it_learns_to_reconstruct(trained: VQVAE) -> None:
    batch = images(32, seed=999)
    with torch.no_grad():
        made = trained.decode(trained.encode(batch))
        scored = trained.score(batch, Noise(0, range(32)))
    error = (made - batch.content).square().flatten(1).mean(1)
    assert error.mean() < 0.1 * batch.content.var()
    assert list(scored) == ["mse"]
    torch.testing.assert_close(scored["mse"], error)


def test_tokens_go_there_and_back(trained: VQVAE) -> None:
    batch = images(8, seed=5)
    with torch.no_grad():
        tokens = trained.encode(batch)
        made = trained.decode(tokens)
        again = trained.encode(Batch(made))
    assert tokens.shape == (8, 16)
    assert tokens.dtype == torch.int64
    assert 0 <= tokens.min() <= tokens.max() < trained.vocab_size == 16
    assert tokens.unique().numel() > 3
    assert (again == tokens).float().mean() > 0.75


def test_a_token_stands_for_its_place(trained: VQVAE) -> None:
    """Row by row of the grid: another token at the end moves the lower right corner, and not the upper left."""
    with torch.no_grad():
        tokens = trained.encode(images(1))
        other = tokens.clone()
        other[0, -1] = next(int(t) for t in tokens[0] if t != tokens[0, -1])
        change = (trained.decode(tokens) - trained.decode(other)).abs()[0, 0]
    assert change[12:, 12:].max() > 0.1
    assert change[:4, :4].max() < 0.1 * change[12:, 12:].max()


def test_curves(defaults: dict[str, Any]) -> None:
    model = build(defaults)
    figures = train(model, adam(model), range(10))[-1]
    assert set(figures) == {"loss", "reconstruction", "commitment", "usage", "perplexity"}
    assert figures["loss"] == pytest.approx(figures["reconstruction"] + 0.25 * figures["commitment"], rel=1e-5)
    assert 1 / 16 <= figures["usage"] <= 1
    assert 1 <= figures["perplexity"] <= 16 * figures["usage"] + 1e-3


def test_the_codebook_stays_alive(defaults: dict[str, Any]) -> None:
    """Codes that the encoder has left behind are used again with restarts, and not without."""
    usages = {}
    for restart in (0.0, 0.1):
        model = build(defaults, restart_below=restart)
        optimizer = adam(model)
        train(model, optimizer, range(5))
        model.quantizer.sums[4:] += 100.0  # far from all that the encoder gives
        usages[restart] = train(model, optimizer, range(5, 60))[-1]["usage"]
    assert usages[0.0] <= 0.25
    assert usages[0.1] > 0.5


@pytest.mark.parametrize("changes", [{}, {"cosine": True}, {"reconstruction": "logistic_mixture", "components": 2}])
def test_a_run_in_two_parts_equals_the_whole_bit_for_bit(defaults: dict[str, Any], changes: dict[str, Any]) -> None:
    whole = build(defaults, **changes)
    expected = train(whole, adam(whole), range(14))
    first = build(defaults, **changes)
    optimizer = adam(first)
    train(first, optimizer, range(8))
    second = build(defaults, **changes)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    resumed = adam(second)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert train(second, resumed, range(8, 14)) == expected[8:]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_with_a_likelihood_the_score_is_a_bound_that_counts_the_tokens(defaults: dict[str, Any]) -> None:
    model = build(defaults, reconstruction="logistic_mixture", components=2)
    optimizer = adam(model)
    figures = train(model, optimizer, range(110))
    assert figures[-1]["bits_per_dim"] < 0.95 * figures[0]["bits_per_dim"]
    batch = images(6)
    with torch.no_grad():
        scored = model.eval().score(batch, Noise(0, range(6)))
        tight = model.score(batch, Noise(0, range(6)), samples=4)
    assert list(scored) == ["nelbo", "bits_per_dim", "kl", "reconstruction"]
    torch.testing.assert_close(scored["kl"], torch.full((6,), 16 * math.log(16)))
    torch.testing.assert_close(scored["nelbo"], scored["kl"] + scored["reconstruction"])
    torch.testing.assert_close(scored["bits_per_dim"], scored["nelbo"] / (256 * math.log(2)))
    assert list(tight) == ["iw_bound", "bits_per_dim"]
    torch.testing.assert_close(tight["iw_bound"], scored["nelbo"])


def test_what_it_offers_is_reconstruction() -> None:
    assert modes_of(VQVAE) == ("reconstruct",)


def test_a_dead_codebook_is_named_once_training_is_under_way(defaults: dict[str, Any]) -> None:
    model = build(defaults)
    model.phases(10)
    assert list(model.warnings({"main/usage": 0.01})) == []
    model.phases(1000)
    assert list(model.warnings({"main/usage": 0.5})) == []
    [(name, line)] = model.warnings({"main/usage": 0.05})
    assert name == "dead codebook"
    assert "5.0% of 16 codes" in line
    assert "model.restart_below=" in line


def test_a_second_codebook_quantises_what_the_first_one_left(defaults: dict[str, Any]) -> None:
    model = build(defaults, codebooks=2, codes=3)
    figures = train(model, adam(model), range(60))
    assert figures[-1]["reconstruction"] < 0.8 * figures[3]["reconstruction"]
    batch = images(8)
    with torch.no_grad():
        tokens = model.eval().encode(batch)
        first = tokens.clone()
        first[:, 1::2] = 3  # always the same code of the second
        errors = [(model.decode(part) - batch.content).square().mean().item() for part in (tokens, first)]
    assert (tokens.shape, model.vocab_size) == ((8, 32), 6)
    assert torch.equal(tokens // 3, torch.tensor([0, 1] * 16).expand(8, -1))
    assert errors[0] < errors[1]
    with pytest.raises(ConfigError, match="codebooks belongs to quantizer=ema"):
        build(defaults, codebooks=2, quantizer="fsq")


def test_a_discriminator_learns_in_a_phase_of_its_own(defaults: dict[str, Any]) -> None:
    model = build(defaults, adversarial=0.1)
    main, other = model.phases(0)
    assert (main.name, other.name, other.new_batch) == ("main", "discriminator", False)
    for phase in (main.name, other.name):
        model.requires_grad_(False)
        model.network(phase).requires_grad_(True)
        model.zero_grad()
        losses = model(phase, images(8))
        losses["loss"].backward()
        learnt = {name.split(".")[0] for name, part in model.named_parameters() if part.grad is not None}
        assert learnt == ({"encoder", "decoder"} if phase == "main" else {"adversary"})
    assert losses.keys() == {"loss", "accuracy"}
