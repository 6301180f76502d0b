"""Texts that are written together: rows join when they come, and leave when they end.

A row's tokens depend on its own prompt, its own draws and its own controls. What it shares a batch with changes the
order of sums alone, so that its text is the same in any company, but where a draw falls within rounding of a border.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aigc_cli.models.base import Prompts
from aigc_cli.nn.decoding import Choice, Session, choose
from aigc_cli.randomness import Noise
from aigc_cli.serve.tickets import Ticket


class Written(NamedTuple):
    """One more token of a row, and if they were asked for, its log-probability and those of the likeliest tokens."""

    token: int
    logprob: float | None = None
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass
class Row:
    """A text that is to be written."""

    seed: int
    index: int
    #: Its prompt, a row of token ids, and if that ends within a token, those of which the next is one.
    prompt: list[int] | None
    first: list[int]
    count: int
    choice: Choice
    ticket: Ticket
    #: Takes each token as it comes, and says whether the row has ended by it.
    sink: Callable[[Written], bool]
    #: Takes what ended the row: None where it was written to its end.
    done: Callable[[BaseException | None], None]
    #: How many of the likeliest tokens are told; None is none, and no log-probabilities either.
    logprobs: int | None = None
    #: What it began with, once that is known: its prompt, or the token that was drawn in the place of one.
    begun: list[int] = field(default_factory=list)
    uniform: Tensor | None = None
    written: int = 0
    seen: Tensor | None = field(default=None, repr=False)


class Writing:
    """The rows that a model is at, in its thread."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.rows: list[Row] = []
        self._session: Session | None = None

    def step(self, entering: list[Row]) -> int:
        """Adds a token to each row, those `entering` among them; how many rows that was."""
        self._leave()
        for some in (
            [row for row in entering if row.prompt is None],
            [row for row in entering if row.prompt is not None],
        ):
            if some := [row for row in some if not self._left(row)]:
                try:
                    self._enter(some)
                except Exception as error:
                    for row in some:
                        row.done(error)
        if not self.rows:
            return 0
        assert self._session is not None
        self._add(self._session, self.rows)
        return len(self.rows)

    def fail(self, error: BaseException) -> None:
        """Ends all rows by an error."""
        rows, self.rows, self._session = self.rows, [], None
        for row in rows:
            row.done(error)

    def _left(self, row: Row) -> bool:
        if row.ticket.gone:
            row.done(None)
        return row.ticket.gone

    def _leave(self) -> None:
        """Rows that have ended, or that nobody waits for, leave."""
        kept = [place for place, row in enumerate(self.rows) if row.written < row.count and not self._left(row)]
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[place] for place in kept]
        if not kept:
            self._session = None
        elif self._session is not None:
            self._session.exchange(kept, None, self._room(self.rows))

    @staticmethod
    def _room(rows: list[Row]) -> int:
        return max(row.count - row.written for row in rows)

    def _enter(self, rows: list[Row]) -> None:
        """Reads the beginnings of new rows, adds a token to each, and takes in those that go on."""
        model, room = self.model, max(row.count for row in rows)
        device = next(model.parameters()).device
        noise = Noise.joined([Noise(row.seed, [row.index]) for row in rows], device)
        prompts = None
        if rows[0].prompt is not None:
            noise.indices = list(range(len(rows)))
            prompts = Prompts([row.prompt or [] for row in rows], [row.first for row in rows])
        session, uniform = model.session(noise, room, prompts), noise.uniform(room)
        for row, tokens, end, draws in zip(rows, session.tokens.tolist(), session.ends.tolist(), uniform, strict=True):
            row.begun, row.uniform = tokens[:end], draws
            if row.choice.repetition_penalty != 1:
                row.seen = torch.zeros(model.vocab_size, dtype=torch.bool, device=device)
                row.seen[row.begun] = True
        self._add(session, rows)
        going_on = [place for place, row in enumerate(rows) if row.written < row.count]
        if not going_on:
            return
        whole = [*self.rows, *(rows[place] for place in going_on)]
        if len(going_on) < len(rows):
            session.exchange(going_on, None, self._room(whole))
        if self._session is None:
            self._session = session
        else:
            self._session.exchange(range(len(self.rows)), session, self._room(whole))
        self.rows = whole

    def _add(self, session: Session, rows: list[Row]) -> None:
        """Chooses a token for each row of a session, and hands it over."""
        logits = session.logits()
        tokens = torch.zeros(len(rows), dtype=torch.int64, device=logits.device)
        for choice in dict.fromkeys(row.choice for row in rows):
            places = [place for place, row in enumerate(rows) if row.choice == choice]
            uniform = None
            if choice.temperature != 0:
                uniform = torch.stack([rows[place].uniform[rows[place].written] for place in places])  # type: ignore[index]
            seen = None
            if choice.repetition_penalty != 1:
                seen = torch.stack([rows[place].seen for place in places])  # type: ignore[misc]
            beside = None if choice.mark is None else (session.newest(choice.mark.width)[places], None)
            tokens[places] = choose(logits[places], choice, uniform, seen, beside)
        session.append(tokens)
        told = self._told(logits, tokens, rows)
        for row, written in zip(rows, told, strict=True):
            if row.seen is not None:
                row.seen[written.token] = True
            row.written += 1
            if row.sink(written) or written.token == self.model.eos or row.written == row.count:
                row.count = row.written
                row.done(None)

    def _told(self, logits: Tensor, tokens: Tensor, rows: list[Row]) -> list[Written]:
        plain = [Written(token) for token in tokens.tolist()]
        asked = [place for place, row in enumerate(rows) if row.logprobs is not None]
        if asked:
            logs = logits[asked].log_softmax(-1)
            own = logs.gather(1, tokens[asked][:, None])[:, 0].tolist()
            values, likeliest = logs.topk(min(logs.shape[1], max(1, *(rows[place].logprobs or 0 for place in asked))))
            for at, place in enumerate(asked):
                many = rows[place].logprobs or 0
                pairs = zip(likeliest[at, :many].tolist(), values[at, :many].tolist(), strict=True)
                # What cannot come, since the prompt ends within a token, has no number that JSON can hold.
                possible = tuple(pair for pair in pairs if math.isfinite(pair[1]))
                plain[place] = Written(plain[place].token, own[at], possible)
        return plain
