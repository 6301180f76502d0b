"""Metrics of text against references: ``bleu`` and ``chrf`` as sacrebleu computes them, ``rouge`` as rouge-score does.

Every text metric keeps its sentences as bytes, so that processes can hand them to each other.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from statistics import fmean
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torchmetrics import Metric

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import DataError
from aigc_cli.metrics.base import joined
from aigc_cli.registry import register

#: A word, in any script, or one other character that is no space.
WORD = re.compile(r"\w+|[^\w\s]")


class TextMetric(Metric):
    """A metric over lines of text. A subclass is built as ``build(config)``."""

    is_differentiable = False
    full_state_update = False
    #: "aligned": a reference for each item; "itself": likewise, the text that the item was made to be again;
    #: "corpus": a text that items are looked for in; "" for none.
    reference: ClassVar[str] = ""
    #: Its figures, and which way is better: "lower", "higher" or "" where neither is.
    figures: ClassVar[dict[str, str]]

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        for side in ("fake", "real"):
            self.add_state(f"{side}_bytes", default=[], dist_reduce_fx="cat")
            self.add_state(f"{side}_lengths", default=[], dist_reduce_fx="cat")

    def update(self, fake: Sequence[str], real: Sequence[str] = ()) -> None:
        """Adds items, with their references or a part of the corpus."""
        for side, lines in (("fake", fake), ("real", real)):
            coded = [line.encode() for line in lines]
            if coded:
                getattr(self, f"{side}_bytes").append(torch.frombuffer(bytearray(b"".join(coded)), dtype=torch.uint8)
                                                      if any(coded) else torch.zeros(0, dtype=torch.uint8))  # fmt: skip
                getattr(self, f"{side}_lengths").append(torch.tensor([len(line) for line in coded]))

    def _lines(self, side: str) -> list[str]:
        whole = _flat(getattr(self, f"{side}_bytes"), torch.uint8).numpy().tobytes()
        ends = _flat(getattr(self, f"{side}_lengths"), torch.int64).cumsum(0).tolist()
        return [whole[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]

    def compute(self) -> dict[str, Tensor]:
        """The figures, float64 scalars by name.

        Raises:
            DataError: there are too few items, or references that do not fit them.
        """
        fake, real = self._lines("fake"), self._lines("real")
        if not any(line.strip() for line in fake):
            raise DataError("there is no text to measure", "give a file with an item a line")
        if self.reference in ("aligned", "itself") and len(fake) != len(real):
            raise DataError(
                f"{len(fake)} items and {len(real)} references do not pair up", "give one for each, in order"
            )
        if self.reference == "corpus" and not any(line.strip() for line in real):
            raise DataError("there is no text to look in", "name it with real=")
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in self.measured(fake, real).items()}

    @abstractmethod
    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """The figures of items, which are not all empty."""

    def facts(self) -> dict[str, Any]:
        """What a reader of the figures must know, such as a signature."""
        return {}


def _flat(parts: Tensor | list[Tensor], dtype: torch.dtype) -> Tensor:
    return joined(parts, 1, dtype).flatten() if not isinstance(parts, list) or parts else torch.zeros(0, dtype=dtype)


@dataclass(config=STRICT, frozen=True, kw_only=True)
class BLEUConfig:
    """How BLEU cuts words."""

    name: Literal["bleu"]
    tokenize: Literal["13a", "intl", "char", "none", "zh", "ja-mecab", "ko-mecab", "flores101", "flores200"]
    lowercase: bool


@register("metric", "bleu", BLEUConfig)
class CorpusBLEU(TextMetric):
    """``bleu``: Papineni et al., BLEU: a Method for Automatic Evaluation of Machine Translation, 2002, in the form that
    makes figures comparable (Post, A Call for Clarity in Reporting BLEU Scores, 2018), over the whole corpus.

    ``tokenised_bleu`` is the same of lower-cased text: the nearest thing to what papers report that score lower-cased
    tokens, which are mostly cut by Moses's rules, and not by sacrebleu's.
    """

    reference = "aligned"
    figures: ClassVar[dict[str, str]] = {"bleu": "higher", "tokenised_bleu": "higher"}

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._signatures: dict[str, str] = {}

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """BLEU in [0, 100], as asked for and lower-cased."""
        from sacrebleu.metrics.bleu import BLEU

        found = {}
        for name, lowercase in zip(self.figures, (self.config.lowercase, True), strict=True):
            metric = BLEU(tokenize=self.config.tokenize, lowercase=lowercase, force=True)
            found[name] = metric.corpus_score(list(fake), [list(real)]).score
            self._signatures[name] = str(metric.get_signature())
        return found

    def facts(self) -> dict[str, Any]:
        """sacrebleu's signatures."""
        own, tokenised = (self._signatures.get(name, "") for name in self.figures)
        return {"signature": f"{own}; tokenised_bleu: {tokenised}"}


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ChrFConfig:
    """chrF, or with words chrF++."""

    name: Literal["chrf"]
    word_order: Annotated[int, Field(ge=0, le=4)]


@register("metric", "chrf", ChrFConfig)
class ChrF(TextMetric):
    """``chrf``: Popović, chrF: character n-gram F-score for automatic MT evaluation, 2015; chrF++ with word_order=2."""

    reference = "aligned"
    figures: ClassVar[dict[str, str]] = {"chrf": "higher"}
    _signature = ""

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """chrF in [0, 100]."""
        from sacrebleu.metrics.chrf import CHRF

        metric = CHRF(word_order=self.config.word_order)
        score = metric.corpus_score(list(fake), [list(real)]).score
        self._signature = str(metric.get_signature())
        return {"chrf": score}

    def facts(self) -> dict[str, Any]:
        """sacrebleu's signature."""
        return {"signature": self._signature}


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ROUGEConfig:
    """Whether English endings count."""

    name: Literal["rouge"]
    stemmer: bool


class _Words:
    """rouge-score's own tokenizer drops all that is not a-z and 0-9; this one keeps every script."""

    def tokenize(self, text: str) -> list[str]:
        return WORD.findall(text.lower())


@register("metric", "rouge", ROUGEConfig)
class ROUGE(TextMetric):
    """``rouge``: mean F-measures of ROUGE-1, ROUGE-2 and ROUGE-L, in [0, 1].

    Lin, ROUGE: A Package for Automatic Evaluation of Summaries, 2004. With ``stemmer=true`` rouge-score cuts and stems
    English words itself; without it words are those of every script.
    """

    reference = "aligned"
    figures: ClassVar[dict[str, str]] = dict.fromkeys(("rouge1", "rouge2", "rougeL"), "higher")

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """Means over the items."""
        from rouge_score.rouge_scorer import RougeScorer

        own = None if self.config.stemmer else _Words()
        scorer = RougeScorer(list(self.figures), use_stemmer=self.config.stemmer, tokenizer=own)
        scores = [scorer.score(target, item) for item, target in zip(fake, real, strict=True)]
        return {name: fmean(score[name].fmeasure for score in scores) for name in self.figures}

    def facts(self) -> dict[str, Any]:
        """The version of rouge-score, and how words are cut."""
        from importlib.metadata import version

        cut = "rouge-score, stemmed" if self.config.stemmer else "Unicode words, lower case"
        return {"signature": f"rouge-score {version('rouge-score')}, tokenizer {cut}"}
