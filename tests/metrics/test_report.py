"""What people read: a table for all that was measured on the same items, with the baseline beside it."""

from pathlib import Path
from typing import Any

import torch
from toy_metrics import record_of

from aigc_cli.metrics.record import Score, averaged
from aigc_cli.metrics.report import describe, write


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
    pictures, signals = torch.zeros(2, 3, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, 3, 1, 16)
    assert [path.suffix for path in write(record_of(gallery=pictures), tmp_path)] == [".json", ".png"]
    assert [path.suffix for path in write(record_of(gallery=signals), tmp_path)] == [".json"]
