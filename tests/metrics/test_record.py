"""The record: which scores compare with published ones, and which with each other."""

from pathlib import Path
from typing import Any

import pytest
from toy_metrics import CIFAR, KnownExtractor, record_of, records_of, sets_of

from aigc_cli.metrics.record import Score, averaged, comparable_to_literature, difference, file_name, saved
from aigc_cli.metrics.report import write
from aigc_cli.modalities.text import Texts


class Other(KnownExtractor):
    name = "inception-v3-compat-clean"
    canonical = False


def test_scores_under_the_published_protocol_compare_with_published_ones() -> None:
    known, reason = comparable_to_literature(record_of())
    assert known
    assert "50,000" in reason


@pytest.mark.parametrize(
    ("changed", "facts", "reason"),
    [
        ({"metric": "fd"}, {}, "no published protocol"),
        ({"plain": False, "extractor": Other()}, {}, "weights and preprocessing"),
        ({"generated": Score({"fid": 1.0}, 10_000)}, {}, "50,000 generated"),
        ({}, {"original": False}, "lost detail"),
        ({}, {"split": "test"}, "50,000 train"),
        ({"n_real": 10_000}, {}, "against 50,000"),
        ({}, {"data": "digits"}, "digits"),
        ({"metric": "kid", "config": {"subsets": 10, "subset_size": 1000}}, {}, "metric.kid.subsets"),
    ],
    ids=["metric", "extractor", "n", "copy", "split", "n_real", "data", "settings"],
)
def test_other_scores_say_why_they_do_not(changed: dict[str, Any], facts: dict[str, Any], reason: str) -> None:
    known, why = comparable_to_literature(record_of(**{"real": {**CIFAR, **facts}, **changed}))
    assert not known
    assert reason in why


def test_a_lower_precision_is_the_reason_where_it_is_all_that_differs() -> None:
    lower = record_of(plain=False, dtype="bfloat16")
    known, why = comparable_to_literature(lower)
    assert not known
    assert "computed in bfloat16" in why
    assert "computed in bfloat16" in lower.plain_json()["comparable_because"]


def test_held_out_data_is_a_condition_of_the_scores_that_depend_on_it(tmp_path: Path) -> None:
    held = [Texts([""] * 20, {"folder": "x", "listing": listing}) for listing in "ab"]
    records = [record_of(held_out=items) for items in held]
    mine, theirs = (record.plain_json() for record in records)
    assert mine["held_out"] == {"n": 20, "folder": "x", "listing": "a"}
    assert difference(mine, theirs) == ("files of the held-out data", "a", "b")
    write(records[0], tmp_path)
    assert saved(mine, tmp_path) is not None
    assert saved(theirs, tmp_path) is None
    plain = [record_of(baseline_of=items.facts).plain_json() for items in held]  # the baseline alone depends on it
    assert difference(*plain) is None


def test_several_sets_give_mean_and_spread() -> None:
    (merged,) = averaged(sets_of(1.0, 2.0, 6.0))
    assert merged.generated.figures["fid"] == 3
    assert merged.spread() == {"fid": pytest.approx(7**0.5)}  # (4 + 1 + 9) / 2
    assert merged.notes == ("the same",)
    assert record_of().spread() is None


def test_the_name_of_a_record_tells_its_conditions_apart() -> None:
    base = record_of().plain_json()
    assert file_name(base) == file_name(record_of(9.0).plain_json())
    others = [{**base, "dtype": "bfloat16"}, {**base, "generated": {"n": 50_000, "controls": {"truncation": 0.5}}}]
    assert len({file_name(one) for one in (base, *others)}) == 3
    assert file_name(base).startswith("fid-step5-seed0-n50000-")


def test_scores_of_text_compare_only_where_the_same_cut_it() -> None:
    zh, old = {"tokenizer": "zh", "signature": "a|tok:zh|b"}, {"signature": "nrefs:1|tok:13a|smooth:exp"}
    one = records_of(1.0, facts=zh, config={"tokenize": "auto"})["fid"]
    assert difference(one, records_of(2.0, facts=zh, config={"tokenize": "zh"})["fid"]) is None
    assert difference(one, records_of(2.0, facts=old, config={"tokenize": "auto"})["fid"]) == (
        "what cuts words", "zh", "13a",
    )  # fmt: skip
    new = records_of(2.0, facts={"tokenizer": "13a"}, config={"tokenize": "auto"})["fid"]
    assert difference(new, records_of(1.0, facts=old, config={"tokenize": "13a"})["fid"]) is None
