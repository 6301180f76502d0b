"""Metrics of what was made beside what it should have been. Of text: ``bleu`` and ``chrf`` as sacrebleu computes them,
``rouge`` as rouge-score does, ``continuation`` and ``reconstruction_bleu``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from statistics import fmean
from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.base import Figures
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.metrics.text import Distinct, TextMetric, WordsConfig
from aigc_cli.metrics.words import Cut, Tokenizer, sacrebleu_of, spoken
from aigc_cli.registry import register


@dataclass(config=STRICT, frozen=True, kw_only=True)
class TokenizedConfig(PlainConfig):
    """How BLEU cuts words."""

    tokenize: Tokenizer


@dataclass(config=STRICT, frozen=True, kw_only=True)
class BLEUConfig(TokenizedConfig):
    """Whether case counts, too."""

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

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """BLEU in [0, 100], as asked for and lower-cased."""
        tokenizer = self.bleu(real, self.config.tokenize)
        metrics = [sacrebleu_of(tokenizer, lowercase) for lowercase in (self.config.lowercase, True)]
        scores = [metric.corpus_score(list(fake), [list(real)]).score for metric in metrics]
        own, tokenised = (metric.get_signature() for metric in metrics)
        self.signature = f"{own}; tokenised_bleu: {tokenised}"
        return dict(zip(self.figures, scores, strict=True))


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ChrFConfig(PlainConfig):
    """chrF, or with words chrF++."""

    word_order: Annotated[int, Field(ge=0, le=4)]


@register("metric", "chrf", ChrFConfig)
class ChrF(TextMetric):
    """``chrf``: Popović, chrF: character n-gram F-score for automatic MT evaluation, 2015; chrF++ with word_order=2."""

    usual_for: ClassVar[Mapping[str, int]] = {"pairs": 2}
    figures: ClassVar[Figures] = {"chrf": "higher"}

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """chrF in [0, 100]."""
        from sacrebleu.metrics.chrf import CHRF

        metric = CHRF(word_order=self.config.word_order)
        score = metric.corpus_score(list(fake), [list(real)]).score
        self.signature = str(metric.get_signature())
        return {"chrf": score}


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ROUGEConfig(WordsConfig):
    """Whether English endings count."""

    stemmer: bool


class _Words:
    """rouge-score's own tokenizer drops all that is not a-z and 0-9; this one the same of ASCII, and it keeps the words
    of every script."""

    def __init__(self, cut: Cut) -> None:
        self.cut = cut

    def tokenize(self, text: str) -> list[str]:
        return spoken(text, self.cut)


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

        self.cut(real)  # says how
        own = None if self.config.stemmer else _Words(self.config.tokenize)
        scorer = RougeScorer(list(self.figures), use_stemmer=self.config.stemmer, tokenizer=own)
        scores = [scorer.score(target, item) for item, target in zip(fake, real, strict=True)]
        if self.config.stemmer:
            self.tokenizer, self.why = "rouge-score's, stemmed", ""
        else:
            self.tokenizer += ", without punctuation, lower case"
        self.signature = f"rouge-score {version('rouge-score')}, tokenizer: {self.tokenizer}"
        return {name: fmean(score[name].fmeasure for score in scores) for name in self.figures}


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ContinuationConfig(TokenizedConfig):
    """Where a passage is cut, too."""

    prompt: Annotated[float, Field(gt=0, lt=1)]


@register("metric", "continuation", ContinuationConfig)
class Continuation(TextMetric):
    """``continuation``: BLEU, ROUGE and distinct-2 of texts against the true continuations, shown together.

    There are many ways to go on, so the first two are low for everyone, and a copy of the prompt may win: they say
    something beside the scores of such a copy, and of text that has nothing to do with the prompt.
    """

    made_by = "continue"
    figures: ClassVar[Figures] = {
        **dict.fromkeys(("continuation_bleu", "continuation_rouge1", "continuation_rougeL"), "higher"),
        "continuation_distinct2": "near",
    }

    def __init__(self, config: Any, width: int = 0) -> None:
        super().__init__(config, width)
        rouge = ROUGE(ROUGEConfig(name="rouge", tokenize="auto", stemmer=False))
        distinct = Distinct(WordsConfig(name="distinct", tokenize="auto"))
        bleu = CorpusBLEU(BLEUConfig(name="bleu", tokenize=config.tokenize, lowercase=False))
        self._parts: tuple[TextMetric, ...] = (bleu, rouge, distinct)

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """BLEU in [0, 100], the others in [0, 1]."""
        found: dict[str, float] = {}
        for part in self._parts:
            found |= part.measured(fake, real)
        self.signature = "; ".join(part.signature for part in self._parts if part.signature)
        self.tokenizer = "; ".join(part.tokenizer for part in self._parts)
        self.why = "; ".join(part.why for part in self._parts[:2] if part.why)
        return {name: found[name.removeprefix("continuation_")] for name in self.figures}

    def options(self) -> dict[str, Any]:
        """Where passages are cut."""
        return {"share": self.config.prompt}


@register("metric", "reconstruction_bleu", TokenizedConfig)
class ReconstructionBLEU(TextMetric):
    """``reconstruction_bleu``: BLEU of texts' reconstructions against the texts themselves, and the share of texts that
    come back as they were."""

    made_by = "reconstruct"
    usual_for: ClassVar[Mapping[str, int]] = {"text": 5}
    needs = frozenset({"encode", "decode"})
    figures: ClassVar[Figures] = dict.fromkeys(("reconstruction_bleu", "reconstructed_exactly"), "higher")

    def __init__(self, config: Any, width: int = 0) -> None:
        super().__init__(config, width)
        self._bleu = CorpusBLEU(BLEUConfig(name="bleu", tokenize=config.tokenize, lowercase=False))

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """BLEU in [0, 100], and a share in [0, 1]."""
        same = sum(item == text for item, text in zip(fake, real, strict=True)) / len(fake)
        bleu = self._bleu.measured(fake, real)["bleu"]
        self.tokenizer, self.why = self._bleu.tokenizer, self._bleu.why
        self.signature = self._bleu.signature.partition(";")[0]
        return dict(zip(self.figures, (bleu, same), strict=True))
