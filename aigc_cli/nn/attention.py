"""What attention is made of: heads, norms, rotations and dropout, and a cache of what has been read.

On a CPU in float32 it is written by hand. Norms and heads are one step of autograd each, in half the time. Dropout
(Srivastava et al., Dropout: A Simple Way to Prevent Neural Networks from Overfitting, 2014) costs torch more there than
the layers it stands between; with masks of 16 random bits a value, and a plain softmax in attention, it takes a third
of that. Everywhere else this is torch's own: a GPU has kernels for it, and a compiler fuses it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

EPS = 1e-6  # added to every mean square
_LEVELS = 1 << 16  # that a share is rounded to
_PER_DRAW = 4  # values that a draw of 64 bits serves


def by_hand(x: Tensor) -> bool:
    """Whether the hand-written passes serve `x`."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling()


def rms_norm(x: Tensor, gain: Tensor, eps: float = EPS) -> Tensor:
    """x (..., d) scaled to a mean square of 1, times `gain` (d,) (Zhang and Sennrich 2019)."""
    if by_hand(x):
        normed: Tensor = _RMSNorm.apply(x, gain, eps)
        return normed
    return functional.rms_norm(x, gain.shape, gain, eps)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary positions: neighbouring pairs of x (n, t, ..., d) turned by an angle each (Su et al., RoFormer, 2021).
    `rotation` has their cosines and sines, (1 or n, t, ..., d / 2, 2)."""
    pairs = torch.unflatten(x, -1, (-1, 2))
    if by_hand(x):
        turned = torch.view_as_complex(pairs) * torch.view_as_complex(rotation)
        return torch.view_as_real(turned).flatten(-2)
    cosine, sine = rotation.to(x.dtype).unbind(-1)
    even, odd = pairs.unbind(-1)
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1).flatten(-2)


def attention_heads(qkv: Tensor, log_scale: Tensor | None, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (n, h, t, d) from their joint projection (n, t, 3, h, d).

    With `log_scale` (h,), queries and keys get a mean square of 1, and queries that scale (Henry et al., Query-Key
    Normalization for Transformers, 2020). `rotation` is as of :func:`rotate`; None where positions are told otherwise.
    """
    if log_scale is not None and rotation is not None and by_hand(qkv):
        return _NormedHeads.apply(qkv, log_scale, rotation)  # type: ignore[no-any-return]
    both = qkv[:, :, :2]
    if log_scale is not None:
        both = unit_rms(both)
    if rotation is not None:
        both = rotate(both, rotation)
    query, key = both.transpose(1, 3).unbind(2)
    if log_scale is not None:
        query = query * log_scale.exp().to(query.dtype)[:, None, None]
    return query, key, qkv[:, :, 2].transpose(1, 2)


def unit_rms(x: Tensor, eps: float = EPS) -> Tensor:
    """x (..., d) scaled to a mean square of 1."""
    return functional.rms_norm(x, x.shape[-1:], None, eps)


def _inverse_rms(x: Tensor, eps: float = EPS) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return size.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def dropout(x: Tensor, share: float) -> Tensor:
    """x (...) with a share of its values set to 0, and the others raised, so that the mean stays what it was."""
    if share == 0:
        return x
    return x * _mask(x, share) if by_hand(x) else functional.dropout(x, share)


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, share: float = 0.0, causal: bool = False
) -> Tensor:
    """Scaled dot-product attention of queries (n, h, t, d) to keys and values (n, h, s, d), as the queries' shape.

    A bool `mask`, broadcast to (n, h, t, s), is True for what may be looked at; if `causal`, which goes without a mask,
    a query sees the keys up to its own place alone. A `share` of the weights is dropped.
    """
    if share == 0 or not by_hand(query):
        return functional.scaled_dot_product_attention(query, key, value, mask, share, causal)
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.mT)
    if causal:
        scores += torch.full(scores.shape[-2:], -math.inf).triu_(1)
    elif mask is not None:
        scores.masked_fill_(~mask, -math.inf)
    return torch.matmul(dropout(scores.softmax(-1), share), value)


