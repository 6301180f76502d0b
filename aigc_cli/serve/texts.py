"""Text as it comes, token by token: whole characters alone, and nothing from the first stop on."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from aigc_cli.modalities.tokenizers import SPECIALS


class Spelling:
    """The bytes of each token of a codec of text."""

    def __init__(self, codec: Any) -> None:
        tokenizer = codec.tokenizer
        texts: list[bytes] = tokenizer.spellings()
        specials = tokenizer.vocab_size - len(texts)
        self._texts: list[bytes] = [tokenizer.decode([token]).encode() for token in range(specials)] + texts
        names: dict[str, None] = {}
        for token, name in enumerate([*(f"<{name}>" for name, _ in SPECIALS), *map(_named, texts)]):
            names[f"{name}#{token}" if name in names else name] = None  # a tokenizer made elsewhere may have one twice
        self._names = list(names)

    def name(self, token: int) -> str:
        """What a token is called in an answer, and no other is: its text, or its bytes, as OpenAI has them, where these
        are no text on their own."""
        return self._names[token]

    def __getitem__(self, token: int) -> bytes:
        return self._texts[token]

    def of(self, tokens: Sequence[int]) -> bytes:
        """The bytes of several."""
        return b"".join(self._texts[token] for token in tokens)


def _named(spelling: bytes) -> str:
    try:
        return spelling.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelling)


class Growing:
    """A text that grows by bytes, and what of it can be told already.

    Args:
        skip: So many of the first bytes are known: a prompt may end within a token, which is then written again.
        stops: The text ends before the first of these.
    """

    def __init__(self, skip: int = 0, stops: Sequence[str] = ()) -> None:
        self._skip, self._stops = skip, [stop for stop in stops if stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # which may turn out to begin a stop
        self.told = 0  # characters
        self.stopped = False

    @property
    def length(self) -> int:
        """Characters so far, those that cannot be told yet among them."""
        return self.told + len(self._held)

    def add(self, more: bytes, *, last: bool = False) -> str:
        """What can be told now that so many bytes came; with `last`, all that is left."""
        if self.stopped:
            return ""
        skipped = min(self._skip, len(more))
        self._skip -= skipped
        self._held += self._decoder.decode(more[skipped:], final=last)
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.stopped = True
            return self._tell(min(places))
        return self._tell(len(self._held) if last else len(self._held) - self._open())

    def _open(self) -> int:
        """How many of the last characters may begin a stop."""
        lengths = range(min(len(self._held), max(map(len, self._stops), default=1) - 1), 0, -1)
        return next((n for n in lengths if any(stop.startswith(self._held[-n:]) for stop in self._stops)), 0)

    def _tell(self, count: int) -> str:
        found, self._held = self._held[:count], self._held[count:]
        self.told += len(found)
        return found
