"""The scores of ``benchmarks/text_gan.py`` that no command gives."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import fmean

import pytest
import torch
from sacrebleu.metrics.bleu import BLEU

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from text_gan import bleu, distance

LINES = [
    "A man rides a bike down the road.",
    "a man Rides a bike down a hill, a bike and a man.",
    "Two dogs run.",
    "Two dogs run.",
    "Dogs",
    "Two small dogs run through the snow beside a man.",
]
REFERENCES = ["A man rides a red bike down the long road.", "Two dogs run in the snow.", "Two dogs run in snow."]
SACREBLEU = BLEU(lowercase=True, max_ngram_order=5, effective_order=True)


def test_bleu_of_five_words_is_sacrebleus() -> None:
    theirs = fmean(SACREBLEU.sentence_score(line, REFERENCES).score for line in LINES)
    assert bleu(LINES, REFERENCES) == pytest.approx(theirs, abs=1e-9)


def test_self_bleu_has_all_other_lines_for_references() -> None:
    others = [LINES[:place] + LINES[place + 1 :] for place in range(len(LINES))]
    theirs = fmean(SACREBLEU.sentence_score(line, rest).score for line, rest in zip(LINES, others, strict=True))
    assert bleu(LINES) == pytest.approx(theirs, abs=1e-9)


def test_features_that_are_moved_have_the_square_of_that_for_a_distance() -> None:
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert distance(features, features + torch.tensor([3.0, 0, 0, 4.0])) == pytest.approx(25.0, rel=1e-4)
