"""A request as the threads that work for it know it: whether anybody still waits, and until when."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from aigc_cli.errors import AigcError


class Gone(AigcError):
    """Nobody waits for this any more: the client has left, or its time is up."""


@dataclass
class Ticket:
    """One request."""

    #: By the monotonic clock.
    deadline: float = float("inf")
    cancelled: bool = False
    #: Rows of batches that worked for it, for the metrics.
    rows: int = 0
    began: float = field(default_factory=time.monotonic)

    def cancel(self) -> None:
        """Nobody waits any more."""
        self.cancelled = True

    @property
    def gone(self) -> bool:
        """Whether work for it is in vain."""
        return self.cancelled or time.monotonic() > self.deadline

    def check(self) -> None:
        """Raises :class:`Gone` where work for it is in vain."""
        if self.gone:
            raise Gone("the client has left, or its time is up")


#: That of the request which the current thread works for.
current: ContextVar[Ticket] = ContextVar("ticket")


def mine() -> Ticket:
    """The ticket of the current thread; one without an end outside of requests."""
    return current.get(None) or Ticket()
