"""What is kept from leaving: filters say of each sample whether it may, and it is drawn anew or left out.

A filter is a class that registers itself, ``@register("filter", "mine")``, and is asked for with ``filter=mine``, or
with what it goes by, ``filter=mine:ARGUMENT``. A filter of pictures is a classifier behind :meth:`Filter.drops`.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from aigc_cli.errors import ConfigError
from aigc_cli.files import checksum, path_of
from aigc_cli.modalities.base import Codec, DataSpec
from aigc_cli.modalities.text_files import read_lines
from aigc_cli.randomness import derive
from aigc_cli.registry import find, register
from aigc_cli.sampling.generate import Drawn, Plan, Request
from aigc_cli.sampling.modes import plan

#: What becomes of a sample that is dropped: another is drawn in its place, or the set has one less.
Filtered = Literal["redraw", "omit"]
_AT_ONCE = 64  # samples that are handed on together
_TRIES = 50  # in which a sample is drawn anew
#: Scripts that put no spaces between words, by how the names of their letters begin: there a word is found anywhere.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


class Filter(ABC):
    """Says which samples are not to leave. What it says of one may depend on nothing but that one.

    Args:
        argument: What was typed after its name and a colon; "" where nothing was.
        spec: What the samples are.

    Raises:
        ConfigError: it does not go with such samples, or its argument is wrong.
    """

    facts: Mapping[str, Any]  # what it goes by, for the record

    @abstractmethod
    def __init__(self, argument: str, spec: DataSpec) -> None: ...

    @abstractmethod
    def drops(self, content: Tensor, texts: list[str] | None) -> list[bool]:
        """Of samples as raw content (n, ...), such as uint8 pixels (n, channels, height, width), and as `texts` where
        they can be read: whether each is dropped."""


@register("filter", "words")
class WordList(Filter):
    """Drops texts with a word of a file, one a line; what a word is of several is found whole too.

    Both are folded (NFKC, case, characters that are not seen). A word does not count within another, such as "sin" in
    "single", but in scripts without spaces.
    """

    def __init__(self, argument: str, spec: DataSpec) -> None:
        if spec.vocab_size is None or spec.content:
            raise ConfigError(
                "filter=words reads text, and this run makes none", "leave it out, or name another filter"
            )
        path = path_of(argument)
        if not argument or not path.is_file():
            raise ConfigError(f"filter=words:{argument}: there is no such file", "name a file with a word a line")
        self.words = sorted({word for line in read_lines(path) if (word := folded(line).strip())})
        if not self.words:
            raise ConfigError(f"filter=words:{argument}: the file has no words", "write one a line")
        self.facts = {"words": len(self.words), "sha256": checksum(path)}

    def drops(self, content: Tensor, texts: list[str] | None) -> list[bool]:
        """See :meth:`Filter.drops`."""
        assert texts is not None, "text can be read"
        return [self.found(text) is not None for text in texts]

    def found(self, text: str) -> str | None:
        """The first of the words that is in a text."""
        plain = folded(text)
        return next((word for word in self.words if _is_in(word, plain)), None)


def folded(text: str) -> str:
    """A text without differences that nobody sees: of case, of width, and characters that take no room."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join("".join(sign for sign in plain if unicodedata.category(sign) != "Cf").split())


def _is_in(word: str, text: str) -> bool:
    place = text.find(word)
    while place >= 0:
        before, after = text[place - 1 : place], text[place + len(word) : place + len(word) + 1]
        if not (_joined(before, word[0]) or _joined(word[-1], after)):
            return True
        place = text.find(word, place + 1)
    return False


def _joined(left: str, right: str) -> bool:
    """Whether two characters beside each other are of one word."""
    if not left or not right:
        return False
    if unicodedata.category(right)[0] == "M":  # a mark belongs to the letter before it, whatever the script
        return unicodedata.category(left)[0] in "LM"
    spaced = not any(unicodedata.name(sign, "").startswith(_UNSPACED) for sign in (left, right))
    return spaced and all(unicodedata.category(sign)[0] in "LNM" for sign in (left, right))


