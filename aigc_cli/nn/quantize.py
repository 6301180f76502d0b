"""Vector quantisation with a codebook that follows what it quantises (van den Oord, Vinyals and Kavukcuoglu, Neural
Discrete Representation Learning, 2017, appendix A.1; Razavi, van den Oord and Vinyals, Generating Diverse High-Fidelity
Images with VQ-VAE-2, 2019, section 2.1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize

from aigc_cli.nn.collective import draw_common, gathered, summed

_SMALLEST = 1e-12  # of a divisor


class Quantized(NamedTuple):
    """Vectors and the codes next to them."""

    vectors: Tensor  # (m, d), as they are compared with the codes
    nearest: Tensor  # (m, d), the codes, without a gradient
    tokens: Tensor  # (m,), their numbers, int64

    def straight_through(self) -> Tensor:
        """The codes, with the gradient of the vectors (section 3.2 of the first paper)."""
        return self.vectors + (self.nearest - self.vectors).detach()


class Quantizer(nn.Module):
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
    """

    sums: Tensor  # (codes, dimensions), running sum of the vectors of each code
    sizes: Tensor  # (codes,), running count of them
    counts: Tensor  # (codes,), of the window that is being filled
    batches: Tensor  # in that window
    windows: Tensor  # that were filled
    usage: Tensor  # share of the codes that were used in the last window; in the first, so far
    perplexity: Tensor  # exp of the entropy of their use there

    def __init__(
        self, codes: int, dimensions: int, *, decay: float, restart_below: float, window: int, cosine: bool
    ) -> None:
        super().__init__()
        self.codes, self.dimensions = codes, dimensions
        self.decay, self.restart_below, self.window, self.cosine = decay, restart_below, window, cosine
        self.register_buffer("sums", torch.zeros(codes, dimensions))
        self.register_buffer("sizes", torch.zeros(codes))
        self.register_buffer("counts", torch.zeros(codes, dtype=torch.int64))
        for name in ("batches", "windows"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))
        for name in ("usage", "perplexity"):
            self.register_buffer(name, torch.zeros(()))

    @property
    def codebook(self) -> Tensor:
        """The codes (codes, dimensions)."""
        if self.cosine:
            return normalize(self.sums, dim=1, eps=_SMALLEST)
        return self.sums / self.sizes.clamp_min(_SMALLEST).unsqueeze(1)

    def lookup(self, tokens: Tensor) -> Tensor:
        """The codes (..., dimensions) of tokens (...), int64."""
        return embedding(tokens, self.codebook)

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantises vectors (m, dimensions), in float32; in training mode the codebook then follows them."""
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = normalize(vectors.float(), dim=1) if self.cosine else vectors.float()
            with torch.no_grad():
                if self.training:
                    self._restart(gathered(vectors))
                codebook = self.codebook
                # The squared distance but for the vector's own square, which decides nothing.
                distance = torch.addmm(codebook.square().sum(1), vectors, codebook.T, alpha=-2)
                tokens = distance.argmin(dim=1)
                if self.training:
                    self._follow(vectors, tokens)
        return Quantized(vectors, embedding(tokens, codebook), tokens)

    def _restart(self, vectors: Tensor) -> None:
        """Puts every dead code on a vector of the batch, with the count of a code that is used as all others."""
        m, fair = len(vectors), len(vectors) / self.codes
        dead = self.sizes <= self.restart_below * fair
        order = draw_common(torch.randperm, m, device=vectors.device).repeat(-(-self.codes // m))[: self.codes]
        self.sums.copy_(torch.where(dead.unsqueeze(1), vectors[order] * fair, self.sums))
        self.sizes.copy_(torch.where(dead, fair, self.sizes))

    def _follow(self, vectors: Tensor, tokens: Tensor) -> None:
        sums = torch.zeros_like(self.sums).index_add_(0, tokens, vectors)
        counts = summed(torch.zeros_like(self.counts).index_add_(0, tokens, torch.ones_like(tokens)))
        self.sums.lerp_(summed(sums), 1 - self.decay)
        self.sizes.lerp_(counts.to(self.sizes.dtype), 1 - self.decay)
        # Usage and perplexity, without a wait for the device to say whether a window is full.
        self.counts += counts
        self.batches += 1
        full = self.batches >= self.window
        shown = full | (self.windows == 0)
        shares = self.counts / self.counts.sum()
        perplexity = torch.special.entr(shares).sum().exp()
        self.usage.copy_(torch.where(shown, (self.counts > 0).float().mean(), self.usage))
        self.perplexity.copy_(torch.where(shown, perplexity, self.perplexity))
        self.windows += full
        self.counts *= ~full
        self.batches *= ~full
