"""Held-out text, and its likelihood: every target once, whatever the batches, the tokens or the model."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from toy_metrics import asked
from toy_text import ToyText, documents

from aigc_cli.config.compose import compose
from aigc_cli.data import open_dataset
from aigc_cli.data.base import Dataset
from aigc_cli.data.open import items_at
from aigc_cli.errors import ConfigError
from aigc_cli.metrics.passages import Passages, check_readable
from aigc_cli.modalities.base import Batch
from aigc_cli.modalities.tokenizers import PAD
from aigc_cli.models.base import Model, build_model
from aigc_cli.randomness import Noise

TEXT = "naïve cats, 日本, see the moon.\nAnd the moon sees cats; " * 40


def opened(folder: Path, kind: str, split: str = "val", **words: object) -> Dataset:
    (folder / "text.txt").write_text(TEXT)
    given = {"root": folder / "text.txt", "tokenizer.kind": kind, "tokenizer.vocab_size": 280, "context": 7, **words}
    data = compose("train", ["model=transformer", "data=text", *(f"data.{k}={v}" for k, v in given.items())])["data"]
    return open_dataset(data, split)  # type: ignore[arg-type]


def built(name: str, dataset: Dataset, *words: str) -> Any:
    torch.manual_seed(0)
    small = ["model.layers=1", "model.heads=2", "model.width=16", *words]
    return build_model(compose("train", [f"model={name}", *small])["model"], dataset.spec).eval().requires_grad_(False)


def passages(dataset: Dataset, n: int | None = None) -> Passages:
    return Passages(dataset, "val", "toy", n)


def measured(model: Any, some: Passages, batch_size: int | None = None, samples: int = 1) -> Any:
    return asked("likelihood", model, some, batch_size=batch_size, samples=samples)


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_it_is_the_sum_over_every_target(tmp_path: Path, kind: str) -> None:
    dataset = opened(tmp_path, kind)
    model = built("transformer", dataset)
    held = TEXT[-len("".join(passages(dataset).joined)) :]
    assert passages(dataset).joined == held  # the end of the text
    stream = dataset.codec.tokenizer.encode(held).tolist()  # type: ignore[attr-defined]
    nats, targets = 0.0, 0
    for start in range(0, len(stream) - 1, 7):
        window = torch.tensor([stream[start : start + 8]])
        logits = model.decoder.logits(model.decoder.hidden(window[:, :-1]))[0]
        nats += cross_entropy(logits.double(), window[0, 1:], reduction="sum").item()
        targets += window.shape[1] - 1
    assert targets == len(stream) - 1
    figures = measured(model, passages(dataset)).generated.figures
    rest = dataset.codec.tokenizer.decode(stream[1:]) if kind == "char" else held[1:]  # type: ignore[attr-defined]
    assert figures["nll_per_token"] == pytest.approx(nats / targets, rel=1e-6)
    assert figures["perplexity"] == pytest.approx(math.exp(nats / targets), rel=1e-6)
    assert figures["nll_per_character"] == pytest.approx(nats / len(rest), rel=0.02)  # a first token may be longer
    size = len(held.encode()) - dataset.codec.tokenizer.size_of(stream[0])[1]  # type: ignore[attr-defined]
    assert figures["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-6)


def test_batches_do_not_matter(tmp_path: Path) -> None:
    dataset = opened(tmp_path, "char")
    for name in ("transformer", "bert"):
        model = built(name, dataset)
        figures = measured(model, passages(dataset), batch_size=5).generated.figures
        assert measured(model, passages(dataset)).generated.figures == pytest.approx(figures, rel=1e-6)


def test_texts_of_their_own_are_summed_whatever_their_length() -> None:
    dataset = ToyText(documents(23, 9))
    model = built("transformer", dataset)
    figures = measured(model, passages(dataset), batch_size=4).generated.figures
    scores = model.score(Batch(documents(23, 9)), Noise(0, range(23)))
    targets = int((documents(23, 9)[:, 1:] != PAD).sum())
    assert figures["nll_per_token"] == pytest.approx(float(scores["nll"].sum()) / targets, rel=1e-6)
    letters = targets - 23  # each ends with a token that is no text
    assert figures["bits_per_byte"] == pytest.approx(float(scores["nll"].sum()) / letters / math.log(2), rel=1e-6)


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_a_part_of_a_split_knows_its_extent(tmp_path: Path, kind: str) -> None:
    dataset = opened(tmp_path, kind)
    whole = passages(dataset)
    counted = Passages(dataset, "val", "toy", rows=[*whole.rows[1:], 0]).extent  # another order: counted, not looked up
    assert (counted.targets, counted.characters, counted.bytes) == (
        dataset.extent.targets, dataset.extent.characters, dataset.extent.bytes,  # type: ignore[attr-defined]
    )  # fmt: skip
    few = passages(dataset, 3)
    assert few.extent.targets == int((items_at(dataset, few.rows).content[:, 1:] != PAD).sum())
    assert few.rows == passages(dataset, 3).rows
    assert len(passages(dataset, 10_000)) == len(dataset)


def test_a_part_of_a_split_takes_unseen_characters_to_be_as_long_as_those_of_the_split(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("abcd\n" * 40)
    (tmp_path / "val.txt").write_text("abécdé\n" * 40)
    words = {"root": tmp_path, "tokenizer.kind": "char", "context": 7, "test_fraction": 0.1}
    data = compose("train", ["model=transformer", "data=text", *(f"data.{k}={v}" for k, v in words.items())])["data"]
    part = passages(open_dataset(data, "val"), 5)
    assert (part.extent.targets, part.extent.characters) == (35, 35)
    assert part.extent.bytes == 35 + 10, "é has two bytes, and there are two in each line of seven"


def test_the_fingerprint_is_of_the_text_and_not_of_its_tokens(tmp_path: Path) -> None:
    facts = [passages(opened(tmp_path, kind, context=context)).facts for kind, context in (("char", 7), ("bpe", 5))]
    assert facts[0]["fingerprint"] == facts[1]["fingerprint"]
    assert facts[0]["tokenizer"] != facts[1]["tokenizer"]
    assert (facts[0]["context"], facts[1]["context"]) == (7, 5)
    assert passages(opened(tmp_path, "char"), 3).facts["fingerprint"] != facts[0]["fingerprint"]


def test_a_bound_lies_above_what_it_bounds(tmp_path: Path) -> None:
    """Of a model that knows only how often each token comes, the bound is the likelihood itself."""
    dataset = opened(tmp_path, "char")
    bert = built("bert", dataset)
    logits = torch.randn(dataset.spec.vocab_size or 0, generator=torch.Generator().manual_seed(0))
    bert.encoder.logits = lambda hidden: logits.expand(*hidden.shape[:-1], -1)
    targets = torch.cat([batch.content[:, 1:].flatten() for batch in passages(dataset).batches(64)])
    exact = cross_entropy(logits.expand(len(targets), -1), targets, ignore_index=PAD).item()
    result = measured(bert, passages(dataset), samples=8)
    assert result.generated.figures["nll_per_token"] == pytest.approx(exact, rel=0.02)
    assert set(result.bounds.values()) == {"<="}


def test_a_guesser_is_measured_on_some_of_the_tokens(tmp_path: Path) -> None:
    dataset = opened(tmp_path, "char")
    model = built("bert", dataset, "model.objective=mlm")
    rows = range(len(dataset))
    scores = model.score(items_at(dataset, rows), Noise(0, rows))
    figures = measured(model, passages(dataset)).generated.figures
    masked = float(scores["tokens"].sum())
    assert figures["masked_nll"] == pytest.approx(float(scores["masked_nll"].sum()) / masked)
    hits = float((scores["masked_accuracy"] * scores["tokens"]).sum())
    assert figures["masked_accuracy"] == pytest.approx(hits / masked)


class Plain(Model):
    layouts = frozenset({"tokens"})


class Latent(Model):
    """Has a bound, a tighter one of several samples, and a divergence."""

    can = frozenset({"score"})
    layouts = frozenset({"tokens"})

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, torch.Tensor]:
        tokens = (batch.content[:, 1:] != PAD).sum(1).double()
        name, nats = ("iw_bound", 2 * tokens) if samples > 1 else ("nelbo", 3 * tokens)
        return {f"{name}_per_token": nats / tokens, name: nats, "tokens": tokens, "kl": tokens * 0 + 5}


def test_any_model_fits_that_names_its_scores_so(tmp_path: Path) -> None:
    dataset = opened(tmp_path, "byte")
    result = measured(Latent(dataset.spec), passages(dataset), samples=4)
    figures = result.generated.figures
    assert (figures["nll_per_token"], figures["iw_nll_per_token"], figures["kl"]) == (3, 2, 5)
    assert figures["iw_bits_per_byte"] == pytest.approx(2 / math.log(2))
    assert figures["iw_perplexity"] == pytest.approx(math.exp(2))
    assert set(result.bounds) == set(figures) - {"kl"}
    with pytest.raises(ConfigError, match="no likelihood"):
        measured(Plain(dataset.spec), passages(dataset))


class Uneven(Model):
    """Pays more for each token of a longer text, so that no mean of means is the mean."""

    can = frozenset({"score"})
    layouts = frozenset({"tokens"})

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, torch.Tensor]:
        tokens = (batch.content[:, 1:] != PAD).sum(1).double()
        name, nats = ("iw_bound", tokens**2 / 2) if samples > 1 else ("nelbo", tokens**2)
        return {f"{name}_per_token": nats / tokens, name: nats, "tokens": tokens, "kl": tokens**3}


def test_sums_are_over_the_whole_split() -> None:
    items = documents(23, 9)
    dataset = ToyText(items)
    tokens = (items[:, 1:] != PAD).sum(1).double()
    assert len(tokens.unique()) > 2
    text = Passages(dataset, "val", "toy")
    figures = measured(Uneven(dataset.spec), text, batch_size=4, samples=3).generated.figures
    for prefix, nats in (("", tokens**2), ("iw_", tokens**2 / 2)):
        whole = float(nats.sum())
        assert figures[f"{prefix}nll_per_token"] == pytest.approx(whole / float(tokens.sum()))
        assert figures[f"{prefix}nll_per_character"] == pytest.approx(whole / text.extent.characters)
        assert figures[f"{prefix}bits_per_byte"] == pytest.approx(whole / math.log(2) / text.extent.bytes)
        assert figures[f"{prefix}perplexity"] == pytest.approx(math.exp(whole / float(tokens.sum())))
    assert figures["kl"] == pytest.approx(float((tokens**3).mean()))


def test_each_score_says_which_way_is_better(tmp_path: Path) -> None:
    dataset = opened(tmp_path, "char")
    better = measured(Latent(dataset.spec), passages(dataset), samples=4).better
    names = ("nll_per_token", "nll_per_character", "perplexity", "bits_per_byte")
    lower = [f"{prefix}{name}" for prefix in ("", "iw_") for name in names]
    assert better == {**dict.fromkeys(lower, "lower"), "kl": ""}
    guesser = measured(built("bert", dataset, "model.objective=mlm"), passages(dataset))
    assert guesser.better == {"masked_nll": "lower", "masked_accuracy": "higher"}


def test_text_that_does_not_fit_the_model(tmp_path: Path) -> None:
    short, long, other = opened(tmp_path, "char"), opened(tmp_path, "char", context=9), opened(tmp_path, "byte")
    check_readable(short, long.spec, "it")
    for dataset, spec, named in ((long, short.spec, "up to 10 tokens"), (other, short.spec, "260 different tokens")):
        with pytest.raises(ConfigError, match=named):
            check_readable(dataset, spec, "it")


def test_the_longest_come_first_by_their_longer_side() -> None:
    target, source = documents(6, 7), documents(6, 9, seed=3)
    pairs = passages(ToyText(target, source))
    lengths = np.maximum((target != PAD).sum(1).numpy(), (source != PAD).sum(1).numpy())
    assert lengths[pairs.by_length()].tolist() == sorted(lengths.tolist(), reverse=True)
    assert pairs.tokens("source")[2] == [token for token in source[2].tolist() if token != PAD]
