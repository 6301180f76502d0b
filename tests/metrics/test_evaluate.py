"""Streams through metrics, whatever is measured: a model of any modality, texts, or files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from toy_metrics import subject_of

from aigc_cli import registry
from aigc_cli.config.compose import compose
from aigc_cli.data.open import Splits
from aigc_cli.errors import DataError
from aigc_cli.metrics.evaluate import Sides, evaluate
from aigc_cli.metrics.extractors import classifier
from aigc_cli.metrics.extractors.base import Sources
from aigc_cli.metrics.items import DatasetItems, SampledItems
from aigc_cli.metrics.record import Record
from aigc_cli.metrics.subject import FilesSubject
from aigc_cli.metrics.views import Views
from aigc_cli.modalities.base import Batch, DataSpec, modality
from aigc_cli.modalities.text import Texts
from aigc_cli.models.latent import LatentModel
from aigc_cli.randomness import Noise

PLUGIN = Path(__file__).parents[1] / "plugins" / "signals"
TEXT_VIEWS = Views(Sources())


def configs(*names: str, **keys: Any) -> dict[str, dict[str, Any]]:
    words = [f"metric={','.join(names)}", *(f"metric.{key.replace('__', '.')}={value}" for key, value in keys.items())]
    found: dict[str, dict[str, Any]] = compose("eval", words)["metric"]
    return found


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Splits]:
    """Data of a modality that the package does not have."""
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path))
    monkeypatch.syspath_prepend(str(PLUGIN))
    for kind in ("data", "extractor", "metric"):  # so that they stay when what comes now is forgotten
        registry.load(kind)
    monkeypatch.setattr(registry, "_plugins", dict(registry._plugins))
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    monkeypatch.setattr(classifier, "_FEWEST", 4_000)
    registry.import_plugin("signals")
    values = {"name": "signals", "count": 400, "length": 32, "val_fraction": 0.1, "test_fraction": 0.2}
    yield Splits.of_config(values)
    modality.cache_clear()


def drawn(content: Tensor, labels: Tensor, spec: DataSpec) -> SampledItems:
    return SampledItems(lambda: iter([Batch(content, labels)]), len(content), spec, called="some signals")


def test_a_modality_from_outside_has_all_that_looks_at_features(signals: Splits) -> None:
    metrics = configs("fd", "prdc", "memorization", "class_accuracy", "cs", "vendi")
    sources = Sources(splits=Splits("signals", signals.__getitem__))
    whole, test = signals["val"].resident(), DatasetItems(signals["test"], "test", "signals")
    assert whole is not None
    assert whole.labels is not None
    made = drawn(whole.content, whole.labels, signals["val"].spec)
    records = evaluate(
        Sides(FilesSubject(made), DatasetItems(signals["train"], "train", "signals"), test.take(len(made)), test),
        metrics, Views(sources),
    )  # fmt: skip
    scores = {name: value for record in records for name, value in record.generated.figures.items()}
    assert [record.metric for record in records] == list(metrics)
    assert scores["class_accuracy"] > 0.5
    assert scores["fd"] < 10
    assert scores["copies_pixels"] < 0.2
    assert {record.extractor.name for record in records if record.extractor} == {"signals-cnn"}
    assert all(record.baseline is not None for record in records)
    assert records[0].plain_json()["extractor"]["preprocessing"] == "as the codec of its data encodes it"


class Halves(LatentModel):
    """Draws noise of a seed, and halves what it is given."""

    layouts = frozenset({"map"})
    can = frozenset({"sample", "latents", "encode", "decode"})

    def latents(self, noise: Any, controls: Any) -> Tensor:
        return noise.normal(self.values).clamp(-1, 1)

    def encode(self, batch: Batch) -> Tensor:
        return batch.content.flatten(1) / 2

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return latents.reshape(-1, *self.spec.shape)


def run(metrics: dict[str, Any], model: Any, dataset: Any, drawn: int, **more: Any) -> list[Record]:
    reference, items = DatasetItems(dataset, "train", "blobs"), DatasetItems(dataset, "test", "blobs")
    sides = Sides(subject_of(model, dataset), reference, items=items, drawn=drawn)
    return evaluate(sides, metrics, Views(Sources()), **more)


@pytest.mark.usefixtures("pixels")
def test_each_stream_is_drawn_once_and_several_seeds_are_averaged(blobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = blobs(40, channels=1)
    model = Halves(dataset.spec)
    seeds, original = [], Halves.latents

    def latents(self: Halves, noise: Noise, controls: Any) -> Tensor:
        seeds.append(noise.seed)
        return original(self, noise, controls)

    monkeypatch.setattr(Halves, "latents", latents)
    metrics = configs("fd", "vendi", "reconstruction", fd__extractor="pixels", vendi__extractor="pixels")
    records = {one.metric: one for one in run(metrics, model, dataset, n=12, drawn=20, seed=5, seeds=2)}
    assert seeds == [5, 6]
    assert len(records["fd"].each) == len(records["vendi"].each) == 2
    assert records["fd"].made["seeds"] == 2
    assert records["reconstruction"].each == ()
    assert records["reconstruction"].generated.n == records["reconstruction"].n_real == 12
    assert records["reconstruction"].made["reconstructed"] == "test"
    assert not records["vendi"].compares
    assert records["vendi"].plain_json()["real"] == {"n": 0}


@pytest.mark.usefixtures("pixels")
def test_what_is_known_is_not_drawn_again(blobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = blobs(40, channels=1)
    monkeypatch.setattr(Halves, "latents", lambda *_: pytest.fail("it was drawn"))
    announced: list[Record] = []

    def known(record: Record) -> bool:
        announced.append(record)
        return True

    metrics = configs("vendi", vendi__extractor="pixels")
    assert run(metrics, Halves(dataset.spec), dataset, drawn=20, known=known) == []
    assert announced[0].generated.n == 20
    assert announced[0].generated.figures == {}


def test_texts_stand_beside_their_references() -> None:
    made = Texts(["the cat sat", "a dog"], {"lines_of": "a.txt"}, called="2 lines of a.txt")
    real = Texts(["the cat sat", "the dog"], {"lines_of": "b.txt"}, called="2 lines of b.txt")
    records = evaluate(Sides(FilesSubject(made, real), real), configs("bleu", "distinct", "copied"), TEXT_VIEWS)
    stamps = [record.plain_json() for record in records]
    assert [stamp["real"] for stamp in stamps] == [{"n": n, "lines_of": "b.txt"} for n in (2, 0, 2)]
    assert [stamp["generated"] for stamp in stamps] == [{"n": 2, "lines_of": "a.txt"}] * 3
    assert records[0].called == ("2 lines of a.txt", "2 lines of b.txt")
    assert all(record.extractor is None and record.plain_json()["dtype"] is None for record in records)
    with pytest.raises(DataError, match="do not pair up"):
        evaluate(Sides(FilesSubject(made, real.take(1))), configs("bleu"), TEXT_VIEWS)


def test_others_in_the_place_of_texts_are_measured_alike() -> None:
    written = Texts(["a b c d", "e f g h", "i j k l"], beside={"copies": ["a b c d", "a b c d"]})
    (record,) = evaluate(Sides(FilesSubject(written)), configs("distinct"), TEXT_VIEWS)
    assert record.generated.figures["distinct1"] == 1
    assert record.beside["copies"].figures["distinct1"] == 0.5
    assert record.at_baseline_n is not None
    assert record.at_baseline_n.n == record.beside["copies"].n == 2
