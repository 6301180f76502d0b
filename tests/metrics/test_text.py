"""Lines in metrics, which processes hand to each other; free text by hand, by brute force and against sacrebleu."""

import numpy as np
import pytest
import torch
from toy_metrics import text_metric, text_scores

from aigc_cli.metrics.evaluation import Evaluation
from aigc_cli.metrics.text import RunHashes
from aigc_cli.modalities.text import Texts


def test_lines_go_through_their_bytes_unchanged() -> None:
    built = text_metric("distinct")
    lines = ["", "é\u2028日", "🙂 a", ""]
    built.update("fake", lines[:1])
    built.update("fake", lines[1:])
    assert built._lines("fake") == lines
    assert built._lines("real") == []
    assert isinstance(built.fake_bytes, list | torch.Tensor)


HYPOTHESES = ["the cat sat on the mat .", "a dog barks at the moon", "日本語 の 文 です", "naïve café, über alles!", ""]


def test_self_bleu_is_the_mean_of_sentence_scores() -> None:
    from sacrebleu.metrics import BLEU

    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(list("abcdefg"), rng.integers(3, 12))) + "." for _ in range(30)]
    single = BLEU(effective_order=True)
    wanted = [single.sentence_score(line, [*lines[:i], *lines[i + 1 :]]).score for i, line in enumerate(lines)]
    assert text_scores("self_bleu", lines)["self_bleu"] == pytest.approx(np.mean(wanted), abs=1e-9)


def test_self_bleu_at_the_ends_of_the_scale() -> None:
    assert text_scores("self_bleu", ["one and the same line"] * 4)["self_bleu"] == pytest.approx(100)
    assert text_scores("self_bleu", ["a b c d e", "f g h i j", "k l m n o"])["self_bleu"] < 15


def test_self_bleu_is_cut_as_the_text_that_a_model_has_learnt_and_not_as_what_it_writes() -> None:
    chinese = Texts(["床前明月光", "疑是地上霜", "举头望明月"])
    settings = {"self_bleu": {"name": "self_bleu", "tokenize": "auto", "items": 10, "seed": 0}}
    for against, tokenizer in ((chinese, "zh"), (None, "13a")):
        made = Texts(["a b c d", "e f g h", "月"], against=against)
        (record,) = Evaluation(settings).of(made)
        assert record.facts["tokenizer"] == tokenizer


def test_distinct_and_repetition_by_hand() -> None:
    got = text_scores("distinct", ["a b a b", "a c"])
    assert got == {"distinct1": 3 / 6, "distinct2": 3 / 4, "distinct3": 1.0}
    assert text_scores("repetition", ["a b a b a b", "a b c"], n=2) == {"repetition": pytest.approx((3 / 5 + 0) / 2)}


def longest(a: str, b: str) -> int:
    return max((j - i for i in range(len(a)) for j in range(i, len(a) + 1) if a[i:j] in b), default=0)


def test_the_longest_copied_run_by_brute_force() -> None:
    rng = np.random.default_rng(1)
    corpus = ["".join(rng.choice(list("abé日"), 60)) for _ in range(4)]
    lines = ["".join(rng.choice(list("abé日"), 30)) for _ in range(5)] + ["xx" + corpus[2][10:31] + "yy"]
    got = text_scores("copied", lines, corpus, run=8)
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
