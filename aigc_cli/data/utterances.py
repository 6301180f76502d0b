"""Speech: clips in which something is said, with what that is and by whom; one recording each, or several that follow
one another."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_cli.data.base import Gatherer, Split
from aigc_cli.data.cache import digest_of
from aigc_cli.data.sounds import Sounds, SoundsConfig
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.modalities.spoken import SpokenText
from aigc_cli.modalities.tokenizers import BOS, EOS, PAD, SPECIALS
from aigc_cli.randomness import generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_AT_ONCE = 64  # items that are joined at a time, where all are asked for
_GAP_S = (0.04, 0.12)  # of silence between recordings that follow one another: the shortest, and the longest
#: Strings of a training split for each of its recordings, and the share of their longest length that there is room for.
_STRINGS, _ROOM = 4, 0.75
MOST_WORDS = 20


@dataclass(frozen=True)
class Recordings:
    """Recordings end to end, with the words of each."""

    samples: np.ndarray  # int16 (total, channels)
    starts: np.ndarray  # int64 (m,)
    counts: np.ndarray  # int64 (m,)
    texts: Sequence[str]
    voices: np.ndarray  # int64 (m,), who speaks

    def digest(self) -> str:
        """A SHA-256 of all that is heard and said."""
        found = hashlib.sha256(digest_of([list(self.texts), self.counts.tolist(), self.voices.tolist()]).encode())
        for start, count in zip(self.starts.tolist(), self.counts.tolist(), strict=True):
            found.update(np.ascontiguousarray(self.samples[start : start + count]).data)
        return found.hexdigest()


#: What an item is made of: recordings, each with the samples of silence before it.
Parts = Sequence[tuple[int, int]]


def how_many(words: str | int | None) -> tuple[int, int]:
    """The fewest and the most words that ``data.words=`` asks for: "3" is three, and "1..5" one to five.

    Raises:
        ConfigError: it is neither.
    """
    found = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", str(1 if words is None else words))
    fewest, most = (0, 0) if found is None else (int(found[1]), int(found[2] or found[1]))
    if not 1 <= fewest <= most <= MOST_WORDS:
        hint = f"give a number, or a range such as data.words=1..5, of at most {MOST_WORDS}"
        raise ConfigError(f"data.words={words} does not say how many words are said", hint)
    return fewest, most


def strings(found: Recordings, split: Split, words: tuple[int, int], rate: int, room: int) -> list[Parts]:
    """Items of several recordings of one voice that follow one another, drawn by the split and the item alone: four for
    each recording of a training split, one for each of others. What does not fit into `room` samples is left out."""
    own = [np.flatnonzero(found.voices == voice) for voice in np.unique(found.voices)]
    made: list[Parts] = []
    for item in range(len(found.texts) * (_STRINGS if split == "train" else 1)):
        draws = generator("strings", split, item)
        rows = own[item % len(own)]
        wanted = int(draws.integers(words[0], words[1] + 1))
        gaps = (draws.uniform(*_GAP_S, size=wanted) * rate).astype(int)
        picked = rows[draws.integers(len(rows), size=wanted)]
        parts: list[tuple[int, int]] = []
        length = 0
        for row, gap in zip(picked.tolist(), gaps.tolist(), strict=True):
            gap = gap if parts else 0
            length += gap + int(found.counts[row])
            if length > room and parts:
                break
            parts.append((row, gap))
        made.append(parts)
    return made


class Utterances(Sounds):
    """A split of speech; items are recordings, or strings of them.

    With `source`, batches have the characters of what is said, int64 (n, longest), between `bos` and `eos`: what a
    model reads that is to say it. The classes are the voices, where there are several.

    Args:
        config: Of the clips; its length is that of items.
        split: Which it is, of `found`.
        found: The recordings of each split.
        items: What the items of this split are made of; None is one recording each.
        voices: The names that the numbers of voices stand for.
        source: The codec of what is said; None says nothing of it.
        longest: Characters of the longest text of all splits.
        about: As of :class:`Sounds`.
    """

    def __init__(
        self, config: SoundsConfig, split: Split, found: Callable[[Split], Recordings],
        items: Sequence[Parts] | None, *, voices: Sequence[str], source: SpokenText | None, longest: int,
        **about: Any,
    ) -> None:  # fmt: skip
        own = found(split)
        self.items: Sequence[Parts] = [[(row, 0)] for row in range(len(own.texts))] if items is None else items
        self._own, self._size = own, (config.channels, config.samples)
        self.texts = [" ".join(own.texts[row] for row, _ in parts) for parts in self.items]
        labels = np.array([own.voices[parts[0][0]] for parts in self.items], dtype=np.int64)
        identity = digest_of([own.digest(), [list(map(list, parts)) for parts in self.items], source is not None])
        several = len(voices) > 1
        heard = set(found("train").voices.tolist())
        untrained = [name for voice, name in enumerate(voices) if voice not in heard] if several else []
        super().__init__(
            config, identity, lambda: _clips(found("train"), self._size), labels=labels if several else None,
            classes=voices if several else (), attributes=(("speaker", tuple(voices)),) if several else (),
            untrained=untrained, **about,
        )  # fmt: skip
        self._labels, self._source = labels if several else None, None
        if source is not None:
            self.codec.source = source
            width = longest + 2
            spec = DataSpec("text", (width,), (), source.tokenizer.vocab_size, SPECIALS)
            self.spec = replace(self.spec, source=spec)
            self._source = np.full((len(self.items), width), PAD, dtype=np.int64)
            for row, ids in enumerate(source.tokenizer.encode_all(self.texts)):
                line = np.concatenate([[BOS], ids, [EOS]])[:width]
                self._source[row, : len(line)] = line

    def __len__(self) -> int:
        return len(self.items)

    def resident(self) -> Batch | None:
        """None: items are put together when they are asked for."""
        return None

    def read(self, index: int) -> tuple[Tensor, int | None]:
        """One item, int16 (channels, samples), and who speaks."""
        batch = self.gatherer("cpu")(_numbers([index]))
        return batch.content[0], None if batch.labels is None else int(batch.labels[0])

    def gatherer(self, device: torch.device | str) -> Gatherer:
        """Puts items together, on the CPU."""
        return _Joined(self._own, self.items, self._size, self._labels, self._source)


class _Joined:
    """A :class:`Gatherer` of recordings that follow one another."""

    def __init__(
        self, own: Recordings, items: Sequence[Parts], size: tuple[int, int], labels: np.ndarray | None,
        source: np.ndarray | None,
    ) -> None:  # fmt: skip
        import torch

        self._own, self._items, self._size, self._labels, self._source = own, items, size, labels, source
        self.device = torch.device("cpu")

    def __call__(self, index: Tensor, uniform: Tensor | None = None) -> Batch:
        import torch

        rows = index.tolist()
        content = np.zeros((len(rows), *self._size), dtype=np.int16)
        for place, row in enumerate(rows):
            at = 0
            for number, gap in self._items[row]:
                at += gap
                start, count = int(self._own.starts[number]), int(self._own.counts[number])
                heard = self._own.samples[start : start + count][: max(0, self._size[1] - at)]
                content[place, :, at : at + len(heard)] = heard.T
                at += count
        labels, source = (None if of is None else torch.from_numpy(of[rows]) for of in (self._labels, self._source))
        return Batch(torch.from_numpy(content), labels, source)


def _clips(found: Recordings, size: tuple[int, int]) -> Iterator[Tensor]:
    """All recordings, some at a time, as clips of a size."""
    joined = _Joined(found, [[(row, 0)] for row in range(len(found.texts))], size, None, None)
    for start in range(0, len(found.texts), _AT_ONCE):
        yield joined(_numbers(range(start, min(start + _AT_ONCE, len(found.texts))))).content


def _numbers(rows: Sequence[int]) -> Tensor:
    import torch

    return torch.tensor(list(rows))


def with_room(config: SoundsConfig, words: tuple[int, int]) -> SoundsConfig:
    """The configuration of clips in which so many words have room."""
    return config if words[1] == 1 else replace(config, seconds=config.seconds * max(1.0, _ROOM * words[1]))
