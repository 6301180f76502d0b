"""The generator ``biggan`` (Brock et al., Large Scale GAN Training for High Fidelity Natural Image Synthesis, 2019).

Its discriminator is ``resnet``'s, whose head projects on the class. On 32 pixels all maps have 4 times the channel
count that the paper names, and half that in the discriminator.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aigc_cli.models.gan.config import GANConfig
from aigc_cli.models.gan.resnet import ResNetGenerator


class BigGANGenerator(ResNetGenerator):
    """SNGAN's blocks, each conditioned on the class embedding and on its own piece of the latent (appendix B.1)."""

    def prepare(self, config: GANConfig, classes: int, blocks: int) -> tuple[int, Sequence[int]]:
        """See :meth:`ResNetGenerator.prepare`."""
        self.pieces = _split_evenly(config.latent, blocks + 1)
        self.shared = nn.Embedding(classes, config.embedding) if classes else None
        width = config.embedding if classes else 0
        return self.pieces[0], [piece + width for piece in self.pieces[1:]]

    def inputs(self, latent: Tensor, labels: Tensor | None) -> tuple[Tensor, Sequence[Tensor | None]]:
        """See :meth:`ResNetGenerator.inputs`."""
        start, *pieces = torch.split(latent, self.pieces, dim=1)
        if self.shared is None or labels is None:
            return start, pieces
        embedded = self.shared(labels)
        return start, [torch.cat([embedded, piece], dim=1) for piece in pieces]


def _split_evenly(total: int, parts: int) -> list[int]:
    """`total` as a sum of `parts` numbers that differ by one at most, the larger first."""
    return [total // parts + (i < total % parts) for i in range(parts)]
