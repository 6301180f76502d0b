"""Gaps: where they are, for every model alike, and how many are filled as they were."""

from typing import Any

import pytest
import torch
from toy_metrics import subject_of
from toy_text import ToyText, documents, windows

from aigc_cli.config.compose import compose
from aigc_cli.errors import ConfigError
from aigc_cli.metrics.evaluation import Evaluation
from aigc_cli.metrics.infill import gaps_of
from aigc_cli.metrics.passages import Passages
from aigc_cli.modalities.tokenizers import PAD
from aigc_cli.models.base import Model, build_model
from aigc_cli.randomness import Noise

DATASET = ToyText(documents(20, 12))


def measured(model: Any, dataset: ToyText = DATASET, batch_size: int | None = None, seed: int = 0) -> Any:
    evaluation = Evaluation({"infill": {"name": "infill", "seed": seed}})
    (record,) = evaluation.ask(subject_of(model, dataset, batch_size), Passages(dataset, "val", "toy"), 0)
    return record


def built(name: str, dataset: ToyText = DATASET) -> Any:
    torch.manual_seed(0)
    words = ["model.layers=1", "model.heads=2", "model.width=16"]
    return build_model(compose("train", [f"model={name}", *words])["model"], dataset.spec).eval().requires_grad_(False)


def test_gaps_are_as_many_as_asked_for_nested_and_never_first() -> None:
    tokens = documents(20, 12)
    found = [gaps_of(tokens, range(20), share, 0, 12) for share in (0.15, 0.3, 0.5)]
    targets = (tokens != PAD).sum(1) - 1
    for gaps, share in zip(found, (0.15, 0.3, 0.5), strict=True):
        assert gaps.sum(1).tolist() == (share * targets - 1e-6).ceil().clamp(min=1).long().tolist()
        assert not gaps[:, 0].any()
        assert not gaps[tokens == PAD].any()
    assert (found[0] <= found[1]).all()
    assert (found[1] <= found[2]).all()


def test_gaps_depend_on_the_item_and_the_seed_alone() -> None:
    tokens = documents(20, 12)
    together = gaps_of(tokens, range(20), 0.3, 0, 12)
    alone = gaps_of(tokens[7:9, :12], [7, 8], 0.3, 0, 12)
    assert torch.equal(together[7:9], alone)
    assert not torch.equal(together, gaps_of(tokens, range(20), 0.3, 1, 12))


def test_a_perfect_model_finds_all_and_the_commonest_token_finds_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    model = built("bert")
    monkeypatch.setattr(type(model), "fill", lambda self, tokens, gaps, noise, controls: tokens)
    result = measured(model)
    assert set(result.generated.figures.values()) == {1.0}
    rates = result.beside["commonest token"].figures
    assert all(0 < rate < 0.5 for rate in rates.values())
    assert result.facts["masked"]["infill_50"] > result.facts["masked"]["infill_15"]


def test_a_writer_fills_from_the_true_tokens_before() -> None:
    model = built("transformer")
    tokens = windows(5, 12)
    gaps = torch.zeros_like(tokens, dtype=torch.bool)
    gaps[:, [3, 4, 9]] = True
    filled = model.fill(tokens, gaps, None, None)
    assert torch.equal(filled[~gaps], tokens[~gaps])
    for place in (3, 4, 9):
        logits = model.decoder.logits(model.decoder.hidden(tokens[:, :place]))[:, -1]
        assert torch.equal(filled[:, place], logits.argmax(-1))


def test_a_guesser_sees_no_token_that_it_is_to_guess() -> None:
    model = built("bert")
    tokens = windows(5, 12)
    gaps = torch.zeros_like(tokens, dtype=torch.bool)
    gaps[:, [3, 4, 9]] = True
    other = torch.where(gaps, tokens.roll(1, 1), tokens)
    controls = model.controls(**model.filling)
    first, second = (model.fill(some, gaps, Noise(0, range(5)), controls) for some in (tokens, other))
    assert torch.equal(first, second)
    assert torch.equal(first[~gaps], tokens[~gaps])
    assert (first < model.mask).all()


@pytest.mark.parametrize("name", ["bert", "transformer"])
def test_batches_do_not_matter_to_masks_or_scores(name: str) -> None:
    model = built(name)
    whole, parts, other = measured(model), measured(model, batch_size=3), measured(model, seed=1)
    assert whole.facts["masks"] == parts.facts["masks"] != other.facts["masks"]
    assert whole.generated.figures == parts.generated.figures


def test_a_model_without_gaps_says_so() -> None:
    class Plain(Model):
        layouts = frozenset({"tokens"})

    with pytest.raises(ConfigError, match="fills no gaps"):
        subject_of(Plain(DATASET.spec), DATASET).source("infill")
