"""Items that end early: where their end is, that nothing after it costs, and that a decoder says where it is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from aigc_cli.nn.likelihoods import LIKELIHOODS, build_likelihood
from aigc_cli.nn.padding import Ended, before_end, end_at, ending

SHAPES = [(2, 6), (2, 4, 6), (1, 3, 4, 6)]


def items(shape: tuple[int, ...], ends: list[int]) -> Tensor:
    x = torch.rand(len(ends), *shape, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    going = torch.arange(shape[-1]) < torch.tensor(ends)[:, None]
    return end_at(x, going, -1.0)


def test_an_item_ends_after_its_last_frame_that_is_no_padding() -> None:
    x = items((2, 4, 6), [6, 3, 1, 0])
    x[0, :, :, 2] = -1  # silence within
    x[1, :, :3, 2] = -1
    x[1, 0, :, 2] = -1
    assert before_end(x, -1.0).sum(1).tolist() == [6, 3, 1, 0]
    assert before_end(x, 0.0).all()


@pytest.mark.parametrize("name", sorted(LIKELIHOODS))
@pytest.mark.parametrize("shape", SHAPES)
def test_what_comes_after_the_end_costs_nothing(name: str, shape: tuple[int, ...]) -> None:
    inner = build_likelihood(name, shape[0])
    likelihood, ends = Ended(inner, -1.0), [6, 3, 0]
    x = likelihood.target(items(shape, ends))
    outputs = torch.randn(3, likelihood.width, *shape[1:], requires_grad=True)
    nats = likelihood(outputs, x)
    nats.sum().backward()
    assert outputs.grad is not None
    for row, end in enumerate(ends):
        assert not outputs.grad[row, :-1, ..., end:].any()
        assert outputs.grad[row, -1].all()  # where the end is, every frame has a say
        logits = outputs[row, -1].reshape(-1, shape[-1]).mean(0)
        of_end = torch.nn.functional.logsigmoid(torch.where(torch.arange(6) < end, logits, -logits)).sum()
        rest = inner(outputs[row : row + 1, :-1, ..., :end], x[row : row + 1, ..., :end])[0] if end else 0.0
        torch.testing.assert_close(nats[row], of_end + rest)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mean_ends_where_that_is_most_probable(shape: tuple[int, ...]) -> None:
    likelihood = Ended(build_likelihood("gaussian", shape[0]), -1.0)
    outputs = torch.zeros(3, likelihood.width, *shape[1:])
    outputs[:, -1] = torch.tensor([[2.0, 1, -1, 3, -1, -1], [-1, -1, 1, -1, -1, -1], [1, 1, 1, 1, 1, 1]]).view(
        3, *[1] * (len(shape) - 2), 6
    )
    assert before_end(likelihood.mean(outputs), -1.0).sum(1).tolist() == [4, 0, 6]


def test_items_that_do_not_end_early_have_the_likelihood_itself() -> None:
    inner = build_likelihood("logistic_mixture", 1)
    assert ending(inner, None) is inner
    likelihood = ending(inner, -1.0)
    bias = torch.full((2, likelihood.width), math.nan)
    likelihood.begin(bias)
    assert torch.isfinite(bias).all()
