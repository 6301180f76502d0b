import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from aigc_cli.errors import NonFiniteError
from aigc_cli.runs import read_rows
from aigc_cli.training.logging import MetricLog, Tally


def test_tally_gives_means_and_starts_afresh():
    tally = Tally()
    for value in (1.0, 3.0):
        tally.add("main", 0, {"loss": torch.tensor(value)})
    tally.add("main", 1, {"loss": torch.tensor(5.0), "penalty": torch.tensor(7.0)})
    assert tally.read() == {"main/loss": 3.0, "main/penalty": 7.0}
    assert tally.read() == {}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_tally_names_the_first_step_and_term(value):
    tally = Tally()
    tally.add("main", 3, {"loss": torch.tensor(1.0), "kl": torch.tensor(1.0)})
    tally.add("main", 4, {"loss": torch.tensor(1.0), "kl": torch.tensor(value)})
    tally.add("main", 5, {"loss": torch.tensor(value), "kl": torch.tensor(value)})
    with pytest.raises(NonFiniteError, match="step 4: main/kl is not finite"):
        tally.check()


def test_log_drops_rows_beyond_the_step_it_goes_on_from(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10, "a": 1}\n{"step": 20, "a": 2}\n{"step": 30, "a": 3}\n{"step": 40, "a"')
    log = MetricLog(path, resume_step=20)
    log.write(30, {"a": 4.0})
    log.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 10, "a": 1}, {"step": 20, "a": 2}, {"step": 30, "a": 4.0},
    ]  # fmt: skip


def test_a_torn_line_is_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n[1]\n{"st')
    assert read_rows(path) == [{"step": 10}]


def test_curves_are_drawn(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl", resume_step=0)
    for step in (10, 20):
        log.write(step, {"generator/loss": 1.0 / step, "discriminator/loss": 0.5})
    log.write(20, {"val/fd": 3.0})
    log.close()
    log.draw(tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as drawn:
        assert drawn.width > 600
    assert not list(tmp_path.glob(".*"))


def test_marks_are_drawn_in_every_panel(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl", resume_step=0)
    for step in (10, 20, 30):
        log.write(step, {"main/loss": 1.0, "main/kl": 2.0})
    log.close()
    red = []
    for marks in ({}, {"a name": 20}):
        log.draw(tmp_path / "curves.png", marks)
        with Image.open(tmp_path / "curves.png") as drawn:
            pixels = np.asarray(drawn.convert("RGB")).astype(int)
        reddish = (pixels[:, :, 0] > 150) & (pixels[:, :, 1] < 90) & (pixels[:, :, 2] < 90)
        halves = np.array_split(reddish, 2, axis=1)
        red.append([int(half.any(axis=1).sum()) for half in halves])
    assert red[0] == [0, 0]
    assert min(red[1]) > 50  # dashes over the height of each panel


def test_tensorboard_events_are_written(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra aigc-cli[tensorboard] is not installed")
    log = MetricLog(tmp_path / "metrics.jsonl", resume_step=0, tensorboard=tmp_path / "board")
    log.write(10, {"main/loss": 1.0})
    log.close()
    assert list((tmp_path / "board").glob("events*"))
