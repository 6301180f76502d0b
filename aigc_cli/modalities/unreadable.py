"""What readers of files of every modality raise, and whom they tell how much they are about to decode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_watch: ContextVar[Callable[[int], None] | None] = ContextVar("watch", default=None)


class Unreadable(Exception):
    """Why a file, or one item in it, cannot be used."""


def decoding(size: int) -> None:
    """Says that a file becomes so many bytes, be it a picture, a frame or as much of its sound as was read; raises what
    whoever watches does, and nothing else."""
    if (watch := _watch.get()) is not None:
        watch(size)


@contextmanager
def watched(watch: Callable[[int], None]) -> Iterator[None]:
    """Within the context, and in this thread, `watch` is told of all that is decoded, before it is."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)
