"""Muon: momentum whose steps of a matrix are orthogonal (Jordan et al., Muon: An Optimizer for Hidden Layers in Neural
Networks, 2024), scaled as in Liu et al., Muon Is Scalable for LLM Training, 2025.

torch.optim.Muon takes matrices alone, computes in bfloat16 on a CPU too, and one matrix after another.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer

from aigc_cli.config.schema import STRICT
from aigc_cli.nn.transformer import Attention, FeedForward
from aigc_cli.registry import register
from aigc_cli.training.optimizers import Fraction, OptimizerConfig, ParamGroups, Positive, lean, sparing_vectors
from aigc_cli.training.parallel import as_spread, whole

_A, _B, _C = 3.4445, -4.7750, 2.0315  # Jordan's quintic, which is steep at 0
_ITERATIONS = 5
_RMS = 0.2  # about that of AdamW's steps (Liu et al., section 2.2)


@dataclass(config=STRICT, frozen=True, kw_only=True)
class MuonConfig(OptimizerConfig):
    """Muon for the matrices of hidden layers, and AdamW for all else."""

    name: Literal["muon"]
    momentum: Fraction
    nesterov: bool
    adamw_lr: Positive | None
    betas: tuple[Fraction, Fraction]
    eps: Positive

    def groups(self, network: nn.Module, parameters: list[nn.Parameter]) -> ParamGroups:
        """The hidden matrices, each with the numbers of rows that are joined in it, and AdamW's own groups."""
        hidden = {weight: rows for weight, rows in hidden_matrices(network) if weight.requires_grad}
        scale = 1.0 if self.adamw_lr is None else self.adamw_lr / self.lr
        rest = sparing_vectors([parameter for parameter in parameters if parameter not in hidden])
        return [{"params": [*hidden], "rows": [*hidden.values()]}, *({**group, "lr_scale": scale} for group in rest)]


def hidden_matrices(network: nn.Module) -> list[tuple[nn.Parameter, tuple[int, ...]]]:
    """The weights that Muon trains, each with the rows of the matrices that are joined in it, such as queries, keys and
    values.

    Of transformers they are those of attention and feed-forward layers; of other networks those of all linear and
    convolutional layers but the first and the last, which AdamW serves better (Jordan et al.). Adapters are AdamW's.
    """
    inner = [part for part in network.modules() if isinstance(part, Attention | FeedForward)]
    parts = [module for part in inner for module in part.modules()] or [*network.modules()]
    layers = [layer for layer in parts if isinstance(layer, nn.Linear | _ConvNd)]
    weights = [
        (layer.weight, getattr(layer, "joined", None) or (len(layer.weight),))
        for layer in (layers if inner else layers[1:-1])
    ]
    return [(weight, rows) for weight, rows in weights if isinstance(weight, nn.Parameter)]  # else it is made of others


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (n, rows, columns) whose singular values have moved to about 1 (0.7 to 1.2), by iterations of Newton and
    Schulz, on a GPU in bfloat16."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x.bfloat16() if x.is_cuda else x
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp_(min=1e-7)
    if x.is_cuda or x.shape[2] < 2 * x.shape[1]:
        for _ in range(_ITERATIONS):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    else:
        x = _short_product(x @ x.mT) @ x
    return (x.mT if tall else x).to(matrices.dtype)


def _short_product(gram: Tensor) -> Tensor:
    """What the iterations multiply matrices by, from their `gram` (n, rows, rows) alone: less work where
    rows are long, for which bfloat16 is too coarse."""
    product = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device).expand_as(gram)
    for _ in range(_ITERATIONS):
        factor = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        factor.diagonal(dim1=1, dim2=2).add_(_A)
        product, gram = factor @ product, factor @ gram @ factor
    return product


class Muon(lean(Optimizer)):  # type: ignore[misc]
    """Muon for groups with ``rows``, which are those of the matrices joined in each parameter; AdamW for the others."""

    def __init__(self, groups: ParamGroups, config: MuonConfig) -> None:
        self._adamw = lean(torch.optim.AdamW)(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
        super().__init__(self._adamw.param_groups, self._adamw.defaults)
        self._momentum, self._nesterov = config.momentum, config.nesterov

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Moves all parameters that have a gradient."""
        for group in self.param_groups:
            if "rows" in group:
                self._step_matrices(group)
        # Both are others after loading.
        self._adamw.param_groups = [group for group in self.param_groups if "rows" not in group]
        self._adamw.state = self.state
        self._adamw.step()

    def _step_matrices(self, group: dict[str, Any]) -> None:
        moved = [(p, rows) for p, rows in zip(group["params"], group["rows"], strict=True) if p.grad is not None]
        if not moved:
            return
        parameters, gradients = [p for p, _ in moved], [p.grad for p, _ in moved]
        for p in parameters:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum"] for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - self._momentum)
        steps = torch._foreach_lerp(gradients, momenta, self._momentum) if self._nesterov else momenta
        matrices = [whole(step).flatten(1) for step in steps]
        parts = [part for each, (_, rows) in zip(matrices, moved, strict=True) for part in torch.split(each, rows)]
        by_shape: dict[torch.Size, list[int]] = {}
        for index, part in enumerate(parts):
            by_shape.setdefault(part.shape, []).append(index)
        for shape, indices in by_shape.items():  # all of a shape at once, which a GPU wants
            stacked = orthogonal(torch.stack([parts[index] for index in indices]))
            for index, made in zip(indices, stacked.mul_(_RMS * math.sqrt(max(shape))), strict=True):
                parts[index] = made
        rest = iter(parts)
        steps = [as_spread(torch.cat([next(rest) for _ in rows]).view(p.shape), p) for p, rows in moved]
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, steps, alpha=-group["lr"])


@register("optimizer", "muon", MuonConfig)
def muon(groups: ParamGroups, config: MuonConfig) -> Optimizer:
    """Muon (Jordan et al., 2024)."""
    return Muon(groups, config)
