"""Several codes for each place, written in fewer steps than one after the other: those of the next codebook come a step
later each (Copet et al., Simple and Controllable Music Generation, 2023, section 2.2).

A step writes one code of each codebook, of neighbouring places. So a code is given all those of earlier codebooks for
its place, and of later ones it is given those of the places before.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aigc_cli.models.codes.base import guided
from aigc_cli.nn.decoding import Choice, choose
from aigc_cli.nn.transformer import TokenTransformer


def delayed(codes: Tensor, fill: int) -> Tensor:
    """Codes (n, places, k) as they are written, (n, places + k - 1, k), with `fill` where a codebook has none."""
    n, places, k = codes.shape
    found = codes.new_full((n, places + k - 1, k), fill)
    for level in range(k):
        found[:, level : level + places, level] = codes[:, :, level]
    return found


def aligned(steps: Tensor) -> Tensor:
    """The inverse: what was written (n, s, k) as codes (n, s - k + 1, k)."""
    k = steps.shape[2]
    places = steps.shape[1] - k + 1
    return torch.stack([steps[:, level : level + places, level] for level in range(k)], dim=2)


def begun(told: Tensor, steps: Tensor) -> Tensor:
    """What is read where each step (n, s, k) is written: the token `told` (n,), and the steps but the last."""
    return torch.cat([told[:, None, None].expand(-1, 1, steps.shape[2]), steps[:, :-1]], 1)


@torch.no_grad()
def write_delayed(
    network: TokenTransformer, told: Tensor, canvas: Tensor, kept: int, any_: int, guidance: float | None,
    choice: Choice, uniform: Tensor | None,
) -> Tensor:  # fmt: skip
    """Codes (n, places, k), those of the first `kept` places as the `canvas` of that shape has them.

    Args:
        network: Causal, over as many steps; it scores the codes of all codebooks, the first one's first.
        told: The token that stands before each (n,).
        canvas: The codes that are given.
        kept: Places of which they are.
        any_: The token where a codebook has no code, and in the place of `told` where nothing is told.
        guidance: How far scores move away from those of what is told nothing; None reads no such rows.
        choice: How a code is chosen.
        uniform: Draws in [0, 1), (n, steps, k); None where none are needed.
    """
    n, places, k = canvas.shape
    count, each = places + k - 1, network.vocab_size // k
    offsets = torch.arange(k, device=canvas.device)
    steps = delayed(canvas, any_)
    free = delayed(torch.arange(places, device=canvas.device)[None, :, None].expand(1, -1, k), -1)[0] >= kept
    cache = network.stack.cache(n if guidance is None else 2 * n, count)
    shown = told[:, None, None].expand(-1, 1, k)
    other = torch.full_like(shown, any_)
    for step in range(count):
        rows = shown if guidance is None else torch.cat([shown, other])
        scores = network.logits(network.hidden(rows, cache=cache)[:, -1]).float().view(-1, k, each)
        cache.read([step + 1] * len(rows))
        if guidance is not None:
            scores = guided(scores, guidance)
        draws = None if uniform is None else uniform[:, step].flatten()
        codes = choose(scores.flatten(0, 1), choice, draws).view(n, k) + each * offsets
        steps[:, step] = torch.where(free[step], codes, steps[:, step])
        shown = other = steps[:, step : step + 1]
    return aligned(steps)
