"""The record: which scores compare with published ones, and which with each other."""

from pathlib import Path
from typing import Any

import pytest

from aigc_cli.errors import ConfigError
from aigc_cli.metrics.compare import check_comparable, describe_comparison, differences
from aigc_cli.metrics.record import Record, Score, averaged, comparable_to_literature, difference, file_name, saved
from aigc_cli.metrics.report import write
from aigc_cli.modalities.text import Texts


class Extractor:
    name = "inception-v3-compat"
    checksum = "0" * 64
    canonical = True
    widths = {"features": 2048}  # noqa: RUF012
    facts: dict[str, Any] = {"preprocessing": "theirs"}  # noqa: RUF012

    def __call__(self, images: Any) -> Any:
        raise NotImplementedError


class Other(Extractor):
    name = "inception-v3-compat-clean"
    canonical = False


REAL = {"data": "cifar10", "split": "train", "fingerprint": "f", "original": True}


def result(score: float = 3.0, **changed: Any) -> Record:
    values: dict[str, Any] = {
        "metric": "fid",
        "extractor": Extractor(),
        "better": {"fid": "lower"},
        "config": {},
        "n_real": 50_000,
        "generated": Score({"fid": score}, 50_000),
        "made": {"step": 5, "seed": 0},
        "real": REAL,
    }
    return Record(**{**values, **changed})


def test_scores_under_the_published_protocol_compare_with_published_ones() -> None:
    known, reason = comparable_to_literature(result())
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
    ids=str,
)
def test_other_scores_say_why_they_do_not(changed: dict[str, Any], facts: dict[str, Any], reason: str) -> None:
    known, why = comparable_to_literature(result(**{"real": {**REAL, **facts}, **changed}))
    assert not known
    assert reason in why


def test_a_lower_precision_is_the_reason_where_it_is_all_that_differs() -> None:
    lower = result(plain=False, dtype="bfloat16")
    known, why = comparable_to_literature(lower)
    assert not known
    assert "computed in bfloat16" in why
    assert "computed in bfloat16" in lower.plain_json()["comparable_because"]


def records(score: float, **changed: Any) -> dict[str, dict[str, Any]]:
    return {"fid": result(score).plain_json() | changed}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"extractor": {"sha256": "1", "preprocessing": "theirs"}}, "extractor"),
        ({"extractor": {"sha256": "0" * 64, "preprocessing": "clean"}}, "preprocessing"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"real": {"n": 9, "data": "cifar10", "split": "train", "fingerprint": "f"}}, "n of the reference"),
        ({"real": {"n": 50_000, "data": "cifar10", "split": "test", "fingerprint": "f"}}, "split"),
        ({"real": {"n": 50_000, "data": "cifar10", "split": "train", "fingerprint": "g"}}, "fingerprint"),
        ({"generated": {"n": 10}}, "n is 50000 and 10"),
        ({"config": {"k": 3}}, "settings"),
    ],
    ids=str,
)
def test_scores_under_other_conditions_are_not_compared(changed: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        check_comparable([("a", records(1.0)), ("b", records(2.0, **changed))])


def test_other_models_seeds_and_controls_are_compared() -> None:
    made = {"n": 50_000, "step": 9, "seed": 4, "controls": {"truncation": 0.7}}
    check_comparable([("a", records(1.0)), ("b", records(2.0, generated=made))])
    assert difference(records(1.0)["fid"], records(2.0)["fid"]) is None


def test_held_out_data_is_a_condition_of_the_scores_that_depend_on_it(tmp_path: Path) -> None:
    held = [Texts([""] * 20, {"folder": "x", "listing": listing}) for listing in "ab"]
    records = [result(held_out=items) for items in held]
    mine, theirs = (record.plain_json() for record in records)
    assert mine["held_out"] == {"n": 20, "folder": "x", "listing": "a"}
    assert difference(mine, theirs) == ("files of the held-out data", "a", "b")
    write(records[0], tmp_path)
    assert saved(mine, tmp_path) is not None
    assert saved(theirs, tmp_path) is None
    plain = [result(baseline_of=items.facts).plain_json() for items in held]  # the baseline alone depends on it
    assert difference(*plain) is None


def test_a_metric_that_one_lacks_is_named() -> None:
    with pytest.raises(ConfigError, match="b has no record of fid"):
        check_comparable([("a", records(1.0)), ("b", {})])


def sets(*scores: float) -> list[list[Record]]:
    return [[result(score, notes=("the same",))] for score in scores]


def test_several_sets_give_mean_and_spread() -> None:
    (merged,) = averaged(sets(1.0, 2.0, 6.0))
    assert merged.generated.figures["fid"] == 3
    assert merged.spread() == {"fid": pytest.approx(7**0.5)}  # (4 + 1 + 9) / 2
    assert merged.notes == ("the same",)
    assert result().spread() is None


def test_a_difference_is_held_against_the_spread() -> None:
    first, near, far = (
        {"fid": averaged(sets(base - 1, base, base + 1))[0].plain_json()} for base in (10.0, 12.0, 20.0)
    )
    rows = differences([("a", first), ("b", near), ("c", far)])
    assert [row["exceeds"] for row in rows] == [False, True]
    assert rows[0]["spread"] == pytest.approx(2**0.5)
    assert rows[1]["difference"] == 10
    shown = describe_comparison([("a", first), ("b", near), ("c", far)], rows)
    for part in ("10 ± 1", "20 ± 1", "+10", "yes", "no", "lower is better"):
        assert part in shown
    alone = [("a", records(1.0)), ("b", records(2.0))]
    assert differences(alone)[0]["exceeds"] is None
    assert "seeds=3" in describe_comparison(alone, differences(alone))


def test_what_a_model_is_asked_itself_has_no_several_sets() -> None:
    named = [(name, {"likelihood": {**records(1.0)["fid"], "metric": "likelihood"}}) for name in "ab"]
    assert "seeds=3" not in describe_comparison(named, differences(named))
    made = {"n": 5, "step": 5, "reconstructed": "test"}
    named = [(name, records(1.0, generated=made)) for name in "ab"]
    assert "seeds=3" not in describe_comparison(named, differences(named))


def test_the_name_of_a_record_tells_its_conditions_apart() -> None:
    base = result().plain_json()
    assert file_name(base) == file_name(result(9.0).plain_json())
    others = [{**base, "dtype": "bfloat16"}, {**base, "generated": {"n": 50_000, "controls": {"truncation": 0.5}}}]
    assert len({file_name(one) for one in (base, *others)}) == 3
    assert file_name(base).startswith("fid-step5-seed0-n50000-")
