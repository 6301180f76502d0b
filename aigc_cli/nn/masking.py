"""Tokens to be guessed: which are masked, and how a row of masks is filled, in an order of its own or over and over."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from aigc_cli.nn.decoding import Choice, choose

#: A part of an item, by the last two of its axes, rows and columns; of what has one axis, its end or its beginning.
Region = Literal["lower", "upper", "left", "right", "centre"]


def in_region(grid: Sequence[int], region: Region) -> Tensor:
    """Which places of a grid (..., rows, columns) or (columns,) lie in a region, bool of that shape."""
    rows, columns = grid[-2:] if len(grid) > 1 else (grid[0], grid[0])
    row, column = torch.arange(rows), torch.arange(columns)
    if len(grid) > 1:
        row = row[:, None]
    inner = (4 * row >= rows) & (4 * row < 3 * rows) & (4 * column >= columns) & (4 * column < 3 * columns)
    found = {"lower": 2 * row >= rows, "upper": 2 * row < rows, "left": 2 * column < columns,
             "right": 2 * column >= columns, "centre": inner}[region]  # fmt: skip
    return found.expand(*grid)


_BASES = (2, 3, 5)  # of Halton's sequence along each axis


@dataclass(frozen=True)
class Masks:
    """Places (m,) in rows (m,) of a batch, row by row, some of which may not count.

    How many there may be is known on the host, so that a vocabulary head can run on them alone and nothing waits for
    the device.
    """

    rows: Tensor
    places: Tensor
    counts: Tensor  # bool; False for the surplus where a row is shorter than the batch is wide
    of_row: Tensor  # (n,), how many count in each row
    lengths: Tensor  # (n,), tokens in each row

    def apply(self, tokens: Tensor, mask: int) -> Tensor:
        """`tokens` (n, t) with the mask where one counts."""
        own = tokens[self.rows, self.places]
        return tokens.index_put((self.rows, self.places), torch.where(self.counts, mask, own))


def masks_at(shares: Sequence[float], there: Tensor, keys: Tensor) -> Masks:
    """Masks for a share of each row's tokens, those that are `there` (n, t), where random `keys` (n, t) are least.

    The shares are in (0, 1], one for each row, known on the host, and rounded up to whole tokens.
    """
    width, device = there.shape[1], there.device
    order = keys.masked_fill(~there, torch.inf).argsort(1)
    most = torch.tensor([max(1, math.ceil(share * width - 1e-9)) for share in shares])
    rows = torch.repeat_interleave(torch.arange(len(most)), most)
    ranks = torch.arange(len(rows)) - (most.cumsum(0) - most)[rows]
    rows, ranks = rows.to(device, non_blocking=True), ranks.to(device, non_blocking=True)
    lengths = there.sum(1)
    exact = torch.tensor(shares, dtype=torch.float64).to(device, non_blocking=True) * lengths
    of_row = torch.minimum((exact - 1e-9).ceil().clamp(min=1).long(), lengths)
    return Masks(rows, order[rows, ranks], ranks < of_row[rows], of_row, lengths)


@dataclass(frozen=True)
class Filling:
    """What is needed to fill the gaps of a canvas: tokens (n, t) with the token `mask` where there is one.

    `first` is a place in each row (n,), and the tokens that may be there, (n, vocab), bool; None is any token anywhere.
    """

    read: Callable[[Tensor], Tensor]  # tokens (n, t) to features of theirs (n, t, width)
    score: Callable[[Tensor], Tensor]  # features (..., width) to scores (..., vocab)
    mask: int
    canvas: Tensor
    choice: Choice
    first: tuple[Tensor, Tensor] | None = None

    @property
    def gaps(self) -> Tensor:
        """(n, t), True for what is to be filled."""
        return self.canvas == self.mask

    def guess(self, tokens: Tensor, places: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens for places (n, m) of a partly filled canvas, and their log-probabilities, (n, m) each."""
        features = self.read(tokens)
        wanted = features.gather(1, places[..., None].expand(-1, -1, features.shape[2]))
        scores = self.score(wanted).float()
        if self.first is not None:
            there, allowed = self.first
            scores = scores.masked_fill((places == there[:, None])[..., None] & ~allowed[:, None], -torch.inf)
        logits = scores.flatten(0, 1)
        chosen = choose(logits, self.choice, uniform.flatten(), beside=_beside(tokens, places))
        sure = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
        return chosen.view_as(places), sure.view_as(places)


