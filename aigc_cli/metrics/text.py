"""What metrics of text share, and those of text that is written freely: ``distinct``, ``repetition``, ``self_bleu`` and
``copied``. Each of these alone can be gamed, so they are meant to be asked for together.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from statistics import fmean
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import DataError
from aigc_cli.metrics.base import Figures, Metric, Stream, Takes, joined
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.metrics.words import Cut, Tokenizer, cut_note, sacrebleu_of, tokenizer_for, words
from aigc_cli.randomness import permutation
from aigc_cli.registry import register


class TextMetric(Metric):
    """A metric over lines of text: of a stream alone, or of pairs, each beside what it should have been."""

    takes: ClassVar[Takes] = {"pairs": ("text",)}
    #: How it was computed, once it was, as the library that did so says it.
    signature = ""
    #: What cut the text into words, where anything did, which scores that compare have in common; and why that did,
    #: where it is not what cuts most text.
    tokenizer = ""
    why = ""

    def __init__(self, config: Any, width: int = 0) -> None:
        super().__init__(config, width)
        for side in ("fake", "real"):
            self.add_state(f"{side}_bytes", default=[], dist_reduce_fx="cat")
            self.add_state(f"{side}_lengths", default=[], dist_reduce_fx="cat")

    def update(self, stream: Stream, lines: Sequence[str], references: Sequence[str] = ()) -> None:
        """Adds items, and of pairs their references."""
        made, wanted = (references, lines) if stream == "real" else (lines, references)
        for side, some in (("fake", made), ("real", wanted)):
            coded = [line.encode() for line in some]
            if coded:
                content = np.frombuffer(b"".join(coded), dtype=np.uint8).copy()  # which may be empty
                getattr(self, f"{side}_bytes").append(torch.from_numpy(content))
                getattr(self, f"{side}_lengths").append(torch.tensor([len(line) for line in coded]))

    def _lines(self, side: str) -> list[str]:
        whole = joined(getattr(self, f"{side}_bytes"), 1, torch.uint8).flatten().numpy().tobytes()
        ends = joined(getattr(self, f"{side}_lengths"), 1, torch.int64).flatten().cumsum(0).tolist()
        return [whole[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]

    def compute(self) -> dict[str, Tensor]:
        """The scores, float64 scalars by name."""
        fake, real = self._lines("fake"), self._lines("real")
        if not any(line.strip() for line in fake):
            raise DataError("there is no text to measure", "give a file with an item a line")
        if "pairs" in self.takes and len(fake) != len(real):
            what = f"{len(fake)} items and {len(real)} references do not pair up"
            raise DataError(what, "give one for each, in order")
        if "real" in self.takes and not any(line.strip() for line in real):
            raise DataError("there is no text to look in", "name it with real=")
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in self.measured(fake, real).items()}

    def facts(self) -> dict[str, Any]:
        """The signature and the tokenizer, where there are any."""
        known = {"signature": self.signature, "tokenizer": self.tokenizer}
        return {name: value for name, value in known.items() if value}

    def notes(self) -> list[str]:
        """Why text is cut in an unusual way."""
        return [self.why] if self.why else []

    def cut(self, lines: Sequence[str]) -> list[list[str]]:
        """The words of each line, as the configuration says."""
        how: Cut = self.config.tokenize
        self.tokenizer, self.why = _CUTS[how], cut_note(lines, how)
        return [words(line, how) for line in lines]

    def bleu(self, lines: Sequence[str], asked: Tokenizer) -> str:
        """The name of sacrebleu's tokenizer for lines."""
        self.tokenizer, why = tokenizer_for(lines, asked)
        self.why = why and f"BLEU cuts text with sacrebleu's {self.tokenizer} tokenizer: {why}"
        return self.tokenizer

    @abstractmethod
    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """The scores of items, which are not all empty.

        Raises:
            DataError: there are too few, or they are too short.
        """


#: What stamps call each way to cut.
_CUTS: dict[Cut, str] = {
    "auto": "words, and characters of scripts without spaces",
    "char": "characters",
    "space": "parts between spaces",
}


@dataclass(config=STRICT, frozen=True, kw_only=True)
class WordsConfig(PlainConfig):
    """What counts as a word."""

    tokenize: Cut


