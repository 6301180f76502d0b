"""Text metrics against the packages that define them, and against counting by hand."""

import numpy as np
import pytest
import torch

from aigc_cli.config.schema import check
from aigc_cli.errors import DataError
from aigc_cli.metrics.diversity import RunHashes
from aigc_cli.metrics.references import ROUGE
from aigc_cli.metrics.text import WORD, TextMetric
from aigc_cli.registry import find

HYPOTHESES = ["the cat sat on the mat .", "a dog barks at the moon", "日本語 の 文 です", "naïve café, über alles!", ""]
REFERENCES = [
    "the cat sat on a mat .",
    "the dog barked at the full moon",
    "日本語 の 短い 文 です",
    "naive café über alles",
    "x",
]


def metric(name: str, **changed: object) -> TextMetric:
    defaults: dict[str, dict[str, object]] = {
        "bleu": {"tokenize": "13a", "lowercase": False},
        "chrf": {"word_order": 0},
        "rouge": {"stemmer": False},
        "distinct": {},
        "repetition": {"n": 4},
        "self_bleu": {"items": 1000, "seed": 0},
        "copied": {"run": 5},
    }
    component = find("metric", name)
    config = check("", component.config, {"name": name, **defaults[name], **changed})
    return component.build(config)  # type: ignore[no-any-return]


def measured(name: str, fake: list[str], real: list[str] | None = None, **changed: object) -> dict[str, float]:
    built = metric(name, **changed)
    for start in range(0, max(1, len(fake)), 2):
        built.update("pairs", fake[start : start + 2], [] if real is None else real[start : start + 2])
    return {key: float(value) for key, value in built.compute().items()}


@pytest.mark.parametrize("tokenize", ["13a", "intl", "char", "none"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_bleu_is_sacrebleus(tokenize: str, lowercase: bool) -> None:
    from sacrebleu.metrics import BLEU

    wanted = BLEU(tokenize=tokenize, lowercase=lowercase).corpus_score(HYPOTHESES, [REFERENCES])
    assert measured("bleu", HYPOTHESES, REFERENCES, tokenize=tokenize, lowercase=lowercase)["bleu"] == wanted.score > 5


def test_bleu_carries_its_signature() -> None:
    built = metric("bleu")
    built.update("pairs", HYPOTHESES, REFERENCES)
    built.compute()
    for part in ("nrefs:1", "tok:13a", "smooth:exp", "version:2"):
        assert part in built.facts()["signature"]


@pytest.mark.parametrize("word_order", [0, 2])
def test_chrf_is_sacrebleus(word_order: int) -> None:
    from sacrebleu.metrics import CHRF

    wanted = CHRF(word_order=word_order).corpus_score(HYPOTHESES, [REFERENCES]).score
    assert measured("chrf", HYPOTHESES, REFERENCES, word_order=word_order)["chrf"] == wanted > 5


@pytest.mark.parametrize("stemmer", [True, False])
def test_rouge_is_rouge_scores(stemmer: bool) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    class Words:
        def tokenize(self, text: str) -> list[str]:
            return WORD.findall(text.lower())

    scorer = RougeScorer(list(ROUGE.figures), use_stemmer=stemmer, tokenizer=None if stemmer else Words())
    scores = [scorer.score(target, item) for item, target in zip(HYPOTHESES, REFERENCES, strict=True)]
    got = measured("rouge", HYPOTHESES, REFERENCES, stemmer=stemmer)
    for name in ROUGE.figures:
        assert got[name] == pytest.approx(np.mean([score[name].fmeasure for score in scores]), abs=1e-12)


def test_other_scripts_count() -> None:
    assert measured("rouge", ["日本 語"], ["日本 語"])["rouge1"] == 1
    assert measured("rouge", ["日本 語"], ["日本 語"], stemmer=True)["rouge1"] == 0  # rouge-score's own tokenizer


def test_self_bleu_is_the_mean_of_sentence_scores() -> None:
    from sacrebleu.metrics import BLEU

    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(list("abcdefg"), rng.integers(3, 12))) + "." for _ in range(30)]
    single = BLEU(effective_order=True)
    wanted = [single.sentence_score(line, [*lines[:i], *lines[i + 1 :]]).score for i, line in enumerate(lines)]
    assert measured("self_bleu", lines)["self_bleu"] == pytest.approx(np.mean(wanted), abs=1e-9)


def test_self_bleu_at_the_ends_of_the_scale() -> None:
    assert measured("self_bleu", ["one and the same line"] * 4)["self_bleu"] == pytest.approx(100)
    assert measured("self_bleu", ["a b c d e", "f g h i j", "k l m n o"])["self_bleu"] < 15


def test_distinct_and_repetition_by_hand() -> None:
    got = measured("distinct", ["a b a b", "a c"])
    assert got == {"distinct1": 3 / 6, "distinct2": 3 / 4, "distinct3": 1.0}
    assert measured("repetition", ["a b a b a b", "a b c"], n=2) == {"repetition": pytest.approx((3 / 5 + 0) / 2)}


def longest(a: str, b: str) -> int:
    return max((j - i for i in range(len(a)) for j in range(i, len(a) + 1) if a[i:j] in b), default=0)


def test_the_longest_copied_run_by_brute_force() -> None:
    rng = np.random.default_rng(1)
    corpus = ["".join(rng.choice(list("abé日"), 60)) for _ in range(4)]
    lines = ["".join(rng.choice(list("abé日"), 30)) for _ in range(5)] + ["xx" + corpus[2][10:31] + "yy"]
    got = measured("copied", lines, corpus, run=8)
    whole = "\n".join(corpus)
    assert got["longest_copied_run"] == max(longest(line, whole) for line in lines) >= 21
    inside = 0
    for line in lines:
        covered = {k for i in range(len(line) - 7) if line[i : i + 8] in whole for k in range(i, i + 8)}
        inside += len(covered)
    assert got["copied"] == pytest.approx(inside / sum(map(len, lines)))


def test_hashes_of_equal_runs_are_equal_and_of_others_not() -> None:
    first, second = RunHashes("hello world"), RunHashes("say hello")
    assert first.of(5)[0] == second.of(5)[4]
    runs = {text[i : i + 3] for text in ("hello world", "say hello") for i in range(len(text) - 2)}
    assert len({*first.of(3), *second.of(3)}) == len(runs)


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge"])
def test_sides_that_do_not_pair_up_give_no_number(name: str) -> None:
    with pytest.raises(DataError, match="do not pair up"):
        measured(name, HYPOTHESES, REFERENCES[:-1])


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge", "distinct", "repetition", "self_bleu", "copied"])
@pytest.mark.parametrize("lines", [[], ["", " "]])
def test_no_text_gives_no_number(name: str, lines: list[str]) -> None:
    with pytest.raises(DataError, match="no text"):
        measured(name, lines, lines)


def test_lines_go_through_their_bytes_unchanged() -> None:
    built = metric("distinct")
    lines = ["", "é\u2028日", "🙂 a", ""]
    built.update("fake", lines[:1])
    built.update("fake", lines[1:])
    assert built._lines("fake") == lines
    assert built._lines("real") == []
    assert isinstance(built.fake_bytes, list | torch.Tensor)
