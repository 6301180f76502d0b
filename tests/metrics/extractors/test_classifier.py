"""The dataset's own classifier: trained once, the same each time, kept, and honest about what it cannot serve."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from aigc_cli.config.compose import compose
from aigc_cli.data.cache import cache_dir
from aigc_cli.data.images import ImageDataset
from aigc_cli.data.open import Splits
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.extractors import classifier, learned
from aigc_cli.metrics.extractors.base import PlainConfig, Sources
from aigc_cli.metrics.extractors.classifier import Classifier
from aigc_cli.metrics.views import build_extractor
from aigc_cli.modalities.image_network import ImageNetwork
from aigc_cli.runs import Run
from aigc_cli.training.tokenizer import with_tokenizer

Blobs = Callable[..., ImageDataset]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(classifier, "_FEWEST", 2_000)
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path))
    return tmp_path


def sources(blobs: Blobs, **kind: object) -> Sources:
    parts = {"train": blobs(240, 0, **kind), "test": blobs(60, 1, **kind), "val": blobs(30, 2, **kind)}
    return Sources(splits=Splits("blobs", parts.__getitem__))  # type: ignore[arg-type]


def test_it_learns_and_says_how_well(blobs: Blobs, capsys: pytest.CaptureFixture[str]) -> None:
    extractor = Classifier(PlainConfig(name="classifier"), sources(blobs))
    assert extractor.name == "blobs-cnn"
    assert extractor.facts["accuracy"] > 0.9
    assert extractor.facts["accuracy_on"] == "test (60)"
    assert "accuracy" in capsys.readouterr().err
    layers = extractor(blobs(10, 3).resident().content)  # type: ignore[union-attr]
    assert {key: tuple(rows.shape) for key, rows in layers.items()} == {"features": (10, 128), "logits": (10, 2)}
    assert all(extractor.widths[key] == rows.shape[1] for key, rows in layers.items())


def test_it_is_kept_and_the_same_when_trained_again(blobs: Blobs, quick: Path) -> None:
    before = torch.random.get_rng_state()
    first = build_extractor("classifier", sources(blobs))
    assert torch.equal(before, torch.random.get_rng_state())  # a run that validates must not notice
    (file,) = (quick / "classifiers").iterdir()
    assert file.name.startswith("blobs-cnn-v2-")
    written = file.stat().st_mtime_ns
    assert Classifier(PlainConfig(name="classifier"), sources(blobs)).checksum == first.checksum
    assert file.stat().st_mtime_ns == written
    file.unlink()
    assert Classifier(PlainConfig(name="classifier"), sources(blobs)).checksum == first.checksum


def test_one_whose_network_has_another_edition_is_not_taken_for_it(
    blobs: Blobs, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build_extractor("classifier", sources(blobs))
    monkeypatch.setattr(ImageNetwork, "edition", 1, raising=False)
    after = build_extractor("classifier", sources(blobs))
    assert [each.facts["architecture"] for each in (before, after)] == ["cnn-v2", "cnn-v2.1"]
    assert len(list((quick / "classifiers").iterdir())) == 2


def test_one_that_cannot_be_kept_is_used_all_the_same(
    blobs: Blobs, quick: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Classifier(PlainConfig(name="classifier"), sources(blobs))
    (file,) = (quick / "classifiers").iterdir()
    file.unlink()

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(learned, "write_atomically", full)
    assert Classifier(PlainConfig(name="classifier"), sources(blobs)).checksum == first.checksum
    said = capsys.readouterr().err
    assert f"could not be kept, and will be trained again next time: cannot write {file}: No space left" in said


def test_other_data_gets_a_classifier_of_its_own(blobs: Blobs, quick: Path) -> None:
    a = Classifier(PlainConfig(name="classifier"), sources(blobs))
    b = Classifier(PlainConfig(name="classifier"), sources(blobs, channels=1))
    assert a.checksum != b.checksum
    assert len(list((quick / "classifiers").iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_broken_file_is_trained_again(
    blobs: Blobs, quick: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Classifier(PlainConfig(name="classifier"), sources(blobs))
    (file,) = (quick / "classifiers").iterdir()
    file.write_bytes(content)
    assert Classifier(PlainConfig(name="classifier"), sources(blobs)).checksum == first.checksum
    assert "is broken" in capsys.readouterr().err


def test_data_without_labels_is_told_what_works(blobs: Blobs) -> None:
    with pytest.raises(ConfigError, match="has none") as caught:
        Classifier(PlainConfig(name="classifier"), sources(blobs, labelled=False))
    assert "learns without labels" in caught.value.hint
    with pytest.raises(ConfigError, match="no dataset is named") as caught:
        Classifier(PlainConfig(name="classifier"), Sources())
    assert "data=NAME" in caught.value.hint


def test_labels_that_mean_nothing_give_no_features_and_are_tried_once(
    blobs: Blobs, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = ImageDataset(blobs(240).resident().content, torch.arange(240) // 2 % 2, ("a", "b"))  # type: ignore[union-attr]
    test = ImageDataset(blobs(60, 1).resident().content, torch.arange(60) // 2 % 2, ("a", "b"))  # type: ignore[union-attr]
    refused = Sources(splits=Splits("x", {"train": noise, "test": test}.__getitem__))  # type: ignore[arg-type]
    for trained in (True, False):
        with pytest.raises(DataError, match="cannot tell the classes apart"):
            Classifier(PlainConfig(name="classifier"), refused)
        assert ("training x-cnn" in capsys.readouterr().err) is trained


def test_words_of_a_run_do_not_change_what_is_learnt(blobs: Blobs) -> None:
    def checksum(**about: object) -> str:
        held = blobs(240).resident()
        assert held is not None
        train = ImageDataset(held.content, held.labels, ("top", "bottom"), **about)
        parts = {"train": train, "test": blobs(60, 1)}
        found = Classifier(PlainConfig(name="classifier"), Sources(splits=Splits("blobs", parts.__getitem__)))  # type: ignore[arg-type]
        next((cache_dir() / "classifiers").iterdir()).unlink()
        return found.checksum

    plain, always = checksum(), checksum(views=["flip"], usual=["flip"])
    assert checksum(views=["flip", "crop"]) == plain != always
    assert checksum(usual=["flip"]) == always


@pytest.mark.slow
def test_digits(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("AIGC_CACHE", str(quick))
    digits = {"name": "digits", "size": 16, "flip": False, "val_fraction": 0.1, "test_fraction": 0.2}
    extractor = Classifier(PlainConfig(name="classifier"), Sources(splits=Splits.of_config(digits)))
    assert extractor.name == "digits-cnn"
    assert extractor.facts["accuracy"] > 0.97


def test_for_a_run_on_codes_it_learns_from_the_same_items_as_for_any_other(tokenizer_run: Run) -> None:
    """It is kept by the data alone, so that it must not depend on how the first run that asks for it augments."""
    words = ["model=transformer", "data=digits", "data.size=8", "data.tokens=latest", "data.flip=true"]
    extractor = Classifier(
        PlainConfig(name="classifier"),
        Sources(splits=Splits.of_config(with_tokenizer(compose("train", words))["data"])),
    )
    content = extractor.train.resident().content[:20]  # type: ignore[union-attr]
    assert torch.equal(extractor.train.augment(content, torch.zeros(20, 8)), content)
