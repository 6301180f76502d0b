"""Adapters of low rank beside linear layers (Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2022).

A layer y = W x becomes y = W x + (alpha / rank) B A x, of which only A (rank, inputs) and B (outputs, rank) train. B
starts at zero, so that training starts from what W alone does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import linear

from aigc_cli.config.schema import STRICT


@dataclass(config=STRICT, frozen=True, kw_only=True)
class LoRAConfig:
    """The section `lora` of a model's configuration."""

    rank: Annotated[int, Field(ge=1)] | None = None
    alpha: Annotated[float, Field(gt=0)] = 16.0


class AdaptedLinear(nn.Linear):
    """A linear layer with frozen weights and a trained adapter."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, rank: int, alpha: float) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.scale = alpha / rank
        self.lora_a: nn.Parameter | None = nn.Parameter(torch.randn(rank, inputs) / math.sqrt(inputs))
        self.lora_b: nn.Parameter | None = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        out = super().forward(x)
        if self.lora_a is None or self.lora_b is None:
            return out
        return out + self.scale * linear(linear(x, self.lora_a), self.lora_b)


def adapters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of all adapters within a module, by their names."""
    for name, layer in module.named_modules():
        if isinstance(layer, AdaptedLinear):
            yield from ((f"{name}.{own}", p) for own, p in layer.named_parameters() if own.startswith("lora_"))


def train_adapters_only(module: nn.Module) -> None:
    """Freezes all but the adapters, in a module that has any."""
    found = list(adapters(module))
    if found:
        module.requires_grad_(False)
    for _, parameter in found:
        parameter.requires_grad_(True)


@torch.no_grad()
def merge_adapters(module: nn.Module) -> None:
    """Adds every adapter within a module to its weights: from then on it holds what a module without adapters would."""
    for layer in module.modules():
        if isinstance(layer, AdaptedLinear) and layer.lora_a is not None and layer.lora_b is not None:
            layer.weight.addmm_(layer.lora_b, layer.lora_a, alpha=layer.scale)
            layer.lora_a = layer.lora_b = None
