"""All randomness, as a function of what it is for.

Nothing here has state that must be saved: a training step is seeded from (seed, rank, step), an epoch's order from
(seed, epoch), an augmentation from (seed, epoch, index) and a sample from (seed, index). The generator is Philox
(Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011), whose streams are independent by construction.
"""

from __future__ import annotations

import functools
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


def scattered(places: np.ndarray, n: int, *key: int | str) -> np.ndarray:
    """Where a permutation of ``range(n)``, that depends on the key alone, takes `places`, int64 (m,).

    For an `n` whose permutation would not fit in memory: a Feistel network (Luby and Rackoff, How to Construct
    Pseudorandom Permutations, 1988) over the next power of four, walked until it comes back into the range.
    """
    half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    rounds = generator(*key).integers(2**64, size=6, dtype=np.uint64)
    found = places.astype(np.uint64)
    outside = np.ones(len(found), dtype=bool)
    while outside.any():
        left, right = found[outside] >> half, found[outside] & mask
        for secret in rounds:
            left, right = right, left ^ (_mixed(right ^ secret) & mask)
        found[outside] = left << half | right
        outside = found >= n
    return found.astype(np.int64)


def uniform_at(items: np.ndarray, *key: int | str) -> np.ndarray:
    """A uniform draw in [0, 1), float32 (m,), for each of `items`, int64 (m,), that depends on it and the key alone."""
    secret = np.uint64(derive(*key))
    bits = _mixed(_mixed(items.astype(np.uint64) ^ secret) + secret) >> np.uint64(40)
    draws: np.ndarray = bits.astype(np.float32) / np.float32(2**24)
    return draws


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed


def seed_step(seed: int, rank: int, step: int) -> None:
    """Seeds torch, on every device, for one training step."""
    import torch

    value = derive("step", seed, rank, step)
    if _has_accelerator():
        torch.manual_seed(value)
    else:  # without asking after every kind of device, which takes longer than some steps' whole loop
        torch.default_generator.manual_seed(value)


@functools.cache
def _has_accelerator() -> bool:
    import torch

    return torch.accelerator.is_available()


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

    @classmethod
    def joined(cls, parts: Sequence[Noise], device: torch.device | str) -> Noise:
        """The rows of several one after the other, each with its own stream; the seed is that of the first."""
        whole = cls(parts[0].seed, [], device)
        whole.indices = [index for part in parts for index in part.indices]
        whole._rows = [row for part in parts for row in part._rows]
        return whole

    def __len__(self) -> int:
        return len(self._rows)

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal draws, float32, (n, \\*shape)."""
        return self._stack([row.standard_normal(shape, dtype=np.float32) for row in self._rows])

    def uniform(self, *shape: int) -> torch.Tensor:
        """Uniform draws in [0, 1), float32, (n, \\*shape)."""
        return self._stack([row.random(shape, dtype=np.float32) for row in self._rows])

    def _stack(self, rows: list[np.ndarray]) -> torch.Tensor:
        import torch

        return torch.from_numpy(np.stack(rows)).to(self.device)
