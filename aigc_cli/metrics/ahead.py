"""Work that goes on in another thread while its results are used: drawing samples beside extracting their features."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
_END = object()


def ahead(make: Callable[[], Iterator[T]], depth: int = 2) -> Iterator[T]:
    """The items of ``make()``, up to `depth` of them made before they are asked for.

    They come in order; an exception comes where its item would have come. The thread ends with the iteration, whether
    that runs to its end or is given up.
    """
    made: queue.Queue[object] = queue.Queue(depth)
    given_up = threading.Event()

    def put(item: object) -> bool:
        while not given_up.is_set():
            try:
                made.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in make():
                if not put(item):
                    return
            put(_END)
        except BaseException as error:  # handed over, whatever it is: nobody would see it here
            put(_Failure(error))

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        given_up.set()
        thread.join()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error
