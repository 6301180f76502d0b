"""The decoder: what it learns, what its score is, and what each word of its sampling does."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from draws import sampled
from fitting import fit
from torch.nn.functional import cross_entropy

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.transformer import DecoderConfig, DecoderLanguageModel
from aigc_cli.randomness import Noise

SPECIALS = (("pad", 0), ("bos", 1), ("eos", 2), ("unk", 3))
PAD, EOS = 0, 2
VOCAB, LENGTH = 12, 9
SMALL = {"layers": 1, "heads": 2, "width": 16}


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    return compose("train", ["model=transformer", "data=text"])["model"]


def build(defaults: dict[str, Any], length: int = LENGTH, **changes: Any) -> DecoderLanguageModel:
    torch.manual_seed(0)
    config = check("model", DecoderConfig, {**defaults, **SMALL, **changes})
    return DecoderLanguageModel(config, DataSpec("text", (length,), vocab_size=VOCAB, specials=SPECIALS))


def counting(n: int = 16, length: int = LENGTH) -> Batch:
    """Rows that count upwards from anywhere and begin anew after the last token: what comes next is never in doubt."""
    first = torch.randint(4, VOCAB, (n, 1), generator=torch.Generator().manual_seed(0))
    return Batch((first - 4 + torch.arange(length)) % (VOCAB - 4) + 4)


@pytest.fixture(scope="module")
def counter(defaults: dict[str, Any]) -> DecoderLanguageModel:
    """A model that has learned to count."""
    model = build(defaults)
    losses = [figures["loss"] for figures in fit(model, counting(), 150)]
    assert losses[0] == pytest.approx(math.log(VOCAB), abs=0.1)
    assert losses[-1] < 0.05
    return model


CLASSIC = {"norm": "layer", "positions": "learned", "mlp": "gelu", "qk_norm": False, "bias": True}


@pytest.mark.parametrize("changes", [{"style": CLASSIC}, {"tie_embeddings": False}, {"dropout": 0.1}])
def test_every_style_learns(defaults: dict[str, Any], changes: dict[str, Any]) -> None:
    losses = [figures["loss"] for figures in fit(build(defaults, **changes), counting(), 100)]
    assert losses[-1] < 0.2 * losses[0]


def test_tied_embeddings_share_their_weights(defaults: dict[str, Any]) -> None:
    sizes = [sum(p.numel() for p in build(defaults, tie_embeddings=tied).parameters()) for tied in (True, False)]
    assert sizes[1] - sizes[0] == VOCAB * 16


def test_the_vector_of_an_item_is_the_mean_within_the_window(counter: DecoderLanguageModel) -> None:
    items = counting(2)
    within = counter.decoder.hidden(items.content[:, :-1])
    torch.testing.assert_close(counter.encode(items), within.mean(1))
    torch.testing.assert_close(counter.encode(Batch(items.content[:, :5])), within[:, :5].mean(1))


def test_padding_is_no_target(counter: DecoderLanguageModel) -> None:
    whole = counting(2)
    cut = whole.content.clone()
    cut[0, 5:] = PAD
    logits = counter.decoder.logits(counter.decoder.hidden(cut[:, :-1]))
    kept = torch.cat([logits[0, :4], logits[1]])
    expected = cross_entropy(kept, torch.cat([cut[0, 1:5], cut[1, 1:]]))
    torch.testing.assert_close(counter("main", Batch(cut))["loss"], expected)
    scores = counter.score(Batch(cut), Noise(0, range(2)))
    assert scores["tokens"].tolist() == [4, 8]
    torch.testing.assert_close(scores["nll"].sum() / 12, expected.double())


def test_the_score_is_the_negative_log_likelihood_of_each_item(counter: DecoderLanguageModel) -> None:
    batch = counting(3)
    scores = counter.score(batch, Noise(0, range(3)))
    assert next(iter(scores)) == "nll_per_token"
    for row in range(3):
        tokens = batch.content[row : row + 1]
        logits = counter.decoder.logits(counter.decoder.hidden(tokens[:, :-1]))
        nats = cross_entropy(logits[0].double(), tokens[0, 1:], reduction="sum")
        assert scores["nll"][row].item() == pytest.approx(nats.item(), rel=1e-4)
        assert scores["nll_per_token"][row].item() == pytest.approx(nats.item() / 8, rel=1e-4)
    assert all(value.dtype == torch.float64 and value.shape == (3,) for value in scores.values())


def test_samples_are_whole_items_that_begin_as_the_data_does(counter: DecoderLanguageModel) -> None:
    drawn = sampled(counter, Noise(0, range(64)), top_k=1)
    assert drawn.shape == (64, LENGTH)
    assert ((drawn[:, 1:] - 4) == (drawn[:, :-1] - 3) % (VOCAB - 4)).all()
    assert set(drawn[:, 0].tolist()) == set(counting().content[:, 0].tolist())


def test_a_model_that_saw_nothing_begins_with_anything(defaults: dict[str, Any]) -> None:
    drawn = sampled(build(defaults).eval(), Noise(0, range(200)))
    assert drawn.shape == (200, LENGTH)
    assert set(drawn[:, 0].tolist()) == set(range(VOCAB))


def test_scoring_does_not_count_as_seeing(counter: DecoderLanguageModel) -> None:
    before = counter.begins.clone()
    counter("main", counting())
    assert torch.equal(counter.begins, before)


def test_prompts_are_continued_in_turn(counter: DecoderLanguageModel) -> None:
    drawn = sampled(counter, Noise(0, [0, 1, 2, 5]), prompt=[[4, 5, 6], [10]], temperature=0.0, max_tokens=4)
    assert drawn.tolist() == [
        [4, 5, 6, 7, 8, 9, 10],
        [10, 11, 4, 5, 6, PAD, PAD],
        [4, 5, 6, 7, 8, 9, 10],
        [10, 11, 4, 5, 6, PAD, PAD],
    ]


def test_a_prompt_may_be_longer_than_the_window(counter: DecoderLanguageModel) -> None:
    prompt = counting(1, 30).content[0].tolist()
    drawn = sampled(counter, Noise(0, [0]), prompt=[prompt], temperature=0.0, max_tokens=20)
    assert drawn[0].tolist() == counting(1, 50).content[0].tolist()


@pytest.mark.parametrize("prompt", [[[]], [[4, VOCAB]], [[-1]]])
def test_prompts_that_are_none(counter: DecoderLanguageModel, prompt: list[list[int]]) -> None:
    with pytest.raises(ConfigError, match="a prompt"):
        sampled(counter, Noise(0, [0]), prompt=prompt)


@pytest.mark.parametrize("controls", [{}, {"temperature": 2.0}, {"top_p": 0.9, "repetition_penalty": 1.2}, {"beam": 3}])
def test_a_sample_depends_on_its_seed_and_number_alone(defaults: dict[str, Any], controls: dict[str, Any]) -> None:
    model = build(defaults).eval()
    together = sampled(model, Noise(7, range(6)), max_tokens=30, **controls)
    apart = torch.cat([sampled(model, Noise(7, [index]), max_tokens=30, **controls) for index in range(6)])
    assert torch.equal(together, apart)
    if controls.get("beam", 1) == 1:
        assert not torch.equal(together, sampled(model, Noise(8, range(6)), max_tokens=30, **controls))


def test_more_tokens_begin_with_the_same(defaults: dict[str, Any]) -> None:
    model = build(defaults).eval()
    short, long = (sampled(model, Noise(0, range(4)), max_tokens=count) for count in (5, 20))
    assert torch.equal(long[:, :6], short)


def test_words_that_narrow_the_choice(defaults: dict[str, Any]) -> None:
    model = build(defaults).eval()
    for parameter in model.parameters():
        parameter.data += 0.15 * torch.randn_like(parameter)

    def rows(**controls: Any) -> list[Any]:
        return sampled(model, Noise(0, range(8)), prompt=[[5]], max_tokens=10, **controls).tolist()

    greedy = rows(temperature=0.0)
    assert greedy == rows(top_k=1) == rows(top_p=1e-6) == rows(min_p=1.0) == rows(temperature=1e-4)
    assert greedy == rows(beam=1, temperature=0.0)
    for changed in ({"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.3}, {"temperature": 0.5}, {"repetition_penalty": 9.0}):
        assert rows(**changed) not in (rows(), greedy)


def test_beams_prefer_longer_texts_the_more_the_higher_the_penalty(defaults: dict[str, Any]) -> None:
    model = build(defaults).eval()
    for parameter in model.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)

    def length(penalty: float) -> int:
        prompt = [[token] for token in range(4, VOCAB)]
        rows = sampled(model, Noise(0, range(8)), prompt=prompt, max_tokens=30, beam=4, length_penalty=penalty)
        return int((rows != PAD).sum())

    assert length(0.0) < length(4.0)


def test_the_first_token_of_each_prompt_may_be_one_of_a_few(counter: DecoderLanguageModel) -> None:
    controls = {"temperature": 0.0, "max_tokens": 3}
    drawn = sampled(counter, Noise(0, range(3)), prompt=[[4, 5], [7]], first=[[9, 10], []], **controls)
    assert drawn[0, 2] in (9, 10)
    assert torch.equal(drawn[0], drawn[2])
    assert drawn[1, :4].tolist() == [7, 8, 9, 10]


def test_more_beams_than_tokens_are_refused(defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"beam={VOCAB + 1} is more than the {VOCAB} tokens"):
        sampled(build(defaults).eval(), Noise(0, [0]), max_tokens=2, beam=VOCAB + 1)


@pytest.mark.parametrize("beam", [1, 3])
def test_what_a_sample_holds_is_its_cache(defaults: dict[str, Any], beam: int) -> None:
    model = build(defaults)
    cache = model.decoder.stack.cache(beam, LENGTH)
    assert model.held(model.controls(beam=beam)) == 2 * cache.keys.numel() + beam * VOCAB


@pytest.mark.parametrize(
    ("controls", "complaint"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"min_p": 1.1}, "min_p"),
        ({"repetition_penalty": 0.5}, "repetition_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"beam": 2, "top_k": 5}, "leave out top_k"),
        ({"beam": 2, "temperature": 0.5}, "leave out temperature"),
        ({"temperature": 0.0, "top_p": 0.9}, "leave out top_p"),
        ({"length_penalty": 0.6}, "length_penalty works with beam search alone: add beam="),
    ],
)
def test_words_with_wrong_values(defaults: dict[str, Any], controls: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        sampled(build(defaults), Noise(0, [0]), **controls)


def test_sampling_ends_at_the_end_of_text(defaults: dict[str, Any]) -> None:
    rows = torch.full((8, LENGTH), PAD)
    rows[:, :4] = torch.tensor([5, 6, 7, EOS])
    model = build(defaults)
    fit(model, Batch(rows), 60)
    drawn = sampled(model, Noise(0, range(2)), prompt=[[5]], temperature=0.0, max_tokens=12)
    assert drawn.tolist() == [[5, 6, 7, EOS] + [PAD] * 9] * 2


def test_only_text(defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"cannot model image data\n.*takes items laid out as tokens") as caught:
        DecoderLanguageModel(check("model", DecoderConfig, defaults), DataSpec("image", (1, 8, 8)))
    assert "model=gan" in caught.value.hint
    assert "model=transformer" not in caught.value.hint
