"""What a tokenizer allows at best: told before a training on its codes, with a warning of one that hardly uses them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aigc_cli.config.compose import compose
from aigc_cli.data.open import Splits
from aigc_cli.errors import DataError
from aigc_cli.metrics import ceiling as module
from aigc_cli.metrics.ceiling import ceiling, through_tokenizer, usage
from aigc_cli.runs import Run
from aigc_cli.training.tokenizer import with_tokenizer

CPU = torch.device("cpu")
WORDS = ["model=transformer", "data=digits", "data.size=8", "data.tokens=latest"]


@pytest.fixture
def splits(tokenizer_run: Run) -> Splits:
    return Splits.of_config(with_tokenizer(compose("train", WORDS))["data"])


def test_it_is_of_held_out_items_as_the_tokenizer_gives_them_back(splits: Splits) -> None:
    made = through_tokenizer(splits, CPU)
    assert made is not None
    assert (len(made), made.spec.raw) == (359, (1, 8, 8))
    content = torch.cat([batch.content for batch in made.batches(100)])
    codec, real = splits["test"].codec, splits["test"].resident()
    assert real is not None
    assert torch.equal(content, codec.decode(codec.encode(real.content)))
    assert made.called.endswith("as reconstructed by the tokenizer")


def test_data_without_a_tokenizer_has_none() -> None:
    splits = Splits.of_config(compose("train", ["data=digits"])["data"])
    assert through_tokenizer(splits, CPU) is None
    assert ceiling(splits, CPU) == []


def test_codes_that_are_hardly_used_are_told(
    splits: Splits, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_measured", lambda *_, **__: "reconstructions have fd 1")
    assert usage(splits, CPU) > 0.5
    assert ceiling(splits, CPU)[0].endswith("in use; reconstructions have fd 1")
    assert "of its 16 codes" not in capsys.readouterr().err
    codec = splits["train"].codec
    codec.model.quantizer.sums[1:] = 100  # type: ignore[attr-defined]  # nothing is near all codes but one
    assert usage(splits, CPU) == 1 / 16
    ceiling(splits, CPU)
    assert "the tokenizer uses 6% of its 16 codes" in capsys.readouterr().err


def test_what_cannot_be_measured_stops_no_training(
    splits: Splits, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> str:
        raise DataError("the labels say nothing")

    monkeypatch.setattr(module, "_measured", broken)
    assert ceiling(splits, CPU)[0].endswith("reconstructions were not measured")
    assert "not known: the labels say nothing" in capsys.readouterr().err


def test_of_a_handful_of_items_nothing_is_said_of_codes(
    splits: Splits, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_measured", lambda *_, **__: "reconstructions have fd 1")
    monkeypatch.setattr(module, "COUNTED", 15)  # of 4 codes each, for 16 that there are
    splits["train"].codec.model.quantizer.sums[1:] = 100  # type: ignore[attr-defined]
    ceiling(splits, CPU)
    assert "of its 16 codes" not in capsys.readouterr().err


def test_before_a_brief_run_nothing_learns_to_measure_it(
    splits: Splits,
    small_classifier: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("aigc_cli.metrics.extractors.learned.cache_dir", lambda: tmp_path / "empty")
    unmeasured = "in use; reconstructions were not measured, which aigc eval does"
    assert ceiling(splits, CPU, brief=True)[0].endswith(unmeasured)
    assert capsys.readouterr().err == ""
    measured = ceiling(splits, CPU)[0]
    assert measured.endswith("samples will hardly do better")
    assert ceiling(splits, CPU, brief=True) == [measured], "what is kept need not learn"
