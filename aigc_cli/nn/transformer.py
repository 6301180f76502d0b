"""The one transformer block of the house (Vaswani et al., Attention Is All You Need, 2017), stacks of it, and a stack
from tokens to scores of tokens.

Pre-norm, with RMSNorm, rotary positions, normed queries and keys and SwiGLU; or, by :class:`Style`, the classic block
of GPT-2. A stack is causal or not, and may attend to a second sequence.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, layer_norm, linear, silu

from aigc_cli.config.schema import STRICT
from aigc_cli.nn.attention import KVCache, attend, attention_heads, dropout, rms_norm, unit_rms
from aigc_cli.nn.lora import AdaptedLinear, LoRAConfig
from aigc_cli.nn.positions import GridPositions

ROTARY_BASE = 10_000.0
FRESH_STD = 0.02  # of weights before training, as in GPT-2


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Style:
    """What a block is made of."""

    norm: Literal["rms", "layer"]
    positions: Literal["rotary", "learned", "grid"]
    mlp: Literal["swiglu", "gelu"]
    qk_norm: bool
    bias: bool


@dataclass(config=STRICT, frozen=True, kw_only=True)
class TransformerConfig:
    """The keys of every stack of blocks."""

    layers: Annotated[int, Field(ge=1)]
    heads: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    feed_forward: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    style: Style
    lora: LoRAConfig = LoRAConfig()

    @model_validator(mode="after")
    def _divides(self) -> TransformerConfig:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}")
        if self.style.positions == "rotary" and self.width // self.heads % 2:
            odd = f"heads of {self.width // self.heads}, an odd number"
            given = f"width={self.width} with heads={self.heads} gives {odd}"
            raise ValueError(f"rotary positions rotate pairs of features, and {given}")
        return self

    @property
    def hidden(self) -> int:
        """Units within the feed-forward layer. SwiGLU has three matrices where the plain layer has two, so that it gets
        two thirds as many units (Shazeer, GLU Variants Improve Transformer, 2020), rounded up to a multiple of 8."""
        units = self.feed_forward * self.width
        return round(units) if self.style.mlp == "gelu" else 8 * math.ceil(units / 12)

    def linear(self, inputs: int, outputs: int) -> nn.Linear:
        """A linear layer of a block, with an adapter where `lora` gives it a rank."""
        if self.lora.rank is None:
            return nn.Linear(inputs, outputs, bias=self.style.bias)
        return AdaptedLinear(inputs, outputs, bias=self.style.bias, rank=self.lora.rank, alpha=self.lora.alpha)


class Norm(nn.Module):
    """RMSNorm or LayerNorm over the last dimension."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        style = config.style
        self.rms = style.norm == "rms"
        self.weight = nn.Parameter(torch.ones(config.width))
        self.bias = None if self.rms or not style.bias else nn.Parameter(torch.zeros(config.width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape."""
        return rms_norm(x, self.weight) if self.rms else layer_norm(x, self.weight.shape, self.weight, self.bias)


class Attention(nn.Module):
    """What both kinds of attention share; each has projections of its own, and ends in :meth:`mix`."""

    out: nn.Linear

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.log_scale = nn.Parameter(torch.zeros(config.heads)) if config.style.qk_norm else None

    def mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        """Heads (n, h, t, d) to (n, t, width); see :func:`attend`."""
        mixed = attend(query, key, value, mask, self.dropout if self.training else 0.0, causal)
        projected: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return projected


class SelfAttention(Attention):
    """Attention of a sequence to itself, or, if causal, to what came before."""

    def __init__(self, config: TransformerConfig, causal: bool) -> None:
        super().__init__(config)
        self.causal = causal
        self.qkv = config.linear(config.width, 3 * config.width)
        self.out = config.linear(config.width, config.width)

    def forward(
        self, x: Tensor, rotation: Tensor | None, mask: Tensor | None, cache: KVCache | None, layer: int
    ) -> Tensor:
        """(n, t, width) to the same shape; see :meth:`Transformer.forward`."""
        joint = self.qkv(x).unflatten(2, (3, self.heads, -1))
        query, key, value = attention_heads(joint, self.log_scale, rotation)
        causal = self.causal
        if cache is not None:
            causal = causal and cache.empty
            key, value, mask = cache.extend(layer, key, value)
        return self.mix(query, key, value, mask, causal)


class CrossAttention(Attention):
    """Attention of a sequence to another, the memory."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.query = config.linear(config.width, config.width)
        self.key_value = config.linear(config.width, 2 * config.width)
        self.out = config.linear(config.width, config.width)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None, cache: KVCache | None, layer: int) -> Tensor:
        """x (n, t, width) and memory (n, s, width) to the shape of x; see :meth:`Transformer.forward`."""
        query = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        if self.log_scale is not None:
            query = unit_rms(query) * self.log_scale.exp().to(query.dtype)[:, None, None]
        if cache is not None and layer in cache.memory:
            key, value = cache.memory[layer]
        else:
            key, value = self.key_value(memory).unflatten(2, (2, self.heads, -1)).transpose(1, 3).unbind(2)
            key = key if self.log_scale is None else unit_rms(key)
        if cache is not None:
            cache.memory[layer] = key, value
        return self.mix(query, key, value, mask)


class FeedForward(nn.Module):
    """Two layers with GELU, or SwiGLU (Shazeer 2020)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gated = config.style.mlp == "swiglu"
        self.up = config.linear(config.width, config.hidden * (2 if self.gated else 1))
        self.down = config.linear(config.hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape."""
        if self.gated:
            gate, value = self.up(x).chunk(2, -1)
            raised = silu(gate) * value
        else:
            raised = gelu(self.up(x))
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
        learned, dim = config.style.positions == "learned", config.width // config.heads
        self.positions = nn.Parameter(torch.empty(length, config.width)) if learned else None
        of_grid = config.style.positions == "grid"
        self.places = GridPositions(length, config.width, grid, FRESH_STD) if of_grid else None
        if not learned:
            frequencies = ROTARY_BASE ** -(torch.arange(0, dim, 2) / dim)
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
        dim = config.width // config.heads
        return KVCache(config.layers, rows, config.heads, columns, dim, like=self.norm.weight)


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
    """

    def __init__(
        self, config: TransformerConfig, vocab_size: int, length: int, *, causal: bool, cross: bool = False,
        tied: bool = True, extra: int = 0, grid: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self.vocab_size, self.length = vocab_size, length
        self.embedding = nn.Embedding(vocab_size + extra, config.width)
        self.stack = Transformer(config, length, causal=causal, cross=cross, grid=grid)
        self.head = None if tied else nn.Linear(config.width, vocab_size, bias=False)
        fresh(self.embedding)
        if self.head is not None:
            fresh(self.head)

    def hidden(self, tokens: Tensor, *, offset: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Features (n, t, width) of tokens (n, t), or of the sums of several (n, t, k), to whose embeddings
        `offset` (n, width) is added, a row's own; see :meth:`Transformer.forward` for the rest."""
        embedded = self.embedding(tokens)
        embedded = embedded if tokens.ndim == 2 else embedded.sum(2)
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
