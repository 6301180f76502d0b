"""What is written of a run as it trains, and what a resumed run keeps of it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aigc_cli.errors import NonFiniteError
from aigc_cli.runs import Run, read_rows
from aigc_cli.training.journal import Journal, Tally, draw_curves


class Doubtful:
    """Warns where a curve says so."""

    def warnings(self, figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        if figures.get("main/loss", 0.0) > 1:
            yield "high loss", f"the loss is {figures['main/loss']}: lower the rate"
        if figures.get("examine/active", 9.0) < 1:
            yield "collapse", "nothing is active"


DOUBTFUL: Any = Doubtful()


def test_the_newest_values_are_kept_and_bookkeeping_is_not_judged(tmp_path: Path) -> None:
    journal = Journal(Run(tmp_path), 0)
    journal.write(1, {"main/loss": 2.0, "main/kl": 1.0}, {"seconds": 3.0})
    journal.write(2, {"main/loss": 1.0})
    journal.close()
    assert journal.figures == {"main/loss": 1.0, "main/kl": 1.0}
    assert read_rows(tmp_path / "metrics.jsonl")[0] == {"step": 1, "seconds": 3.0, "main/loss": 2.0, "main/kl": 1.0}


def test_rows_beyond_the_step_that_a_run_resumes_from_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10, "a": 1}\n{"step": 20, "a": 2}\n{"step": 30, "a": 3}\n{"step": 40, "a"')
    journal = Journal(Run(tmp_path), 20)
    journal.write(30, {"a": 4.0})
    journal.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 10, "a": 1}, {"step": 20, "a": 2}, {"step": 30, "a": 4.0},
    ]  # fmt: skip


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n[1]\n{"st')
    assert read_rows(path) == [{"step": 10}]


def test_a_process_that_does_not_write_keeps_the_newest_values_alone(tmp_path: Path) -> None:
    journal = Journal(Run(tmp_path, writes=False), 0)
    journal.write(1, {"main/loss": 2.0})
    journal.warn(1, DOUBTFUL, pytest.fail)
    journal.close()
    journal.draw()
    assert journal.figures == {"main/loss": 2.0}
    assert not list(tmp_path.iterdir())


# warnings


def test_each_warning_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    journal = Journal(Run(tmp_path), 0)
    for step, loss in ((10, 0.5), (20, 2.0), (30, 3.0)):
        journal.write(step, {"main/loss": loss})
        journal.warn(step, DOUBTFUL, said.append)
    journal.write(40, {"examine/active": 0.0})
    journal.warn(40, DOUBTFUL, said.append)
    journal.close()
    journal.draw()
    assert said == [
        "aigc: warning: step 20: the loss is 2.0: lower the rate", "aigc: warning: step 40: nothing is active"
    ]  # fmt: skip
    assert (tmp_path / "warnings.txt").read_text().splitlines() == [
        "step 20: high loss: the loss is 2.0: lower the rate", "step 40: collapse: nothing is active"
    ]  # fmt: skip
    assert journal.warned == {"high loss": 20, "collapse": 40}
    assert (tmp_path / "curves.png").exists()


def test_a_resumed_run_says_it_again_and_writes_it_no_second_time(tmp_path: Path) -> None:
    lines = ["step 20: high loss: first", "torn li", "step 40: collapse: beyond"]
    (tmp_path / "warnings.txt").write_text("\n".join(lines))
    (tmp_path / "metrics.jsonl").write_text('{"step": 20, "main/loss": 2.0}\n{"step": 40, "main/loss": 9.0}\n')
    said: list[str] = []
    journal = Journal(Run(tmp_path), 30)
    assert journal.figures == {"main/loss": 2.0}
    assert (tmp_path / "warnings.txt").read_text().splitlines() == lines[:1]
    journal.warn(31, DOUBTFUL, said.append)
    journal.warn(32, DOUBTFUL, said.append)
    journal.close()
    assert len(said) == 1
    assert (tmp_path / "warnings.txt").read_text().splitlines() == lines[:1]
    assert journal.warned == {"high loss": 20}


def test_a_collapse_that_has_passed_is_said_to_have_until_it_comes_back(tmp_path: Path) -> None:
    said: list[str] = []
    for step, active in ((40, 0.0), (50, 1.0), (60, 1.0), (70, 0.0)):
        journal = Journal(Run(tmp_path), step)
        journal.write(step, {"examine/active": active})
        journal.warn(step, DOUBTFUL, said.append)
        journal.warn(step, DOUBTFUL, said.append)
        journal.close()
    passed = "step 50: collapse: it has passed, nothing need be changed"
    first, again = (f"step {step}: collapse: nothing is active" for step in (40, 70))
    assert said[1] == f"aigc: {passed}"
    assert len(said) == 3
    assert (tmp_path / "warnings.txt").read_text().splitlines() == [first, passed, again]
    assert journal.warned == {"collapse": 40}


def test_no_warnings_no_file(tmp_path: Path) -> None:
    journal = Journal(Run(tmp_path), 0)
    journal.warn(1, DOUBTFUL, pytest.fail)
    journal.close()
    assert not (tmp_path / "warnings.txt").exists()


# curves


def test_curves_are_drawn(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"step": step, "generator/loss": 1.0 / step, "discriminator/loss": 0.5} for step in (10, 20)
    ]
    draw_curves([*rows, {"step": 20, "val/fd": 3.0}], tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as drawn:
        assert drawn.width > 600
    assert not list(tmp_path.glob(".*"))


def test_what_is_not_finite_is_marked(tmp_path: Path) -> None:
    dark = []
    for value in (1.0, math.nan, math.inf):
        rows = [{"step": step, "main/loss": value if step == 20 else 1.0} for step in (10, 20, 30)]
        draw_curves(rows, tmp_path / "curves.png")
        with Image.open(tmp_path / "curves.png") as drawn:
            pixels = np.asarray(drawn.convert("RGB")).astype(int)
        height, width = pixels.shape[:2]
        top = pixels[height // 12 : height // 5, 4 * width // 9 : 3 * width // 4]
        dark.append(int(((top[..., 2] > 150) & (top[..., 0] < 60)).sum()))  # in blue, the first line's colour
    assert dark[0] == 0
    assert min(dark[1:]) > 10


def test_marks_are_drawn_in_every_panel(tmp_path: Path) -> None:
    rows = [{"step": step, "main/loss": 1.0, "main/kl": 2.0} for step in (10, 20, 30)]
    red = []
    for marks in ({}, {"a name": 20}):
        draw_curves(rows, tmp_path / "curves.png", marks)
        with Image.open(tmp_path / "curves.png") as drawn:
            pixels = np.asarray(drawn.convert("RGB")).astype(int)
        reddish = (pixels[:, :, 0] > 150) & (pixels[:, :, 1] < 90) & (pixels[:, :, 2] < 90)
        halves = np.array_split(reddish, 2, axis=1)
        red.append([int(half.any(axis=1).sum()) for half in halves])
    assert red[0] == [0, 0]
    assert min(red[1]) > 50  # dashes over the height of each panel


def test_tally_gives_means_and_starts_afresh() -> None:
    tally = Tally()
    for value in (1.0, 3.0):
        tally.add("main", 0, {"loss": torch.tensor(value)})
    tally.add("main", 1, {"loss": torch.tensor(5.0), "penalty": torch.tensor(7.0)})
    assert tally.read() == {"main/loss": 3.0, "main/penalty": 7.0}
    assert tally.read() == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_tally_names_the_first_step_and_term(value: float) -> None:
    tally = Tally()
    tally.add("main", 3, {"loss": torch.tensor(1.0), "kl": torch.tensor(1.0)})
    tally.add("main", 4, {"loss": torch.tensor(1.0), "kl": torch.tensor(value)})
    tally.add("main", 5, {"loss": torch.tensor(value), "kl": torch.tensor(value)})
    with pytest.raises(NonFiniteError, match="step 4: main/kl is not finite"):
        tally.check()


def said_of(folder: Path, name: str, scores: list[float], losses: list[float]) -> list[str]:
    """What is said of overfitting by the end of a run that had these held-out scores and training losses."""
    said: list[str] = []
    journal = Journal(Run(folder), 0)
    for step, (score, loss) in enumerate(zip(scores, losses, strict=True)):
        journal.write(step, {"main/loss": loss})
        journal.write(step, {name: score})
        journal.warn(step, DOUBTFUL, said.append)
    journal.close()
    return [line for line in said if "held-out" in line]


@pytest.mark.parametrize("name", ["val/nll", "examine/held_out/nll"])
def test_held_out_scores_that_rise_while_the_loss_falls_are_named_once(tmp_path: Path, name: str) -> None:
    (line,) = said_of(tmp_path, name, [3.0, 2.0, 2.01, 2.2, 2.3, 2.4], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert "step 4: the score of held-out data rose from 2 at step 1 to 2.3, while the training loss fell" in line
    assert ("`aigc sample step=best`" in line) == (name == "val/nll")
    assert (tmp_path / "warnings.txt").read_text().startswith("step 4: overfitting: ")


def test_a_run_that_validates_is_told_of_its_best_checkpoint_after_a_resume_too(tmp_path: Path) -> None:
    losses = [0.8, 0.8, 0.8, 0.8]
    assert not said_of(tmp_path, "val/nll", [3.0, 2.0, 2.5, 2.6], losses)  # the loss stands still
    journal, said = Journal(Run(tmp_path), 3), list[str]()
    journal.write(4, {"main/loss": 0.1})
    journal.warn(4, DOUBTFUL, said.append)
    journal.close()
    assert "`aigc sample step=best`" in said[0]


@pytest.mark.parametrize(
    ("name", "scores", "losses"),
    [
        ("val/nll", [2.0, 2.3, 2.01, 2.3, 2.02], [0.9, 0.8, 0.7, 0.6, 0.5]),  # it moves a little
        ("val/nll", [2.0, 3.0, 4.0, 5.0, 6.0], [0.1, 0.2, 0.3, 0.4, 0.5]),  # the loss rises too
        ("val/nll", [math.nan, 2.0, 2.0, 2.0, 2.0], [0.9, 0.8, 0.7, 0.6, 0.5]),  # none was there
        ("val/fd[own]", [2.0, 3.0, 4.0, 5.0, 6.0], [0.9, 0.8, 0.7, 0.6, 0.5]),  # of samples
    ],
)
def test_other_scores_that_rise_are_no_overfitting(
    tmp_path: Path, name: str, scores: list[float], losses: list[float]
) -> None:
    assert not said_of(tmp_path, name, scores, losses)
