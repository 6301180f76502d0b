"""Tokenizers: text to ids and back.

Every vocabulary begins with the same four special tokens, which no text is ever mapped to, not even one that spells
them out. `char` has a token for each character of the training text, `byte` one for each byte of UTF-8, and `bpe`
merges bytes that often come together (Sennrich et al. 2016; on bytes as in GPT-2, Radford et al. 2019).

The library `tokenizers` trains and applies merges. A tokenizer is not kept in its files: they may hold any regular
expression, and ids with gaps of billions, and a run may come from a stranger. What is kept is characters, or merges.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT

if TYPE_CHECKING:
    import tokenizers

SPECIALS = (("pad", 0), ("bos", 1), ("eos", 2), ("unk", 3))
PAD, BOS, EOS, UNK = range(4)
FIRST = len(SPECIALS)  # the first id that stands for text
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
LONGEST_TOKEN = 64  # bytes
LARGEST = 1 << 20  # tokens
MOST_TRAINING = 1 << 29  # characters that merges are counted on; of a larger text, pieces spread over all of it


@dataclass(config=STRICT, frozen=True, kw_only=True)
class TokenizerConfig:
    """The section `tokenizer` of a dataset of text; its YAML says what each key means."""

    kind: Literal["char", "byte", "bpe", "hf"]
    vocab_size: Annotated[int, Field(ge=1, le=LARGEST)]
    path: str | None

    @model_validator(mode="after")
    def _hold_all_bytes(self) -> Self:
        least = FIRST + 256
        if self.kind == "hf" and self.path is None:
            raise ValueError("kind=hf is the tokenizer of a folder of Hugging Face's: name it with path=DIR")
        if self.kind == "bpe" and self.path is None and self.vocab_size < least:
            raise ValueError(f"vocab_size={self.vocab_size} cannot hold the 256 bytes and 4 special tokens: {least}")
        return self


class Tokenizer(ABC):
    """Text to ids and back; ids below 4 are special."""

    kind: ClassVar[str]

    def __init__(self, spellings: Iterable[bytes]) -> None:
        """`spellings` are what the tokens that stand for text stand for, in UTF-8, in the order of their ids."""
        self._texts = [b"", b"", b"", REPLACEMENT.encode(), *spellings]
        self.vocab_size = len(self._texts)

    @abstractmethod
    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, integers (n,), without special tokens but `unk` for what the vocabulary lacks; raises
        UnicodeEncodeError where a text holds half of a surrogate pair."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What :func:`restore_tokenizer` makes the same tokenizer of, as plain data."""

    def encode(self, text: str) -> np.ndarray:
        """The ids of one text, as :meth:`encode_all`."""
        return self.encode_all([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids in [0, vocab_size): `unk`, and bytes that are not UTF-8, show as U+FFFD, other special tokens
        not at all."""
        return b"".join([self._texts[token] for token in ids]).decode("utf-8", "replace")

    def size_of(self, token: int) -> tuple[int, int]:
        """The characters that begin in a token that stands for text, and its bytes in UTF-8."""
        text = self._texts[token]
        return sum(byte & 0xC0 != 0x80 for byte in text), len(text)

    def spellings(self) -> list[bytes]:
        """What each token that stands for text stands for, in UTF-8, in the order of their ids."""
        return self._texts[FIRST:]

    def unknown(self, text: str) -> list[str]:
        """The characters of `text`, each once, that the vocabulary lacks."""
        return []

    def extensions(self, token: int) -> list[int]:
        """The tokens whose text begins with that of a token, itself among them."""
        beginning = self._texts[token]
        first = bisect_left(self._sorted, (beginning, -1))
        following = takewhile(lambda pair: pair[0].startswith(beginning), islice(self._sorted, first, None))
        return sorted(other for _, other in following)

    @cached_property
    def _sorted(self) -> list[tuple[bytes, int]]:
        """Texts in order, each with its token, so that those that begin alike are neighbours."""
        return sorted((self._texts[token], token) for token in range(FIRST, self.vocab_size))


class CharTokenizer(Tokenizer):
    """A token for each of `characters`, in the order of their code points."""

    kind = "char"

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = sorted(set(characters))
        super().__init__(character.encode() for character in self.characters)
        points = np.array([ord(character) for character in self.characters], dtype=np.int64)
        self._ids = np.full(int(points.max(initial=0)) + 2, UNK, dtype=np.uint32)  # one more, for all that lie above
        self._ids[points] = np.arange(FIRST, self.vocab_size, dtype=np.uint32)

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """See :meth:`Tokenizer.encode_all`."""
        # A table looks up a whole corpus in one step; the library would go through it word by word.
        points = (np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32) for text in texts)
        return [self._ids[np.minimum(some, len(self._ids) - 1)] for some in points]

    def unknown(self, text: str) -> list[str]:
        """See :meth:`Tokenizer.unknown`."""
        return sorted(set(text).difference(self.characters))

    def state(self) -> dict[str, Any]:
        """The characters, in order."""
        return {"kind": self.kind, "characters": "".join(self.characters)}


class BPETokenizer(Tokenizer):
    """Bytes, and what `merges` of two earlier tokens make of them, in the order in which they apply.

    Text is cut into words by GPT-2's pattern first, and no token reaches over the end of one.
    """

    kind = "bpe"

    def __init__(self, merges: Iterable[tuple[int, int]]) -> None:
        self.merges = list(merges)
        spellings = {bytes([byte]): None for byte in range(256)}  # in order; two merges may lead to one token
        texts = [*[b""] * FIRST, *spellings]
        for first, second in self.merges:
            joined = texts[first] + texts[second]
            if len(joined) > LONGEST_TOKEN:
                raise ValueError(f"a token has more than {LONGEST_TOKEN} bytes")
            if joined not in spellings:
                spellings[joined] = None
                texts.append(joined)
        super().__init__(spellings)

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """See :meth:`Tokenizer.encode_all`; on all cores, where there are several texts."""
        for text in texts:
            text.encode()  # the library's own error for half of a surrogate pair does not say so
        found = self._bpe.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, dtype=np.uint32) for one in found]

    def state(self) -> dict[str, Any]:
        """The merges, as pairs of ids; all else follows from them."""
        return {"kind": self.kind, "merges": [list(merge) for merge in self.merges]}

    @cached_property
    def _bpe(self) -> tokenizers.Tokenizer:
        letters = letters_of_bytes()
        spelled = ["".join(letters[byte] for byte in text) for text in self._texts]
        vocabulary = {spelled[token]: token for token in range(FIRST, self.vocab_size)}
        merges = [(spelled[first], spelled[second]) for first, second in self.merges]
        return _library(vocab=vocabulary, merges=merges)


class ByteTokenizer(BPETokenizer):
    """A token for each byte of UTF-8: no merges at all."""

    kind = "byte"

    def __init__(self) -> None:
        super().__init__(())

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """See :meth:`Tokenizer.encode_all`."""
        return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint16) + np.uint16(FIRST) for text in texts]

    def state(self) -> dict[str, Any]:
        """Nothing but its kind."""
        return {"kind": self.kind}


def train_tokenizer(config: TokenizerConfig, pieces: Iterable[str], characters: int) -> Tokenizer:
    """The tokenizer that `config` asks for, made for a text of `characters` that comes in `pieces`.

    The same pieces give the same tokenizer. Of bpe, it may have fewer tokens than asked for, where no two of them come
    together twice; of char, it has those of the text.
    """
    if config.kind == "byte":
        return ByteTokenizer()
    if config.kind == "char":
        found: set[str] = set()
        for piece in pieces:
            found.update(piece)
        return CharTokenizer(found)
    return _train_bpe(config.vocab_size - FIRST, islice(pieces, 0, None, 1 + characters // MOST_TRAINING))


def _train_bpe(size: int, pieces: Iterable[str]) -> BPETokenizer:
    from tokenizers import trainers

    letters, library = letters_of_bytes(), _library()
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, initial_alphabet=letters, max_token_length=LONGEST_TOKEN, show_progress=False
    )
    library.train_from_iterator(pieces, trainer)
    ids = {letter: FIRST + byte for byte, letter in enumerate(letters)}
    merges = []
    for first, second in json.loads(library.to_str())["model"]["merges"]:
        merges.append((ids[first], ids[second]))
        ids.setdefault(first + second, len(ids) + FIRST)
    return BPETokenizer(merges)


def _library(**merges: Any) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer, models, pre_tokenizers

    library = Tokenizer(models.BPE(**merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return library


def letters_of_bytes() -> list[str]:
    """The printable character that the library has for each byte: itself where it is one, else one from U+0100 on."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    own = {ord(letter): letter for letter in letters if ord(letter) < 256}
    others = iter(letters[len(own) :])
    return [own.get(byte) or next(others) for byte in range(256)]
