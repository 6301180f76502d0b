"""Draws from a model, a batch at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aigc_cli.data.base import Codec
from aigc_cli.errors import ConfigError, NonFiniteError, ResourceError
from aigc_cli.models.base import Model
from aigc_cli.randomness import Noise

# Values of encoded items in one batch: enough to keep the device busy, few enough for the activations of a deep
# network to fit beside them. A first guess only: a batch that does not fit is halved.
_BUDGET = {"cpu": 2**19, "cuda": 2**22}
_LARGEST = 1024


def auto_batch_size(shape: Sequence[int], device: torch.device | str) -> int:
    """A power of two that suits items of an encoded `shape` on a device."""
    room = _BUDGET.get(torch.device(device).type, _BUDGET["cpu"]) // max(1, math.prod(shape))
    return min(_LARGEST, 1 << max(0, room.bit_length() - 1))


def generate(
    model: Model,
    codec: Codec,
    indices: Sequence[int],
    *,
    seed: int,
    device: torch.device | str,
    batch_size: int | None = None,
    controls: Mapping[str, Any] | None = None,
) -> Iterator[Tensor]:
    """Yields samples as raw content (b, ...) on the CPU, in the order of `indices`.

    Sample ``i`` depends on ``(seed, i)`` alone. Its batch only changes which kernels the sums run through: encoded
    values of different batch sizes agree to within 1e-5 in float32, so decoded uint8 pixels to within one level.

    Args:
        model: in evaluation mode, on `device`.
        codec: maps its samples back to content.
        indices: which samples to draw.
        seed: of all of them.
        device: where the model is.
        batch_size: None chooses one, and halves it where memory runs out.
        controls: the fields of ``model.controls``.

    Raises:
        ConfigError: the model cannot be sampled.
        NonFiniteError: a sample is not finite.
        ResourceError: a batch does not fit in memory.
    """
    if type(model).sample is Model.sample:
        raise ConfigError(f"{type(model).__name__} is not a model that can be sampled", "choose another run=")
    size = batch_size or auto_batch_size(model.spec.shape, device)
    start = 0
    while start < len(indices):
        some = indices[start : start + size]
        try:
            raw = _draw(model, codec, Noise(seed, some, device), controls or {})
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if batch_size is not None or size == 1:
                mend = "choose a smaller batch_size=" if size > 1 else "choose another device="
                raise ResourceError(f"a batch of {size} samples does not fit in the memory of {device}", mend) from None
            size //= 2
            continue
        yield raw
        start += len(some)


@torch.inference_mode()
def _draw(model: Model, codec: Codec, noise: Noise, controls: Mapping[str, Any]) -> Tensor:
    encoded = model.sample(noise, **controls)
    if encoded.is_floating_point() and not bool(torch.isfinite(encoded).all()):
        some = f"samples {noise.indices[0]} to {noise.indices[-1]} of seed {noise.seed}"
        raise NonFiniteError(
            f"the model drew values that are not finite among {some}",
            "choose an earlier checkpoint with step=, or milder controls",
        )
    return codec.decode(encoded).cpu()


def _out_of_memory(error: Exception) -> bool:
    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)
