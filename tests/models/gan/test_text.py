"""The GAN of text: what it draws, where gradients go, what it learns, and that its likelihood stays a transformer's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import build_model
from aigc_cli.models.gan.text import TextGAN, TextGANConfig, _through
from aigc_cli.randomness import Noise

SPECIALS = (("pad", 0), ("bos", 1), ("eos", 2), ("unk", 3))
PAD, BOS, EOS, VOCAB, LENGTH = 0, 1, 2, 10, 7
SMALL = {"layers": 1, "heads": 2, "width": 16, "embedding": 16, "filters": 16, "discriminators": 2}


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    model: dict[str, Any] = compose("train", ["model=gan", "data=text", "recipe=null"])["model"]
    return model


def build(defaults: dict[str, Any], **changes: Any) -> TextGAN:
    torch.manual_seed(0)
    spec = DataSpec("text", (LENGTH,), vocab_size=VOCAB, specials=SPECIALS)
    return TextGAN(check("model", TextGANConfig, {**defaults, **SMALL, **changes}), spec)


def counting(n: int = 32) -> Tensor:
    """Rows that count upwards by one, from 4, 5 or 6 on, for 3 to 5 tokens."""
    rows = torch.full((n, LENGTH), PAD)
    for row in range(n):
        first, length = 4 + row % 3, 3 + row % 2
        tokens = [BOS, *range(first, first + length), EOS]
        rows[row, : len(tokens)] = torch.tensor(tokens)
    return rows


def test_gan_on_text_is_its_variant(defaults: dict[str, Any]) -> None:
    assert defaults["name"] == "gan_text"


def test_tokens_are_drawn_as_often_as_their_scores_say_and_end_at_eos(defaults: dict[str, Any]) -> None:
    model = build(defaults).eval()
    with torch.no_grad():
        model.decoder.embedding.weight.mul_(10)
    drawn, _ = model._drawn(torch.full((4000,), BOS), LENGTH - 1)
    with torch.no_grad():
        scores = model.decoder.logits(model.decoder.hidden(torch.tensor([[BOS]])))[0, 0]
    scores[[PAD, BOS]] = -torch.inf  # which no text has
    found = torch.bincount(drawn[:, 1], minlength=VOCAB) / len(drawn)
    assert torch.allclose(found, scores.softmax(-1), atol=0.03)
    ended = (drawn == EOS).cumsum(1) > 0
    after = torch.cat([torch.zeros(len(drawn), 1, dtype=torch.bool), ended[:, :-1]], 1)
    assert bool(after.any())
    assert bool((drawn[after] == PAD).all())


@pytest.mark.parametrize("through", [1, 2, 3])
def test_a_gradient_reaches_back_over_so_many_tokens(defaults: dict[str, Any], through: int) -> None:
    model = build(defaults, through=through).double().eval()
    tokens, noise = model._drawn(torch.tensor([BOS]), 5)
    tokens[tokens <= EOS] = 5  # none has ended
    tokens[0, 0] = BOS
    seen: list[Tensor] = []
    found = model.decoder.logits

    def logits(hidden: Tensor) -> Tensor:
        scores = found(hidden)
        scores.retain_grad()
        seen.append(scores)
        return scores

    model.decoder.logits = logits  # type: ignore[method-assign]
    shares = model._smooth(tokens, noise.double(), 1.0)
    weight = torch.randn(VOCAB, 3, dtype=torch.double)
    rows = _through(weight, tokens[:, 1:], PAD, shares)
    assert torch.allclose(rows, weight[tokens[:, 1:]])  # as if each were one token
    rows[0, 4].sum().backward()
    assert len(seen) == through
    assert seen[0].grad is not None
    reached = torch.stack([scores.grad for scores in seen if scores.grad is not None]).abs().sum((0, 2))
    places = (reached > 0).nonzero().flatten().tolist()
    assert places == ([4] if through == 1 else [0, 1, 2, 3, 4])  # a token follows from all before it


def test_it_learns_to_write_what_only_the_discriminators_have_seen(defaults: dict[str, Any]) -> None:
    model = build(defaults, r1_gamma=1.0, sharpest=3.0, sharpen_steps=100)
    real = Batch(counting())
    rates = {"generator": 5e-3, "discriminator": 5e-3}
    optimizers = {
        name: torch.optim.Adam(model.network(name).parameters(), rate, (0.0, 0.99)) for name, rate in rates.items()
    }
    allowed = {tuple(row) for row in real.content.tolist()}

    def share() -> float:
        drawn, _ = model._drawn(torch.full((256,), BOS), LENGTH - 1)
        return sum(tuple(row) in allowed for row in drawn.tolist()) / 256

    before = share()
    for step in range(100):
        torch.manual_seed(step)
        for phase in model.phases(step):
            for name, optimizer in optimizers.items():
                model.network(name).requires_grad_(name == phase.name)
                optimizer.zero_grad()
            losses = model(phase.name, real)
            losses["loss"].backward()
            optimizers[phase.name].step()
    assert before < 0.02
    assert share() > 0.2


def test_its_likelihood_is_that_of_the_transformer_that_it_began_as(defaults: dict[str, Any]) -> None:
    model, batch = build(defaults).eval(), Batch(counting())
    plain = compose("train", ["model=transformer", "data=text", "recipe=null"])["model"]
    sizes = {key: SMALL[key] for key in ("layers", "heads", "width")}
    other = build_model({**plain, **sizes}, model.spec).eval()
    other.load_state_dict(model.state_dict(), strict=False)
    noise = Noise(0, range(len(batch)))
    assert torch.equal(model.score(batch, noise)["nll"], other.score(batch, noise)["nll"])


def test_a_collapse_is_named(defaults: dict[str, Any]) -> None:
    model, batch = build(defaults).eval(), Batch(counting())
    with torch.no_grad():
        model.decoder.embedding.weight.mul_(40)  # every token is followed by one
        diversity = model.examine(batch, None)["diversity"].item()
    assert diversity < 0.75
    named = dict(model.warnings({"examine/diversity": 0.4}))
    assert "step=" in named["mode collapse"]
    assert not dict(model.warnings({"examine/diversity": 0.9}))


def test_dropout_is_refused(defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"dropout=0\.1: a generator that is played against has none"):
        build(defaults, dropout=0.1)
