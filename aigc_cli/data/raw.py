"""What a dataset is made of, for those who look at it before it is decoded, put into tokens, or refused.

Opening data reads all of it, and stops at what is wrong. A report of the data, and a cleaned copy, want the files that
the very same rules find, with all that is wrong in them. So what lists files *offers* them on its way to reading them,
and whoever looks takes them from there; for all others an offer has no effect.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aigc_cli.data.base import Dataset


@dataclass(frozen=True)
class Raw:
    """What a split is made of: `kind` is as :attr:`DataSpec.kind` says it, and `content` what was offered, or the whole
    :class:`Dataset` where nothing was."""

    kind: str
    content: Any


class _Offered(Exception):
    def __init__(self, raw: Raw) -> None:
        self.raw = raw


_looking = ContextVar("looking", default=False)


def offer(kind: str, content: Any) -> None:
    """Hands `content`, such as a list of files that are not read yet, to :func:`raw_of`, if it asks; call it as soon as
    it is known."""
    if _looking.get():
        raise _Offered(Raw(kind, content))


def raw_of(opening: Callable[[], Dataset]) -> Raw:
    """What `opening` a split offers, before it reads it; raises what `opening` does."""
    token = _looking.set(True)
    try:
        dataset = opening()
    except _Offered as found:
        return found.raw
    finally:
        _looking.reset(token)
    return Raw(dataset.spec.kind, dataset)
