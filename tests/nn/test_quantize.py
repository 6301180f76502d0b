"""Vector quantisation: the nearest code, the running means, the restart of dead codes, and what is measured."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from aigc_cli.nn.quantize import Quantizer, ScalarQuantizer, k_means
from aigc_cli.training.optimizers import EMA


def build(codes: int = 8, dimensions: int = 3, **changes: Any) -> Quantizer:
    settings = {"decay": 0.9, "restart_below": 0.1, "window": 4, "cosine": False} | changes
    return Quantizer(codes, dimensions, **settings)


def vectors(m: int, dimensions: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(m, dimensions, generator=torch.Generator().manual_seed(seed))


def filled(quantizer: Quantizer, codes: Tensor, sizes: Tensor | None = None) -> Quantizer:
    """With a known codebook."""
    sizes = torch.ones(len(codes)) if sizes is None else sizes
    quantizer.sizes.copy_(sizes)
    quantizer.sums.copy_(codes * sizes[:, None])
    return quantizer


@pytest.mark.parametrize("cosine", [False, True])
def test_each_vector_gets_its_nearest_code(cosine: bool) -> None:
    codes, seen = vectors(8, seed=1), vectors(50)
    quantizer = filled(build(cosine=cosine), codes).eval()
    found = quantizer(seen)
    if cosine:
        codes, seen = codes / codes.norm(dim=1, keepdim=True), seen / seen.norm(dim=1, keepdim=True)
    torch.testing.assert_close(quantizer.codebook, codes)
    torch.testing.assert_close(found.vectors, seen)
    assert torch.equal(found.tokens, torch.cdist(seen, codes).argmin(1))
    torch.testing.assert_close(found.nearest, codes[found.tokens])
    torch.testing.assert_close(quantizer.lookup(found.tokens), found.nearest)


def test_the_gradient_goes_straight_through() -> None:
    seen = vectors(5).requires_grad_()
    found = filled(build(), vectors(8, seed=1))(seen)
    weight = vectors(5, seed=2)
    through = found.straight_through()
    torch.testing.assert_close(through, found.nearest)
    (through * weight).sum().backward()
    torch.testing.assert_close(seen.grad, weight)


def test_a_code_is_the_running_mean_of_its_vectors() -> None:
    codes = torch.tensor([[0.0, 0.0], [10.0, 10.0]])
    quantizer = filled(build(2, 2, decay=0.75, restart_below=0.0), codes)
    quantizer(torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [9.0, 9.0]]))
    # Sums and sizes are a quarter of the way to those of the batch.
    expected = torch.tensor([[0.25 * 6 / (0.75 + 0.25 * 3), 0.0], [(7.5 + 0.25 * 9) / 1.0] * 2])
    torch.testing.assert_close(quantizer.codebook, expected)


def test_codes_settle_on_the_clusters_of_what_they_see() -> None:
    centres = torch.tensor([[4.0, 0.0], [0.0, 4.0], [-4.0, 0.0], [0.0, -4.0]])
    quantizer = build(4, 2, restart_below=0.2)
    for step in range(200):
        torch.manual_seed(step)
        quantizer(centres[torch.randint(4, (64,))] + 0.1 * torch.randn(64, 2))
    assert torch.cdist(centres, quantizer.codebook).min(1).values.max() < 0.1


def test_the_first_batch_fills_an_empty_codebook() -> None:
    seen = vectors(20)
    quantizer = build(restart_below=0.0)
    assert quantizer.lookup(torch.zeros(2, dtype=torch.int64)).isfinite().all()
    torch.manual_seed(0)
    found = quantizer(seen)
    assert len(set(found.tokens.tolist())) == 8, "every code is one of the batch, and all differ"
    assert torch.cdist(found.nearest, seen).min(1).values.max() < 1e-5


def test_more_codes_than_vectors_are_filled_too() -> None:
    quantizer = build(codes=50)
    assert quantizer(vectors(7)).nearest.isfinite().all()
    assert quantizer.codebook.abs().sum(1).gt(0).all()


def test_dead_codes_restart_and_living_ones_do_not() -> None:
    codes = torch.cat([vectors(4), torch.full((4, 3), 100.0)])
    sizes = torch.tensor([8.0, 8.0, 8.0, 8.0, 0.2, 0.2, 0.2, 4.0])
    quantizer = filled(build(restart_below=0.1), codes, sizes)
    torch.manual_seed(0)
    seen = vectors(32)  # of which 0.4 of a code is a tenth of its fair share
    found = quantizer(seen)
    far = quantizer.codebook.norm(dim=1) > 50
    assert far.tolist() == [False] * 7 + [True], "used enough to live on, though nothing is near"
    assert torch.isin(torch.tensor([4, 5, 6]), found.tokens).all(), "each has at least the vector it was put on"


def test_without_restart_a_dead_code_stays_dead() -> None:
    codes = torch.cat([vectors(7), torch.full((1, 3), 100.0)])
    quantizer = filled(build(restart_below=0.0), codes)
    for seed in range(50):
        quantizer(vectors(32, seed=seed))
    assert quantizer.codebook[7].norm() > 50


def test_where_codes_restart_depends_on_torchs_seed_alone() -> None:
    books = []
    for seed in (0, 0, 1):
        quantizer = build()
        torch.manual_seed(seed)
        quantizer(vectors(100))
        books.append(quantizer.codebook)
    assert torch.equal(books[0], books[1])
    assert not torch.equal(books[0], books[2])


def test_evaluation_changes_nothing() -> None:
    quantizer = build()
    quantizer(vectors(32))
    before = copy.deepcopy(quantizer.state_dict())
    quantizer.eval()(vectors(32, seed=1))
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


def test_usage_and_perplexity_are_of_the_last_whole_window() -> None:
    codes = torch.eye(4)
    quantizer = filled(build(4, 4, restart_below=0.0, decay=0.999, window=2), codes)
    quantizer(codes[[0, 0, 1, 1]])
    assert quantizer.usage == 0.5, "in the first window it is what was seen so far"
    quantizer(codes[[0, 0, 2, 2]])
    assert quantizer.usage == 0.75
    entropy = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert quantizer.perplexity == pytest.approx(math.exp(entropy))
    quantizer(codes[[3, 3, 3, 3]])
    assert quantizer.usage == 0.75, "until the next window is full"
    quantizer(codes[[3, 3, 3, 3]])
    assert quantizer.usage == 0.25
    assert quantizer.perplexity == pytest.approx(1.0)


@pytest.mark.parametrize("late", [False, True])
def test_a_batch_in_which_nothing_is_used_leaves_the_codebook_as_it_is(late: bool) -> None:
    quantizer = build(late=late)
    if late:
        quantizer(vectors(2000), plain=True)
    before = quantizer.codebook
    quantizer(vectors(20), torch.zeros(20, dtype=torch.bool))
    assert quantizer.perplexity == 1
    torch.testing.assert_close(quantizer.codebook, before)


def test_an_average_over_steps_forgets_where_a_dead_code_lay() -> None:
    """Averaging weights gives codes that are means of codes, but one that restarted counts from then on."""
    lies, lay = torch.tensor([[1.0, 1.0]]), torch.tensor([[9.0, 9.0]])
    quantizer = filled(build(1, 2), lay, torch.tensor([0.1]))
    average = EMA(quantizer, 0.99)
    for step in range(60):  # in the first of which it is found dead
        quantizer(lies.repeat(8, 1))
        average.update(step + 1000)
    with average.in_place():
        torch.testing.assert_close(quantizer.codebook, lies, atol=0.3, rtol=0)
    assert 0.99**60 * lay[0, 0] > 4, "an average of the codes themselves would lie halfway"


def test_half_precision_outside_is_float32_within() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = build()(vectors(16).bfloat16())
    assert found.nearest.dtype == found.vectors.dtype == torch.float32


def test_a_late_codebook_begins_by_k_means_of_what_it_saw() -> None:
    """Vectors near eight corners: each of as many codes finds one, of which a random start would miss some."""
    corners = 10 * torch.tensor([[float(c) for c in f"{i:03b}"] for i in range(8)])
    quantizer = build(late=True, restart_below=0.0)
    torch.manual_seed(0)
    for seed in range(20):
        seen = corners.repeat(4, 1) + 0.1 * vectors(32, seed=seed)
        found = quantizer(seen, plain=True)
        assert torch.equal(found.straight_through(), seen)
        assert not quantizer.sizes.any()
    assert int(quantizer.seen) > 32
    early = copy.deepcopy(quantizer).eval()(seen)  # of a run that ends before its codebook begins
    assert (early.nearest - seen).abs().max() < 1
    after = copy.deepcopy(quantizer)  # as a resumed run has it
    found = quantizer(seen)
    assert (found.nearest - seen).abs().max() < 1
    assert found.tokens.unique().numel() == 8
    assert int(quantizer.seen) == -1
    torch.manual_seed(5)
    once = copy.deepcopy(after)(seen)
    torch.manual_seed(5)
    assert torch.equal(after(seen).nearest, once.nearest)
    average = EMA(quantizer, 0.9)
    quantizer.reservoir.fill_(7)
    average.update(5)
    assert set(average.shadow["reservoir"].flatten().tolist()) == {7}  # copied, not mixed


def test_what_is_not_used_moves_no_code_and_is_not_counted() -> None:
    codes, seen = vectors(8, seed=1), vectors(20)
    used = torch.arange(20) % 2 == 0
    some, few = filled(build(), codes), filled(build(), codes)
    torch.manual_seed(0)
    found = some(seen, used)
    torch.manual_seed(0)
    expected = few(seen[used])
    assert torch.equal(found.tokens[used], expected.tokens)
    for name, buffer in few.state_dict().items():
        assert torch.equal(some.state_dict()[name], buffer)
    before = copy.deepcopy(some.state_dict())
    some(seen, torch.zeros(20, dtype=torch.bool))  # a batch of silence
    assert torch.isfinite(some.codebook).all()
    torch.testing.assert_close(some.sums, before["sums"] * 0.9)


def test_k_means_puts_no_centre_where_nothing_is() -> None:
    torch.manual_seed(0)
    near = torch.cat([vectors(100) * 0.01, vectors(3, seed=1) * 0.01 + 50])
    centres, counts = k_means(near, 6)
    assert counts.sum() == 103
    assert (counts > 0).all()
    assert (centres.norm(dim=1) > 40).any()


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (4, 3), (7,)])
def test_levels_are_evenly_spaced_and_each_combination_is_a_token(levels: tuple[int, ...]) -> None:
    quantizer = ScalarQuantizer(levels, window=3)
    tokens = torch.arange(quantizer.codes)
    codes = quantizer.lookup(tokens)
    assert codes.unique(dim=0).shape == (math.prod(levels), len(levels))
    assert codes.abs().max() <= 1
    seen = (vectors(20000, len(levels)) * 0.9).requires_grad_()
    found = quantizer(seen)
    torch.testing.assert_close(found.nearest, quantizer.lookup(found.tokens))
    assert len(set(found.tokens.tolist())) > 0.9 * quantizer.codes
    assert ((found.vectors - found.nearest).abs() <= 0.51 / torch.tensor([max(1, n // 2) for n in levels])).all()
    found.straight_through().sum().backward()
    assert seen.grad is not None
    assert seen.grad.isfinite().all()
    assert quantizer.usage > 0.9
    plain = quantizer(seen.detach(), plain=True)
    assert torch.equal(plain.straight_through(), found.vectors.detach())
