"""Codecs: between raw content and what a model sees."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.base import Codec, DataSpec
from aigc_cli.modalities.tokenizers import BOS, EOS, PAD, SPECIALS, Tokenizer, restore_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

TOKENIZER_FILE = "tokenizer.json"
FORMAT = 1
LARGEST_FILE = 1 << 26  # bytes; a tokenizer of a million merges has 20 million


class ImageCodec(Codec):
    """uint8 pixels (n, c, h, w) to float32 in [-1, 1], the range of a tanh, and back.

    Exact in float32: every one of the 256 values comes back as itself. Encoded values outside of [-1, 1] are clamped.
    """

    def encode(self, content: Tensor) -> Tensor:
        """uint8 (n, c, h, w) to float32 (n, c, h, w) in [-1, 1]."""
        return content.float().div_(127.5).sub_(1.0)

    def decode(self, encoded: Tensor) -> Tensor:
        """Floating (n, c, h, w) to uint8 (n, c, h, w), rounded to the nearest."""
        import torch

        return encoded.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


class TextCodec(Codec):
    """Token ids, which are a model's own content, with the tokenizer that maps them to strings and back.

    `start` is the token that writing from nothing begins after: `bos` where every item begins with it, `eos` in texts
    of several documents, else what ends a line.
    """

    def __init__(self, tokenizer: Tokenizer, start: int = BOS) -> None:
        self.tokenizer = tokenizer
        self.start = start

    def encode(self, content: Tensor) -> Tensor:
        """Token ids as they are."""
        return content

    def decode(self, encoded: Tensor) -> Tensor:
        """Token ids as they are."""
        return encoded

    def text(self, ids: Tensor, *, stop: bool = True) -> list[str]:
        """The text of each row of token ids, integers (n, t) in [0, vocab_size).

        Special tokens at the beginning are passed over; with `stop`, the text ends at the first `eos` after them, and
        else goes on behind it.
        """
        return [self.tokenizer.decode(_inner(row, stop)) for row in ids.tolist()]

    def tokens(self, text: str) -> list[int]:
        """The token ids of some text, such as a prompt, without special tokens.

        Raises:
            ConfigError: it holds characters that the vocabulary lacks, or bytes that are no text.
        """
        if lacking := self.tokenizer.unknown(text):
            named = ", ".join(f"{character!r}" for character in lacking[:10])
            raise ConfigError(
                f"the vocabulary of this run has no {named}{' and others' if len(lacking) > 10 else ''}",
                "leave them out; a tokenizer of kind byte or bpe has them all (data.tokenizer.kind=)",
            )
        try:
            found: list[int] = self.tokenizer.encode(text).tolist()
            return found
        except UnicodeEncodeError:
            raise ConfigError(
                f"this holds bytes that are no text: {text.encode('utf-8', 'backslashreplace').decode()[:80]}",
                "write it in UTF-8",
            ) from None

    def files(self) -> Mapping[str, str]:
        """``tokenizer.json``."""
        saved = {"format": FORMAT, "start": self.start, **self.tokenizer.state()}
        return {TOKENIZER_FILE: json.dumps(saved, ensure_ascii=False) + "\n"}


def _inner(row: list[int], stop: bool) -> list[int]:
    first = next((place for place, token in enumerate(row) if token not in (PAD, BOS, EOS)), len(row))
    last = row.index(EOS, first) if stop and EOS in row[first:] else len(row)
    return row[first:last]


def read_codec(path: Path) -> TextCodec:
    """The codec in a ``tokenizer.json``, or in the folder of a run or a checkpoint that holds one.

    The file may come from a stranger: it is checked, and nothing in it is run.

    Raises:
        DataError: it is missing or broken.
    """
    file = path / TOKENIZER_FILE if path.is_dir() else path
    hint = "restore the file from a copy of the run, or train the run again"
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise ValueError(f"it has more than {LARGEST_FILE} bytes")
        saved = json.loads(content)
        if not isinstance(saved, dict) or saved.get("format") != FORMAT:
            raise ValueError(f"it is no tokenizer of format {FORMAT}")
        tokenizer, start = restore_tokenizer(saved), saved.get("start")
        if type(start) is not int or not 0 <= start < tokenizer.vocab_size:
            raise ValueError(f"start={start} is no token of it")
    except DataError as error:
        raise DataError(f"{file} cannot be read: {error.message}", hint) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise DataError(f"{file} cannot be read: {reason}", hint) from None
    return TextCodec(tokenizer, start)


def codec_for(spec: DataSpec, folder: Path | None = None) -> Codec:
    """The codec of what `spec` describes, made without the data itself, so that a run can be sampled on its own.

    Args:
        spec: of the data.
        folder: of the run or checkpoint, which holds what the codec needs to be made of.

    Raises:
        DataError: what it needs is missing or broken, or is of other data.
    """
    if spec.modality == "image":
        return ImageCodec()
    if folder is None:
        raise DataError(f"a codec of {spec.modality} is made of a run's {TOKENIZER_FILE}", "name the run")
    codec = read_codec(folder)
    if codec.tokenizer.vocab_size != spec.vocab_size or dict(spec.specials) != dict(SPECIALS):
        raise DataError(
            f"{folder / TOKENIZER_FILE} has {codec.tokenizer.vocab_size} tokens, and the model {spec.vocab_size}",
            "restore the file from a copy of the run, or train the run again",
        )
    return codec
