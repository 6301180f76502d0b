"""What a model says of held-out items."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_metrics import asked, subject_of
from toy_text import ToyText, documents, windows

from aigc_cli.config.compose import compose
from aigc_cli.data.images import ImageDataset
from aigc_cli.data.open import encoded, items_at
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.evaluation import Evaluation
from aigc_cli.metrics.items import DatasetItems
from aigc_cli.metrics.model_scores import gaps_of
from aigc_cli.metrics.passages import Passages
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.modalities.tokenizers import PAD
from aigc_cli.models.base import Model, build_model
from aigc_cli.models.variational import ACTIVE, FlatVAE, Posterior
from aigc_cli.randomness import Noise

SPEC = DataSpec("image", (1, 4, 4))


class Bounded(Model):
    """Gives a bound that is tighter with more samples, and noisy in a way that depends on the item alone."""

    can = frozenset({"score"})
    layouts = frozenset({"map"})

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, torch.Tensor]:
        base = batch.content.flatten(1).sum(1) + 50
        drawn = noise.normal(samples).mean(dim=1)
        if samples > 1:
            return {"iw_bound": base - 1 + drawn * 0.1, "bits_per_dim": (base - 1) / 16}
        return {"nelbo": base + drawn, "bits_per_dim": base / 16, "kl": drawn * 0 + 3, "reconstruction": base - 3}


class Plain(Model):
    layouts = frozenset({"map"})


class ErrorAlone(Model):
    can = frozenset({"score"})
    layouts = frozenset({"map"})

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, torch.Tensor]:
        return {"mse": batch.content.flatten(1).mean(1)}


class OfCodes(Model):
    """Gives what a model of codes does, which is a bound where it fills masks."""

    can = frozenset({"score"})
    layouts = frozenset({"map"})
    bounds = False

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, torch.Tensor]:
        nats = batch.content.flatten(1).mean(1)
        return {"nelbo_per_code" if self.bounds else "nats_per_code": nats, "code_bits_per_dim": nats / 16}


class OfMaskedCodes(OfCodes):
    bounds = True


def dataset(n: int = 20) -> ImageDataset:
    content = np.random.default_rng(0).integers(0, 256, (n, 1, 4, 4), dtype=np.uint8)
    return ImageDataset(torch.from_numpy(content), None)


def predicted(samples: int = 1, batch_size: int = 7, rows: range = range(20), model: Model | None = None) -> Any:
    items = DatasetItems(dataset(), "test", "noise", rows=rows)
    return asked("likelihood", model or Bounded(SPEC), items, seed=3, batch_size=batch_size, samples=samples)


def test_batches_do_not_matter_and_the_seed_decides() -> None:
    figures = predicted().generated.figures
    assert predicted(batch_size=20).generated.figures == pytest.approx(figures, rel=1e-9)
    assert predicted().generated.figures == figures
    assert figures["elbo"] == -figures["nelbo"]
    assert figures["kl"] == 3


def test_more_samples_add_the_tighter_bound() -> None:
    result = predicted(samples=5)
    figures = result.generated.figures
    assert figures["iw_bound"] < figures["nelbo"]
    assert figures["iw_bits_per_dim"] == pytest.approx(figures["bits_per_dim"] - 1 / 16)
    assert figures["nelbo"] == predicted().generated.figures["nelbo"]


def test_a_bound_says_that_it_is_one() -> None:
    assert predicted().bounds == {"nelbo": "<=", "bits_per_dim": "<=", "elbo": ">="}
    assert predicted(samples=2).bounds["iw_bound"] == "<="
    assert predicted(model=OfCodes(SPEC)).bounds == {}
    assert predicted(model=OfMaskedCodes(SPEC)).bounds == {"nelbo_per_code": "<=", "code_bits_per_dim": "<="}


def test_each_score_says_which_way_is_better() -> None:
    lower = dict.fromkeys(("nelbo", "bits_per_dim", "iw_bound", "iw_bits_per_dim"), "lower")
    assert predicted(samples=4).better == {**lower, "elbo": "higher", "kl": "", "reconstruction": ""}
    for model in (OfCodes(SPEC), OfMaskedCodes(SPEC)):
        assert set(predicted(model=model).better.values()) == {"lower"}


def test_every_score_is_the_mean_over_all_items() -> None:
    rows = range(20)
    batch = encoded(items_at(dataset(), rows), dataset().codec)
    once, more = (Bounded(SPEC).score(batch, Noise(3, rows), samples) for samples in (1, 4))
    wanted = {**once, "elbo": -once["nelbo"], "iw_bound": more["iw_bound"], "iw_bits_per_dim": more["bits_per_dim"]}
    figures = predicted(samples=4).generated.figures  # a batch is of one item, and of seven
    assert figures == pytest.approx({name: float(each.double().mean()) for name, each in wanted.items()}, rel=1e-6)
    assert predicted(samples=4, batch_size=28).generated.figures == pytest.approx(figures, rel=1e-6)


def test_each_item_counts_once() -> None:
    whole = predicted().generated.figures["reconstruction"]
    halves = [predicted(rows=rows).generated.figures["reconstruction"] for rows in (range(5), range(5, 20))]
    assert whole == pytest.approx((5 * halves[0] + 15 * halves[1]) / 20, rel=1e-6)


@pytest.mark.parametrize("kind", [Plain, ErrorAlone])
def test_a_model_without_one_says_so(kind: type[Model]) -> None:
    with pytest.raises(ConfigError, match="no likelihood"):
        predicted(model=kind(SPEC))


def test_a_score_that_is_not_finite_gives_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bounded, "score", lambda *_: {"nelbo": torch.tensor([float("nan")])})
    with pytest.raises(DataError, match="not finite"):
        predicted()


DATASET = ToyText(documents(20, 12))


def filled(model: Any, dataset: ToyText = DATASET, batch_size: int | None = None, seed: int = 0) -> Any:
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
    result = filled(model)
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
    whole, parts, other = filled(model), filled(model, batch_size=3), filled(model, seed=1)
    assert whole.facts["masks"] == parts.facts["masks"] != other.facts["masks"]
    assert whole.generated.figures == parts.generated.figures


def test_a_model_without_gaps_says_so() -> None:
    class Plain(Model):
        layouts = frozenset({"tokens"})

    with pytest.raises(ConfigError, match="fills no gaps"):
        subject_of(Plain(DATASET.spec), DATASET).source("infill")


DATA = ToyText(windows(40, 6))
#: The deviations that each latent's posterior means are scaled to.
SCALES = torch.tensor([3.0, 1.01 * ACTIVE**0.5, 0.99 * ACTIVE**0.5, 0.0])


class Latent(FlatVAE):
    """Gives each item means that vary over the items of :data:`DATA` as much as :data:`SCALES` says, about 5."""

    layouts = frozenset({"tokens"})
    can = frozenset({"encode", "decode", "posterior"})
    dimensions = len(SCALES)

    def posterior(self, batch: Batch) -> Posterior:
        first = DATA.batch.content[:, 1].double()
        placed = (batch.content[:, 1] - first.mean()) / first.std()
        mean = 5 + placed[:, None] * SCALES
        return Posterior(mean, torch.zeros_like(mean))

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        raise NotImplementedError


class Unsure(Model):
    layouts = frozenset({"tokens"})


def active(model: Model, rows: range = range(40), batch_size: int | None = None) -> Any:
    return asked("active_units", model, Passages(DATA, "test", "toy", rows=rows), batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [None, 1, 7])
def test_units_whose_means_vary_are_active(batch_size: int | None) -> None:
    result = active(Latent(DATA.spec), batch_size=batch_size)
    assert result.generated.figures == {"active_units": 2}
    assert result.generated.n == result.n_real == 40
    assert "of 4 latent dimensions" in result.facts["signature"]


def test_what_gives_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="Unsure has no posterior"):
        active(Unsure(DATA.spec))
    with pytest.raises(DataError, match="at least two"):
        active(Latent(DATA.spec), range(1))
    monkeypatch.setattr(f"{__name__}.SCALES", SCALES * torch.nan)
    with pytest.raises(DataError, match="not finite"):
        active(Latent(DATA.spec))
