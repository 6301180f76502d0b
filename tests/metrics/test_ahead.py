"""Work done ahead comes in order, hands its errors over, and ends when it is given up."""

import threading
import time
from collections.abc import Iterator

import pytest

from aigc_cli.metrics.ahead import ahead


def test_items_come_in_order() -> None:
    assert list(ahead(lambda: iter(range(50)))) == list(range(50))


def test_it_works_while_the_last_item_is_used() -> None:
    made: list[int] = []

    def work() -> Iterator[int]:
        for i in range(10):
            made.append(i)
            yield i

    items = ahead(work, depth=2)
    assert next(items) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made == [0, 1, 2, 3]  # one used, two kept, one waiting: never all of them
    assert list(items) == list(range(1, 10))


def test_an_error_comes_in_its_place() -> None:
    def work() -> Iterator[int]:
        yield 1
        raise ValueError("here")

    items = ahead(work)
    assert next(items) == 1
    with pytest.raises(ValueError, match="here"):
        next(items)


def test_giving_up_ends_the_thread() -> None:
    def forever() -> Iterator[int]:
        while True:
            yield 0

    before = threading.active_count()
    items = ahead(forever)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
