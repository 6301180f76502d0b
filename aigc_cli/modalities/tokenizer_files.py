"""Tokenizers out of files, perhaps of strangers: those that a run keeps, and those of folders of Hugging Face."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from aigc_cli.errors import DataError
from aigc_cli.files import read_json
from aigc_cli.modalities.tokenizers import (
    FIRST,
    LARGEST,
    SPECIALS,
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
    letters_of_bytes,
)


class HFTokenizer(Tokenizer):
    """A ``tokenizer.json`` of Hugging Face's, kept as it is, whose tokens have other ids here: first the four special
    ones, then all that are none of them, in their order.

    Args:
        text: of the file.
        rows: how many tokens a model of theirs scores, which may be more than the file has.
        specials: their ids for ``pad``, ``bos``, ``eos`` and ``unk``; where they have fewer, some are the same.
    """

    kind = "hf"

    def __init__(self, text: str, rows: int, specials: Sequence[int]) -> None:
        self.text, self.rows, self.specials = text, rows, list(specials)
        saved = json.loads(text)
        vocabulary = self._library.get_vocab(with_added_tokens=True)
        if not 0 < rows <= LARGEST or max([*vocabulary.values(), *specials], default=0) >= rows or min(specials) < 0:
            raise ValueError(f"its tokens do not fit in {rows:,} rows")
        spelled = {token: word for word, token in vocabulary.items()}
        special = {int(each["id"]) for each in saved.get("added_tokens", ()) if each.get("special")}
        bytewise = "ByteLevel" in json.dumps(saved.get("decoder"))
        named = set(specials)
        #: Their ids by ours.
        self.theirs = [*specials, *(token for token in range(rows) if token not in named)]
        ids = np.zeros(rows, dtype=np.uint32)
        ids[self.theirs[::-1]] = np.arange(rows + FIRST - len(named), dtype=np.uint32)[::-1]
        #: Ours by theirs.
        self.ours = ids
        names = (
            b"" if token in special else _spelling(spelled.get(token, ""), bytewise) for token in self.theirs[FIRST:]
        )
        super().__init__(names)

    @cached_property
    def _library(self) -> Any:
        from tokenizers import Tokenizer as Library

        try:
            library = Library.from_str(self.text)
        except Exception as error:  # it has no type of its own
            raise ValueError(f"it is not a tokenizer: {str(error)[:200]}") from None
        library.encode_special_tokens = True  # a text that spells out a special token does not become one
        library.no_padding()
        library.no_truncation()
        return library

    def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
        """See :meth:`Tokenizer.encode_all`."""
        for text in texts:
            text.encode()
        found = self._library.encode_batch_fast(list(texts), add_special_tokens=False)
        return [self.ours[np.array(one.ids, dtype=np.int64)] for one in found]

    def state(self) -> dict[str, Any]:
        """The file itself, and what a model's configuration says of its ids."""
        return {"kind": self.kind, "text": self.text, "rows": self.rows, "specials": self.specials}


def _spelling(word: str, bytewise: bool) -> bytes:
    """What a token of theirs stands for, in UTF-8."""
    if bytewise:
        try:
            return bytes(_byte_of()[letter] for letter in word)
        except KeyError:  # an added token, which is written as it is
            return word.encode()
    if len(word) == 6 and word.startswith("<0x"):
        return bytes([int(word[3:5], 16)])
    return word.replace("\u2581", " ").encode()


@cache
def _byte_of() -> dict[str, int]:
    return {letter: byte for byte, letter in enumerate(letters_of_bytes())}


def hf_tokenizer(folder: Path) -> HFTokenizer:
    """The tokenizer of a folder of Hugging Face's, with ``tokenizer.json`` and ``config.json``; raises DataError where
    it has none, or one that does not fit the model there."""
    try:
        text = (folder / "tokenizer.json").read_text(encoding="utf-8")
        config = read_json(folder / "config.json")
        ids = {name: config.get(f"{name}_token_id") for name, _ in SPECIALS}
        ids = {name: each[0] if isinstance(each, list) else each for name, each in ids.items()}
        end = next((ids[name] for name in ("eos", "bos", "pad") if isinstance(ids[name], int)), 0)
        found = [ids[name] if isinstance(ids[name], int) else end for name, _ in SPECIALS]
        return HFTokenizer(text, int(config["vocab_size"]), found)
    except Exception as error:  # the library raises its own kind
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise DataError(f"the tokenizer of {folder} cannot be read: {reason}", "name a whole folder") from None


def restore_tokenizer(state: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a :meth:`Tokenizer.state`, which may come from a stranger: it is checked, and nothing is run;
    raises ValueError where it is not the state of a tokenizer."""
    try:
        kind = state["kind"]
        if kind == "byte":
            return ByteTokenizer()
        if kind == "char":
            return CharTokenizer(_checked_characters(state["characters"]))
        if kind == "bpe":
            return BPETokenizer(_checked_merges(state["merges"]))
        if kind == "hf":
            return HFTokenizer(str(state["text"]), int(state["rows"]), [int(token) for token in state["specials"]])
        raise ValueError(f"there is no tokenizer of kind {kind!r}")
    except KeyError as error:
        raise ValueError(f"it has no {error}") from None
    except (TypeError, IndexError) as error:
        raise ValueError(str(error)) from None


def _checked_characters(characters: Any) -> str:
    if not isinstance(characters, str) or len(characters) > LARGEST:
        raise ValueError("its characters are not text, or too many")
    if any(second <= first for first, second in pairwise(characters)):
        raise ValueError("its characters are not in order, each once")
    characters.encode()  # half of a surrogate pair is a ValueError
    return characters


def _checked_merges(merges: Any) -> list[tuple[int, int]]:
    if not isinstance(merges, list) or len(merges) > LARGEST:
        raise ValueError("its merges are not a list, or too many")
    for merge in merges:
        pair = isinstance(merge, list) and len(merge) == 2 and all(type(token) is int for token in merge)
        if not pair or min(merge) < FIRST:
            raise ValueError(f"{str(merge)[:40]} is not a merge of two tokens")
    return [(first, second) for first, second in merges]
