"""What people read: a table for all that was measured on the same items; scores side by side, and what is chance."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from toy_metrics import KnownExtractor, record_of, records_of, sets_of

from aigc_cli.errors import ConfigError
from aigc_cli.metrics.record import Score, averaged, difference
from aigc_cli.metrics.report import check_comparable, describe, describe_comparison, differences, write


def lines(*records: Any, files: tuple[Path, ...] = ()) -> list[str]:
    return describe(records, files).splitlines()


def test_a_score_stands_beside_its_baseline_and_says_which_way_is_better() -> None:
    few = Score({"fid": 2.0}, 300)
    shown = lines(record_of(called=("50,000 samples", "50,000 images"), baseline=few, at_baseline_n=few))
    assert shown[0] == "50,000 samples, against 50,000 images"
    assert shown[2].split("  ")[-1].strip() == "held-out real (n=300)"
    assert "generated (n=50,000)" in shown[2]
    assert shown[3].split() == ["fid", "3", "2", "2", "lower", "is", "better"]


def test_without_held_out_items_the_baseline_is_asked_for() -> None:
    assert any("no held-out real items" in line for line in lines(record_of()))
    assert not any("no held-out real items" in line for line in lines(record_of(baseline_of={"data": "x"})))


def test_few_items_on_any_side_are_told_of_where_neighbours_are_counted() -> None:
    better = {"precision": "higher"}
    assert not any("as few as" in line for line in lines(record_of(better=better)))
    few = {"baseline": Score({"precision": 1.0}, 24), "generated": Score({"precision": 1.0}, 49)}
    assert any("note: of as few as 24 items" in line for line in lines(record_of(better=better, **few)))


@pytest.mark.parametrize(("name", "says"), [("own-ssl", "do not see blur"), ("known-cnn", "fd does not see")])
def test_what_few_items_hide_depends_on_the_features_and_no_score_alone_is_better_than_real(
    name: str, says: str
) -> None:
    extractor = KnownExtractor()
    extractor.name, extractor.facts = name, {} if name == "own-ssl" else {"accuracy": 1.0}
    seen: dict[str, Any] = {"extractor": extractor}
    precise = record_of(
        better={"precision": "higher"}, baseline=Score({"precision": 1.0}, 27),
        generated=Score({"precision": 0.7}, 254), **seen,
    )  # fmt: skip
    for fd in (1.993, 4.3):
        near = record_of(better={"fd": "lower"}, baseline=Score({"fd": 4.07}, 27), generated=Score({"fd": fd}, 254),
                         **seen)  # fmt: skip
        notes = [line for line in lines(near, precise) if line.startswith("note: ")]
        assert says in next(note for note in notes if "as few as 27 items" in note)
        wrong = "note: fd below that of held-out items does not make samples better than real: precision 0.7 against 1"
        assert any(note.startswith(wrong) for note in notes) == (fd < 4.07)


def test_records_of_other_items_have_a_table_of_their_own() -> None:
    first, second = (record_of(called=(name, "")) for name in ("a", "b"))
    shown = lines(first, second, first)
    assert [line for line in shown if line in ("a", "b")] == ["a", "b"]
    assert sum(line.startswith("fid ") for line in shown) == 3


def test_spread_bounds_and_what_stands_beside_are_shown() -> None:
    (several,) = averaged([[record_of(score, beside={"copies": Score({"fid": 9.0}, 7)})] for score in (1.0, 3.0)])
    shown = "\n".join(lines(several, record_of(bounds={"fid": "<="}, called=("other", ""))))
    for part in ("2 ± 1.4", "copies (n=7)", "2 sets", "<= 3"):
        assert part in shown


def test_files_are_named_where_they_are_few_and_counted_where_they_are_many(tmp_path: Path) -> None:
    files = tuple(tmp_path / f"{name}.json" for name in "abcd")
    assert "a.json, " in lines(record_of(), files=files[:2])[-1]
    assert lines(record_of(), files=files)[-1].startswith("wrote 4 files to ")


def test_only_pictures_have_a_gallery_to_look_at(tmp_path: Path) -> None:
    pictures, signals = torch.full((2, 3, 1, 4, 4), 255, dtype=torch.uint8), torch.zeros(2, 3, 1, 16)
    assert [path.suffix for path in write(record_of(gallery=pictures), tmp_path)] == [".json", ".png"]
    assert [path.suffix for path in write(record_of(gallery=signals), tmp_path)] == [".json"]
    titles = Image.open(next(tmp_path.glob("*.png"))).crop((0, 0, 300, 36)).convert("L")
    for left in (2, 100, 198):  # each column has its own
        assert titles.crop((left, 0, left + 96, 36)).getextrema()[0] < 128


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
