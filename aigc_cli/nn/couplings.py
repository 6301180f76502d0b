"""Affine coupling layers (Dinh, Sohl-Dickstein and Bengio, Density Estimation Using Real NVP, 2017): an invertible map
of vectors whose density is exact, by which a prior over latents is learnt."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

_MOST = 2.0  # of the logarithm by which a layer scales


class CouplingFlow(nn.Module):
    """Maps vectors (n, d) to noise that is N(0, 1), and back, with the class beside them where there are any.

    It begins as the identity.
    """

    def __init__(self, dimensions: int, *, layers: int, hidden: int, classes: int = 0) -> None:
        super().__init__()
        self.classes = classes
        self.shift, self.log_scale = (nn.Parameter(torch.zeros(dimensions)) for _ in range(2))
        random = torch.Generator().manual_seed(0)
        turns = [torch.randperm(dimensions, generator=random) for _ in range(layers)] if dimensions > 1 else []
        self.layers = nn.ModuleList(_Coupling(order, hidden, classes) for order in turns)

    def to_noise(self, vectors: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The noise (n, d) of vectors (n, d), and the logarithm (n,) of how much larger a volume of it is."""
        condition = self._condition(labels)
        x = (vectors - self.shift) * torch.exp(-self.log_scale)
        volume = -self.log_scale.sum().expand(len(x))
        for layer in self.layers:
            x, change = layer(x, condition)
            volume = volume + change
        return x, volume

    def from_noise(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """The vectors (n, d) of noise (n, d)."""
        condition, x = self._condition(labels), noise
        for layer in reversed(self.layers):
            x = layer.back(x, condition)  # type: ignore[operator]
        return x * torch.exp(self.log_scale) + self.shift

    def log_prob(self, vectors: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p of vectors (n, d), nats, (n,)."""
        noise, volume = self.to_noise(vectors, labels)
        return volume - 0.5 * (noise.square() + math.log(2 * math.pi)).sum(1)

    def _condition(self, labels: Tensor | None) -> Tensor | None:
        return None if labels is None or not self.classes else one_hot(labels, self.classes).float()


class _Coupling(nn.Module):
    """Scales and moves one half of a vector as the other half says."""

    order: Tensor

    def __init__(self, order: Tensor, hidden: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("order", order)  # kept with the weights: another torch may draw others
        self.kept = len(order) // 2
        self.net = nn.Sequential(
            nn.Linear(self.kept + classes, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, 2 * (len(order) - self.kept)),
        )  # fmt: skip
        nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.net[-1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, d) to (n, d), and the logarithm of the change of volume (n,)."""
        kept, moved = self._halves(x)
        log_scale, shift = self._says(kept, condition)
        return torch.cat([kept, moved * log_scale.exp() + shift], dim=1), log_scale.sum(1)

    def back(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """The inverse."""
        kept, moved = x[:, : self.kept], x[:, self.kept :]
        log_scale, shift = self._says(kept, condition)
        whole = torch.cat([kept, (moved - shift) * torch.exp(-log_scale)], dim=1)
        return whole.index_select(1, self.order.argsort())

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        turned = x.index_select(1, self.order)
        return turned[:, : self.kept], turned[:, self.kept :]

    def _says(self, kept: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        seen = kept if condition is None else torch.cat([kept, condition.to(kept)], dim=1)
        log_scale, shift = self.net(seen).chunk(2, dim=1)
        return _MOST * torch.tanh(log_scale / _MOST), shift
