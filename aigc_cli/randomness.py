"""All randomness, as a function of what it is for.

Nothing here has state that must be saved: a training step is seeded from (seed, rank, step), an epoch's order from
(seed, epoch), an augmentation from (seed, epoch, index) and a sample from (seed, index). The generator is Philox
(Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011), whose streams are independent by construction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(*key: int | str) -> int:
    """A 63-bit seed from a key such as ``("step", seed, rank, step)``: equal keys, equal seeds; others independent."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: int | str) -> np.random.Generator:
    """A NumPy generator for a key."""
    return np.random.Generator(np.random.Philox(derive(*key)))


def permutation(n: int, *key: int | str) -> np.ndarray:
    """A permutation of ``range(n)``, int64, that depends on the key alone."""
    return generator(*key).permutation(n)


def seed_step(seed: int, rank: int, step: int) -> None:
    """Seeds torch, on every device, for one training step."""
    import torch

    torch.manual_seed(derive("step", seed, rank, step))


class Noise:
    """The random draws behind a batch of samples: row ``i`` depends on ``(seed, indices[i])`` alone.

    Draws follow one another: each call continues every row's own stream, so a model may draw as often as it needs
    and still give the same sample whatever batch it was drawn in.
    """

    def __init__(self, seed: int, indices: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self.indices = list(indices)
        self.device = device
        self._rows = [generator("sample", seed, index) for index in self.indices]

    def __len__(self) -> int:
        return len(self._rows)

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal draws, float32, (n, \\*shape)."""
        return self._stack([row.standard_normal(shape, dtype=np.float32) for row in self._rows])

    def uniform(self, *shape: int) -> torch.Tensor:
        """Uniform draws in [0, 1), float32, (n, \\*shape)."""
        return self._stack([row.random(shape, dtype=np.float32) for row in self._rows])

    def integers(self, high: int, *shape: int) -> torch.Tensor:
        """Uniform integers in [0, high), int64, (n, \\*shape)."""
        return self._stack([row.integers(high, size=shape, dtype=np.int64) for row in self._rows])

    def _stack(self, rows: list[np.ndarray]) -> torch.Tensor:
        import torch

        return torch.from_numpy(np.stack(rows)).to(self.device)
