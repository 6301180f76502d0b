"""What a causal stack has read, kept so that the next token costs one token's work."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class KVCache:
    """Keys and values of every layer, in memory that is set aside once, for rows of unequal length.

    A row's tokens lie from column 0 on. The first pass writes prompts, padded on the right to the longest; after
    :meth:`read` has said how long each is, a pass writes one token a row. How long rows are is known on the host, so
    that nothing here waits for the device; where all are as long, no mask is needed.
    """

    def __init__(
        self, layers: int, rows: int, heads: int, columns: int, dim: int, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        # Zeros, since what is masked is still multiplied by 0, and what happens to lie in memory may not be finite.
        self.keys = torch.zeros(layers, rows, heads, columns, dim, device=device, dtype=dtype)
        self.values = torch.zeros_like(self.keys)
        #: Cross-attention's keys and values, by layer, once they have been computed.
        self.memory: dict[int, tuple[Tensor, Tensor]] = {}
        self.lengths = [0] * rows
        self._where: Tensor | None = None
        self._mask: Tensor | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was read yet."""
        return not any(self.lengths)

    @property
    def longest(self) -> int:
        """The length of the longest row."""
        return max(self.lengths)

    def positions(self, count: int) -> slice | Tensor:
        """Where the next `count` tokens of each row stand: a slice for all rows alike, or (rows, 1)."""
        if self._where is not None:
            assert count == 1, "rows of unequal length grow token by token"
            return self._where[:, None]
        return slice(self.longest, self.longest + count)

    def read(self, lengths: Sequence[int]) -> None:
        """Takes note that the rows are now so long."""
        columns = self.keys.shape[3]
        assert max(lengths) <= columns, "more than the cache was made for"
        grown = self._where is not None and all(new == old + 1 for new, old in zip(lengths, self.lengths, strict=True))
        self.lengths = list(lengths)
        if len(set(lengths)) == 1:
            self._where = self._mask = None
            return
        if grown:
            assert self._where is not None
            self._where = self._where + 1
        else:
            self._where = torch.tensor(self.lengths, device=self.keys.device)
            self._rows = torch.arange(len(self.lengths), device=self.keys.device)
        width = torch.arange(min(self.longest + 1, columns), device=self.keys.device)
        self._mask = (width <= self._where[:, None])[:, None, None]

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Writes (rows, heads, t, dim), and returns all keys and values of the layer, with a mask where one is needed.

        The mask (rows, 1, 1, columns) is True where a row has a token.
        """
        keys, values = self.keys[layer], self.values[layer]
        if self._where is not None:
            keys[self._rows, :, self._where] = key[:, :, 0]
            values[self._rows, :, self._where] = value[:, :, 0]
            stop = self.longest + 1
            return keys[:, :, :stop], values[:, :, :stop], self._mask
        start = self.longest
        stop = start + key.shape[2]
        keys[:, :, start:stop] = key
        values[:, :, start:stop] = value
        if not start:
            return key, value, None
        return keys[:, :, :stop], values[:, :, :stop], None

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes a copy of row ``rows[i]``, which must be as long and have the same memory."""
        used = self.longest
        self.keys[:, :, :, :used] = self.keys[:, rows, :, :used]
        self.values[:, :, :, :used] = self.values[:, rows, :, :used]

    def repeat(self, count: int) -> None:
        """Each row becomes `count` rows next to each other."""
        self.keys, self.values = (part.repeat_interleave(count, 1) for part in (self.keys, self.values))
        self.memory = {
            layer: (key.repeat_interleave(count, 0), value.repeat_interleave(count, 0))
            for layer, (key, value) in self.memory.items()
        }
        lengths = [length for length in self.lengths for _ in range(count)]
        self._where = None
        self.read(lengths)

    def replace(self, rows: Sequence[int], other: KVCache) -> None:
        """The rows `rows` become those of `other`, which has read as many tokens in each of its own."""
        index = torch.tensor(rows, device=self.keys.device)
        stop = other.longest
        self.keys[:, index, :, :stop] = other.keys[:, :, :, :stop]
        self.values[:, index, :, :stop] = other.values[:, :, :, :stop]
        lengths = list(self.lengths)
        for row, length in zip(rows, other.lengths, strict=True):
            lengths[row] = length
        self.read(lengths)
