"""The keys of a transformer: how many layers, heads and features, and what its blocks are made of."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import nn

from aigc_cli.config.schema import STRICT
from aigc_cli.nn.attention import EPS
from aigc_cli.nn.lora import AdaptedLinear, LoRAConfig


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Style:
    """What a block is made of."""

    norm: Literal["rms", "layer"]
    positions: Literal["rotary", "learned", "grid"]
    mlp: Literal["swiglu", "gelu", "gelu_tanh"]
    qk_norm: bool | Literal["layer", "dim"]  # a scale per head, one for all, or one per feature of queries and of keys
    bias: bool | Literal["qkv"]  # everywhere, or where queries, keys and values are made
    rope_base: Annotated[float, Field(gt=1)] = 10_000.0
    norm_eps: Annotated[float, Field(gt=0)] | None = None  # None is 1e-6 of rms, 1e-5 of layer

    @property
    def eps(self) -> float:
        """What is added to a mean square, or a variance, before it is divided by."""
        return self.norm_eps or (EPS if self.norm == "rms" else 1e-5)


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
    kv_heads: Annotated[int, Field(ge=1)] | None = None  # None is as many as `heads`
    head_size: Annotated[int, Field(ge=1)] | None = None  # None is width / heads

    @model_validator(mode="after")
    def _divides(self) -> TransformerConfig:
        if self.width % self.heads and self.head_size is None:
            raise ValueError(f"width={self.width} is not a multiple of heads={self.heads}")
        if self.heads % self.groups:
            raise ValueError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")
        if self.style.positions == "rotary" and self.dim % 2:
            odd = f"heads of {self.dim}, an odd number"
            given = f"width={self.width} with heads={self.heads} gives {odd}"
            raise ValueError(f"rotary positions rotate pairs of features, and {given}")
        return self

    @property
    def dim(self) -> int:
        """Features of a head."""
        return self.head_size or self.width // self.heads

    @property
    def groups(self) -> int:
        """Heads of keys and values, each of which serves as many heads of queries (Ainslie et al., GQA, 2023)."""
        return self.kv_heads or self.heads

    @property
    def hidden(self) -> int:
        """Units within the feed-forward layer. SwiGLU has three matrices where the plain layer has two, so that it gets
        two thirds as many units (Shazeer, GLU Variants Improve Transformer, 2020), rounded up to a multiple of 8."""
        units = self.feed_forward * self.width
        return 8 * math.ceil(units / 12) if self.style.mlp == "swiglu" else round(units)

    def linear(self, inputs: int, *outputs: int, qkv: bool = False) -> nn.Linear:
        """A linear layer of a block, or several joined in one, with an adapter where `lora` gives it a rank; `qkv`
        makes queries, keys or values."""
        bias, rows, lora = self.style.bias is True or (qkv and bool(self.style.bias)), sum(outputs), self.lora
        layer = (
            nn.Linear(inputs, rows, bias=bias) if lora.rank is None
            else AdaptedLinear(inputs, rows, bias=bias, rank=lora.rank, alpha=lora.alpha)
        )  # fmt: skip
        layer.joined = outputs  # type: ignore[assignment]  # what an optimizer of matrices takes apart
        return layer
