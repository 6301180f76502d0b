"""A mark in text that nobody sees and whoever has the key can measure (Kirchenbauer et al., A Watermark for Large
Language Models, 2023): a secret share of the vocabulary, another after each token, is drawn more often.

Beside that the key itself, which marks in pictures and sound share, and how surely a mark was found.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from aigc_cli.errors import ConfigError
from aigc_cli.files import path_of

#: A mark is found where chance alone gives as high a score once in a hundred thousand times, or less often.
SURE = 1e-5
_FEW = 300  # tokens of a vocabulary of letters or bytes
_SHORTEST = 8  # characters of a key


class Score(NamedTuple):
    """How much a mark stands out: in standard deviations of what has none, with how often chance alone gives as much,
    and over how many places it was looked for."""

    z: float
    p: float
    places: int

    @property
    def found(self) -> bool:
        """Whether the mark is there, beyond doubt."""
        return self.p <= SURE


class Key:
    """The secret behind a mark. Its own bytes are not kept: what is derived from it takes a while, so that neither it
    nor its :attr:`name`, which labels tell, gives a short one away at once."""

    def __init__(self, word: str) -> None:
        path = path_of(word)
        if path.is_file():
            secret = path.read_bytes().strip()
        elif "/" in word or path.suffix in (".key", ".txt"):
            raise ConfigError(f"watermark={word}: there is no such file", "name a file that holds a key, or type one")
        else:
            secret = word.encode()
        if len(secret) < _SHORTEST:
            raise ConfigError("watermark=: the key is too short", f"give it at least {_SHORTEST} characters")
        self._derived = hashlib.scrypt(secret, salt=b"aigc watermark", n=2**14, r=8, p=1)
        self.name = self.of("name").hex()[:12]

    def of(self, *use: str | int) -> bytes:
        """32 bytes that belong to a use of the key, and say nothing about others."""
        return hmac.digest(self._derived, "\x1f".join(map(str, use)).encode(), "sha256")


class GreenList:
    """Which tokens are green after each few tokens, and how a choice is tilted towards them.

    Greenness is a keyed hash of a token and the `width` before it, so that of what has no mark a share `gamma` is
    green, whatever it is. Where there are few tokens, such as letters, more of them count, as pairs soon come again,
    and what comes again is no evidence. With a `width` of 1, a model that fills gaps in any order may know the token
    after a gap before the one in it: then the gap is tilted towards tokens after which that one is green. So each pair
    is marked once, when the later of its two tokens is chosen.

    Args:
        key: The secret.
        vocab_size: Tokens that there are.
        specials: Those that stand for no text. No pair has one, and they stay as likely as tokens are on average.
        gamma: The share of green tokens.
        delta: What is added to a green token's score, in nats.
        width: Tokens before one by which it is green or not.
    """

    def __init__(
        self, key: Key, vocab_size: int, specials: Iterable[int], *, gamma: float = 0.25, delta: float = 2.0,
        width: int = 1,
    ) -> None:  # fmt: skip
        self.gamma, self.delta, self.width = gamma, delta, width
        secrets = [int.from_bytes(key.of("text", token)[:8], "little", signed=True) for token in range(vocab_size)]
        self._secrets = torch.tensor(secrets)
        self._special = torch.zeros(vocab_size, dtype=torch.bool)
        self._special[list(specials)] = True

    def green(self, before: Tensor, after: Tensor) -> Tensor:
        """Which tokens (...) are green after others (..., width): int64 that broadcasts, to bool."""
        secret = self._secrets[before[..., 0]]
        for place in range(1, before.shape[-1]):
            secret = _mixed(secret) + self._secrets[before[..., place]]
        mixed = _mixed(secret + (after + 1) * _signed(0x9E3779B97F4A7C15))
        return _shifted(mixed, 11).double() < self.gamma * 2**53

    def weights(self, before: Tensor, after: Tensor | None = None) -> Tensor:
        """What shares (n, vocab) of tokens are multiplied by, given the tokens `before` (n, width) and the one
        `after` them (n,), int64; one that is not settled yet is below 0 or beyond the vocabulary."""
        self._secrets, self._special = self._secrets.to(before.device), self._special.to(before.device)
        every = torch.arange(len(self._secrets), device=before.device)
        found = self._tilt(before, lambda known: self.green(known[:, None], every))
        if after is None or self.width > 1:
            return found
        return found * self._tilt(after[:, None], lambda known: self.green(every[:, None], known))

    def _tilt(self, beside: Tensor, green: Callable[[Tensor], Tensor]) -> Tensor:
        inside = (beside >= 0) & (beside < len(self._secrets))
        known = torch.where(inside, beside, 0)
        marked = (inside & ~self._special[known]).all(1, keepdim=True)
        tilt = torch.where(green(known), math.exp(self.delta), 1.0)
        tilt = torch.where(self._special, 1 + self.gamma * (math.exp(self.delta) - 1), tilt)
        return torch.where(marked, tilt, 1.0)

    def score(self, rows: Iterable[Sequence[int]]) -> Score:
        """How much the mark stands out in rows of token ids. What comes again counts once, as it is not so many times
        more evidence; `p` is exact for a random key."""
        long = self.width + 1
        parts = {tuple(row[start : start + long]) for row in rows for start in range(len(row) - self.width)}
        special = {int(token) for token in self._special.nonzero()}
        plain = [part for part in parts if special.isdisjoint(part)]
        if not plain:
            return Score(0.0, 1.0, 0)
        found = torch.tensor(plain, device=self._secrets.device)
        n, hits = len(plain), int(self.green(found[:, :-1], found[:, -1]).sum())
        z = (hits - self.gamma * n) / math.sqrt(n * self.gamma * (1 - self.gamma))
        return Score(z, binomial_tail(n, hits, self.gamma), n)


def _mixed(values: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014); torch's integers wrap as it needs."""
    for factor, shift in ((0xBF58476D1CE4E5B9, 30), (0x94D049BB133111EB, 27)):
        values = (values ^ _shifted(values, shift)) * _signed(factor)
    return values ^ _shifted(values, 31)


def usual_width(vocab_size: int) -> int:
    """How many tokens before one count."""
    return 3 if vocab_size <= _FEW else 1


def text_score(key: Key, vocab_size: int, specials: Sequence[int], rows: Sequence[Sequence[int]]) -> Score:
    """How much the mark of a text stands out, whichever way it may have been made."""
    widths = sorted({1, usual_width(vocab_size)})
    scores = [GreenList(key, vocab_size, specials, width=width).score(rows) for width in widths]
    best = min(scores, key=lambda score: score.p)
    return best._replace(p=min(1.0, best.p * len(widths)))


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _shifted(values: Tensor, places: int) -> Tensor:
    """Bits moved to the right, as of integers without a sign."""
    return (values >> places) & ((1 << (64 - places)) - 1)


def binomial_tail(n: int, hits: int, share: float) -> float:
    """The chance of at least `hits` among `n` that are each one with a chance of `share`."""
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        + k * math.log(share) + (n - k) * math.log1p(-share)
        for k in range(hits, n + 1)
    ]  # fmt: skip
    most = max(logs, default=-math.inf)
    return 0.0 if not logs else min(1.0, math.exp(most) * sum(math.exp(each - most) for each in logs))


def normal_tail(z: float) -> float:
    """The chance that a standard normal draw is above `z`."""
    return math.erfc(z / math.sqrt(2)) / 2
