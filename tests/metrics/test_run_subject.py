"""A run's model as what is measured: what suits it, and what it makes."""

from typing import Any

import pytest
import torch
from toy_metrics import subject_of
from toy_text import ToyText, documents

from aigc_cli.config.compose import compose
from aigc_cli.data.images import ImageDataset
from aigc_cli.data.open import Splits
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.evaluate import sources_of
from aigc_cli.metrics.passages import Passages
from aigc_cli.metrics.subject import FilesSubject, Source
from aigc_cli.modalities.text import Texts
from aigc_cli.models.base import Model, build_model


def test_metrics_that_do_not_suit_a_subject_are_refused_by_what_they_need(blobs: Any) -> None:
    images, texts = blobs(8), ToyText(documents(8, 9))

    class Plain(Model):
        layouts = frozenset({"map", "tokens"})

    for dataset, name, says in (
        (images, "bleu", "bleu does not measure images"), (images, "likelihood", "gives no likelihood"),
        (images, "reconstruction", "cannot reconstruct"), (images, "infill", "fills no gaps"),
        (texts, "fd", "fd does not measure texts"), (texts, "active_units", "no posterior"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=says):
            sources_of([name], subject_of(Plain(dataset.spec), dataset))
    with pytest.raises(ConfigError, match="likelihood needs a model"):
        sources_of(["likelihood"], FilesSubject(Texts(["a"])))


def test_samples_beside_data_with_rare_classes_have_each_as_often_as_it() -> None:
    labels = torch.arange(20) % 4 // 3  # of four, three are of the first
    dataset = ImageDataset(torch.zeros(20, 1, 8, 8, dtype=torch.uint8), labels, ("often", "rarely"))
    tiny = ["model.network=mlp", "model.hidden=4", "model.latent=2", "model.embedding=2"]
    model: Any = build_model(compose("train", ["model=gan", *tiny])["model"], dataset.spec).eval()
    made = subject_of(model, dataset).fake(8, 0)
    (batch,) = made.batches(8)
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 0, 1, 0, 0, 0, 1, 0]
    assert made.facts["classes"] == "as in the training split"
    assert made.notes
    subject = subject_of(model, dataset, class_="rarely")
    assert torch.cat([part.content for part in subject.fake(8, 0).batches(8)]).shape == (8, 1, 8, 8)
    assert "classes" not in subject.fake(8, 0).facts
    assert model.labels(range(4), model.controls(), "cpu").tolist() == [0, 1, 0, 1], "which is how anyone else draws"

    def gone(split: str) -> ImageDataset:
        raise DataError("there is no data", "")

    subject = subject_of(model, dataset)
    subject.splits = Splits("toy", gone)
    (batch,) = subject.fake(4, 0).batches(4)
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, 0, 1], "statistics in a file may be all that is left of the data"


def test_a_model_that_translates_is_measured_on_translations() -> None:
    pairs = ToyText(documents(6, 9), documents(6, 9, seed=3))
    torch.manual_seed(0)
    small = ["model=seq2seq", "model.layers=1", "model.heads=2", "model.width=16"]
    model: Any = build_model(compose("train", small)["model"], pairs.spec).eval().requires_grad_(False)
    subject = subject_of(model, pairs, temperature=1.0)
    subject.items = items = Passages(pairs, "test", "toy")
    assert {subject.source(name) for name in ("bleu", "distinct")} == {
        Source("pairs", "translate", True), Source("fake", "translate", True)
    }  # fmt: skip
    with pytest.raises(ConfigError, match="texts that stand alone"):
        subject.source("continuation")
    made = subject.pairs("translate", items, 0)
    assert made.texts("source") == items.texts()
    assert set(made.beside) == {"source copied", "random training target"}
