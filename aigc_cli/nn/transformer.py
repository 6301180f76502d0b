"""The one transformer block of the house (Vaswani et al., Attention Is All You Need, 2017), stacks of it, and a stack
from tokens to scores of tokens.

Pre-norm, with RMSNorm, rotary positions, normed queries and keys and SwiGLU; or, by :class:`Style`, the classic block
of GPT-2. A stack is causal or not, and may attend to a second sequence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, layer_norm, linear, silu

from aigc_cli.nn.attention import KVCache, attend, attention_heads, dropout, rms_norm, rotate, unit_rms
from aigc_cli.nn.neighbours import Neighbours
from aigc_cli.nn.positions import GridPositions
from aigc_cli.nn.style import TransformerConfig

FRESH_STD = 0.02  # of weights before training, as in GPT-2


class Norm(nn.Module):
    """RMSNorm or LayerNorm over the last dimension."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        style = config.style
        self.rms, self.eps = style.norm == "rms", style.eps
        self.weight = nn.Parameter(torch.ones(config.width))
        self.bias = nn.Parameter(torch.zeros(config.width)) if style.bias is True and not self.rms else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape."""
        if self.rms:
            return rms_norm(x, self.weight, self.eps)
        return layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class Attention(nn.Module):
    """What both kinds of attention share; each has projections of its own, and ends in :meth:`mix`."""

    out: nn.Linear

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        normed, self.eps = config.style.qk_norm, config.style.eps
        scaled = normed and normed != "dim"
        self.log_scale = nn.Parameter(torch.zeros(1 if normed == "layer" else config.heads)) if scaled else None
        #: Of queries and of keys, (2, dim), as in Qwen3.
        self.gains = nn.Parameter(torch.ones(2, config.dim)) if normed == "dim" else None

    @property
    def scales(self) -> Tensor | None:
        """The logarithm of each head's scale of queries (h,), where queries and keys are normed."""
        return None if self.log_scale is None else self.log_scale.expand(self.heads)

    def normed(self, part: Tensor, which: int) -> Tensor:
        """Queries (0) or keys (1) (..., d) with a mean square of 1, times their gains where each feature has one."""
        if self.gains is not None:
            return unit_rms(part, self.eps) * self.gains[which]
        return part if self.log_scale is None else unit_rms(part)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        """Heads (n, h, t, d) to (n, t, width); see :func:`attend`."""
        mixed = attend(query, key, value, mask, self.dropout if self.training else 0.0, causal)
        projected: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return projected


