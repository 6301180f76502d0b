"""Whether an Ogg file is whole, which no header of it says: libsndfile reads what is there, of the first stream alone.

Pages are as RFC 3533 (section 6) has them.
"""

from __future__ import annotations

import os
from typing import IO

_HEAD = 27  # bytes of a page before the sizes of its segments
_FIRST = 2  # the flag of a page that begins a stream


def is_ogg(head: bytes) -> bool:
    """Whether a file that begins so is an Ogg."""
    return head.startswith(b"OggS")


def fault_of(file: IO[bytes]) -> str:
    """Why not all of an Ogg would be heard, "" where it would; the file is then read from its beginning again."""
    size, at, begun = file.seek(0, os.SEEK_END), 0, False
    try:
        while at < size:
            file.seek(at)
            head = file.read(_HEAD)
            if not is_ogg(head):  # something else, such as tags, follows the last page
                return ""
            segments = file.read(head[-1]) if len(head) == _HEAD else b""
            at += _HEAD + len(segments) + sum(segments)
            if len(head) < _HEAD or len(segments) < head[-1] or at > size:
                return "it is cut: it ends in the middle of a page"
            first = bool(head[5] & _FIRST)
            if first and begun:
                return "it holds several streams one after the other, of which only the first would be read"
            begun |= not first
        return ""
    finally:
        file.seek(0)
