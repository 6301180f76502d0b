"""Beam search: the rows with the best probability, not the next token with the best."""

from __future__ import annotations

import torch
from torch import Tensor

from aigc_cli.nn.decoding import LOOK_EVERY, Session


@torch.no_grad()
def beam_search(
    session: Session, beams: int, count: int, *, length_penalty: float, stop: int | None, pad: int
) -> tuple[Tensor, Tensor]:
    """The best continuation of each row, with up to `count` more tokens.

    A row is over when `beams` continuations have reached `stop` from among the best `beams`; the best of those is
    taken, or where none has, the best that is left. With one beam it is greedy.

    Args:
        session: With room for `count` tokens.
        beams: Continuations of a row that are followed at a time.
        count: Tokens at most.
        length_penalty: The exponent of the length by which log-probabilities are divided (Wu et al., Google's Neural
            Machine Translation System, 2016, equation 14); 0 compares them as they are, more prefers long rows.
        stop: The token that ends a row, and is kept; None where there is none.
        pad: What comes after it.

    Returns:
        Rows (n, prompt + count) and their log-probabilities in nats, divided as above, (n,).
    """
    search = _Search(session, beams, length_penalty, stop, pad)
    for step in range(count):
        search.advance(step + 1)
        if stop is not None and step % LOOK_EVERY == LOOK_EVERY - 1 and bool(search.over().all()):
            break
    return search.best(step + 1)


class _Search:
    """Rows next to each other, `beams` of each; those that have ended are kept apart, the best of each row."""

    def __init__(self, session: Session, beams: int, length_penalty: float, stop: int | None, pad: int) -> None:
        self.session, self.beams, self.length_penalty, self.stop, self.pad = session, beams, length_penalty, stop, pad
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
            self._widen()
        rows = torch.arange(self.n, device=best.device)[:, None] * self.beams + parent
        if self.stop is not None:
            ends = token == self.stop
            self._keep(best, ends, rows, length)
            best, chosen = best.masked_fill(ends, -torch.inf).topk(self.beams)
            rows, token = rows.gather(1, chosen), token.gather(1, chosen)
        rows, token, self.scores = rows[:, : self.beams], token[:, : self.beams], best[:, : self.beams]
        self.session.reorder(rows.flatten())
        self.session.append(token.flatten())

    def _widen(self) -> None:
        self.session.repeat(self.beams)

    def _keep(self, totals: Tensor, ends: Tensor, rows: Tensor, length: int) -> None:
        """Keeps what has just ended, if it is among the best and its row is not over."""
        totals = totals[:, : self.beams]
        ends = ends[:, : self.beams] & ~self.over()[:, None] & totals.isfinite()  # what cannot be has not ended
        scores = totals.masked_fill(~ends, -torch.inf) / self.divisor(length)
        score, place = scores.max(1)
        better = score > self.best_score
        tokens = self.session.tokens[rows.gather(1, place[:, None])[:, 0]]
        ended = tokens.scatter(1, self._ends()[:, None], self.stop)  # type: ignore[arg-type]
        self.best_tokens = torch.where(better[:, None], ended, self.best_tokens)
        self.best_score = torch.where(better, score, self.best_score)
        self.ended = self.ended + ends.sum(1)

    def _ends(self) -> Tensor:
        return self.session.ends[:: self.beams]

    def best(self, length: int) -> tuple[Tensor, Tensor]:
        """The best rows and their scores."""
        unfinished = self.session.tokens[:: self.beams]
        none = self.ended == 0
        tokens = torch.where(none[:, None], unfinished, self.best_tokens)
        return tokens, torch.where(none, self.scores[:, 0] / self.divisor(length), self.best_score)