class SelfAttention(Attention):
    """Attention of a sequence to itself, or, if causal, to what came before."""

    def __init__(self, config: TransformerConfig, causal: bool) -> None:
        super().__init__(config)
        self.causal, self.groups, self.dim = causal, config.groups, config.dim
        each = config.groups * config.dim
        self.qkv = config.linear(config.width, config.heads * config.dim, each, each, qkv=True)
        self.out = config.linear(config.heads * config.dim, config.width)

    def forward(
        self, x: Tensor, rotation: Tensor | None, mask: Tensor | None, cache: KVCache | None, layer: int
    ) -> Tensor:
        """(n, t, width) to the same shape; see :meth:`Transformer.forward`."""
        if self.groups == self.heads and self.gains is None:
            query, key, value = attention_heads(self.qkv(x).unflatten(2, (3, self.heads, -1)), self.scales, rotation)
        else:
            query, key, value = self._grouped(self.qkv(x), rotation)
        causal = self.causal
        if cache is not None:
            causal = causal and cache.empty
            key, value, mask = cache.extend(layer, key, value)
        if self.groups != self.heads:
            key, value = (part.repeat_interleave(self.heads // self.groups, 1) for part in (key, value))
        return self.mix(query, key, value, mask, causal)

    def _grouped(self, joint: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (n, h, t, d), keys and values (n, groups, t, d) from their joint projection."""
        heads = (self.heads, self.groups, self.groups)
        parts = torch.split(joint, [count * self.dim for count in heads], 2)
        query, key, value = (torch.unflatten(part, 2, (count, -1)) for part, count in zip(parts, heads, strict=True))
        query, key = self.normed(query, 0), self.normed(key, 1)
        if rotation is not None:  # alike for all heads
            query, key = rotate(query, rotation[:, :, 0]), rotate(key, rotation[:, :, 0, : self.groups])
        if (scales := self.scales) is not None:
            query = query * scales.exp()[:, None]
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


class CrossAttention(Attention):
    """Attention of a sequence to another, the memory."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.query = config.linear(config.width, config.heads * config.dim, qkv=True)
        self.key_value = config.linear(config.width, *[config.heads * config.dim] * 2, qkv=True)
        self.out = config.linear(config.heads * config.dim, config.width)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None, cache: KVCache | None, layer: int) -> Tensor:
        """x (n, t, width) and memory (n, s, width) to the shape of x; see :meth:`Transformer.forward`."""
        query = self.normed(self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2), 0)
        if (scales := self.scales) is not None:
            query = query * scales.exp().to(query.dtype)[:, None, None]
        if cache is not None and layer in cache.memory:
            key, value = cache.memory[layer]
        else:
            key, value = self.read(memory)
        if cache is not None:
            cache.memory[layer] = key, value
        return self.mix(query, key, value, mask)

    def read(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values (n, h, s, d) of a memory (n, s, width)."""
        key, value = self.key_value(memory).unflatten(2, (2, self.heads, -1)).transpose(1, 3).unbind(2)
        return self.normed(key, 1), value


class FeedForward(nn.Module):
    """Two layers with GELU, or SwiGLU (Shazeer 2020)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gated = config.style.mlp == "swiglu"
        self.gelu = "tanh" if config.style.mlp == "gelu_tanh" else "none"
        self.up = config.linear(config.width, *[config.hidden] * (2 if self.gated else 1))
        self.down = config.linear(config.hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape."""
        if self.gated:
            gate, value = self.up(x).chunk(2, -1)
            raised = silu(gate) * value
        else:
            raised = gelu(self.up(x), approximate=self.gelu)
        lowered: Tensor = self.down(raised)
        return lowered


class Block(nn.Module):
    """Attention, attention to a memory where there is one, and a feed-forward layer, each added to what came in."""

    def __init__(self, config: TransformerConfig, *, causal: bool, cross: bool) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.attention_norm = Norm(config)
        self.attention = SelfAttention(config, causal)
        self.cross_norm = Norm(config) if cross else None
        self.cross = CrossAttention(config) if cross else None
        self.feed_forward_norm = Norm(config)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Tensor, rotation: Tensor | None, mask: Tensor | None, memory: Tensor | None,
        memory_mask: Tensor | None, cache: KVCache | None, layer: int,
    ) -> Tensor:  # fmt: skip
        """(n, t, width) to the same shape; see :meth:`Transformer.forward`."""
        x = x + self._dropped(self.attention(self.attention_norm(x), rotation, mask, cache, layer))
        if self.cross is not None and self.cross_norm is not None:
            assert memory is not None, "this block attends to a memory"
            x = x + self._dropped(self.cross(self.cross_norm(x), memory, memory_mask, cache, layer))
        return x + self._dropped(self.feed_forward(self.feed_forward_norm(x)))

    def _dropped(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout if self.training else 0.0)


class Transformer(nn.Module):
    """A stack of blocks over at most `length` embedded tokens, with a norm at the end; with `cross` they attend to a
    memory, and if `causal` a token sees only itself and those before it. The last of its tokens lie in a `grid`, if
    there is one, such as (rows, columns), with positions of each axis."""

    rotation: Tensor

    def __init__(
        self, config: TransformerConfig, length: int, *, causal: bool, cross: bool = False, grid: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.config, self.length = config, length
        learned, dim = config.style.positions == "learned", config.dim
        self.positions = nn.Parameter(torch.empty(length, config.width)) if learned else None
        of_grid = config.style.positions == "grid"
        self.places = GridPositions(length, config.width, grid, FRESH_STD) if of_grid else None
        if not learned:
            frequencies = config.style.rope_base ** -(torch.arange(0, dim, 2) / dim)
            angles = torch.arange(length)[:, None] * frequencies
            rotation = torch.stack([angles.cos(), angles.sin()], -1)[:, None]
            # Written out for all heads: multiplying long rows is faster than many short ones.
            self.register_buffer("rotation", rotation.repeat(1, config.heads, 1, 1)[:, None], persistent=False)
        self.blocks = nn.ModuleList(Block(config, causal=causal, cross=cross) for _ in range(config.layers))
        self.norm = Norm(config)
        self._start()

    def _start(self) -> None:
        """Weights as in GPT-2 (Radford et al. 2019, section 2.3): what adds to the residual starts smaller."""
        fresh(self)
        if self.positions is not None:
            nn.init.normal_(self.positions, 0.0, FRESH_STD)
        ends = [layer for name, layer in self.named_modules() if name.endswith((".out", ".down"))]
        for layer in ends:
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, 0.0, FRESH_STD / math.sqrt(len(ends)))

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, memory: Tensor | None = None,
        memory_mask: Tensor | None = None, cache: KVCache | None = None,
    ) -> Tensor:  # fmt: skip
        """Embedded tokens (n, t, width) to the same shape.

        Args:
            mask: (n, t), True for tokens that are there; None where all are. Not for a causal stack, in which what
                pads a row on its right is never seen.
            memory: (n, s, width), what cross-attention looks at; `memory_mask` (n, s) is True for what is there of it.
            cache: What was read before, to which `x` is added; :meth:`KVCache.read` is the caller's to call.
        """
        t = x.shape[1]
        places = slice(0, t) if cache is None else cache.positions(t)
        rotation = None
        if (learned := self.positions if self.places is None else self.places()) is not None:
            x = x + learned[places]
        if self.positions is None:
            rotation = self.rotation[places]  # (t, 1, h, d / 2, 2), or (n, 1, ...) with each row's own
            rotation = rotation[None] if isinstance(places, slice) else rotation
        x = dropout(x, self.config.dropout if self.training else 0.0)
        mask = None if mask is None else mask[:, None, None]
        memory_mask = None if memory_mask is None else memory_mask[:, None, None]
        for layer, block in enumerate(self.blocks):
            x = block(x, rotation, mask, memory, memory_mask, cache, layer)
        normed: Tensor = self.norm(x)
        return normed

    def cache(self, rows: int, columns: int) -> KVCache:
        """An empty cache for so many rows of at most so many tokens."""
        config = self.config
        return KVCache(config.layers, rows, config.groups, columns, config.dim, like=self.norm.weight)


def fresh(module: nn.Module) -> None:
    """Draws linear layers and embeddings anew: normal, with a standard deviation of 0.02; biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, 0.0, FRESH_STD)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


class TokenTransformer(nn.Module):
    """Embedding, stack and vocabulary head.

    Args:
        config: Of the stack, as `length`, `causal`, `cross` and `grid` are.
        vocab_size: Tokens that the head scores.
        tied: Whether the head's weights are the embedding (Press and Wolf 2017).
        extra: Tokens beyond the vocabulary that can be read, but not written.
        reach: How far away on each axis of the grid the neighbours are that a place is told of, see
            :class:`Neighbours`; empty is none. A causal stack then reads a token of no place, and those of the grid.
    """

    def __init__(
        self, config: TransformerConfig, vocab_size: int, length: int, *, causal: bool, cross: bool = False,
        tied: bool = True, extra: int = 0, grid: tuple[int, ...] = (), reach: Sequence[int] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.vocab_size, self.length = vocab_size, length
        self.embedding = nn.Embedding(vocab_size + extra, config.width)
        self.stack = Transformer(config, length, causal=causal, cross=cross, grid=grid)
        self.head = None if tied else nn.Linear(config.width, vocab_size, bias=False)
        fresh(self.embedding)
        if self.head is not None:
            fresh(self.head)
        self.neighbours = Neighbours(vocab_size + extra, grid, reach, config.width) if reach else None
        if self.neighbours is not None:
            fresh(self.neighbours.down)  # what it adds starts as small as embeddings are

    def hidden(
        self, tokens: Tensor, *, offset: Tensor | None = None, near: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """Features (n, t, width) of tokens (n, t), or of the sums of several (n, t, k), to whose embeddings
        `offset` (n, width) is added, a row's own; see :meth:`Transformer.forward` for the rest. Where it has neighbours
        and does not begin at a row's first token, `near` (n, t, width) are their features."""
        embedded = self.embedding(tokens)
        embedded = embedded if tokens.ndim == 2 else embedded.sum(2)
        if self.neighbours is not None:
            embedded = embedded + (self.neighbours(tokens, 0, tokens.shape[1]) if near is None else near)
        features: Tensor = self.stack(embedded if offset is None else embedded + offset[:, None], **kwargs)
        return features

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., vocab_size) from features (..., width)."""
        # Of a tied embedding only the vocabulary is scored: tokens beyond it are read, never written.
        weight = self.embedding.weight if self.head is None else self.head.weight
        return linear(hidden, weight if len(weight) == self.vocab_size else weight[: self.vocab_size])

    def forward(self, tokens: Tensor, targets: Tensor, ignored: int, smoothing: float = 0.0, **kwargs: Any) -> Tensor:
        """The mean cross-entropy, in nats per token, of targets (n, t) but for those that are `ignored`."""
        scores = self.logits(self.hidden(tokens, **kwargs))
        return cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=ignored, label_smoothing=smoothing)