@dataclass
class Filters:
    """The filters of a command, and what they have dropped so far."""

    named: dict[str, Filter]
    then: Filtered
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, words: str, then: Filtered, spec: DataSpec) -> Filters:
        """Those that ``filter=NAME:ARGUMENT,NAME`` asks for."""
        asked = [word.strip().partition(":") for word in words.strip("[]").split(",") if word.strip()]
        named: dict[str, Filter] = {}
        for name, _, argument in asked:
            key = name if name not in named else f"{name}-{len(named) + 1}"  # none takes the place of another
            named[key] = find("filter", name).build(argument, spec)
        return cls(named, then)

    @property
    def facts(self) -> dict[str, Any]:
        """What decides which samples leave, for their record."""
        return {name: dict(each.facts) for name, each in self.named.items()}

    def said(self) -> str:
        """What was dropped, in words; "" where nothing was."""
        what = ", ".join(f"{count} by {name}" for name, count in sorted(self.counts.items()))
        how = "and others drawn in their place" if self.then == "redraw" else "and left out"
        return f"dropped {what}, {how}" if what else ""

    def keeps(self, content: Tensor, codec: Codec) -> list[bool]:
        """Which of some samples may leave; the others are counted."""
        texts, kept = codec.text(content), [True] * len(content)
        for name, each in self.named.items():
            dropped = each.drops(content, texts)
            self.counts[name] += sum(was and drop for was, drop in zip(kept, dropped, strict=True))
            kept = [was and not drop for was, drop in zip(kept, dropped, strict=True)]
        self.counts += Counter()  # without zeros
        return kept


def filtered(request: Request, filters: Filters) -> Plan:
    """The set that is asked for, without what filters drop.

    What is drawn anew is the sample of the same number of another seed, which it names: so which ones a set has depends
    on the request alone.

    Raises:
        ConfigError: samples that belong together cannot be drawn one by one.
    """
    whole = plan(request)
    if filters.then == "omit":
        return _without(whole, filters, request.codec)
    if not isinstance(whole.batches, Drawn):
        what = "filtered=redraw draws samples one by one, and these belong together, or to items of the data"
        raise ConfigError(what, "use filtered=omit")
    seeds = [request.seed] * whole.arrangement.n

    def batches(batch_size: int | None) -> Iterator[Tensor]:
        start = 0
        for raw in whole.batches(batch_size):
            rows = list(raw)
            for place, keep in enumerate(filters.keeps(raw, request.codec)):
                if not keep:
                    seeds[start + place], rows[place] = _anew(request, filters, start + place)
            start += len(raw)
            yield _stacked(rows)

    arrangement = replace(whole.arrangement, facts={**whole.arrangement.facts, "seed": seeds})
    return replace(whole, arrangement=arrangement, batches=batches)


def _anew(request: Request, filters: Filters, index: int) -> tuple[int, Tensor]:
    for attempt in range(1, _TRIES + 1):
        other = replace(request, seed=derive("filtered", request.seed, index, attempt) % 2**31)
        drawn = plan(other).batches
        assert isinstance(drawn, Drawn)
        raw = next(drawn.of([index]))
        if filters.keeps(raw, request.codec)[0]:
            return other.seed, raw[0]
    what = f"sample {index} was drawn {_TRIES + 1} times, and each was dropped ({', '.join(filters.named)})"
    raise ConfigError(what, "use filtered=omit, another prompt, or a filter that drops less")


def _stacked(rows: Sequence[Tensor]) -> Tensor:
    """Samples beside each other; token ids that end early, as they were drawn with others, are filled with zeros."""
    width = max(row.shape[-1] for row in rows)
    return torch.stack([torch.nn.functional.pad(row, (0, width - row.shape[-1])) for row in rows])


def _without(drawn: Plan, filters: Filters, codec: Codec) -> Plan:
    """What is left, which is drawn at once, as a set says beforehand how many it has."""
    arrangement, group = drawn.arrangement, drawn.arrangement.group
    rows = [row for raw in drawn.batches(None) for row in raw]
    kept = [not arrangement.generated(place) or filters.keeps(row[None], codec)[0] for place, row in enumerate(rows)]
    whole = [place for place in range(len(rows)) if all(kept[place - place % group :][:group])]  # what belongs together
    if not whole:
        raise ConfigError("all samples were dropped", "draw more with n=, or use a filter that drops less")
    facts = {name: [values[place] for place in whole] for name, values in arrangement.facts.items()}
    labels = None if arrangement.labels is None else [arrangement.labels[place] for place in whole]
    less = replace(arrangement, n=len(whole), facts={**facts, "index": whole}, labels=labels, turns=(), summary=None)

    def batches(batch_size: int | None) -> Iterator[Tensor]:
        for start in range(0, len(whole), size := batch_size or _AT_ONCE):
            yield _stacked([rows[place] for place in whole[start : start + size]])

    return replace(drawn, arrangement=less, batches=batches)