def _mask(like: Tensor, share: float) -> Tensor:
    """0 for a share of the values, and for the others what keeps the mean."""
    kept = min(_LEVELS, max(1, round((1 - share) * _LEVELS)))
    draws = torch.empty(-(-like.numel() // _PER_DRAW), dtype=torch.int64).random_(-(1 << 63), None)
    levels = draws.view(torch.int16)[: like.numel()].view(like.shape)  # from -32768 on, each as likely
    return (levels < kept - _LEVELS // 2).to(like.dtype).mul_(_LEVELS / kept)


class KVCache:
    """Keys and values of what every layer has read, in memory that is set aside once, for rows of unequal length.

    A row's tokens lie from column 0 on. The first pass writes prompts, padded on the right to the longest; after
    :meth:`read` has said how long each is, a pass writes one token a row. How long rows are is known on the host, so
    that nothing here waits for the device; where all are as long, no mask is needed.
    """

    def __init__(self, layers: int, rows: int, heads: int, columns: int, dim: int, like: Tensor) -> None:
        # Zeros, since what is masked is still multiplied by 0, and what happens to lie in memory may not be finite.
        self.keys = torch.zeros(layers, rows, heads, columns, dim, device=like.device, dtype=like.dtype)
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
        columns, device = self.keys.shape[3], self.keys.device
        assert max(lengths) <= columns, "more than the cache was made for"
        grown = all(new == old + 1 for new, old in zip(lengths, self.lengths, strict=True))
        self.lengths = list(lengths)
        if len(set(lengths)) == 1:
            self._where = self._mask = None
            return
        if grown and self._where is not None:  # on the device, which a copy from the host would wait for
            self._where = self._where + 1
        else:
            self._where = torch.tensor(self.lengths, device=device)
            self._rows = torch.arange(len(self.lengths), device=device)
        width = torch.arange(min(self.longest + 1, columns), device=device)
        self._mask = (width <= self._where[:, None])[:, None, None]

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Writes (rows, heads, t, dim), and returns all keys and values of the layer, with a mask (rows, 1, 1, columns)
        of where rows have tokens, if one is needed."""
        keys, values, start = self.keys[layer], self.values[layer], self.longest
        stop = start + key.shape[2]
        if self._where is not None:
            keys[self._rows, :, self._where], values[self._rows, :, self._where] = key[:, :, 0], value[:, :, 0]
        else:
            keys[:, :, start:stop], values[:, :, start:stop] = key, value
        return (keys[:, :, :stop], values[:, :, :stop], self._mask) if start else (key, value, None)

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes a copy of row ``rows[i]``, which must be as long and have the same memory."""
        used = self.longest
        for kept in (self.keys, self.values):
            for layer in range(len(kept)):  # one at a time, so that no second cache is held meanwhile
                kept[layer, :, :, :used] = kept[layer][rows, :, :used]

    def repeat(self, count: int) -> None:
        """Each row becomes `count` rows next to each other."""
        self.keys, self.values = (kept.repeat_interleave(count, 1) for kept in (self.keys, self.values))
        self.memory = {
            layer: (key.repeat_interleave(count, 0), value.repeat_interleave(count, 0))
            for layer, (key, value) in self.memory.items()
        }
        self._where = None
        self.lengths = [length for length in self.lengths for _ in range(count)]
        self.read(self.lengths)

    @classmethod
    def joined(cls, parts: Sequence[tuple[KVCache, Sequence[int]]], columns: int) -> KVCache:
        """Some rows of several caches that have no memory of cross-attention, in `columns` that suffice for them."""
        like = parts[0][0].keys
        layers, _, heads, _, dim = like.shape
        whole = cls(layers, sum(len(rows) for _, rows in parts), heads, columns, dim, like)
        start, lengths = 0, []
        for cache, rows in parts:
            index = torch.tensor(rows, dtype=torch.int64, device=like.device)
            used = max(cache.lengths[row] for row in rows)  # others may be longer than there is room for here
            here = slice(start, start + len(rows))
            whole.keys[:, here, :, :used] = cache.keys[:, index, :, :used]
            whole.values[:, here, :, :used] = cache.values[:, index, :, :used]
            lengths += [cache.lengths[row] for row in rows]
            start += len(rows)
        whole.read(lengths)
        return whole

    def replace(self, rows: Sequence[int], other: KVCache) -> None:
        """The rows `rows` become those of `other`, which has read as many tokens in each of its own."""
        index, stop = torch.tensor(rows, device=self.keys.device), other.longest
        self.keys[:, index, :, :stop] = other.keys[:, :, :, :stop]
        self.values[:, index, :, :stop] = other.values[:, :, :, :stop]
        new = dict(zip(rows, other.lengths, strict=True))
        self.read([new.get(row, length) for row, length in enumerate(self.lengths)])


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        inverse = _inverse_rms(x, eps)
        normed = x * inverse
        ctx.save_for_backward(normed, inverse, gain)
        return normed * gain

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, inverse, gain = ctx.saved_tensors
        product = (grad * normed).reshape(-1, len(gain))
        along = torch.mv(product, gain).view_as(inverse)  # of the gradient along x, which norming takes away
        back = torch.addcmul(grad * gain, normed, along, value=-1 / len(gain)).mul_(inverse)
        return back, product.sum(0), None


class _NormedHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, log_scale: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        both = qkv[:, :, :2]
        scale = log_scale.exp()[:, None]
        factor = _inverse_rms(both)
        factor[:, :, 0].mul_(scale)
        normed = rotate(both, rotation).mul_(factor)
        ctx.save_for_backward(normed, factor, scale, rotation)
        query, key = normed.unbind(2)
        return query.transpose(1, 2), key.transpose(1, 2), qkv[:, :, 2].transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, factor, scale, rotation = ctx.saved_tensors
        query, key, value = (grad.transpose(1, 2) for grad in grads)
        grad = torch.stack([query, key], 2)
        along = (grad * normed).sum(-1, keepdim=True)
        by_scale = along[:, :, 0].sum((0, 1)).squeeze(-1)
        along[:, :, 0].div_(scale.square())
        grad.addcmul_(normed, along, value=-1 / grad.shape[-1]).mul_(factor)
        out = grad.new_empty(*value.shape[:2], 3, *value.shape[2:])
        out[:, :, 2].copy_(value)
        turned_back, turned = (torch.view_as_complex(torch.unflatten(x, -1, (-1, 2))) for x in (out[:, :, :2], grad))
        torch.mul(turned, torch.view_as_complex(rotation).conj(), out=turned_back)
        return out, by_scale, None
