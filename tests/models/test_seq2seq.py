"""The encoder and decoder: what they learn, what they see, and how targets are written."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from draws import sampled
from fitting import fit
from torch import Tensor
from torch.nn.functional import cross_entropy

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.transformer import Seq2SeqConfig, Seq2SeqModel
from aigc_cli.randomness import Noise

SPECIALS = (("pad", 0), ("bos", 1), ("eos", 2), ("unk", 3))
PAD, BOS, EOS = 0, 1, 2
VOCAB, LONGEST = 12, 8


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    return compose("train", ["model=seq2seq", "data=multi30k"])["model"]


def build(defaults: dict[str, Any], **changes: Any) -> Seq2SeqModel:
    torch.manual_seed(0)
    small = {"layers": 1, "heads": 2, "width": 32, "dropout": 0.0, "label_smoothing": 0.0}
    config = check("model", Seq2SeqConfig, {**defaults, **small, **changes})
    side = DataSpec("text", (LONGEST,), vocab_size=VOCAB, specials=SPECIALS)
    return Seq2SeqModel(config, replace(side, source=side))


def rows_of(texts: list[list[int]]) -> Tensor:
    width = max(map(len, texts)) + 2
    return torch.tensor([[BOS, *text, EOS, *[PAD] * (width - 2 - len(text))] for text in texts])


def reversals(n: int = 64, seed: int = 0) -> Batch:
    """Targets are their sources from the end to the beginning."""
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, LONGEST - 1, (n,), generator=random).tolist()
    texts = [torch.randint(4, VOCAB, (length,), generator=random).tolist() for length in lengths]
    return Batch(rows_of([text[::-1] for text in texts]), source=rows_of(texts))


def prompts_of(source: Tensor | None) -> list[list[int]]:
    assert source is not None
    return [[token for token in row if token != PAD] for row in source.tolist()]


@pytest.fixture(scope="module")
def reverser(defaults: dict[str, Any]) -> Seq2SeqModel:
    """A model that has learned what 64 sources are reversed."""
    model = build(defaults)
    losses = [figures["loss"] for figures in fit(model, reversals(), 300)]
    assert losses[0] == pytest.approx(math.log(VOCAB), abs=0.2)
    assert losses[-1] < 0.05
    return model


CLASSIC = {"norm": "layer", "positions": "learned", "mlp": "gelu", "qk_norm": False, "bias": True}


@pytest.mark.parametrize("changes", [{"style": CLASSIC}, {"tie_embeddings": False}, {"label_smoothing": 0.1}])
def test_every_variant_learns(defaults: dict[str, Any], changes: dict[str, Any]) -> None:
    losses = [figures["loss"] for figures in fit(build(defaults, **changes), reversals(16), 80)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("controls", [{}, {"beam": 4}, {"temperature": 0.2}])
def test_targets_are_written(reverser: Seq2SeqModel, controls: dict[str, Any]) -> None:
    batch = reversals()
    made = sampled(reverser, Noise(0, range(64)), prompt=prompts_of(batch.source), **controls)
    assert made.shape[1] == LONGEST
    right = (made[:, : batch.content.shape[1]] == batch.content).all(1)
    assert right.float().mean() > 0.8


def test_prompts_are_sources_with_or_without_their_ends(reverser: Seq2SeqModel) -> None:
    batch = reversals()
    source = prompts_of(batch.source)[0]
    target = batch.content[0].tolist()
    drawn = sampled(reverser, Noise(0, range(2)), prompt=[source, source[1:-1]])
    assert drawn[0].tolist() == drawn[1].tolist() == target + [PAD] * (LONGEST - len(target))


def test_without_a_prompt_an_empty_source_is_translated(reverser: Seq2SeqModel) -> None:
    drawn = sampled(reverser, Noise(0, range(5)))
    assert drawn.shape == (5, LONGEST)
    assert torch.equal(drawn[0], sampled(reverser, Noise(0, [0]), prompt=[[BOS, EOS]])[0])


def test_the_loss_is_of_targets_alone_and_sees_no_padding(reverser: Seq2SeqModel) -> None:
    batch = Batch(rows_of([[7, 6, 5], [9, 8]]), source=rows_of([[5, 6, 7], [8, 9]]))
    more = torch.full((2, 1), PAD)
    wide = Batch(torch.cat([batch.content, more], 1), source=torch.cat([batch.source, more], 1))
    torch.testing.assert_close(reverser("main", wide)["loss"], reverser("main", batch)["loss"])
    scores = reverser.score(batch, Noise(0, range(2)))
    assert next(iter(scores)) == "nll_per_token"
    assert scores["tokens"].tolist() == (batch.content[:, 1:] != PAD).sum(1).tolist()
    total = scores["nll"].sum() / scores["tokens"].sum()
    assert total.item() == pytest.approx(reverser("main", batch)["loss"].item(), rel=1e-4)


def test_label_smoothing_spreads_a_share_of_the_target(defaults: dict[str, Any]) -> None:
    batch = reversals(4)
    plain, smooth = build(defaults), build(defaults, label_smoothing=0.3)
    memory, there = plain.read(batch.source).values()
    hidden = plain.decoder.hidden(batch.content[:, :-1], memory=memory, memory_mask=there)
    logits = plain.decoder.logits(hidden).flatten(0, 1)
    targets = batch.content[:, 1:].flatten()
    steps = logits.log_softmax(-1)[targets != PAD]
    expected = 0.7 * cross_entropy(logits, targets, ignore_index=PAD) - 0.3 * steps.mean()
    torch.testing.assert_close(smooth("main", batch)["loss"], expected)
    torch.testing.assert_close(
        smooth.score(batch, Noise(0, range(4))), plain.score(batch, Noise(0, range(4)))
    )  # figures are of the likelihood itself


def test_a_target_does_not_depend_on_its_batch(defaults: dict[str, Any]) -> None:
    model = build(defaults)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    model.eval()
    source = prompts_of(reversals(6).source)
    for controls in ({}, {"beam": 3}, {"temperature": 1.0, "top_k": 5}):
        together = sampled(model, Noise(0, range(6)), prompt=source, **controls)
        for row in range(6):
            alone = sampled(model, Noise(0, [row]), prompt=[source[row]] * 6, **controls)
            assert torch.equal(alone[0], together[row])


def test_what_does_not_fit(reverser: Seq2SeqModel) -> None:
    with pytest.raises(ConfigError, match="9 tokens, its ends included, and this model reads 8"):
        sampled(reverser, Noise(0, [0]), prompt=[[4] * 7])
    with pytest.raises(ConfigError, match="max_tokens=8: this model writes up to 7"):
        sampled(reverser, Noise(0, [0]), prompt=[[4]], max_tokens=8)
