"""A layer that reads the codes around a place: which these are, and that writing sees what training saw."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Prompts
from aigc_cli.models.codes.base import spread
from aigc_cli.nn.decoding import Choice, choose
from aigc_cli.nn.neighbours import Neighbours
from aigc_cli.randomness import Noise
from tests.models.codes.test_codes import build, drawn

GRIDS = [(7,), (3, 4), (2, 3, 3)]
CODES = 5


def of_grid(grid: tuple[int, ...], codebooks: int = 1, **changes: Any) -> Any:
    shape, content = (math.prod(grid) * codebooks,), (1, *grid)
    spec = DataSpec("image", shape, ("a", "b"), CODES * codebooks, content=content, grid=grid)
    return build("transformer", spec, **changes)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("reach", [1, 2])
def test_neighbours_are_what_was_written_before_within_reach(grid: tuple[int, ...], reach: int) -> None:
    layer = Neighbours(CODES, grid, [reach] * len(grid), 8)
    places = list(torch.cartesian_prod(*map(torch.arange, grid)).view(-1, len(grid)))
    for place, near in enumerate(layer.near.tolist()):
        wanted = [o + 1 for o in range(place) if int((places[o] - places[place]).abs().max()) <= reach]
        assert sorted(one for one in near if one) == wanted
        assert len(near) == ((2 * reach + 1) ** len(grid) - 1) // 2


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_written_step_by_step_is_what_one_pass_says(grid: tuple[int, ...], guidance: float) -> None:
    model = of_grid(grid, neighbours=2)
    n, length = 6, math.prod(grid)
    found = drawn(model, range(n), guidance=guidance)
    uniform = Noise(3, list(range(n)), "cpu").uniform(length)
    told = CODES + torch.arange(n) % 2
    with torch.no_grad():
        firsts = [told, torch.full_like(told, model.any)]
        rows = [torch.cat([first[:, None], found[:, :-1]], 1) for first in firsts]
        own, free = (model.decoder.logits(model.decoder.hidden(part)) for part in rows)
    scores = free + guidance * (own - free) if guidance != 1 else own
    for place in range(length):
        assert torch.equal(choose(scores[:, place], Choice(), uniform[:, place]), found[:, place])
    kept = length // 2
    prompts = Prompts([row[:kept] for row in found.tolist()], labels=[0, 1] * (n // 2))
    assert torch.equal(drawn(model, range(n), prompts, guidance=guidance), found)
    assert torch.equal(torch.cat([drawn(model, [i], guidance=guidance) for i in range(n)]), found)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_code_changes_nothing_of_what_was_written_before_it(grid: tuple[int, ...]) -> None:
    model = of_grid(grid, neighbours=1)
    length = math.prod(grid)
    codes = torch.randint(CODES, (1, length), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        told = model.told(Batch(codes, torch.zeros(1, dtype=torch.long)))
        before = model._nats(told, codes, codes, "none")
        for place in range(length):
            other = codes.clone()
            other[0, place] = (other[0, place] + 1) % CODES
            after = model._nats(told, other, codes, "none")
            assert torch.equal(after[: place + 1], before[: place + 1])
            assert place == length - 1 or not torch.equal(after, before)


def test_what_it_does_depends_on_distances_alone() -> None:
    layer = Neighbours(CODES, (4, 5), [1, 1], 8)
    row = torch.full((1, 21), 2)
    row[0, 1 + 6], row[0, 1 + 12] = 3, 3  # at (1, 1) and at (2, 2)
    features = layer(row, 0, 20)[0].view(4, 5, 8)
    torch.testing.assert_close(features[1, 2], layer(row, 7, 1)[0, 0])
    far = torch.full((1, 21), 2)
    far[0, 1 + 7] = 3  # at (1, 2)
    moved = layer(far, 0, 20)[0].view(4, 5, 8)
    alone = torch.full((1, 21), 2)
    alone[0, 1 + 6] = 3
    torch.testing.assert_close(moved[1, 3], layer(alone, 0, 20)[0].view(4, 5, 8)[1, 2])


def test_codes_without_a_place_have_none() -> None:
    assert of_grid((3, 2), 2, neighbours=1, delay=False).decoder.neighbours is not None
    with pytest.raises(ConfigError, match="written one after the other") as error:
        of_grid((3, 2), 2, neighbours=1, delay=True)
    assert error.value.hint == "add model.delay=false"


def test_each_axis_may_have_a_reach_of_its_own() -> None:
    near = of_grid((2, 3, 3), neighbours=[1, 0, 2]).decoder.neighbours.near
    assert near.shape[1] == (3 * 5 - 1) / 2
    with pytest.raises(ConfigError, match="has 2 numbers, and the codes lie in 2x3x3") as error:
        of_grid((2, 3, 3), neighbours=[1, 2])
    assert error.value.hint == "give one for each of the 3 axes, or one for all"


def test_codes_that_stand_for_alike_things_begin_alike() -> None:
    vectors = torch.randn(CODES, 3, generator=torch.Generator().manual_seed(0))
    vectors[1] = vectors[0] + 0.01
    for kind in ("transformer", "bert"):
        spec = DataSpec("image", (6,), ("a", "b"), CODES, content=(1, 2, 3), grid=(2, 3))
        words = {"neighbours": 1} if kind == "transformer" else {}
        model = build(kind, spec, embedding_init="codebook", **words)
        network = getattr(model, model.tokens)
        parts = [network.embedding.weight, network.head.weight]
        parts += [network.neighbours.embedding.weight] if words else []
        before = [part.detach().clone() for part in parts]
        model.begin(SimpleNamespace(vectors=lambda: vectors))
        for part, old, kept in zip(parts, before, [1, 1, 0.3][: len(parts)], strict=True):
            added = (part - kept * old)[:CODES]
            assert (added[0] - added[1]).norm() < 0.1 * torch.pdist(added).mean()
            assert torch.equal(part[CODES:], old[CODES:])
        with pytest.raises(ConfigError, match="is for a tokenizer of one codebook"):
            model.begin(SimpleNamespace(vectors=lambda: None))
        usual = build(kind, spec, **words)
        before = [part.clone() for part in usual.state_dict().values()]
        usual.begin(SimpleNamespace(vectors=lambda: vectors))
        assert all(map(torch.equal, before, usual.state_dict().values()))


@pytest.mark.parametrize("width", [2, 3, 8])
def test_spread_vectors_are_white_and_keep_who_is_near_whom(width: int) -> None:
    vectors = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 1.0, 0.5]) + 4
    torch.manual_seed(0)
    found = spread(torch.cat([vectors, vectors[:, :1]], 1), width)  # a dimension that is another's copy
    assert found.shape == (40, width)
    torch.testing.assert_close(found.square().mean(), torch.tensor(1.0))
    torch.testing.assert_close(found.mean(0), torch.zeros(width), atol=1e-5, rtol=0)
    if width >= 3:  # distances of whitened vectors, whatever way they are turned
        white = torch.linalg.svd(vectors - vectors.mean(0), full_matrices=False)[0] * math.sqrt(40)
        alike = spread(vectors, width)
        torch.testing.assert_close(torch.pdist(alike), torch.pdist(white) * math.sqrt(width / 3), rtol=1e-3, atol=1e-3)


def test_what_is_known_of_codes_is_taken_from_another_run_code_by_code() -> None:
    model = of_grid((2, 3), neighbours=1)
    of_codes = [name for name, part in model.named_parameters() if part.shape[0] in (CODES, model.any + 1)]
    assert {*of_codes} == {*model.transfer().rows}
