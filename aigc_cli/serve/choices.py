"""The texts of an answer while they come: written in the thread of a model, told in that of the server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from aigc_cli.serve.texts import Growing, Spelling
from aigc_cli.serve.writing import Written


@dataclass
class Choice:
    """One text of an answer, as far as it has come."""

    index: int
    prompt: str
    tokens: list[int]  # of the prompt, those that it goes on from
    growing: Growing
    spelling: Spelling
    logprobs: int | None
    queue: asyncio.Queue[Choice]
    loop: asyncio.AbstractEventLoop
    written: list[Written] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)  # that nobody has taken yet
    offsets: list[int] = field(default_factory=list)
    told: int = 0  # of the tokens
    ended: bool = False
    error: BaseException | None = None
    finish: str | None = None

    def take(self, written: Written, stop: int | None) -> bool:
        """A token, in the thread of the model."""
        if written.token == stop:
            self.finish = "stop"
            return True
        self.offsets.append(self.growing.length)
        self.written.append(written)
        piece = self.growing.add(self.spelling[written.token])
        if self.growing.stopped:
            self.finish = "stop"
        elif not piece:
            return False
        self.pieces.append(piece)
        self._wake()
        return self.growing.stopped

    def end(self, error: BaseException | None) -> None:
        """The row has left, in the thread of the model."""
        self.pieces.append(self.growing.add(b"", last=True))
        self.finish, self.error, self.ended = self.finish or "length", error, True
        self._wake()

    def _wake(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self.queue.put_nowait, self)
        except RuntimeError:  # the server has ended
            self.growing.stopped = True

    def fresh(self) -> dict[str, Any]:
        """What has come since it was last asked."""
        pieces, self.pieces = self.pieces, []
        written, offsets = self.written[self.told :], self.offsets[self.told : len(self.written)]
        self.told += len(written)
        logprobs = None if self.logprobs is None else self._logprobs(written, offsets)
        return {"index": self.index, "text": "".join(pieces), "logprobs": logprobs, "finish_reason": None}

    def _logprobs(self, written: list[Written], offsets: list[int]) -> dict[str, Any]:
        name = self.spelling.name
        return {
            "tokens": [name(each.token) for each in written],
            "token_logprobs": [each.logprob for each in written],
            "top_logprobs": [{name(token): logprob for token, logprob in each.likeliest} for each in written],
            "text_offset": [len(self.prompt) + offset for offset in offsets],
        }
