"""Samples of any shape and type as one array."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from aigc_cli.modalities.image import ImageCodec
from aigc_cli.modalities.samples import Arrangement, Provenance
from aigc_cli.modalities.writers import ArrayWriter

LABELLED = Arrangement(n=5, labels=[0, 1, 0, 1, 0], classes=("a", "b"))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(), (7,), (2, 3, 4, 5)], ids=str)
def test_an_array_of_any_shape_comes_back(
    tmp_path: Path, provenance: Callable[..., Provenance], dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    raw = (torch.rand(5, *shape) * 99).to(dtype)
    with ArrayWriter(tmp_path, LABELLED, provenance(), ImageCodec()) as writer:
        writer.write(raw[:2])
        writer.write(raw[2:])
        assert writer.finish() == (["samples.npz"], [])
    ArrayWriter.preview(tmp_path / "a" / "step-1.npz", iter([raw[:2], raw[2:]]), LABELLED, ImageCodec(), "step 1")
    for path in (tmp_path / "samples.npz", tmp_path / "a" / "step-1.npz"):
        with np.load(path, allow_pickle=False) as found:
            assert found["samples"].dtype == raw.numpy().dtype
            assert np.array_equal(found["samples"], raw.numpy())
            assert found["classes"][found["labels"]].tolist() == ["a", "b", "a", "b", "a"]
