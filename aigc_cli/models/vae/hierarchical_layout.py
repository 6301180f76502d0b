"""Where the latents of the hierarchical VAE lie, and images as the patches that its finest level sees."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from aigc_cli.errors import ConfigError

SMALLEST, LARGEST = 8, 128  # height and width of an image


class Level(NamedTuple):
    """The blocks at one height and width."""

    side: int
    blocks: int


def levels(layout: Sequence[str] | None, shape: tuple[int, ...]) -> list[Level]:
    """The levels from coarse to fine, of a layout such as ``["1x1", "4x2", "8x3"]``: side x blocks.

    None gives two blocks at half the image's size, a quarter, ... down to 4 to 7, and above them one at 1.

    Raises:
        ConfigError: images that it does not serve, or a layout that does not fit them.
    """
    _, height, width = shape
    if height != width or height % 2 or not SMALLEST <= height <= LARGEST:
        raise ConfigError(
            f"model=hvae models squares of {SMALLEST} to {LARGEST} with an even side, not {height}x{width} images",
            "set data.size= to a number such as 16, 32 or 64",
        )
    if layout is None:
        return [Level(1, 1), *(Level(side, 2) for side in _halves(height)[::-1])]
    chosen = [Level(*map(int, word.split("x"))) for word in layout]
    for coarse, fine in pairwise([*(level.side for level in chosen), height]):
        if fine % coarse or (fine == coarse and fine != height):
            raise ConfigError(
                f"model.layout={','.join(layout)} does not fit images of {height}x{height}: "
                f"from {coarse}x{coarse} there is no whole step to {fine}x{fine}",
                "name sides from coarse to fine, each a divisor of the next and of the image's, or null for all halves",
            )
    return chosen


def _halves(size: int) -> list[int]:
    sides = [size // 2]
    while sides[-1] % 2 == 0 and sides[-1] >= 8:
        sides.append(sides[-1] // 2)
    return sides


def to_patches(images: Tensor, patch: int) -> Tensor:
    """Images (n, c, h, w) as the patch^2 coarser images (n * patch^2, c, h / patch, w / patch) that interleave."""
    n, c, h, w = images.shape
    cut = images.reshape(n, c, h // patch, patch, w // patch, patch)
    return cut.permute(0, 3, 5, 1, 2, 4).reshape(n * patch * patch, c, h // patch, w // patch)


def from_patches(patches: Tensor, patch: int) -> Tensor:
    """The inverse of :func:`to_patches`."""
    _, c, h, w = patches.shape
    cut = patches.reshape(-1, patch, patch, c, h, w).permute(0, 3, 4, 1, 5, 2)
    return cut.reshape(-1, c, h * patch, w * patch)
