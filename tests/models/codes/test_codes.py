"""Models of codes: samples that depend on nothing but their number, classes that are read and never written, guidance,
completion, and scores that add up."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from aigc_cli.config.compose import compose
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Model, Prompts, build_model
from aigc_cli.models.codes.base import CodesModel
from aigc_cli.models.codes.delay import aligned, begun, delayed
from aigc_cli.nn.decoding import Choice, choose
from aigc_cli.nn.masking import by_schedule, halton
from aigc_cli.randomness import Noise

CODES, LENGTH, GRID = 7, 6, (3, 2)
LABELLED = DataSpec("image", (LENGTH,), ("a", "b", "c"), CODES, content=(1, 6, 4))
FAMILIES = ["transformer", "bert"]
SMALL = {"layers": 2, "width": 16, "heads": 2, "dropout": 0.0}


def build(family: str, spec: DataSpec = LABELLED, **changes: Any) -> CodesModel:
    config = compose("train", [f"model={family}", "data=digits", "data.tokens=x", "recipe=null"])["model"]
    torch.manual_seed(0)
    model = build_model({**config, **SMALL, **changes}, spec)
    assert isinstance(model, CodesModel)
    for parameter in model.parameters():  # far from uniform, so that what is read makes a difference
        torch.nn.init.normal_(parameter, 0.0, 0.5)
    return model.eval()


def drawn(model: Model, indices: Any, prompts: Prompts | None = None, **controls: Any) -> Tensor:
    with torch.no_grad():
        return model.sample(Noise(3, list(indices), "cpu"), model.controls(**controls), prompts)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_is_the_same_in_every_batch(family: str) -> None:
    model = build(family)
    whole = drawn(model, range(12), guidance=2.0)
    assert whole.shape == (12, LENGTH)
    for size in (1, 5):
        parts = [drawn(model, range(12)[start : start + size], guidance=2.0) for start in range(0, 12, size)]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_a_token_of_a_class_is_never_written(family: str, guidance: float) -> None:
    found = drawn(build(family), range(300), guidance=guidance, temperature=2.0)
    assert int(found.min()) >= 0
    assert int(found.max()) < CODES


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_cached_writing_is_uncached_writing_token_for_token(guidance: float) -> None:
    model: Any = build("transformer")
    found = drawn(model, range(20), guidance=guidance)
    uniform = Noise(3, list(range(20)), "cpu").uniform(LENGTH)
    told = CODES + torch.arange(20) % 3
    codes = torch.zeros(20, 0, dtype=torch.long)
    with torch.no_grad():
        for place in range(LENGTH):
            rows = [torch.cat([first[:, None], codes], 1) for first in (told, torch.full_like(told, model.any))]
            own, free = (model.decoder.logits(model.decoder.hidden(part)[:, -1]) for part in rows)
            code = choose(free + guidance * (own - free) if guidance != 1 else own, Choice(), uniform[:, place])
            codes = torch.cat([codes, code[:, None]], 1)
    assert torch.equal(found, codes)


@pytest.mark.parametrize("family", FAMILIES)
def test_classes_come_in_turn_and_guidance_makes_more_of_them(family: str) -> None:
    model = build(family)
    assert model.turns(model.controls()) == [0, 1, 2]
    assert model.turns(model.controls(class_="c,a")) == [2, 0]
    none, usual, strong = (drawn(model, range(60), class_="b", guidance=scale) for scale in (0.0, 1.0, 4.0))
    assert not torch.equal(usual, strong)
    others = drawn(model, range(60), class_="c", guidance=0.0)
    assert torch.equal(none, others), "at 0 the class has no say"
    with pytest.raises(ConfigError, match="class=d: the data has no such class"):
        drawn(model, range(2), class_="d")


@pytest.mark.parametrize("family", FAMILIES)
def test_data_without_labels_does(family: str) -> None:
    model = build(family, DataSpec("image", (LENGTH,), (), CODES, content=(1, 6, 4)))
    assert not model.conditional
    assert drawn(model, range(4)).shape == (4, LENGTH)
    with pytest.raises(ConfigError, match="this model is not told classes"):
        drawn(model, range(2), guidance=2.0)
    with pytest.raises(ConfigError, match="needs labels, and this data has none"):
        build(family, model.spec, conditional=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_training_a_class_is_sometimes_not_told(family: str) -> None:
    model = build(family, class_dropout=0.25)
    batch = Batch(torch.zeros(4000, LENGTH, dtype=torch.long), torch.arange(4000) % 3)
    assert model.told(batch).tolist() == [CODES + label % 3 for label in range(4000)]
    torch.manual_seed(0)
    told = model.train().told(batch)
    assert 0.22 < float((told == model.any).float().mean()) < 0.28
    assert model.any == CODES + 3


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_learns(family: str) -> None:
    model = build(family).train()
    batch = Batch(torch.randint(CODES, (8, LENGTH)), torch.arange(8) % 3)
    model("main", batch)["loss"].backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_guidance_needs_the_class_of_a_prompt(family: str) -> None:
    model = build(family)
    rows = [[1, 2, 3]] if model.mask is None else [[1, 2, 3, *[model.mask] * 3]]
    with pytest.raises(ConfigError, match="guidance=3: nothing says of which class"):
        drawn(model, range(2), Prompts(rows), guidance=3.0)
    of_b = drawn(model, range(2), Prompts(rows), guidance=3.0, **{"class": "b"})
    assert torch.equal(of_b, drawn(model, range(2), Prompts(rows, labels=[1]), guidance=3.0))


def test_the_likelihood_of_all_rows_of_codes_adds_up_to_one() -> None:
    model = build("transformer", DataSpec("image", (3,), ("a", "b"), 4, content=(1, 6, 4)))
    rows = torch.cartesian_prod(*[torch.arange(4)] * 3)
    with torch.no_grad():
        scores = model.score(Batch(rows, torch.ones(64, dtype=torch.long)), Noise(0, range(64), "cpu"))
    assert list(scores) == ["nats_per_code", "code_bits_per_dim"]
    assert (-3 * scores["nats_per_code"]).exp().sum().item() == pytest.approx(1, abs=1e-5)
    bits = scores["nats_per_code"] * 3 / math.log(2) / 24
    assert torch.allclose(scores["code_bits_per_dim"], bits)


def test_the_bound_lies_above_what_the_masks_in_every_order_give() -> None:
    model: Any = build("bert", DataSpec("image", (2,), (), 3, content=(1, 6, 4)))
    rows = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    with torch.no_grad():
        scores = model.score(Batch(rows), Noise(0, range(9), "cpu"), 64)

        def nats(shown: list[int], place: int, code: int) -> float:
            tokens = torch.tensor([[model.any, *shown]])
            found = model.encoder.logits(model.encoder.hidden(tokens)[:, 1:])[0, place].log_softmax(-1)
            return -float(found[code])

        mask, wanted = model.mask, []
        for first, second in rows.tolist():
            both = nats([mask, mask], 0, first) + nats([mask, mask], 1, second)
            wanted.append((both + nats([mask, second], 0, first) + nats([first, mask], 1, second)) / 2)
    assert list(scores) == ["nelbo_per_code", "code_bits_per_dim"]
    assert (2 * scores["nelbo_per_code"]).tolist() == pytest.approx(wanted, rel=0.1)


def test_what_is_kept_is_kept_and_the_rest_is_written() -> None:
    writer: Any = build("transformer")
    assert writer.left_out(GRID, writer.controls(keep=0.4)) == [False] * 2 + [True] * 4
    assert writer.left_out(GRID, writer.controls(keep=0.01))[:2] == [False] * 2
    found = drawn(writer, range(40), Prompts([[5, 4], [1, 2]], labels=[0, 2]))
    assert found[:, :2].tolist() == [[5, 4], [1, 2]] * 20
    assert len({tuple(row) for row in found[:, 2:].tolist()}) > 10
    filler: Any = build("bert")
    regions = {
        region: filler.left_out((4, 4), filler.controls(region=region)) for region in ("lower", "left", "centre")
    }
    assert regions["lower"] == [False] * 8 + [True] * 8
    clip = filler.left_out((3, 2, 2), filler.controls(region="right"))
    assert clip == [False, True] * 6, "a region of a clip is one of all its times"
    assert writer.left_out((4, 2, 2), writer.controls()) == [False] * 8 + [True] * 8
    assert regions["left"] == [True, True, False, False] * 4
    assert [place for place, out in enumerate(regions["centre"]) if out] == [5, 6, 9, 10]
    mask = filler.mask
    found = drawn(filler, range(40), Prompts([[3, mask, mask, 2, mask, 1]]))
    assert found[:, [0, 3, 5]].tolist() == [[3, 2, 1]] * 40
    assert int(found.max()) < CODES


@pytest.mark.parametrize("family", FAMILIES)
def test_places_of_a_grid_are_told_by_their_axes(family: str) -> None:
    style = {"norm": "rms", "positions": "grid", "mlp": "swiglu", "qk_norm": True, "bias": False}
    model: Any = build(family, replace(LABELLED, grid=GRID), style=style)
    stack = getattr(model, model.tokens).stack
    assert [tuple(axis.shape) for axis in stack.places.axes] == [(3, 16), (2, 16)]
    rows, columns = stack.places.axes
    assert torch.equal(stack.places()[-LENGTH:], (rows[:, None] + columns).flatten(0, 1))
    assert len(stack.places()) == stack.length
    whole = drawn(model, range(6))
    assert torch.equal(torch.cat([drawn(model, [number]) for number in range(6)]), whole)
    with pytest.raises(ConfigError, match="positions=grid is for the codes"):
        build(family, style=style)


@pytest.mark.parametrize("passes", [1, 3, 8, 20])
def test_each_pass_settles_more_and_the_last_one_all(passes: int) -> None:
    left: list[int] = []

    def score(codes: Tensor, done: float) -> Tensor:
        left.append(int((codes[0] == 9).sum()))
        return torch.zeros(2, 16, 5)

    uniform = torch.rand(2, passes, 2, 16, generator=torch.Generator().manual_seed(0))
    found = by_schedule(score, torch.full((2, 16), 9), 9, Choice(), uniform, 1.0)
    assert int(found.max()) < 5
    assert left[0] == 16
    assert all(after < before or not before for before, after in pairwise(left))
    settled = [before - after for before, after in zip(left, [*left[1:], 0], strict=True)]
    assert passes in (1, 20) or settled[0] <= settled[-1]


def test_places_far_from_each_other_settle_one_after_the_other() -> None:
    order = halton((4, 4))
    assert sorted(order.tolist()) == list(range(16))
    first = [place for place in range(16) if order[place] < 4]
    assert len({(place // 8, place % 4 // 2) for place in first}) >= 3, "in most quarters"
    assert sorted(halton((2, 3, 2)).tolist()) == list(range(12))
    assert sorted(halton((5,)).tolist()) == list(range(5))
    model = build("bert", replace(LABELLED, grid=GRID))
    whole = drawn(model, range(8), order="halton", passes=3)
    assert torch.equal(torch.cat([drawn(model, [number], order="halton", passes=3) for number in range(8)]), whole)
    assert not torch.equal(whole, drawn(model, range(8), passes=3))


TWO = DataSpec("image", (6,), ("a", "b"), 6, content=(1, 6, 4), grid=(3,))  # 2 codebooks of 3 codes, for 3 places


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_delay_has_an_inverse(k: int) -> None:
    codes = torch.arange(2 * 4 * k).view(2, 4, k)
    steps = delayed(codes, -1)
    assert steps.shape == (2, 4 + k - 1, k)
    assert int((steps == -1).sum()) == 2 * k * (k - 1)
    assert torch.equal(aligned(steps), codes)
    assert torch.equal(steps[:, k - 1, 0], codes[:, k - 1, 0])
    assert torch.equal(steps[:, k - 1, k - 1], codes[:, 0, k - 1])


@pytest.mark.parametrize("delay", [True, False])
def test_of_several_codebooks_each_writes_its_own_codes(delay: bool) -> None:
    model: Any = build("transformer", TWO, delay=delay)
    assert model.decoder.length == (4 if delay else 6)
    for other in (model, build("bert", TWO)):
        found = drawn(other, range(60), guidance=2.0, temperature=3.0)
        assert torch.equal(found // 3, torch.tensor([0, 1] * 3).expand(60, -1))
        whole = drawn(other, range(8))
        assert torch.equal(torch.cat([drawn(other, [number]) for number in range(8)]), whole)
    kept = drawn(model, range(8), Prompts([[2, 4, 0, 5]], labels=[1]))
    assert kept[:, :4].tolist() == [[2, 4, 0, 5]] * 8
    assert len({tuple(row) for row in kept.tolist()}) > 1


@pytest.mark.parametrize("delay", [True, False])
def test_the_likelihood_of_all_rows_of_several_codebooks_adds_up_to_one(delay: bool) -> None:
    model = build("transformer", replace(TWO, shape=(4,), grid=(2,)), delay=delay)
    rows = torch.cartesian_prod(*[torch.arange(3), torch.arange(3, 6)] * 2)
    with torch.no_grad():
        scores = model.score(Batch(rows, torch.ones(81, dtype=torch.long)), Noise(0, range(81), "cpu"))
    assert (-4 * scores["nats_per_code"]).exp().sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_code_of_the_end_belongs_to_no_codebook_and_can_be_anywhere(family: str) -> None:
    spec = replace(TWO, vocab_size=7, specials=(("eos", 6),))  # 2 codebooks of 3 codes, and the end
    ended = Batch(torch.tensor([[2, 4, 6, 6, 6, 6]]), torch.zeros(1, dtype=torch.long))
    for changed in (spec, replace(spec, shape=(9,), vocab_size=10, specials=(("eos", 9),))):  # three are written so too
        model = build(family, changed)
        found = drawn(model, range(200), temperature=3.0)
        end = changed.special("eos")
        assert (found == end).any(0).all()
        owner = torch.arange(found.shape[1]) % model.codebooks
        assert ((found == end) | (found // 3 == owner)).all()
    nats = next(iter(build(family, spec).score(ended, Noise(0, [0], "cpu")).values()))
    assert torch.isfinite(nats).all()
    if family == "transformer":
        with pytest.raises(ConfigError, match="these have one for the end"):
            build(family, spec, delay=True)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_cached_writing_with_a_delay_is_uncached_writing(guidance: float) -> None:
    model: Any = build("transformer", TWO, delay=True)
    found = drawn(model, range(20), guidance=guidance)
    uniform = Noise(3, list(range(20)), "cpu").uniform(4, 2)
    told = 6 + torch.arange(20) % 2
    steps = torch.full((20, 4, 2), model.any)
    with torch.no_grad():
        for step in range(4):
            both = [
                model.decoder.logits(model.decoder.hidden(begun(first, steps)))[:, step].unflatten(1, (2, 3))
                for first in (told, torch.full_like(told, model.any))
            ]
            scores = both[1] + guidance * (both[0] - both[1]) if guidance != 1 else both[0]
            for level in range(2):
                if 0 <= step - level < 3:
                    steps[:, step, level] = 3 * level + choose(scores[:, level], Choice(), uniform[:, step, level])
    assert torch.equal(found, aligned(steps).flatten(1))
