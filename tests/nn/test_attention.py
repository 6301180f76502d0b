"""Dropout by hand, beside torch's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from aigc_cli.nn.attention import attend, by_hand, dropout

SHARES = [0.1, 0.25, 0.7]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("share", SHARES)
def test_a_share_is_dropped_and_the_mean_kept(share: float) -> None:
    dropped = dropout(torch.ones(1000, 1001), share)
    values, counts = dropped.unique(return_counts=True)
    assert values.tolist() == pytest.approx([0, 1 / (1 - share)], rel=1e-4)
    spread = math.sqrt(share * (1 - share) / dropped.numel())
    assert counts[0].item() / dropped.numel() == pytest.approx(share, abs=5 * spread)


@pytest.mark.parametrize("dim", [0, 1])
def test_neighbours_are_dropped_apart_from_each_other(dim: int) -> None:
    kept = (dropout(torch.ones(1000, 1000), 0.3) > 0).double() - 0.7
    for distance in (1, 2, 3, 4):
        shifted = kept.roll(distance, dim)
        assert abs((kept * shifted).mean()) < 5 * 0.21 / 1000


def test_the_gradient_is_dropped_as_the_value_is() -> None:
    x = torch.randn(50, 7, requires_grad=True)
    dropped = dropout(x, 0.4)
    dropped.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(dropped, x * x.grad)


def test_draws_follow_from_the_seed_and_differ() -> None:
    x = torch.ones(10, 10)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(0)
    assert torch.equal(first, dropout(x, 0.5))
    assert not torch.equal(first, second)


def test_no_share_is_nothing_at_all() -> None:
    x = torch.randn(3, 3)
    before = torch.get_rng_state()
    assert dropout(x, 0.0) is x
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_numbers_are_torchs_to_drop(dtype: torch.dtype) -> None:
    x = torch.ones(200, 200, dtype=dtype)
    assert not by_hand(x)
    dropped = dropout(x, 0.5)
    assert dropped.dtype == dtype
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


def sides(queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = (torch.randn(2, 3, length, 8, requires_grad=True) for length in (queries, keys, keys))
    return query, key, value


def gradients(mixed: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return torch.autograd.grad((mixed * torch.randn_like(mixed)).sum(), inputs)


@pytest.mark.parametrize("kind", ["plain", "causal", "masked"])
def test_attention_without_its_drops_is_torchs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aigc_cli.nn.attention.dropout", lambda weights, share: weights)
    inputs = sides(5, 5 if kind == "causal" else 6)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])[:, None, None] if kind == "masked" else None
    mixed = attend(*inputs, mask, 0.5, kind == "causal")
    wanted = scaled_dot_product_attention(*inputs, mask, is_causal=kind == "causal")
    torch.testing.assert_close(mixed, wanted)
    for own, other in zip(gradients(mixed, inputs), gradients(wanted, inputs), strict=True):
        torch.testing.assert_close(own, other)


def test_attention_drops_weights_and_keeps_the_mean() -> None:
    query, key, _ = sides(5, 6)
    value = torch.eye(6).expand(2, 3, 6, 6)  # so that what comes out are the weights
    weights = scaled_dot_product_attention(query, key, value)
    draws = torch.stack([attend(query, key, value, None, 0.5) for _ in range(400)])
    dropped = draws == 0
    assert dropped.double().mean() == pytest.approx(0.5, abs=0.01)
    torch.testing.assert_close(draws[~dropped], (2 * weights).expand_as(draws)[~dropped])
    torch.testing.assert_close(draws.mean(0), weights, atol=0.08, rtol=0)
