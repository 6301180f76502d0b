"""Tokenizers: text to ids and back.

Every vocabulary begins with the same four special tokens, which no text is ever mapped to, so that text which spells
one out is still text. `char` has a token for each character of the training text, `byte` one for each byte of UTF-8,
and `bpe` merges bytes that often come together (Sennrich et al., Neural Machine Translation of Rare Words with Subword
Units, 2016; on bytes as in Radford et al., Language Models are Unsupervised Multitask Learners, 2019).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import DataError

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

    kind: Literal["char", "byte", "bpe"]
    vocab_size: Annotated[int, Field(ge=1, le=LARGEST)]
    path: str | None

    @model_validator(mode="after")
    def _hold_all_bytes(self) -> Self:
        least = FIRST + 256
        if self.kind == "bpe" and self.path is None and self.vocab_size < least:
            raise ValueError(f"vocab_size={self.vocab_size} cannot hold the 256 bytes and 4 special tokens: {least}")
        return self


class Tokenizer(ABC):
    """Text to ids and back; ids below 4 are special."""

    kind: ClassVar[str]
    vocab_size: int

    @abstractmethod
    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, integers (n,), without special tokens but `unk` for what the vocabulary lacks.

        Raises:
            UnicodeEncodeError: a text holds half of a surrogate pair.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids in [0, vocab_size): `unk`, and bytes that are no UTF-8, show as U+FFFD, other special tokens
        not at all."""

    @abstractmethod
    def size_of(self, token: int) -> tuple[int, int]:
        """The characters that begin in a token that stands for text, and its bytes in UTF-8."""

    @abstractmethod
    def spellings(self) -> list[bytes]:
        """What each token that stands for text stands for, in UTF-8, in the order of their ids."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What :func:`restore_tokenizer` makes the same tokenizer of, as plain data."""

    def encode(self, text: str) -> np.ndarray:
        """The ids of one text, as :meth:`encode_all`."""
        return self.encode_all([text])[0]

    def unknown(self, text: str) -> list[str]:
        """The characters of `text`, each once, that the vocabulary lacks."""
        return []

    def extensions(self, token: int) -> list[int]:
        """The tokens whose text begins with that of a token, itself among them."""
        return [token]


class CharTokenizer(Tokenizer):
    """A token for each of `characters`, in the order of their code points."""

    kind = "char"

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = sorted(set(characters))
        self.vocab_size = FIRST + len(self.characters)
        points = np.array([ord(character) for character in self.characters], dtype=np.int64)
        self._ids = np.full(int(points.max(initial=0)) + 2, UNK, dtype=np.uint32)  # one more, for all that lie above
        self._ids[points] = np.arange(FIRST, self.vocab_size, dtype=np.uint32)
        self._texts = ["", "", "", REPLACEMENT, *self.characters]

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """See :meth:`Tokenizer.encode_all`."""
        points = (np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32) for text in texts)
        return [self._ids[np.minimum(some, len(self._ids) - 1)] for some in points]

    def decode(self, ids: Sequence[int]) -> str:
        """See :meth:`Tokenizer.decode`."""
        return "".join([self._texts[token] for token in ids])

    def size_of(self, token: int) -> tuple[int, int]:
        """See :meth:`Tokenizer.size_of`."""
        return 1, len(self._texts[token].encode())

    def unknown(self, text: str) -> list[str]:
        """See :meth:`Tokenizer.unknown`."""
        return sorted(set(text).difference(self.characters))

    def spellings(self) -> list[bytes]:
        """See :meth:`Tokenizer.spellings`."""
        return [character.encode() for character in self.characters]

    def state(self) -> dict[str, Any]:
        """The characters, in order."""
        return {"kind": self.kind, "characters": "".join(self.characters)}


class ByteTokenizer(Tokenizer):
    """A token for each byte of UTF-8."""

    kind = "byte"
    vocab_size = FIRST + 256

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """See :meth:`Tokenizer.encode_all`."""
        return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint16) + np.uint16(FIRST) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """See :meth:`Tokenizer.decode`."""
        table = [b"", b"", b"", REPLACEMENT.encode(), *(bytes([byte]) for byte in range(256))]
        return b"".join([table[token] for token in ids]).decode("utf-8", "replace")

    def size_of(self, token: int) -> tuple[int, int]:
        """See :meth:`Tokenizer.size_of`."""
        return _characters_in(bytes([token - FIRST])), 1

    def spellings(self) -> list[bytes]:
        """See :meth:`Tokenizer.spellings`."""
        return [bytes([byte]) for byte in range(256)]

    def state(self) -> dict[str, Any]:
        """Nothing but its kind."""
        return {"kind": self.kind}


