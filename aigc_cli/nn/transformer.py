"""The one transformer block of the house (Vaswani et al., Attention Is All You Need, 2017), and stacks of it.

Pre-norm, with RMSNorm, rotary positions, normed queries and keys and SwiGLU; or, by :class:`Style`, the classic block
of GPT-2. A stack is causal or not, and may attend to a second sequence.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, silu

from aigc_cli.config.schema import STRICT
from aigc_cli.nn.cache import KVCache
from aigc_cli.nn.fused import attend, attention_heads, dropout, rms_norm, unit_rms
from aigc_cli.nn.lora import AdaptedLinear, LoRAConfig

ROTARY_BASE = 10_000.0
FRESH_STD = 0.02  # of weights before training, as in GPT-2


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Style:
    """What a block is made of."""

    norm: Literal["rms", "layer"]
    positions: Literal["rotary", "learned"]
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
            raise ValueError(
                f"rotary positions rotate pairs of features, and width={self.width} with heads={self.heads} gives "
                f"heads of {self.width // self.heads}, an odd number"
            )
        return self

    @property
    def hidden(self) -> int:
        """Units within the feed-forward layer.

        SwiGLU has three matrices where the plain layer has two, so that it gets two thirds as many units (Shazeer, GLU
        Variants Improve Transformer, 2020), rounded up to a multiple of 8.
        """
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


class SelfAttention(nn.Module):
    """Attention of a sequence to itself, or, if causal, to what came before."""

    def __init__(self, config: TransformerConfig, causal: bool) -> None:
        super().__init__()
        width = config.width
        self.heads, self.causal, self.dropout = config.heads, causal, config.dropout
        self.qkv = config.linear(width, 3 * width)
        self.log_scale = nn.Parameter(torch.zeros(config.heads)) if config.style.qk_norm else None
        self.out = config.linear(width, width)

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
        share = self.dropout if self.training else 0.0
        mixed = attend(query, key, value, mask, share, causal)
        projected: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return projected


class CrossAttention(nn.Module):
    """Attention of a sequence to another, the memory."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.dropout = config.heads, config.dropout
        self.query = config.linear(width, width)
        self.key_value = config.linear(width, 2 * width)
        self.log_scale = nn.Parameter(torch.zeros(config.heads)) if config.style.qk_norm else None
        self.out = config.linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None, cache: KVCache | None, layer: int) -> Tensor:
        """x (n, t, width) and memory (n, s, width) to the shape of x; see :meth:`Transformer.forward`."""
        query = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        if self.log_scale is not None:
            query = unit_rms(query) * self.log_scale.exp().to(query.dtype)[:, None, None]
        key, value = cache.memory[layer] if cache and layer in cache.memory else self._remembered(memory)
        if cache is not None:
            cache.memory[layer] = key, value
        share = self.dropout if self.training else 0.0
        mixed = attend(query, key, value, mask, share)
        projected: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return projected

    def _remembered(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (n, h, s, d) of the memory."""
        key, value = self.key_value(memory).unflatten(2, (2, self.heads, -1)).transpose(1, 3).unbind(2)
        return (key if self.log_scale is None else unit_rms(key)), value


class FeedForward(nn.Module):
    """Two layers with GELU, or SwiGLU (Shazeer 2020)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gated = config.style.mlp == "swiglu"
        self.up = config.linear(config.width, config.hidden * (2 if self.gated else 1))
        self.down = config.linear(config.hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape."""
        raised = self.up(x)
        if self.gated:
            gate, value = raised.chunk(2, -1)
            raised = silu(gate) * value
        else:
            raised = gelu(raised)
        lowered: Tensor = self.down(raised)
        return lowered


class Block(nn.Module):
    """Attention, attention to a memory where there is one, and a feed-forward layer, each added to what came in."""

    def __init__(self, config: TransformerConfig, *, causal: bool, cross: bool) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.attention_norm = Norm(config)
        self.attention = SelfAttention(config, causal)
        if cross:
            self.cross_norm = Norm(config)
            self.cross: CrossAttention | None = CrossAttention(config)
        else:
            self.cross = None
        self.feed_forward_norm = Norm(config)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Tensor, rotation: Tensor | None, mask: Tensor | None, memory: Tensor | None,
        memory_mask: Tensor | None, cache: KVCache | None, layer: int,
    ) -> Tensor:  # fmt: skip
        """(n, t, width) to the same shape; see :meth:`Transformer.forward`."""
        x = x + self._dropped(self.attention(self.attention_norm(x), rotation, mask, cache, layer))
        if self.cross is not None:
            assert memory is not None, "this block attends to a memory"
            x = x + self._dropped(self.cross(self.cross_norm(x), memory, memory_mask, cache, layer))
        return x + self._dropped(self.feed_forward(self.feed_forward_norm(x)))

    def _dropped(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout if self.training else 0.0)


class Transformer(nn.Module):
    """A stack of blocks over embedded tokens, with a norm at the end.

    Args:
        config: Its size and style.
        length: The most tokens it can look at.
        causal: Whether a token sees only itself and those before it.
        cross: Whether blocks attend to a memory.
    """

    rotation: Tensor

    def __init__(self, config: TransformerConfig, length: int, *, causal: bool, cross: bool = False) -> None:
        super().__init__()
        self.config, self.length = config, length
        dim = config.width // config.heads
        if config.style.positions == "learned":
            self.positions: nn.Parameter | None = nn.Parameter(torch.empty(length, config.width))
        else:
            self.positions = None
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
        """(n, t, width) to the same shape.

        Args:
            x: Embedded tokens.
            mask: (n, t), True for tokens that are there; None where all are. Not for a causal stack, in which what
                pads a row on its right is never seen.
            memory: (n, s, width), what cross-attention looks at.
            memory_mask: (n, s), True for what is there of it; None where all is.
            cache: What was read before, to which `x` is added; :meth:`KVCache.read` is the caller's to call.
        """
        t = x.shape[1]
        places = slice(0, t) if cache is None else cache.positions(t)
        rotation = None
        if self.positions is not None:
            x = x + self.positions[places]
        else:
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
        config, like = self.config, self.norm.weight
        return KVCache(
            config.layers, rows, config.heads, columns, config.width // config.heads,
            device=like.device, dtype=like.dtype,
        )  # fmt: skip


def fresh(module: nn.Module) -> None:
    """Draws linear layers and embeddings anew: normal, with a standard deviation of 0.02; biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, 0.0, FRESH_STD)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
