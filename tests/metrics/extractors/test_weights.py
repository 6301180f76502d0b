"""Files of weights: what a stranger puts into one is refused in words."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aigc_cli.errors import DataError
from aigc_cli.metrics.extractors.weights import load_weights

MEND = "get it again"


class Rebuilt:
    """A tensor that is rebuilt from nothing."""

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, ()


def test_a_pickle_that_trips_the_reader_is_refused(tmp_path: Path) -> None:
    torch.save({"w": Rebuilt()}, tmp_path / "w.pth", pickle_module=pickle)
    with pytest.raises(DataError, match="cannot be read as weights"):
        load_weights(tmp_path / "w.pth", MEND)


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")], ids=["sparse", "meta"])
def test_tensors_without_plain_values_are_refused(tmp_path: Path, tensor: Tensor) -> None:
    torch.save({"fine": torch.ones(2), "w": tensor}, tmp_path / "w.pth")
    with pytest.raises(DataError, match="holds w as a tensor that is sparse, quantized or without values"):
        load_weights(tmp_path / "w.pth", MEND)


def test_a_date_in_a_name_is_no_checksum(tmp_path: Path) -> None:
    path = tmp_path / "resnet-20240101.pth"
    torch.save({"w": torch.ones(2)}, path)
    assert torch.equal(load_weights(path, MEND)[1]["w"], torch.ones(2))
    with pytest.raises(DataError, match="is corrupt"):
        load_weights(path, MEND, named_by_sum=True)
