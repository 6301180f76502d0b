"""What libraries in C write to stderr, kept from a person."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO


@contextmanager
def quiet() -> Iterator[IO[str]]:
    """Drops what libraries in C write to stderr, such as libmpg123's notes; what it gives writes there still."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(kept, "w", encoding=sys.stderr.encoding or "utf-8", closefd=True) as still:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        try:
            yield still
        finally:
            with suppress(ValueError):
                sys.stderr.flush()
            os.dup2(kept, 2)