def ngrams(words: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    """Every run of `n` words."""
    return zip(*(words[start:] for start in range(n)), strict=False)


@register("metric", "distinct", WordsConfig)
class Distinct(TextMetric):
    """``distinct``: the share of n-grams of words that differ, over all items together, for n of 1, 2 and 3.

    Li et al., A Diversity-Promoting Objective Function for Neural Conversation Models, 2016. Falls as text grows,
    and noise has the most: neither more nor less than real text has is better.
    """

    takes: ClassVar[Takes] = {"fake": ("text",)}
    usual_for: ClassVar[Mapping[str, int]] = {"text": 1}
    figures: ClassVar[Figures] = dict.fromkeys(("distinct1", "distinct2", "distinct3"), "near")

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """Shares in [0, 1]; 0 where no item is so long."""
        lines = self.cut(fake)
        shares = {}
        for n, name in enumerate(self.figures, start=1):
            found = [gram for line in lines for gram in ngrams(line, n)]
            shares[name] = len(set(found)) / len(found) if found else 0.0
        return shares


@dataclass(config=STRICT, frozen=True, kw_only=True)
class RepetitionConfig(WordsConfig):
    """How long a run of words counts."""

    n: Annotated[int, Field(ge=1)]


@register("metric", "repetition", RepetitionConfig)
class Repetition(TextMetric):
    """``repetition``: the mean share of an item's n-grams of words that it has written before.

    Welleck et al., Neural Text Generation with Unlikelihood Training, 2020, section 6 (seq-rep-n).
    """

    takes: ClassVar[Takes] = {"fake": ("text",)}
    usual_for: ClassVar[Mapping[str, int]] = {"text": 3}
    figures: ClassVar[Figures] = {"repetition": "near"}

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """A share in [0, 1] over the items that are long enough."""
        found = [list(ngrams(line, self.config.n)) for line in self.cut(fake)]
        shares = [1 - len(set(grams)) / len(grams) for grams in found if grams]
        if not shares:
            raise DataError(f"no item has {self.config.n} words", "give longer items, or a smaller metric.repetition.n")
        return {"repetition": fmean(shares)}


@dataclass(config=STRICT, frozen=True, kw_only=True)
class SelfBLEUConfig(PlainConfig):
    """How many items are compared with all others."""

    tokenize: Tokenizer
    items: Annotated[int, Field(ge=2)]
    seed: Annotated[int, Field(ge=0)]


@register("metric", "self_bleu", SelfBLEUConfig)
class SelfBLEU(TextMetric):
    """``self_bleu``: the mean BLEU of an item with all others as its references; high where items are alike.

    Zhu et al., Texygen: A Benchmarking Platform for Text Generation Models, 2018, section 3.2. Each is what sacrebleu's
    ``sentence_score`` gives. Grows with the number of items, which is why it is fixed.
    """

    takes: ClassVar[Takes] = {"fake": ("text",)}
    usual_for: ClassVar[Mapping[str, int]] = {"text": 2}
    figures: ClassVar[Figures] = {"self_bleu": "near"}

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """BLEU in [0, 100]."""
        lines = [line for line in fake if line.strip()]
        if len(lines) < 2:
            raise DataError("self_bleu needs at least 2 items", "give more")
        if len(lines) > self.config.items:
            rows = permutation(len(lines), "self_bleu", self.config.seed)[: self.config.items]
            lines = [lines[row] for row in sorted(rows.tolist())]
        tokenizer = self.bleu(self.like or lines, self.config.tokenize)
        settings = f"sentence BLEU against all others|eff:yes|tok:{tokenizer}|smooth:exp"
        self.signature = f"{settings}|version:{version('sacrebleu')}"
        return {"self_bleu": fmean(_against_the_others(lines, tokenizer))}


def _against_the_others(lines: Sequence[str], tokenizer: str) -> list[float]:
    """The BLEU of each line against all others, in time linear in their number: of each n-gram it is enough to know
    the largest count, in which line it is, and the largest count in any other."""
    from sacrebleu.metrics.bleu import BLEU

    order = 4
    cut = sacrebleu_of(tokenizer).tokenizer
    words = [cut(line.rstrip()).split() for line in lines]
    counts = [Counter(gram for n in range(1, order + 1) for gram in ngrams(line, n)) for line in words]
    best: dict[tuple[str, ...], tuple[int, int, int]] = {}  # largest, its line, largest elsewhere
    for row, own in enumerate(counts):
        for gram, count in own.items():
            first, where, second = best.get(gram, (0, -1, 0))
            best[gram] = (count, row, first) if count > first else (first, where, max(second, count))
    lengths = np.array([len(line) for line in words])
    scores = []
    for row, own in enumerate(counts):
        matched, total = [0] * order, [max(0, len(words[row]) - n) for n in range(order)]
        for gram, count in own.items():
            first, where, second = best[gram]
            matched[len(gram) - 1] += min(count, second if where == row else first)
        others = np.delete(lengths, row)
        gaps = np.abs(others - lengths[row])
        closest = int(others[gaps == gaps.min()].min())
        score = BLEU.compute_bleu(matched, total, int(lengths[row]), closest, smooth_method="exp", effective_order=True)
        scores.append(float(score.score))
    return scores


@dataclass(config=STRICT, frozen=True, kw_only=True)
class CopiedConfig(PlainConfig):
    """How long a run of characters counts as copied."""

    run: Annotated[int, Field(ge=1)]


@register("metric", "copied", CopiedConfig)
class Copied(TextMetric):
    """``copied``: the longest run of characters that an item shares with the reference text, such as the training set,
    and the share of all characters that lie in shared runs of at least `run`."""

    takes: ClassVar[Takes] = {"real": ("text",), "fake": ("text",)}
    usual_for: ClassVar[Mapping[str, int]] = {"text": 4}
    figures: ClassVar[Figures] = {"longest_copied_run": "lower", "copied": "lower"}

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """Characters, and a share in [0, 1]."""
        source = RunHashes("\n".join(real))
        lines = [line for line in fake if line]
        items = [RunHashes(line) for line in lines]
        least, most = 0, max(map(len, lines))  # a shared run of so many characters holds shared runs of all fewer
        while least < most:
            middle = (least + most + 1) // 2
            if any(len(starts) for starts in _shared(source, items, middle)):
                least = middle
            else:
                most = middle - 1
        run, inside = self.config.run, 0
        for line, starts in zip(lines, _shared(source, items, run), strict=True):
            marked = np.zeros(len(line) + 1, dtype=np.int64)
            np.add.at(marked, starts, 1)
            np.add.at(marked, starts + run, -1)
            inside += int((marked.cumsum()[:-1] > 0).sum())
        return {"longest_copied_run": float(least), "copied": inside / sum(map(len, lines))}


class RunHashes:
    """A hash of every run of a text's characters, for any length: polynomials in an odd base modulo 2^64.

    The base has an inverse there, so that running sums give all of them without a loop. Runs that differ share a hash
    about once in 2^64 pairs.
    """

    _BASE = 0x9E3779B97F4A7C15

    def __init__(self, text: str) -> None:
        codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64) + np.uint64(1)
        codes *= np.uint64(0xBF58476D1CE4E5B9)
        codes ^= codes >> np.uint64(31)
        self._powers = _powers(self._BASE, len(codes))
        inverse = _powers(pow(self._BASE, -1, 2**64), len(codes))
        self._sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(codes * inverse, dtype=np.uint64)])

    def of(self, length: int) -> np.ndarray:
        """The hash of the run of `length` at each place where one begins, uint64."""
        runs = max(0, len(self._sums) - length)
        found: np.ndarray = (self._sums[length:] - self._sums[:runs]) * self._powers[:runs]
        return found


def _powers(base: int, n: int) -> np.ndarray:
    factors: np.ndarray = np.full(n, base, dtype=np.uint64)
    factors[:1] = 1
    np.multiply.accumulate(factors, out=factors)
    return factors


def _shared(source: RunHashes, items: Sequence[RunHashes], length: int) -> list[np.ndarray]:
    """For each item the places where runs of `length` begin that the source has too."""
    known = np.sort(source.of(length))
    if not len(known):
        return [np.zeros(0, dtype=np.int64) for _ in items]
    found = []
    for item in items:
        runs = item.of(length)
        places = np.minimum(np.searchsorted(known, runs), len(known) - 1)
        found.append(np.flatnonzero(known[places] == runs))
    return found
