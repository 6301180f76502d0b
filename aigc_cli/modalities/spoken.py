"""What is to be said: texts as characters, in one case and with single spaces, so that one spelling is one sound."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.tokenizers import CharTokenizer

_SPACES = re.compile(r"\s+")


def normal(text: str) -> str:
    """A text in lower case, composed, with single spaces."""
    return _SPACES.sub(" ", unicodedata.normalize("NFC", text)).strip().lower()


class SpokenText(TextCodec):
    """A codec of what is to be said, which takes prompts as people type them."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> SpokenText:
        """With a token for each character of some texts."""
        return cls(CharTokenizer(set().union({" "}, *texts)))

    def tokens(self, text: str) -> list[int]:
        """See :meth:`TextCodec.tokens`."""
        return super().tokens(normal(text))