def _beside(tokens: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens (n, t) before places (n, m), (n * m, 1), and after them, (n * m,); -1 beyond the ends."""
    wide = torch.nn.functional.pad(tokens, (1, 1), value=-1)
    return wide.gather(1, places).flatten()[:, None], wide.gather(1, places + 2).flatten()


@torch.no_grad()
def ancestral(filling: Filling, keys: Tensor, uniform: Tensor, steps: int | None) -> Tensor:
    """Fills gaps in a random order, each given all that were filled before it (Uria, Murray and Larochelle 2014).

    The order is that of random `keys` (n, t), and `uniform` has a draw in [0, 1) for each place, (n, t). It takes so
    many `steps`; None is as many as a row has gaps, which makes it exact. With fewer, neighbours in the order are drawn
    apart from each other.
    """
    tokens, gaps = filling.canvas, filling.gaps
    order = keys.masked_fill(~gaps, torch.inf).argsort(1)
    each, most = gaps.sum(1), int(gaps.sum(1).max())
    steps = most if steps is None else min(steps, most)
    for step in range(steps):
        first, stop = each * step // steps, each * (step + 1) // steps
        ranks = first[:, None] + torch.arange(-(-most // steps), device=tokens.device)
        places = order.gather(1, ranks.clamp(max=tokens.shape[1] - 1))
        guesses, _ = filling.guess(tokens, places, uniform.gather(1, places))
        tokens = _put(tokens, places, guesses, ranks < stop[:, None])
    return tokens


@torch.no_grad()
def by_confidence(filling: Filling, uniform: Tensor, steps: int) -> Tensor:
    """Fills all gaps at once, then masks the least likely again, fewer each time (Ghazvininejad et al., Mask-Predict:
    Parallel Decoding of Conditional Masked Language Models, 2019); `uniform` has draws in [0, 1), (n, steps, t)."""
    tokens = filling.canvas
    sure = torch.full(tokens.shape, torch.inf, device=tokens.device)
    each = again = filling.gaps.sum(1)
    most = int(each.max())
    for step in range(steps):
        open_ = most * (steps - step) // steps  # in the row with most of them
        if not open_:
            break
        places = (tokens != filling.mask).int().argsort(dim=1, stable=True)[:, :open_]
        there = torch.arange(open_, device=tokens.device) < again[:, None]
        guesses, likely = filling.guess(tokens, places, uniform[:, step].gather(1, places))
        tokens = _put(tokens, places, guesses, there)
        sure = _put(sure, places, likely, there)
        again = each * (steps - 1 - step) // steps
        tokens = torch.where(sure.argsort(1).argsort(1) < again[:, None], filling.mask, tokens)
    return tokens


@torch.no_grad()
def gibbs(filling: Filling, keys: Tensor, uniform: Tensor) -> Tensor:
    """Fills gaps one by one, then draws each anew given all others, over and over (Wang and Cho, BERT has a Mouth, and
    It Must Speak, 2019).

    The order of each sweep, of which the first fills the gaps, is that of random `keys` (n, sweeps, t), and `uniform`
    has a draw in [0, 1) for each place of each.
    """
    tokens, gaps = filling.canvas, filling.gaps
    each = gaps.sum(1)
    for sweep in range(keys.shape[1]):
        order = keys[:, sweep].masked_fill(~gaps, torch.inf).argsort(1)
        for rank in range(int(each.max())):
            places, there = order[:, rank : rank + 1], (rank < each)[:, None]
            masked = _put(tokens, places, torch.full_like(places, filling.mask), there)
            guesses, _ = filling.guess(masked, places, uniform[:, sweep].gather(1, places))
            tokens = _put(tokens, places, guesses, there)
    return tokens


def _put(tokens: Tensor, places: Tensor, values: Tensor, where: Tensor) -> Tensor:
    """`tokens` (n, t) with `values` (n, m) at those of the places (n, m) that are `where`."""
    spare = tokens.shape[1]  # a column beyond the row, for what is to go nowhere
    wide = torch.cat([tokens, tokens[:, :1]], 1)
    return wide.scatter(1, torch.where(where, places, spare), values)[:, :spare]


def halton(grid: Sequence[int]) -> Tensor:
    """When each place of a grid comes, int64 (places,), where what comes one after the other lies far from each other
    (Besnier et al., Halton Scheduler for Masked Generative Image Transformer, 2025, section 3.3): the cells of Halton's
    points, each when it is first met."""
    seen: dict[int, int] = {}
    number, places = 0, math.prod(grid)
    while len(seen) < places:
        number += 1
        place = 0
        for size, base in zip(grid, _BASES, strict=False):
            place = place * size + int(_reversed(number, base) * size)
        seen.setdefault(place, len(seen))
    return torch.tensor([seen[place] for place in range(places)])


def _reversed(number: int, base: int) -> float:
    """The digits of a number behind the point, the last one first."""
    found, share = 0.0, 1.0 / base
    while number:
        number, digit = divmod(number, base)
        found, share = found + digit * share, share / base
    return found


@torch.no_grad()
def by_schedule(
    score: Callable[[Tensor, float], Tensor], canvas: Tensor, mask: int, choice: Choice, uniform: Tensor, spread: float,
    order: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Fills gaps in a few passes, each of which settles the guesses that are likeliest, more of them each time: after
    a share s of the passes cos(pi s / 2) of the gaps are left (Chang et al., MaskGIT, 2022, section 3.2).

    Args:
        score: Scores (n, t, vocab), float32, of all of a canvas; it is also told the share of the passes that are done.
        canvas: Tokens (n, t), with `mask` where there is a gap.
        uniform: Draws in [0, 1), (n, passes, 2, t): for guesses, and for the order in which these settle.
        spread: How much that order is left to chance, less with each pass; 0 goes by the guesses alone.
        order: When each place settles, whatever is guessed there, int64 (t,); each item begins elsewhere in it. None
            goes by the guesses.
    """
    tokens, passes = canvas, uniform.shape[1]
    each = (canvas == mask).sum(1)
    for step in range(passes):
        gaps, done = tokens == mask, (step + 1) / passes
        logits = score(tokens, done).flatten(0, 1)
        guesses = choose(logits, choice, uniform[:, step, 0].flatten())
        sure = logits.log_softmax(-1).gather(1, guesses[:, None])[:, 0].view_as(tokens)
        chance = -(-uniform[:, step, 1].double().clamp_min(1e-12).log()).log()  # Gumbel
        if order is not None:
            begins = (uniform[:, 0, 1, :1].double() * len(order)).long()
            sure, chance = -((order - begins) % len(order)), torch.zeros_like(chance)
        sure = torch.where(gaps, sure.double() + spread * (1 - done) * chance, torch.inf)
        tokens = torch.where(gaps, guesses.view_as(tokens), tokens)
        left = (each * math.cos(math.pi / 2 * done) + 1e-9).floor().long()
        left = torch.minimum(left, (gaps.sum(1) - 1).clamp_min(0))  # each pass settles one at least
        tokens = torch.where(sure.argsort(1).argsort(1) < left[:, None], mask, tokens)
    return tokens
