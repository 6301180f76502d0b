"""Lines of text to vectors, and which of these lie near each other."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from aigc_cli.errors import ConfigError
from aigc_cli.files import replacing
from aigc_cli.modalities.base import Batch
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.text_files import printable, read_lines, without_surrogates
from aigc_cli.modalities.tokenizers import BOS, EOS, PAD
from aigc_cli.models.language_model import padded
from aigc_cli.training.restore import Restored

_NAMED = 10  # characters that the vocabulary lacks
_ROWS = 1024  # whose similarities to all others are held at once


@dataclass(frozen=True)
class Line:
    """A line with text in it, and its number from 1 on."""

    number: int
    text: str


@dataclass
class Read:
    """How lines were read, for a person to know."""

    empty: list[int] = field(default_factory=list)  # numbers of lines without text
    cut: list[int] = field(default_factory=list)  # of lines with more tokens than the model reads
    lacking: Counter[str] = field(default_factory=Counter)  # characters that the vocabulary has no token for

    def warnings(self, context: int) -> Iterator[str]:
        """A line for each thing that is not as it should be, for a model that reads `context` tokens."""
        if self.empty:
            yield f"{_count(self.empty)} without text, and without a vector (`lines` numbers those that have one)"
        if self.cut:
            yield f"{_count(self.cut)} cut to the {context} tokens that the model reads (data.context)"
        if self.lacking:
            some = ", ".join(repr(character) for character, _ in self.lacking.most_common(_NAMED))
            yield f"{self.lacking.total()} characters are not in the vocabulary, and are read as unk: {some}"


def _count(lines: Sequence[int]) -> str:
    return f"line {lines[0]} is" if len(lines) == 1 else f"{len(lines)} lines are (line {lines[0]} is the first)"


def lines_of_file(path: Path, read: Read) -> list[Line]:
    """The lines of a file that have text in them, as :func:`aigc_cli.modalities.text_files.read_lines` reads them.

    Raises:
        ConfigError: there is no such file, or no text in it.
        DataError: it cannot be read, or is not UTF-8.
    """
    name = printable(path)
    if not path.is_file():
        raise ConfigError(f"input={name}: there is no such file", "name a file of text, whose lines get a vector each")
    lines = [Line(number, text) for number, text in enumerate(read_lines(path), 1)]
    read.empty += [line.number for line in lines if not line.text.strip()]
    found = [line for line in lines if line.text.strip()]
    if not found:
        raise ConfigError(f"there is no text in {name}", "name a file with text in it")
    return found


def embed(restored: Restored, lines: Sequence[Line], read: Read, batch_size: int) -> Tensor:
    """A vector for each line, float32 (n, width), on the CPU.

    Raises:
        ConfigError: the model gives no vectors, or is not of text.
    """
    codec, model, name = restored.codec, restored.model, restored.run.name
    if not isinstance(codec, TextCodec) or restored.spec.kind != "text":
        raise ConfigError(f"aigc embed reads text, and {name} is of {restored.spec.kind}", "name a run on text")
    if "encode" not in model.can:
        raise ConfigError(f"{name} gives no vectors: its model has no encoder", "name a run of model=bert")
    ends = codec.start == BOS or "decode" in model.can  # which takes a text whole, whatever it was trained on
    rows = [_tokens(line, codec, restored.spec.shape[0] - 1, ends, read) for line in lines]
    vectors = []
    with torch.inference_mode():
        for first in range(0, len(rows), batch_size):
            content = padded(rows[first : first + batch_size], PAD, restored.device)
            vectors.append(model.encode(Batch(content)).float().cpu())
    found = torch.cat(vectors)
    if not bool(torch.isfinite(found).all()):
        worst = lines[int((~torch.isfinite(found)).any(1).nonzero()[0])]
        raise ConfigError(f"line {worst.number} is too short for {name} to give it a vector", "leave it out")
    return found


def _tokens(line: Line, codec: TextCodec, context: int, ends: bool, read: Read) -> list[int]:
    """The token ids of a line, between the tokens of its ends if these are told; as many as fit."""
    text, _ = without_surrogates(line.text)
    read.lacking.update({lack: text.count(lack) for lack in codec.tokenizer.unknown(text)})
    found: list[int] = codec.tokenizer.encode(text).tolist()
    most = context - 2 if ends else context
    if len(found) > most:
        read.cut.append(line.number)
    return [BOS, *found[:most], EOS] if ends else found[:most]


def nearest(vectors: Tensor, count: int) -> list[list[tuple[int, float]]]:
    """For each of the vectors (n, width), the places of the `count` others at the smallest angle to it, the nearest
    first, with the cosines of the angles."""
    directions = normalize(vectors.double(), dim=1)
    found = []
    for first in range(0, len(directions), _ROWS):
        cosines = directions[first : first + _ROWS] @ directions.T
        own = torch.arange(len(cosines))
        cosines[own, first + own] = -torch.inf
        values, places = cosines.topk(min(count, len(directions) - 1), dim=1)
        found += [list(zip(*row, strict=True)) for row in zip(places.tolist(), values.tolist(), strict=True)]
    return found


def write_vectors(path: Path, vectors: Tensor, lines: Sequence[Line], provenance: str) -> None:
    """An .npz that needs no pickle: ``vectors`` (n, width) float32, the number ``lines`` (n,) int64 and the ``sha256``
    (n,) of each line, and as JSON text the ``provenance``."""
    arrays: dict[str, Any] = {
        "vectors": vectors.numpy(),
        "lines": np.array([line.number for line in lines], dtype=np.int64),
        "sha256": np.array([hashlib.sha256(line.text.encode("utf-8", "replace")).hexdigest() for line in lines]),
        "provenance": np.array(provenance),
    }
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)
