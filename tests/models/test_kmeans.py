"""The tokenizer of sound that needs no run: what is silent costs no code, and levels leave less."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models import kmeans
from aigc_cli.models.kmeans import KMeansConfig, KMeansTokenizer
from aigc_cli.training import kmeans as fitting

SPEC = DataSpec("audio", (1, 8, 10), content=(1, 1280), rate=8000, padding=-1.0)


def spectrograms() -> Tensor:
    """Forty, of which each is as long as its number says, in patches of three frames, of which the last is part."""
    made = torch.from_numpy(np.random.default_rng(0).uniform(-0.9, 0.9, (40, 1, 8, 10))).float()
    for row in range(40):
        made[row, ..., 1 + row % 10 :] = -1
    return made


def fitted(levels: int = 1, codes: int = 16) -> KMeansTokenizer:
    model = KMeansTokenizer(KMeansConfig(name="kmeans", codes=codes, levels=levels, frames=3), SPEC)
    model.fit([spectrograms()[:24], spectrograms()[24:]])
    return model


@pytest.mark.parametrize("levels", [1, 2])
def test_codes_end_where_an_item_does_and_silence_comes_back(levels: int) -> None:
    model = fitted(levels)
    codes = model.encode(Batch(spectrograms()))
    assert codes.shape == (40, 4 * levels)
    ended = (codes.view(40, 4, levels) == model.eos).all(2).sum(1)
    assert ended.tolist() == [4 - -(-(1 + row % 10) // 3) for row in range(40)]
    assert model.vocab_size == 16 * levels + 1
    made = model.decode(codes)
    assert made.shape == (40, 1, 8, 10)
    assert torch.equal(made[0, ..., 3:], torch.full((1, 8, 7), -1.0))
    codes[5, levels : 2 * levels] = model.eos
    assert (model.decode(codes)[5, ..., 3:] == -1).all(), "what follows an end is not heard"


def test_each_level_leaves_less_and_silence_within_an_item_is_a_code() -> None:
    items = spectrograms()
    errors = [(model.decode(model.encode(Batch(items))) - items).square().mean() for model in (fitted(1), fitted(2))]
    assert errors[1] < 0.8 * errors[0]
    items[9, ..., 3:6] = -1
    model = fitted()
    assert model.encode(Batch(items))[9, 1] == 0
    assert (model.decode(model.encode(Batch(items)))[9, ..., 3:6] == -1).all()


def test_what_has_no_spectrogram_or_too_few_patches_is_refused() -> None:
    with pytest.raises(ConfigError, match="for spectrograms of sound"):
        KMeansTokenizer(KMeansConfig(name="kmeans", codes=4, levels=1, frames=1), DataSpec("image", (1, 8, 8)))
    with pytest.raises(ConfigError, match="too few for 512 codes"):
        fitted(codes=512)


def test_of_many_clips_some_of_each_kind_are_learnt_from(monkeypatch: pytest.MonkeyPatch) -> None:
    made = torch.zeros(600, 1, 8, 9)
    made[:300], made[300:] = -0.5, 0.5  # as files lie, class by class
    made += 0.01 * torch.randn(made.shape, generator=torch.Generator().manual_seed(0))
    for module in (kmeans, fitting):
        monkeypatch.setattr(module, "LEARNT", 300)
    monkeypatch.setattr(fitting, "items_at", lambda dataset, rows: Batch(made[rows]))
    monkeypatch.setattr(fitting, "write_tokenizer", lambda *arguments: None)
    model = KMeansTokenizer(KMeansConfig(name="kmeans", codes=9, levels=1, frames=3), SPEC)
    dataset: Any = type("Clips", (), {"__len__": lambda self: 600, "codec": SimpleNamespace(encode=lambda raw: raw)})()
    fitting._write(dataset, model, {}, Path())
    means = model.centres[0, 1:].mean(1)
    assert (means > 0.4).any()
    assert (means < -0.4).any()
