"""A transformer that looks at a noisy item and a time, on patches of sequences, maps and volumes (Peebles and Xie,
Scalable Diffusion Models with Transformers, 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from aigc_cli.nn.positions import GridPositions
from aigc_cli.nn.style import Style, TransformerConfig
from aigc_cli.nn.transformer import FRESH_STD, FeedForward, SelfAttention, fresh
from aigc_cli.nn.unet import Conditioned, Times, convolutions

_STYLE = Style(norm="layer", positions="learned", mlp="gelu", qk_norm=True, bias=True)


class DiT(Conditioned):
    """(n, c, ...), times (n,) in [0, 1] and labels (n,) to (n, c, ...), through `layers` blocks on patches of `patch` a
    side, which have to divide the item's sides. Of `classes`, the last stands for any."""

    def __init__(
        self, shape: Sequence[int], width: int, *, layers: int, heads: int, patch: int, classes: int, dropout: float
    ) -> None:
        super().__init__()
        conv, transposed = convolutions(len(shape) - 1)
        grid = tuple(side // patch for side in shape[1:])
        config = TransformerConfig(
            layers=layers, heads=heads, width=width, feed_forward=4, dropout=dropout, style=_STYLE
        )
        self.into = conv(shape[0], width, patch, stride=patch)
        self.places = GridPositions(torch.Size(grid).numel(), width, grid, FRESH_STD)
        self.times = Times(width)
        self.classes = nn.Embedding(classes, width) if classes else None
        self.blocks = nn.ModuleList(_Block(config) for _ in range(layers))
        self.modulation = nn.Linear(width, 2 * width)
        self.out = transposed(width, shape[0], patch, stride=patch)
        fresh(self.blocks)
        if self.classes is not None:
            fresh(self.classes)
        self._begin()

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """See the class."""
        condition = self.condition(time, labels)
        maps = self.into(x)
        tokens = maps.flatten(2).transpose(1, 2) + self.places()
        for block in self.blocks:
            tokens = block(tokens, condition)
        scale, shift = self.modulation(condition)[:, None].chunk(2, dim=2)
        tokens = torch.addcmul(shift, _normed(tokens), 1 + scale)
        found: Tensor = self.out(tokens.transpose(1, 2).reshape(maps.shape))
        return found

    def _begin(self) -> None:
        """Each block begins as the identity, and the whole as 0 (section 3.2, adaLN-Zero)."""
        for linear in (self.modulation, *(block.modulation for block in self.blocks), self.out):
            for parameter in linear.parameters():
                nn.init.zeros_(parameter)


class _Block(nn.Module):
    """Attention and a feed-forward layer, each beside the identity, of features that a condition scales and shifts."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config, causal=False)
        self.feed_forward = FeedForward(config)
        self.modulation = nn.Linear(config.width, 6 * config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(n, t, width) and (n, width) to the shape of the first."""
        parts = self.modulation(condition)[:, None].chunk(6, dim=2)
        scale, shift, share, scale_after, shift_after, share_after = parts
        mixed = self.attention(torch.addcmul(shift, _normed(x), 1 + scale), None, None, None, 0)
        x = torch.addcmul(x, share, self.dropout(mixed))
        raised = self.feed_forward(torch.addcmul(shift_after, _normed(x), 1 + scale_after))
        return torch.addcmul(x, share_after, self.dropout(raised))


def _normed(x: Tensor) -> Tensor:
    """LayerNorm without weights of its own: the condition brings them."""
    return layer_norm(x, x.shape[-1:])
