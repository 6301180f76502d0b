"""Which classes can be asked for."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import DataSpec
from aigc_cli.models.base import Model
from aigc_cli.models.latent import LatentModel

SPEC = DataSpec("image", (1, 8, 8), ("cat", "dog", "ant"), untrained=("dog",))


def turns(word: str | None) -> list[int]:
    model: Any = SimpleNamespace(spec=SPEC, conditional=True, classes=3, class_order=())
    return LatentModel.turns(model, SimpleNamespace(class_=word))


def test_a_class_without_a_training_item_is_not_drawn() -> None:
    assert turns(None) == [0, 2]
    assert turns("ant,cat") == [2, 0]


def test_bits_are_told_of_bytes_alone() -> None:
    nats = torch.tensor([64 * math.log(256.0)])
    model: Any = SimpleNamespace(spec=SPEC, values=64)
    assert Model.bits(model, nats)["bits_per_dim"].item() == pytest.approx(8)
    for other in (replace(SPEC, content=(1, 4096)), replace(SPEC, level="peak")):
        assert Model.bits(SimpleNamespace(spec=other, values=64), nats) == {}  # type: ignore[arg-type]


def test_a_class_without_a_training_item_is_refused() -> None:
    with pytest.raises(ConfigError, match="class=dog: no training item") as caught:
        turns("cat,dog")
    assert "ant" in caught.value.hint
