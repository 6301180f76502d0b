"""Text metrics against the packages that define them, and against counting by hand."""

import numpy as np
import pytest
from toy_metrics import text_metric, text_scores

from aigc_cli.errors import DataError
from aigc_cli.metrics.references import ROUGE
from aigc_cli.metrics.text import WORD

HYPOTHESES = ["the cat sat on the mat .", "a dog barks at the moon", "日本語 の 文 です", "naïve café, über alles!", ""]
REFERENCES = [
    "the cat sat on a mat .",
    "the dog barked at the full moon",
    "日本語 の 短い 文 です",
    "naive café über alles",
    "x",
]


@pytest.mark.parametrize("tokenize", ["13a", "intl", "char", "none"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_bleu_is_sacrebleus(tokenize: str, lowercase: bool) -> None:
    from sacrebleu.metrics import BLEU

    wanted = BLEU(tokenize=tokenize, lowercase=lowercase).corpus_score(HYPOTHESES, [REFERENCES])
    assert (
        text_scores("bleu", HYPOTHESES, REFERENCES, tokenize=tokenize, lowercase=lowercase)["bleu"] == wanted.score > 5
    )


def test_bleu_carries_its_signature() -> None:
    built = text_metric("bleu")
    built.update("pairs", HYPOTHESES, REFERENCES)
    built.compute()
    for part in ("nrefs:1", "tok:13a", "smooth:exp", "version:2"):
        assert part in built.facts()["signature"]


@pytest.mark.parametrize("word_order", [0, 2])
def test_chrf_is_sacrebleus(word_order: int) -> None:
    from sacrebleu.metrics import CHRF

    wanted = CHRF(word_order=word_order).corpus_score(HYPOTHESES, [REFERENCES]).score
    assert text_scores("chrf", HYPOTHESES, REFERENCES, word_order=word_order)["chrf"] == wanted > 5


@pytest.mark.parametrize("stemmer", [True, False])
def test_rouge_is_rouge_scores(stemmer: bool) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    class Words:
        def tokenize(self, text: str) -> list[str]:
            return WORD.findall(text.lower())

    scorer = RougeScorer(list(ROUGE.figures), use_stemmer=stemmer, tokenizer=None if stemmer else Words())
    scores = [scorer.score(target, item) for item, target in zip(HYPOTHESES, REFERENCES, strict=True)]
    got = text_scores("rouge", HYPOTHESES, REFERENCES, stemmer=stemmer)
    for name in ROUGE.figures:
        assert got[name] == pytest.approx(np.mean([score[name].fmeasure for score in scores]), abs=1e-12)


def test_other_scripts_count() -> None:
    assert text_scores("rouge", ["日本 語"], ["日本 語"])["rouge1"] == 1
    assert text_scores("rouge", ["日本 語"], ["日本 語"], stemmer=True)["rouge1"] == 0  # rouge-score's own tokenizer


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge"])
def test_sides_that_do_not_pair_up_give_no_number(name: str) -> None:
    with pytest.raises(DataError, match="do not pair up"):
        text_scores(name, HYPOTHESES, REFERENCES[:-1])


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge", "distinct", "repetition", "self_bleu", "copied"])
@pytest.mark.parametrize("lines", [[], ["", " "]])
def test_no_text_gives_no_number(name: str, lines: list[str]) -> None:
    with pytest.raises(DataError, match="no text"):
        text_scores(name, lines, lines)
