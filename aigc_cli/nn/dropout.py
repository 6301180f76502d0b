"""Dropout (Srivastava et al., Dropout: A Simple Way to Prevent Neural Networks from Overfitting, 2014), of features and
of what attention looks at.

On a CPU in float32 it costs torch more than the layers it stands between: a draw for each value, and for attention a
way around its fast kernel. There the masks are made of 16 random bits a value, a third of the time in all; everywhere
else this is torch's own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from aigc_cli.nn.fused import by_hand

_LEVELS = 1 << 16  # that a share is rounded to
_PER_DRAW = 4  # values that a draw of 64 bits serves


def dropout(x: Tensor, share: float) -> Tensor:
    """x (...) with a share of its values set to 0, and the others raised, so that the mean stays what it was."""
    if share == 0:
        return x
    return x * _mask(x, share) if by_hand(x) else functional.dropout(x, share)


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, share: float = 0.0, causal: bool = False
) -> Tensor:
    """Scaled dot-product attention, (n, h, t, d), with dropout of a share of its weights.

    Args:
        query: (n, h, t, d).
        key: (n, h, s, d).
        value: (n, h, s, d).
        mask: bool, broadcast to (n, h, t, s), True for what may be looked at; None is everything.
        share: of weights that are set to 0.
        causal: Whether a query sees only the keys up to its own place; not with a mask.
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
