"""Scores side by side: which may stand so, and what of their difference is chance."""

from typing import Any

import pytest
from toy_metrics import records_of, sets_of

from aigc_cli.errors import ConfigError
from aigc_cli.metrics.compare import check_comparable, describe_comparison, differences
from aigc_cli.metrics.record import averaged, difference


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
        check_comparable([("a", records_of(1.0)), ("b", records_of(2.0, **changed))])


def test_other_models_seeds_and_controls_are_compared() -> None:
    made = {"n": 50_000, "step": 9, "seed": 4, "controls": {"truncation": 0.7}}
    check_comparable([("a", records_of(1.0)), ("b", records_of(2.0, generated=made))])
    assert difference(records_of(1.0)["fid"], records_of(2.0)["fid"]) is None


def test_a_metric_that_one_lacks_is_named() -> None:
    with pytest.raises(ConfigError, match="b has no record of fid"):
        check_comparable([("a", records_of(1.0)), ("b", {})])


def test_a_difference_is_held_against_the_spread() -> None:
    first, near, far = (
        {"fid": averaged(sets_of(base - 1, base, base + 1))[0].plain_json()} for base in (10.0, 12.0, 20.0)
    )
    rows = differences([("a", first), ("b", near), ("c", far)])
    assert [row["exceeds"] for row in rows] == [False, True]
    assert rows[0]["spread"] == pytest.approx(2**0.5)
    assert rows[1]["difference"] == 10
    shown = describe_comparison([("a", first), ("b", near), ("c", far)], rows)
    for part in ("10 ± 1", "20 ± 1", "+10", "yes", "no", "lower is better"):
        assert part in shown
    alone = [("a", records_of(1.0)), ("b", records_of(2.0))]
    assert differences(alone)[0]["exceeds"] is None
    assert "seeds=3" in describe_comparison(alone, differences(alone))


def test_what_a_model_is_asked_itself_has_no_several_sets() -> None:
    named = [(name, {"likelihood": {**records_of(1.0)["fid"], "metric": "likelihood"}}) for name in "ab"]
    assert "seeds=3" not in describe_comparison(named, differences(named))
    made = {"n": 5, "step": 5, "reconstructed": "test"}
    named = [(name, records_of(1.0, generated=made)) for name in "ab"]
    assert "seeds=3" not in describe_comparison(named, differences(named))
