"""The masked language model: its objectives, its bound, and the three ways it fills gaps."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from draws import sampled
from fitting import fit
from torch import Tensor

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.bert import BertConfig, MaskedLanguageModel
from aigc_cli.nn.masking import masks_at
from aigc_cli.randomness import Noise

SPECIALS = (("pad", 0), ("bos", 1), ("eos", 2), ("unk", 3))
PAD, MASK = 0, 12
VOCAB, LENGTH = 12, 9


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    return compose("train", ["model=bert", "data=text"])["model"]


def build(defaults: dict[str, Any], length: int = LENGTH, **changes: Any) -> MaskedLanguageModel:
    torch.manual_seed(0)
    config = check("model", BertConfig, {**defaults, "layers": 1, "heads": 2, "width": 16, **changes})
    return MaskedLanguageModel(config, DataSpec("text", (length,), vocab_size=VOCAB, specials=SPECIALS))


def counting(n: int = 16, length: int = LENGTH) -> Batch:
    """Rows that count upwards from anywhere and begin anew after the last token: one token gives away all others."""
    first = torch.randint(4, VOCAB, (n, 1), generator=torch.Generator().manual_seed(0))
    return Batch((first - 4 + torch.arange(length)) % (VOCAB - 4) + 4)


def padded(n: int = 8) -> Batch:
    rows = counting(n).content.clone()
    rows[1::2, 5:] = PAD
    return Batch(rows)


@pytest.fixture(scope="module")
def counter(defaults: dict[str, Any]) -> MaskedLanguageModel:
    """A model that has learned to count."""
    model = build(defaults)
    losses = [figures["loss"] for figures in fit(model, counting(64), 400)]
    assert losses[0] == pytest.approx(math.log(VOCAB), abs=0.1)
    assert sum(losses[-20:]) / 20 < 0.5  # the first token of a row is worth log(8) / 9 nats a token
    return model


# masks


def test_masks_are_as_many_as_asked_for_and_never_on_padding() -> None:
    there = torch.ones(3, 10, dtype=torch.bool)
    there[1, 4:] = False
    masks = masks_at([0.15, 0.5, 1.0], there, torch.rand(3, 10))
    assert masks.of_row.tolist() == [2, 2, 10]
    assert masks.lengths.tolist() == [10, 4, 10]
    tokens = torch.arange(30).view(3, 10)
    shown = masks.apply(tokens, -1)
    assert (shown == -1).sum(1).tolist() == [2, 2, 10]
    assert ((shown == -1) <= there).all()
    assert (shown == tokens)[shown != -1].all()
    counted = torch.stack([masks.rows, masks.places], 1)[masks.counts]
    assert torch.equal(counted.unique(dim=0), (shown == -1).nonzero())


def test_every_place_is_masked_as_often() -> None:
    keys = torch.rand(4000, 10, generator=torch.Generator().manual_seed(0))
    masks = masks_at([0.3] * 4000, torch.ones(4000, 10, dtype=torch.bool), keys)
    often = torch.bincount(masks.places[masks.counts], minlength=10) / 4000
    torch.testing.assert_close(often, torch.full((10,), 0.3), atol=0.03, rtol=0)


def test_the_number_of_masks_is_uniform(defaults: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    model = build(defaults)
    apply = model._guessed

    def watched(tokens: Tensor, shown: Tensor, there: Tensor, masks: Any) -> Any:
        counts.extend((shown == MASK).sum(1).tolist())
        return apply(tokens, shown, there, masks)

    monkeypatch.setattr(model, "_guessed", watched)
    for seed in range(60):
        torch.manual_seed(seed)
        model("main", counting(30))
    often = torch.bincount(torch.tensor(counts), minlength=LENGTH + 1) / len(counts)
    torch.testing.assert_close(often[1:], torch.full((LENGTH,), 1 / LENGTH), atol=0.02, rtol=0)
    assert often[0] == 0


@pytest.mark.parametrize("objective", ["mlm", "diffusion"])
def test_the_head_runs_on_masked_places_alone(defaults: dict[str, Any], objective: str) -> None:
    model = build(defaults, objective=objective, mask_rate=0.3)
    seen = []
    logits = model.encoder.logits
    model.encoder.logits = lambda hidden: (seen.append(hidden.shape), logits(hidden))[1]  # type: ignore[method-assign]
    model("main", counting(30))
    assert len(seen[0]) == 2
    masked = {"mlm": 30 * math.ceil(0.3 * LENGTH), "diffusion": 30 * (LENGTH + 1) / 2}[objective]
    assert seen[0][0] == pytest.approx(masked, abs=15)


def test_mixed_masks_show_some_tokens_and_some_others(defaults: dict[str, Any]) -> None:
    model = build(defaults, objective="mlm", mask_rate=0.5, mixed_masks=True)
    tokens = counting(2000).content
    there = torch.ones_like(tokens, dtype=torch.bool)
    masks = masks_at([0.5] * 2000, there, torch.rand(tokens.shape))
    shown = model._mixed(masks.apply(tokens, MASK), tokens, masks)[masks.rows, masks.places]
    own = tokens[masks.rows, masks.places]
    assert (shown == MASK).float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (shown == own).float().mean().item() == pytest.approx(0.1 + 0.1 / VOCAB, abs=0.02)
    assert shown.max() <= MASK


# objectives and scores


@pytest.mark.parametrize("changes", [{"objective": "mlm"}, {"objective": "mlm", "mixed_masks": True}, {}])
def test_each_objective_learns(defaults: dict[str, Any], changes: dict[str, Any]) -> None:
    losses = [figures["loss"] for figures in fit(build(defaults, **changes), counting(), 200)]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


class Exact:
    """The true conditionals of a distribution over three tokens, each 4, 5 or 6, in the place of a network."""

    def __init__(self) -> None:
        table = torch.rand(3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) ** 3
        self.table = table / table.sum()

    def hidden(self, shown: Tensor, mask: Tensor | None = None) -> Tensor:
        """(n, 3, vocab) log-probabilities."""
        found = torch.full((*shown.shape, VOCAB), -60.0, dtype=torch.float64)
        for row, tokens in enumerate(shown.tolist()):
            part = self.table
            for place, token in enumerate(tokens):
                if token != MASK:
                    part = part * torch.eye(3, dtype=torch.float64)[token - 4].view(
                        [3 if d == place else 1 for d in range(3)]
                    )
            for place in range(3):
                own = part.sum([d for d in range(3) if d != place])
                found[row, place, 4:7] = (own / own.sum()).log().clamp(min=-60)
        return found

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden

    def items(self) -> Tensor:
        return torch.tensor(list(itertools.product((4, 5, 6), repeat=3)))


def with_exact(defaults: dict[str, Any]) -> tuple[MaskedLanguageModel, Exact]:
    model, exact = build(defaults, length=3), Exact()
    del model.encoder
    model.encoder = exact  # type: ignore[assignment]
    return model, exact


def test_the_bound_is_the_likelihood_where_the_conditionals_are_true(defaults: dict[str, Any]) -> None:
    """Any order of exact conditionals multiplies to the joint probability: so the weights are right."""
    model, exact = with_exact(defaults)
    batch = Batch(exact.items())
    scores = model.score(batch, Noise(0, range(27)), samples=40)
    assert list(scores) == ["nelbo_per_token", "nelbo", "tokens"]
    given_the_first = exact.table / exact.table.sum((1, 2), keepdim=True)
    expected = -given_the_first.flatten().log()
    torch.testing.assert_close(scores["nelbo"], expected, atol=0.6, rtol=0.15)
    assert (scores["nelbo"] - expected).mean().item() == pytest.approx(0, abs=0.1)
    torch.testing.assert_close(scores["nelbo_per_token"], scores["nelbo"] / 2)


def test_the_loss_is_the_bound_a_token(defaults: dict[str, Any]) -> None:
    model, exact = with_exact(defaults)
    losses = []
    for seed in range(150):
        torch.manual_seed(seed)
        losses.append(model("main", Batch(exact.items()))["loss"].item())
    expected = -exact.table.flatten().log().mean().item() / 3
    assert sum(losses) / len(losses) == pytest.approx(expected, rel=0.03)


def test_the_bound_lies_above_the_entropy(counter: MaskedLanguageModel) -> None:
    """Which is none, once the first token is known."""
    scores = counter.score(counting(64), Noise(0, range(64)), samples=4)
    assert 0 < scores["nelbo"].mean().item() < 3


def test_scores_do_not_depend_on_the_batch(defaults: dict[str, Any]) -> None:
    for objective in ("mlm", "diffusion"):
        model = build(defaults, objective=objective).eval()
        batch = padded()
        together = model.score(batch, Noise(3, range(8)))
        assert together["tokens"].tolist() == ([8, 4] * 4 if objective == "diffusion" else [2, 1] * 4)
        for row in range(8):
            width = 9 if row % 2 == 0 else 5
            alone = model.score(Batch(batch.content[row : row + 1, :width]), Noise(3, [row]))
            for name, values in together.items():
                torch.testing.assert_close(alone[name], values[row : row + 1], atol=1e-5, rtol=1e-5)


def test_a_fixed_rate_is_scored_at_fifteen_percent(defaults: dict[str, Any]) -> None:
    model = build(defaults, objective="mlm", mask_rate=0.5)
    fit(model, counting(), 600)
    scores = model.score(counting(), Noise(0, range(16)))
    assert list(scores) == ["masked_nll_per_token", "masked_nll", "tokens", "masked_accuracy"]
    assert scores["tokens"].tolist() == [2] * 16
    assert scores["masked_accuracy"].mean() > 0.75  # most masks have both neighbours, or one


# filling


def counts_on(rows: Tensor) -> Tensor:
    return ((rows[:, 1:] - 4) == (rows[:, :-1] - 3) % (VOCAB - 4)).all(1)


@pytest.mark.parametrize("sampler", ["ancestral", "gibbs", "confidence"])
def test_every_sampler_fills_gaps_with_what_belongs_there(counter: MaskedLanguageModel, sampler: str) -> None:
    rows = counting(6).content
    gapped = rows.clone()
    gapped[:, [0, 3, 4, 8]] = MASK
    drawn = sampled(
        counter, Noise(0, range(6)), prompt=gapped.tolist(), mode="infill", sampler=sampler, temperature=0.5
    )
    assert torch.equal(drawn, rows)


@pytest.mark.parametrize("sampler", ["ancestral", "gibbs"])
def test_samples_are_like_the_data(counter: MaskedLanguageModel, sampler: str) -> None:
    drawn = sampled(counter, Noise(0, range(40)), sampler=sampler)
    assert drawn.shape == (40, LENGTH)
    assert counts_on(drawn).float().mean() > 0.2  # of rows drawn at random, one in millions
    assert len(set(drawn[:, 0].tolist())) > 4


def test_one_token_at_a_time_is_better_than_all_at_once(counter: MaskedLanguageModel) -> None:
    shares = [counts_on(sampled(counter, Noise(0, range(60)), steps=steps)).float().mean() for steps in (1, 3, None)]
    assert shares[0] < 0.1 < shares[2]
    assert shares[0] <= shares[1] <= shares[2]


def test_prompts_are_continued_and_kept(counter: MaskedLanguageModel) -> None:
    drawn = sampled(counter, Noise(0, range(4)), prompt=[[6, 7, 8]], temperature=0.0, max_tokens=4)
    assert drawn.tolist() == [[6, 7, 8, 9, 10, 11, 4]] * 4


@pytest.mark.parametrize("sampler", ["ancestral", "gibbs", "confidence"])
def test_a_sample_depends_on_its_seed_and_number_alone(defaults: dict[str, Any], sampler: str) -> None:
    model = build(defaults).eval()
    for controls in ({}, {"prompt": [[4, MASK, 5], [6, MASK, MASK, MASK, 7, 8]], "mode": "infill"}):
        together = sampled(model, Noise(5, range(6)), sampler=sampler, **controls)
        for index in range(6):
            alone = sampled(model, Noise(5, [index]), sampler=sampler, **controls)[0].tolist()
            assert together[index].tolist() == alone + [PAD] * (together.shape[1] - len(alone))
        assert not torch.equal(together, sampled(model, Noise(6, range(6)), sampler=sampler, **controls))


def test_controls_of_drawing_are_refused_where_nothing_is_drawn(defaults: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="leave out top_k and min_p"):
        sampled(build(defaults), Noise(0, [0]), temperature=0.0, top_k=3, min_p=0.1)


@pytest.mark.parametrize(
    ("controls", "most"),
    [({}, 1), ({"steps": 4}, math.ceil(LENGTH / 4)), ({"sampler": "gibbs"}, 1), ({"sampler": "confidence"}, LENGTH)],
)
def test_as_many_places_are_scored_at_once_as_a_sample_is_said_to_hold(
    defaults: dict[str, Any], controls: dict[str, Any], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(defaults).eval()
    scored = []
    logits = model.encoder.logits
    monkeypatch.setattr(model.encoder, "logits", lambda hidden: scored.append(hidden.shape[1]) or logits(hidden))
    sampled(model, Noise(0, range(2)), **controls)
    assert max(scored) == most
    assert model.held(model.controls(**controls)) - model.held() == (most - 1) * VOCAB


def test_only_gaps_are_scored_and_fewer_each_time(defaults: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(defaults).eval()
    scored = []
    logits = model.encoder.logits
    monkeypatch.setattr(model.encoder, "logits", lambda hidden: scored.append(hidden.shape[1]) or logits(hidden))
    prompt = [[4, MASK, 5, MASK, MASK, MASK], [MASK, 4, 4, 4, 4, 4]]
    sampled(model, Noise(0, range(2)), prompt=prompt, mode="infill", sampler="confidence", steps=2)
    assert scored == [4, 2]


def test_no_gap_is_left(defaults: dict[str, Any]) -> None:
    model = build(defaults).eval()
    for sampler, steps in itertools.product(("ancestral", "gibbs", "confidence"), (1, 2, 5, 100)):
        assert sampled(model, Noise(0, range(3)), sampler=sampler, steps=steps).max() < VOCAB


@pytest.mark.parametrize(
    ("controls", "complaint"),
    [
        ({"mode": "infill"}, "needs a text with gaps"),
        ({"mode": "infill", "prompt": [[4, 5]]}, "has no gaps"),
        ({"prompt": [[4] * (LENGTH + 1)]}, f"{LENGTH + 1} tokens, and this model reads {LENGTH}"),
        ({"prompt": [[MASK + 1]]}, "beyond"),
        ({"max_tokens": LENGTH + 1}, f"writes up to {LENGTH}"),
    ],
)
def test_prompts_that_cannot_be_served(defaults: dict[str, Any], controls: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        sampled(build(defaults).eval(), Noise(0, [0]), **controls)


def test_vectors_are_means_over_tokens_that_are_there(defaults: dict[str, Any]) -> None:
    model = build(defaults).eval()
    batch = padded(2)
    vectors = model.encode(batch)
    assert vectors.shape == (2, 16)
    alone = model.encode(Batch(batch.content[1:, :5]))
    torch.testing.assert_close(vectors[1:], alone)
    torch.testing.assert_close(alone[0], model.encoder.hidden(batch.content[1:, :5])[0].mean(0))
