"""Metrics of text against references: ``bleu`` and ``chrf`` as sacrebleu computes them, ``rouge`` as rouge-score does;
and of what a model makes of texts, ``continuation`` and ``reconstruction_bleu``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.base import Figures
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.metrics.text import WORD, Distinct, TextMetric
from aigc_cli.registry import register


@dataclass(config=STRICT, frozen=True, kw_only=True)
class BLEUConfig(PlainConfig):
    """How BLEU cuts words."""

    tokenize: Literal["13a", "intl", "char", "none", "zh", "ja-mecab", "ko-mecab", "flores101", "flores200"]
    lowercase: bool


@register("metric", "bleu", BLEUConfig)
class CorpusBLEU(TextMetric):
    """``bleu``: Papineni et al., BLEU: a Method for Automatic Evaluation of Machine Translation, 2002, in the form that
    makes scores comparable (Post, A Call for Clarity in Reporting BLEU Scores, 2018), over the whole corpus.

    ``tokenised_bleu`` is the same of lower-cased text: the nearest thing to what papers report that score lower-cased
    tokens, which are mostly cut by Moses's rules, and not by sacrebleu's.
    """

    usual_for: ClassVar[Mapping[str, int]] = {"pairs": 1}
    figures: ClassVar[Figures] = {"bleu": "higher", "tokenised_bleu": "higher"}

    def __init__(self, config: Any, width: int = 0) -> None:
        super().__init__(config, width)
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
class ChrFConfig(PlainConfig):
    """chrF, or with words chrF++."""

    word_order: Annotated[int, Field(ge=0, le=4)]


@register("metric", "chrf", ChrFConfig)
class ChrF(TextMetric):
    """``chrf``: Popović, chrF: character n-gram F-score for automatic MT evaluation, 2015; chrF++ with word_order=2."""

    usual_for: ClassVar[Mapping[str, int]] = {"pairs": 2}
    figures: ClassVar[Figures] = {"chrf": "higher"}
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
class ROUGEConfig(PlainConfig):
    """Whether English endings count."""

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

    figures: ClassVar[Figures] = dict.fromkeys(("rouge1", "rouge2", "rougeL"), "higher")

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


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ContinuationConfig(PlainConfig):
    """Where a passage is cut."""

    prompt: Annotated[float, Field(gt=0, lt=1)]


@register("metric", "continuation", ContinuationConfig)
class Continuation(TextMetric):
    """``continuation``: BLEU, ROUGE and distinct-2 of texts against the true continuations, shown together.

    There are many ways to go on, so the first two are low for everyone, and a copy of the prompt may win: they say
    something beside the scores of such a copy, and of text that has nothing to do with the prompt.
    """

    made_by = "continue"
    figures: ClassVar[Figures] = dict.fromkeys(
        ("continuation_bleu", "continuation_rouge1", "continuation_rougeL", "continuation_distinct2"), "higher"
    )

    def __init__(self, config: Any, width: int = 0) -> None:
        super().__init__(config, width)
        self._parts: tuple[TextMetric, ...] = (
            CorpusBLEU(BLEUConfig(name="bleu", tokenize="13a", lowercase=False)),
            ROUGE(ROUGEConfig(name="rouge", stemmer=False)),
            Distinct(PlainConfig(name="distinct")),
        )

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """BLEU in [0, 100], the others in [0, 1]."""
        found: dict[str, float] = {}
        for part in self._parts:
            found |= part.measured(fake, real)
        return {name: found[name.removeprefix("continuation_")] for name in self.figures}

    def options(self) -> dict[str, Any]:
        """Where passages are cut."""
        return {"share": self.config.prompt}

    def facts(self) -> dict[str, Any]:
        """The signatures of its parts."""
        return {"signature": "; ".join(part.facts()["signature"] for part in self._parts if part.facts())}


@register("metric", "reconstruction_bleu", PlainConfig)
class ReconstructionBLEU(TextMetric):
    """``reconstruction_bleu``: BLEU of texts' reconstructions against the texts themselves, and the share of texts that
    come back as they were."""

    made_by = "reconstruct"
    usual_for: ClassVar[Mapping[str, int]] = {"text": 5}
    needs = frozenset({"encode", "decode"})
    figures: ClassVar[Figures] = dict.fromkeys(("reconstruction_bleu", "reconstructed_exactly"), "higher")

    def __init__(self, config: Any, width: int = 0) -> None:
        super().__init__(config, width)
        self._bleu = CorpusBLEU(BLEUConfig(name="bleu", tokenize="13a", lowercase=False))

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """BLEU in [0, 100], and a share in [0, 1]."""
        same = sum(item == text for item, text in zip(fake, real, strict=True)) / len(fake)
        bleu = self._bleu.measured(fake, real)["bleu"]
        return dict(zip(self.figures, (bleu, same), strict=True))

    def facts(self) -> dict[str, Any]:
        """sacrebleu's signature."""
        return {"signature": self._bleu.facts()["signature"].partition(";")[0]}
