"""Runs that an earlier version made, with their records and samples, are of use as before.

``old/`` holds a ``vae`` of digits, a ``transformer`` and a ``seq2seq`` of the texts in ``materials.py``, as
``aigc train``, ``aigc eval`` and ``aigc sample`` left them, without pictures and locks. They are not to be made anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from line import aigc

RUNS = {"vae": 40, "transformer": 200, "pairs": 120}  # with their last step


def records(folder: Path) -> dict[str, Any]:
    """The records of a folder by metric, with the paths they are read from."""
    return {path.name.partition("-")[0]: (path, json.loads(path.read_text())) for path in folder.glob("*.json")}


@pytest.mark.parametrize("run", RUNS)
def test_they_are_sampled(run: str) -> None:
    assert aigc("sample", f"run=old/{run}", "n=2", "out=old-" + run, "seed=3", "device=cpu")[0] == 0


@pytest.mark.parametrize(
    ("run", "words"), [("transformer", ["n=2", "prompt=the ", "temperature=0"]), ("pairs", ["n=2"])]
)
def test_they_write_what_they_wrote_into_the_same_folder(run: str, words: list[str]) -> None:
    (left,) = (Path(__file__).parent / "old" / run / "generated").iterdir()
    path = Path("outputs/old", run, "generated", left.name, "samples.jsonl")
    before = path.read_text(encoding="utf-8").splitlines()
    folders = sorted(path.parent.parent.iterdir())
    assert aigc("sample", f"run=old/{run}", *words, "device=cpu")[0] == 0
    after = path.read_text(encoding="utf-8").splitlines()
    assert sorted(path.parent.parent.iterdir()) == folders
    assert [json.loads(line)["text"] for line in after] == [json.loads(line)["text"] for line in before]


@pytest.mark.parametrize(
    ("run", "metrics", "n"),
    [
        ("vae", "likelihood,reconstruction,active_units", 30),
        ("transformer", "likelihood", None),
        ("transformer", "infill", 6),
        ("pairs", "likelihood,bleu,chrf", None),
    ],
)
def test_their_records_compare_with_new_ones_and_say_the_same(
    run: str, metrics: str, n: int | None, tmp_path: Path
) -> None:
    words = [] if n is None else [f"n={n}"]
    assert aigc("eval", f"run=old/{run}", "--metric", metrics, *words, f"out={tmp_path}", "device=cpu")[0] == 0
    old, new = records(Path("outputs/old", run, "eval")), records(tmp_path)
    for metric in metrics.split(","):
        assert new[metric][1]["figures"] == pytest.approx(old[metric][1]["figures"], rel=1e-4), metric
        assert aigc("eval", "compare", f"run={old[metric][0]},{new[metric][0]}")[0] == 0


@pytest.mark.parametrize("run", RUNS)
def test_they_are_resumed(run: str) -> None:
    shutil.copytree(Path("outputs/old", run), Path("outputs/resumed", run))
    assert aigc("train", "--resume", f"resumed/{run}", f"trainer.steps={RUNS[run] + 2}")[0] == 0
    rows = Path("outputs/resumed", run, "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["step"] == RUNS[run] + 2
    assert Path("outputs/resumed", run, "checkpoints", f"step-{RUNS[run] + 2}", "manifest.json").exists()


def test_they_are_started_from() -> None:
    data = ["data=text", "data.root=lines.txt", "data.context=16", "trainer.steps=1", "trainer.device=cpu"]
    small = ["model.width=8", "model.layers=1", "model.heads=2", "trainer.sample_every=null"]
    for number, words in enumerate(
        (["model.init_from=old/transformer"], ["data.tokenizer.path=outputs/old/transformer"])
    ):
        assert aigc("train", "model=transformer", *data, *small, *words, f"run_dir=started-{number}")[0] == 0


def test_they_are_compared() -> None:
    shutil.copytree("outputs/old/pairs", "outputs/other/pairs")
    code, told = aigc("eval", "compare", "run=old/pairs,other/pairs", "--metric", "chrf", "n=4", "device=cpu", "--json")
    assert code == 0
    assert {row["difference"] for row in told["differences"]} == {0.0}
