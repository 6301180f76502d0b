"""Vector quantisation with a codebook that follows what it quantises (van den Oord, Vinyals and Kavukcuoglu, Neural
Discrete Representation Learning, 2017, appendix A.1; Razavi, van den Oord and Vinyals, Generating Diverse High-Fidelity
Images with VQ-VAE-2, 2019, section 2.1), and without one, by rounding (Mentzer et al., Finite Scalar Quantization:
VQ-VAE Made Simple, 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize

from aigc_cli.nn.collective import draw_common, gathered, summed

_SMALLEST = 1e-12  # of a divisor
_RESERVOIR, _BATCHES = 32, 16  # vectors that are kept for each code, from at least so many batches
_ROUNDS = 15  # of k-means


class Quantized(NamedTuple):
    """Vectors and the codes next to them."""

    vectors: Tensor  # (m, d), as they are compared with the codes
    nearest: Tensor  # (m, d), the codes, without a gradient
    tokens: Tensor  # (m,), their numbers, int64; (m, k) of k codebooks

    def straight_through(self) -> Tensor:
        """The codes, with the gradient of the vectors (section 3.2 of the first paper)."""
        return self.vectors + (self.nearest - self.vectors).detach()


class Counted(nn.Module):
    """Base of quantisers: how the tokens of the last `window` batches were spread, in buffers."""

    counts: Tensor  # (codes,), of the window that is being filled
    batches: Tensor  # in that window
    windows: Tensor  # that were filled
    usage: Tensor  # share of the codes that were used in the last window; in the first, so far
    perplexity: Tensor  # exp of the entropy of their use there

    def __init__(self, codes: int, dimensions: int, window: int) -> None:
        super().__init__()
        self.codes, self.dimensions, self.window = codes, dimensions, window
        self.register_buffer("counts", torch.zeros(codes, dtype=torch.int64))
        for name in ("batches", "windows"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))
        for name in ("usage", "perplexity"):
            self.register_buffer(name, torch.zeros(()))

    def _count(self, tokens: Tensor) -> Tensor:
        """Takes the tokens of a batch (m,) into the statistics; how many there were of each, over all processes."""
        counts = summed(torch.zeros_like(self.counts).index_add_(0, tokens, torch.ones_like(tokens)))
        # Without a wait for the device to say whether a window is full.
        self.counts += counts
        self.batches += 1
        full = self.batches >= self.window
        shown = full | (self.windows == 0)
        shares = self.counts / self.counts.sum().clamp_min(1)
        perplexity = torch.special.entr(shares).sum().exp()
        self.usage.copy_(torch.where(shown, (self.counts > 0).float().mean(), self.usage))
        self.perplexity.copy_(torch.where(shown, perplexity, self.perplexity))
        self.windows += full
        self.counts *= ~full
        self.batches *= ~full
        return counts


class Quantizer(Counted):
    """Replaces each vector by the nearest of the codes, each of which is a running mean of the vectors it stood for.

    All state is in buffers, and grows with training alone. A code is the quotient of two running sums, so that an
    average of the buffers over training steps is an average of the codes, weighted by their use: one that was restarted
    forgets in it at once where it lay when nothing was near.

    Args:
        codes: How many there are, of so many `dimensions`.
        decay: Of the running sums, a batch.
        restart_below: A code is dead, and starts anew as a vector of the batch, where its running count is at most this
            share of what it would be if all codes were used alike (Dhariwal et al., Jukebox, 2020, section 3.1); 0
            only starts the codebook.
        window: Batches over which :attr:`usage` and :attr:`perplexity` are measured.
        cosine: Whether vectors and codes are of unit length (Yu et al., Vector-Quantized Image Modeling with Improved
            VQGAN, 2022, section 3.1).
        late: Whether it begins by k-means of vectors of earlier batches, which were left as they are, `plain`.
    """

    sums: Tensor  # (codes, dimensions), running sum of the vectors of each code
    sizes: Tensor  # (codes,), running count of them
    reservoir: (
        Tensor  # (places, dimensions), of vectors that were seen while there was no codebook; the bits of float32
    )
    # as int32, which no average over steps mixes
    seen: Tensor  # of its places, how many were filled; -1 once the codebook has begun

    def __init__(
        self, codes: int, dimensions: int, *, decay: float, restart_below: float, window: int, cosine: bool,
        late: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(codes, dimensions, window)
        self.decay, self.restart_below, self.cosine = decay, restart_below, cosine
        self.register_buffer("sums", torch.zeros(codes, dimensions))
        self.register_buffer("sizes", torch.zeros(codes))
        if late:
            self.register_buffer("reservoir", torch.zeros(_RESERVOIR * codes, dimensions, dtype=torch.int32))
            self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.late = late
        self._known: tuple[tuple[int, int], tuple[Tensor, Tensor]] | None = None
        #: Whether the codebook is known to have begun, so that nothing waits for the device to say so.
        self._begun = not late

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._begun = not self.late

    @property
    def codebook(self) -> Tensor:
        """The codes (codes, dimensions); before a late codebook has begun, those that it would begin with."""
        start = self._start()
        if self.cosine:
            return normalize(self.sums if start is None else start[0], dim=1, eps=_SMALLEST)
        if start is not None:
            return start[0]
        return self.sums / self.sizes.clamp_min(_SMALLEST).unsqueeze(1)

    def lookup(self, tokens: Tensor) -> Tensor:
        """The codes (..., dimensions) of tokens (...), int64."""
        return embedding(tokens, self.codebook)

    def forward(self, vectors: Tensor, used: Tensor | None = None, *, plain: bool = False) -> Quantized:
        """Quantises vectors (m, dimensions), in float32; in training mode the codebook then follows them.

        Args:
            vectors: what is quantised.
            used: bool (m,), which of them the codebook should follow, where that is not all.
            plain: leaves them as they are while a codebook that begins `late` has not begun; in training mode it keeps
                some of them in mind, and begins with them when it is first needed.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = normalize(vectors.float(), dim=1) if self.cosine else vectors.float()
            if plain:
                if self.training:
                    self._remember(_all_used(vectors.detach(), used))
                return Quantized(vectors, vectors.detach(), torch.zeros_like(vectors[:, 0], dtype=torch.int64))
            with torch.no_grad():
                if self.training:
                    seen = _all_used(vectors, used)
                    if len(seen):  # there are none where all that a batch holds is silence
                        self._begin(len(seen))
                        self._restart(seen)
                codebook = self.codebook
                # The squared distance but for the vector's own square, which decides nothing.
                distance = torch.addmm(codebook.square().sum(1), vectors, codebook.T, alpha=-2)
                tokens = distance.argmin(dim=1)
                if self.training:
                    self._follow(*((vectors, tokens) if used is None else (vectors[used], tokens[used])))
        return Quantized(vectors, embedding(tokens, codebook), tokens)

    def _remember(self, vectors: Tensor) -> None:
        """Keeps a few of the vectors in place of the oldest that are kept."""
        places = len(self.reservoir)
        order = draw_common(torch.randperm, len(vectors), device=vectors.device)
        few = vectors[order[: places // _BATCHES]]
        at = (self.seen + torch.arange(len(few), device=few.device)) % places
        self.reservoir[at] = few.view(torch.int32)
        self.seen += len(few)

    def _begin(self, m: int) -> None:
        """Sets the codebook, where it begins late and has not, by k-means of what was kept; `m` are the vectors of a
        batch, by which its running counts are measured."""
        if self._begun:
            return
        start = self._start()
        if start is not None:
            centres, counts = start
            sizes = counts * (m / counts.sum())
            self.sums.copy_(centres * sizes[:, None])
            self.sizes.copy_(sizes)
        self.seen.fill_(-1)
        self._begun = True

    def _start(self) -> tuple[Tensor, Tensor] | None:
        """Codes (codes, dimensions) to begin with, and how many of the vectors that were kept each stands for; None
        where the codebook has begun, or too few were kept."""
        if self._begun:
            return None
        seen = int(self.seen)
        self._begun = seen < 0
        if seen < self.codes:
            return None
        state = seen, self.reservoir._version  # evaluation asks for each batch
        if self._known is None or self._known[0] != state:
            self._known = state, k_means(self.reservoir.view(torch.float32)[:seen], self.codes)
        return self._known[1]

    def _restart(self, vectors: Tensor) -> None:
        """Puts every dead code on a vector of the batch, with the count of a code that is used as all others."""
        m, fair = len(vectors), len(vectors) / self.codes
        dead = self.sizes <= self.restart_below * fair
        order = draw_common(torch.randperm, m, device=vectors.device).repeat(-(-self.codes // m))[: self.codes]
        self.sums.copy_(torch.where(dead.unsqueeze(1), vectors[order] * fair, self.sums))
        self.sizes.copy_(torch.where(dead, fair, self.sizes))

    def _follow(self, vectors: Tensor, tokens: Tensor) -> None:
        sums = torch.zeros_like(self.sums).index_add_(0, tokens, vectors)
        counts = self._count(tokens)
        self.sums.lerp_(summed(sums), 1 - self.decay)
        self.sizes.lerp_(counts.to(self.sizes.dtype), 1 - self.decay)


class ResidualQuantizer(nn.Module):
    """Several codebooks, each of which quantises what those before it left (Zeghidour et al., SoundStream, 2021,
    section 3.3): a vector has a token of each. With `cosine` vectors and the codes of the first codebook are of unit
    length, and the first alone begins `late`; the other arguments are those of :class:`Quantizer`."""

    def __init__(
        self, codebooks: int, codes: int, dimensions: int, *, cosine: bool, late: bool, **options: Any
    ) -> None:
        super().__init__()
        self.codes, self.dimensions = codes, dimensions
        self.levels = nn.ModuleList(
            Quantizer(codes, dimensions, cosine=cosine and not level, late=late and not level, **options)
            for level in range(codebooks)
        )

    @property
    def _books(self) -> list[Quantizer]:
        return list(self.levels)  # type: ignore[arg-type]

    @property
    def usage(self) -> Tensor:
        """The share of all codes that the last window of batches used."""
        return torch.stack([level.usage for level in self._books]).mean()

    @property
    def perplexity(self) -> Tensor:
        """Its mean over the codebooks."""
        return torch.stack([level.perplexity for level in self._books]).mean()

    def lookup(self, tokens: Tensor) -> Tensor:
        """The sums (..., dimensions) of the codes of tokens (..., codebooks), int64."""
        found = [level.lookup(part) for level, part in zip(self._books, tokens.unbind(-1), strict=True)]
        return torch.stack(found).sum(0)

    def forward(self, vectors: Tensor, used: Tensor | None = None, *, plain: bool = False) -> Quantized:
        """See :meth:`Quantizer.forward`; tokens are (m, codebooks)."""
        first, *others = self._books
        found: Quantized = first(vectors, used, plain=plain)
        start, nearest, tokens = found.vectors, found.nearest, [found.tokens]
        for level in others:
            if not plain:
                found = level((start - nearest).detach(), used)
                nearest = nearest + found.nearest
            tokens.append(found.tokens)
        return Quantized(start, nearest, torch.stack(tokens, dim=1))


class ScalarQuantizer(Counted):
    """Rounds each dimension of a vector to one of its few `levels` in [-1, 1]; a token is one combination of them, of
    which no one ever dies (Mentzer et al. 2024, section 3.1)."""

    levels: Tensor  # (dimensions,)
    bases: Tensor  # (dimensions,), of the numbers that tokens are

    def __init__(self, levels: Sequence[int], *, window: int) -> None:
        super().__init__(math.prod(levels), len(levels), window)
        bases = [math.prod(levels[:place]) for place in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("bases", torch.tensor(bases), persistent=False)

    def lookup(self, tokens: Tensor) -> Tensor:
        """The codes (..., dimensions) of tokens (...), int64."""
        digits = tokens.unsqueeze(-1) // self.bases % self.levels
        return torch.div(digits - self.levels // 2, self.levels // 2)

    def forward(self, vectors: Tensor, used: Tensor | None = None, *, plain: bool = False) -> Quantized:
        """See :meth:`Quantizer.forward`; what is `plain` is bounded as levels are, and not rounded."""
        with torch.autocast(vectors.device.type, enabled=False):
            # A bound just beyond the outermost levels; of an even number of them one more is below 0 than above.
            half = (self.levels - 1) * 1.001 / 2
            offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
            bounded = torch.tanh(vectors.float() + torch.atanh(offset / half)) * half - offset
            digits = bounded.detach().round()
            tokens = ((digits.long() + self.levels // 2) * self.bases).sum(1)
            if self.training and not plain:
                self._count(tokens if used is None else tokens[used])
            bounded = bounded / (self.levels // 2)
            return Quantized(bounded, bounded.detach() if plain else digits / (self.levels // 2), tokens)


def _all_used(vectors: Tensor, used: Tensor | None) -> Tensor:
    """The vectors (m, d) of all processes, or those of them that are `used`."""
    return gathered(vectors) if used is None else gathered(vectors)[gathered(used.to(torch.uint8)) > 0]


def k_means(vectors: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    """Centres (codes, d) of vectors (m, d), m at least as many, and how many vectors are next to each (codes,), by
    Lloyd's algorithm; a centre that nothing is next to moves to the vector farthest from its own.

    It begins as k-means++ does (Arthur and Vassilvitskii 2007): each centre is a vector drawn by its squared distance
    from those before it. The draws are always the same.
    """
    draws = torch.rand(codes, generator=torch.Generator().manual_seed(0)).to(vectors.device)
    near = torch.ones_like(vectors[:, 0])
    chosen = []
    for share in draws:
        total = near.cumsum(0)
        chosen.append(vectors[torch.searchsorted(total, share * total[-1]).clamp_max(len(vectors) - 1)])
        distance = (vectors - chosen[-1]).square().sum(1)
        near = distance if len(chosen) == 1 else torch.minimum(near, distance)
    centres = torch.stack(chosen)
    for _ in range(_ROUNDS):
        distance, nearest = torch.cdist(vectors, centres).min(dim=1)
        counts = torch.bincount(nearest, minlength=codes)
        sums = torch.zeros_like(centres).index_add_(0, nearest, vectors)
        far = vectors[distance.argsort(descending=True, stable=True)[:codes]]
        empty = counts == 0
        place = (empty.long().cumsum(0) - 1).clamp_min(0)
        centres = torch.where(empty[:, None], far[place], sums / counts.clamp_min(1)[:, None])
    counts = torch.bincount(torch.cdist(vectors, centres).argmin(dim=1), minlength=codes)
    return centres, counts.to(vectors.dtype)
