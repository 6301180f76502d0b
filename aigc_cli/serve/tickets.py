"""A request as the threads that work for it know it: whether anybody still waits, and until when."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from aigc_cli.errors import AigcError


class Gone(AigcError):
    """Nobody waits for this any more: the client has left, or its time is up."""


@dataclass
class Ticket:
    """One request."""

    #: By the monotonic clock.
    deadline: float = float("inf")
    cancelled: bool = False
    #: The controls that the model was prepared for.
    prepared: Any = None

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