class BPETokenizer(Tokenizer):
    """Bytes, and what `merges` of two earlier tokens make of them, in the order in which they apply.

    Text is cut into words by GPT-2's pattern first, and no token reaches over the end of one.
    """

    kind = "bpe"

    def __init__(self, merges: Iterable[tuple[int, int]]) -> None:
        self.merges = list(merges)
        texts = [b"", b"", b"", REPLACEMENT.encode(), *(bytes([byte]) for byte in range(256))]
        known = {text: token for token, text in enumerate(texts) if token >= FIRST}
        for first, second in self.merges:
            joined = texts[first] + texts[second]
            if len(joined) > LONGEST_TOKEN:
                raise ValueError(f"a token has more than {LONGEST_TOKEN} bytes")
            if joined not in known:  # two merges may lead to one token
                known[joined] = len(texts)
                texts.append(joined)
        self._texts, self._known = texts, known
        self.vocab_size = len(texts)
        self._library: tokenizers.Tokenizer | None = None

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """See :meth:`Tokenizer.encode_all`; on all cores, where there are several texts."""
        for text in texts:
            text.encode()  # the library's own error for half of a surrogate pair does not say so
        found = self._bpe().encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, dtype=np.uint32) for one in found]

    def decode(self, ids: Sequence[int]) -> str:
        """See :meth:`Tokenizer.decode`."""
        return b"".join([self._texts[token] for token in ids]).decode("utf-8", "replace")

    def size_of(self, token: int) -> tuple[int, int]:
        """See :meth:`Tokenizer.size_of`."""
        return _characters_in(self._texts[token]), len(self._texts[token])

    def spellings(self) -> list[bytes]:
        """See :meth:`Tokenizer.spellings`."""
        return self._texts[FIRST:]

    def extensions(self, token: int) -> list[int]:
        """See :meth:`Tokenizer.extensions`."""
        beginning = self._texts[token]
        return [other for other in range(FIRST, self.vocab_size) if self._texts[other].startswith(beginning)]

    def state(self) -> dict[str, Any]:
        """The merges, as pairs of ids; all else follows from them."""
        return {"kind": self.kind, "merges": [list(merge) for merge in self.merges]}

    def _bpe(self) -> tokenizers.Tokenizer:
        if self._library is None:
            from tokenizers import Tokenizer, models

            letters = _letters()
            spelled = {token: "".join(letters[byte] for byte in text) for text, token in self._known.items()}
            vocabulary = {text: token for token, text in spelled.items()}
            merges = [(spelled[first], spelled[second]) for first, second in self.merges]
            self._library = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
            self._library.pre_tokenizer = _words()
        return self._library

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_library": None}


def _characters_in(text: bytes) -> int:
    return sum(byte & 0xC0 != 0x80 for byte in text)


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
    from tokenizers import Tokenizer, models, trainers

    letters = _letters()
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = _words()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        initial_alphabet=letters,
        max_token_length=LONGEST_TOKEN,
        show_progress=False,
    )
    library.train_from_iterator(pieces, trainer)
    ids = {letter: FIRST + byte for byte, letter in enumerate(letters)}
    merges = []
    for first, second in _merges(library):
        merges.append((ids[first], ids[second]))
        ids.setdefault(first + second, len(ids) + FIRST)
    return BPETokenizer(merges)


def _merges(library: tokenizers.Tokenizer) -> list[tuple[str, str]]:
    import json

    found = json.loads(library.to_str())["model"]["merges"]
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in found)  # older versions join them
    return [(first, second) for first, second in pairs]


def _words() -> tokenizers.pre_tokenizers.PreTokenizer:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _letters() -> list[str]:
    """The printable character that the library has for each byte: itself where it is one, else one from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = (byte for byte in range(256) if byte not in printable)
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]


def restore_tokenizer(state: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a :meth:`Tokenizer.state`, which may come from a stranger: it is checked, and nothing is run.

    Raises:
        DataError: it is not the state of a tokenizer.
    """
    try:
        kind = state["kind"]
        if kind == "byte":
            return ByteTokenizer()
        if kind == "char":
            return CharTokenizer(_checked_characters(state["characters"]))
        if kind == "bpe":
            return BPETokenizer(_checked_merges(state["merges"]))
        raise ValueError(f"there is no tokenizer of kind {kind!r}")
    except KeyError as error:
        raise DataError(f"it has no {error}") from None
    except (ValueError, TypeError, IndexError) as error:
        raise DataError(str(error)) from None


def _checked_characters(characters: Any) -> str:
    if not isinstance(characters, str) or len(characters) > LARGEST:
        raise ValueError("its characters are no text, or too many")
    if any(second <= first for first, second in pairwise(characters)):
        raise ValueError("its characters are not in order, each once")
    characters.encode()  # half of a surrogate pair is a ValueError
    return characters


def _checked_merges(merges: Any) -> list[tuple[int, int]]:
    if not isinstance(merges, list) or len(merges) > LARGEST:
        raise ValueError("its merges are no list, or too many")
    for merge in merges:
        pair = isinstance(merge, list) and len(merge) == 2 and all(type(token) is int for token in merge)
        if not pair or min(merge) < FIRST:
            raise ValueError(f"{str(merge)[:40]} is no merge of two tokens")
    return [(first, second) for first, second in merges]
