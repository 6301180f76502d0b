"""Writing with a causal transformer: rows of tokens that grow, how the next token is chosen, and beam search.

Everything stays on the device: how long rows are is known beforehand, and whether all have ended is looked at only now
and then. A window that is full moves on: the newest half of it is read anew from position 0 on, so that a token is
always drawn from a plain pass over the last ``length // 2 + 1`` to ``length`` tokens, whatever the style of positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aigc_cli.nn.attention import KVCache
from aigc_cli.nn.transformer import TokenTransformer
from aigc_cli.nn.watermark import GreenList

COLDEST = 1e-6  # below it scores may overflow, and only the best one is ever drawn
LOOK_EVERY = 16  # tokens between looks at whether all rows have ended, each of which waits for the device


@dataclass(frozen=True)
class Choice:
    """How a token is chosen from its scores; by default as the model would have it."""

    temperature: float = 1.0  # divides scores; 0 takes the best
    top_k: int | None = None  # of so many best tokens
    top_p: float | None = None  # of the fewest tokens that have this probability together (Holtzman et al. 2020)
    min_p: float | None = None  # of those with at least this share of the best one's probability (Nguyen et al. 2024)
    repetition_penalty: float = 1.0  # makes tokens that a row has already less likely (Keskar et al. 2019)
    mark: GreenList | None = None  # tilts the draw towards a secret share of what the others leave


class Session:
    """Rows of tokens, each from a prompt on, and what a causal network in evaluation mode has read of them.

    Args:
        prompts: Token ids, at least one a row. Of a prompt longer than the network's length the last tokens are read.
        room: Tokens that will be added to each row.
        pad: What fills rows that are shorter than others.
        first: (n, vocab), True for the tokens of which each row's first may be one; None is any.
        seen: What rows are read with, such as `memory` (n, s, width), as of :meth:`TokenTransformer.hidden`.
    """

    def __init__(
        self, network: TokenTransformer, prompts: Sequence[Sequence[int]], room: int, pad: int,
        first: Tensor | None = None, **seen: Tensor | None,
    ) -> None:  # fmt: skip
        assert all(prompts), "a row begins with a token"
        self.network, self.pad, self._first = network, pad, first
        self.seen = {name: part for name, part in seen.items() if part is not None}
        self.device = network.embedding.weight.device
        lengths = [len(prompt) for prompt in prompts]
        self.tokens = padded(prompts, pad, self.device, max(lengths) + room)
        self.ends = torch.tensor(lengths, device=self.device)
        windows = [prompt[-network.length :] for prompt in prompts]
        self._unread: Tensor | None = padded(windows, 0, self.device)
        self._window_lengths = [len(window) for window in windows]
        self.cache = network.stack.cache(len(prompts), min(network.length, max(self._window_lengths) + room))

    def logits(self) -> Tensor:
        """Scores (n, vocab) of each row's next token, float32; reads what was not read yet."""
        if self._unread is None:
            return self.network.logits(self._read_newest()).float()
        hidden, lengths = self._hidden(self._unread, self.cache), self._window_lengths
        self._unread = None
        self.cache.read(lengths)
        if len(set(lengths)) == 1:
            hidden = hidden[:, -1]
        else:
            last = torch.tensor(lengths, device=self.device) - 1
            hidden = hidden[torch.arange(len(lengths), device=self.device), last]
        scores = self.network.logits(hidden).float()
        return scores if self._first is None else scores.masked_fill(~self._first, -torch.inf)

    def _read_newest(self) -> Tensor:
        full = [row for row, length in enumerate(self.cache.lengths) if length == self.network.length]
        if full:
            self._move_on(full)
        hidden = self._hidden(self.newest(), self.cache)
        self.cache.read([length + 1 for length in self.cache.lengths])
        return hidden[:, -1]

    def _move_on(self, rows: list[int]) -> None:
        """Reads the newest half of full windows anew, but for the newest token, which comes next."""
        kept = self.network.length // 2
        part = self.network.stack.cache(len(rows), max(kept, 1))
        if kept:
            index = torch.tensor(rows, device=self.device)
            columns = (self.ends[index] - 1 - kept)[:, None] + torch.arange(kept, device=self.device)
            self._hidden(self.tokens[index].gather(1, columns), part, index)
        part.read([kept] * len(rows))
        self.cache.replace(rows, part)

    def _hidden(self, tokens: Tensor, cache: KVCache, rows: Tensor | None = None) -> Tensor:
        """Features of tokens (m, t) of all rows, or of `rows` (m,)."""
        seen = dict(self.seen) if rows is None else {name: part[rows] for name, part in self.seen.items()}
        if (
            self.network.neighbours is not None
        ):  # whose rows are as long as another, and never longer than the network's
            seen["near"] = self.network.neighbours(self.tokens, cache.longest, tokens.shape[1])
        return self.network.hidden(tokens, cache=cache, **seen)

    def newest(self, count: int = 1) -> Tensor:
        """The last tokens of each row, (n, count); -1 where it has fewer."""
        places = self.ends[:, None] - count + torch.arange(count, device=self.device)
        return self.tokens.gather(1, places.clamp(min=0)).masked_fill(places < 0, -1)

    def append(self, tokens: Tensor) -> None:
        """Adds a token (n,) to each row."""
        self.tokens.scatter_(1, self.ends[:, None], tokens[:, None])
        self.ends = self.ends + 1

    def repeat(self, count: int) -> None:
        """Each row becomes `count` rows next to each other."""
        self.tokens, self.ends = (part.repeat_interleave(count, 0) for part in (self.tokens, self.ends))
        self.seen = {name: part.repeat_interleave(count, 0) for name, part in self.seen.items()}
        self.cache.repeat(count)

    def exchange(self, kept: Sequence[int], others: Session | None, room: int) -> None:
        """All rows but those `kept` leave, and those of another session join after them, each with `room` to grow.

        Both have read all but the newest tokens, and neither is `seen` with anything else.
        """
        parts = [(self, list(kept))] + ([] if others is None else [(others, list(range(len(others.ends))))])
        parts = [(session, some) for session, some in parts if some]
        assert all(session._unread is None and not session.seen for session, _ in parts)
        ends = [session.ends.tolist() for session, _ in parts]
        tokens = [session.tokens.tolist() for session, _ in parts]
        rows = [tokens[part][row][: ends[part][row]] for part, (_, some) in enumerate(parts) for row in some]
        columns = min(self.network.length, max(map(len, rows)) + room)
        cache = KVCache.joined([(session.cache, some) for session, some in parts], columns)
        self.cache, self.tokens = cache, padded(rows, self.pad, self.device, max(map(len, rows)) + room)
        self.ends = torch.tensor([len(row) for row in rows], device=self.device)
        self._first = None  # which was of tokens that are there

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes a copy of row ``rows[i]``, which must be as long and be read with the same."""
        self.tokens = self.tokens[rows]
        self.cache.reorder(rows)


@torch.no_grad()
def write(session: Session, choice: Choice, uniform: Tensor | None, count: int, stop: int | None) -> Tensor:
    """Adds up to `count` tokens to each row of a session with room for them, and returns all rows, (n, prompt + count).

    `uniform` has a draw in [0, 1) for each token, (n, count); None where the temperature is 0. The token `stop`, if
    there is one, ends a row and is kept.
    """
    done = torch.zeros(len(session.ends), dtype=torch.bool, device=session.device)
    seen = _seen(session) if choice.repetition_penalty != 1 else None
    for step in range(count):
        draws = None if uniform is None else uniform[:, step]
        logits = session.logits()
        beside = None if choice.mark is None else (session.newest(choice.mark.width), None)
        token = choose(logits, choice, draws, seen, beside)
        if stop is not None:
            token = torch.where(done, session.pad, token)
            done = done | (token == stop)
        session.append(token)
        if seen is not None:
            seen.scatter_(1, token[:, None], True)
        if stop is not None and step % LOOK_EVERY == LOOK_EVERY - 1 and bool(done.all()):
            break
    return session.tokens


def choose(
    logits: Tensor, choice: Choice, uniform: Tensor | None, seen: Tensor | None = None,
    beside: tuple[Tensor, Tensor | None] | None = None,
) -> Tensor:  # fmt: skip
    """One token for each row, (n,), from scores (n, vocab), float32.

    Args:
        choice: Repetition first, then temperature, top_k, top_p of what that leaves, min_p, and last the mark, which
            so lets nothing in that they keep out.
        uniform: Draws in [0, 1), (n,); a token is drawn by inverting the distribution, so that a row takes the same
            token for the same draw whatever the others do.
        seen: (n, vocab), True for tokens that a row has.
        beside: The tokens before (n, width) and after (n,), by which the mark goes, as of :meth:`GreenList.weights`.
    """
    if seen is not None:
        logits = penalized(logits, seen, choice.repetition_penalty)
    if choice.temperature < COLDEST:
        return logits.argmax(-1)
    assert uniform is not None, "drawing needs draws"
    logits = logits / choice.temperature
    order = None
    if choice.top_k is not None:
        logits, order = logits.topk(min(choice.top_k, logits.shape[-1]))
    elif choice.top_p is not None:
        logits, order = logits.sort(descending=True, stable=True)
    shares = logits.softmax(-1)
    if choice.top_p is not None:
        before = shares.cumsum(-1) - shares
        shares = torch.where(before < choice.top_p, shares, 0)
    if choice.min_p is not None:
        shares = torch.where(shares >= choice.min_p * shares.amax(-1, keepdim=True), shares, 0)
    if choice.mark is not None and beside is not None:
        weights = choice.mark.weights(*beside)
        shares = shares * (weights if order is None else weights.gather(1, order))
    place = invert(shares, uniform)
    return place if order is None else order.gather(1, place[:, None])[:, 0]


def invert(shares: Tensor, uniform: Tensor) -> Tensor:
    """The place (n,) in each row of shares (n, k), none negative, at which their running sum passes a draw (n,). In
    float64, so that a place with no share is never taken."""
    running = shares.double().cumsum(-1)
    passed = (running > uniform.double()[:, None] * running[:, -1:]) & (shares > 0)
    return passed.int().argmax(-1)


def penalized(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Scores (n, vocab) with those of `seen` tokens lowered (Keskar et al., CTRL, 2019, section 4.1)."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def _seen(session: Session) -> Tensor:
    """(n, vocab), True for the tokens that rows have."""
    n, width = session.tokens.shape
    seen = torch.zeros(n, session.network.vocab_size + 1, dtype=torch.bool, device=session.device)
    there = torch.arange(width, device=session.device) < session.ends[:, None]
    seen.scatter_(1, torch.where(there, session.tokens, session.network.vocab_size), True)
    return seen[:, :-1]


def padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device | str, width: int = 0) -> Tensor:
    """Rows of token ids as int64 (n, width), by default as wide as the longest, filled up with `pad`."""
    width = width or max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)


@torch.no_grad()
def beam_search(
    session: Session, beams: int, count: int, *, length_penalty: float, stop: int | None
) -> tuple[Tensor, Tensor]:
    """The best continuation of each row by its probability as a whole, with up to `count` more tokens.

    Of each row `beams` continuations are followed at a time. It is over when as many have reached `stop` from among the
    best; the best of those is taken, or where none has, the best that is left. With one beam it is greedy. `stop` is as
    of :func:`write`. Log-probabilities are divided by the length with the exponent `length_penalty` (Wu et al.,
    Google's Neural Machine Translation System, 2016, equation 14); 0 compares them as they are, more prefers long rows.

    Returns:
        Rows (n, prompt + count) and their log-probabilities in nats, divided as above, (n,).
    """
    search = _Search(session, beams, length_penalty, stop)
    for step in range(count):
        search.advance(step + 1)
        if stop is not None and step % LOOK_EVERY == LOOK_EVERY - 1 and bool(search.over().all()):
            break
    return search.best(step + 1)


class _Search:
    """Rows next to each other, `beams` of each; those that have ended are kept apart, the best of each row."""

    def __init__(self, session: Session, beams: int, length_penalty: float, stop: int | None) -> None:
        self.session, self.beams, self.length_penalty, self.stop = session, beams, length_penalty, stop
        self.n, device = len(session.ends), session.device
        self.scores = torch.zeros(self.n, 1, device=device)  # nats, of those that are followed
        self.ended = torch.zeros(self.n, dtype=torch.long, device=device)  # how many have
        self.best_score = torch.full((self.n,), -torch.inf, device=device)
        self.best_tokens = session.tokens.clone()

    def over(self) -> Tensor:
        """Which rows need no more (n,)."""
        return self.ended >= self.beams

    def divisor(self, length: int) -> float:
        """What a continuation of so many tokens is divided by."""
        return float(((5 + length) / 6) ** self.length_penalty)

    def advance(self, length: int) -> None:
        """Follows each row's best continuations by a token, its `length`-th."""
        logits = self.session.logits()
        steps = logits.log_softmax(-1).view(self.n, -1, logits.shape[-1])
        totals = (self.scores[:, :, None] + steps).flatten(1)
        # Of twice as many as are followed, at most half can have ended.
        best, place = totals.topk(min(2 * self.beams, totals.shape[1]))
        parent, token = place // logits.shape[-1], place % logits.shape[-1]
        if length == 1:
            self.session.repeat(self.beams)
        rows = torch.arange(self.n, device=best.device)[:, None] * self.beams + parent
        if self.stop is not None:
            ends = token == self.stop
            self._keep(best, ends, rows, length)
            best, chosen = best.masked_fill(ends, -torch.inf).topk(self.beams)
            rows, token = rows.gather(1, chosen), token.gather(1, chosen)
        rows, token, self.scores = rows[:, : self.beams], token[:, : self.beams], best[:, : self.beams]
        self.session.reorder(rows.flatten())
        self.session.append(token.flatten())

    def _keep(self, totals: Tensor, ends: Tensor, rows: Tensor, length: int) -> None:
        """Keeps what has just ended, if it is among the best and its row is not over."""
        totals = totals[:, : self.beams]
        ends = ends[:, : self.beams] & ~self.over()[:, None] & totals.isfinite()  # what cannot be has not ended
        scores = totals.masked_fill(~ends, -torch.inf) / self.divisor(length)
        score, place = scores.max(1)
        better = score > self.best_score
        tokens = self.session.tokens[rows.gather(1, place[:, None])[:, 0]]
        ended = tokens.scatter(1, self.session.ends[:: self.beams, None], self.stop)  # type: ignore[arg-type]
        self.best_tokens = torch.where(better[:, None], ended, self.best_tokens)
        self.best_score = torch.where(better, score, self.best_score)
        self.ended = self.ended + ends.sum(1)

    def best(self, length: int) -> tuple[Tensor, Tensor]:
        """The best rows and their scores."""
        unfinished = self.session.tokens[:: self.beams]
        none = self.ended == 0
        tokens = torch.where(none[:, None], unfinished, self.best_tokens)
        return tokens, torch.where(none, self.scores[:, 0] / self.divisor(length), self.best_score)
