"""A run in time, by a clock of its own: it trains for minutes, is looked at by the clock, and says what it takes."""

import os
import signal
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from test_trainer import Two, make

from aigc_cli.errors import Interrupted
from aigc_cli.runs import read_rows
from aigc_cli.training import pace
from aigc_cli.training.plan import plan_lines
from aigc_cli.training.settings import Hooks, Plan

CONFIG = {"trainer": {"minutes": None}, "data": {"size": 64}, "model": {"width": 96}}


@pytest.fixture
def slow(monkeypatch):
    """Makes a model whose steps take so many seconds by the clock, which stands still otherwise."""
    now = [1000.0]
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def build(seconds):
        class Slow(Two):
            seen_paces: ClassVar[list] = []

            def phases(self, step):
                now[0] += seconds if torch.is_grad_enabled() and self.training else 0
                Slow.seen_paces.append((step, self.pace))
                return super().phases(step)

        return Slow

    return build


def rows_of(folder, key="generator/loss"):
    return {row["step"]: row for row in read_rows(folder / "metrics.jsonl") if key in row}


def test_a_run_by_minutes_ends_with_them_and_its_schedules_follow(tmp_path, slow):
    model = slow(6)
    words = ["trainer.minutes=1", "trainer.steps=1000", "optimizer.schedule=linear", "optimizer.warmup_steps=100"]
    trainer = make(tmp_path / "run", *words, build=model)
    trainer.fit(Hooks())
    assert trainer.run.status() == "complete"
    assert trainer.state.step == 10
    assert trainer.checkpoints.load(10).state.seconds == pytest.approx(60)
    rates = [row["generator/lr"] / trainer.optimizer_config.lr for row in rows_of(tmp_path / "run").values()]
    assert rates[:3] == pytest.approx([1 / 100, 1, 8 / 9])  # a warm-up of a tenth of the recipe is one of the time
    assert rates[-1] == pytest.approx(1 / 9)
    assert dict(model.seen_paces)[5] == pytest.approx(500 / 5)  # as a warm-up of a model sees it


def test_a_run_by_minutes_resumes_with_the_time_that_is_left(tmp_path, slow):
    model = slow(6)
    words = ["trainer.minutes=1", "trainer.sample_every=4"]
    first = make(tmp_path / "run", *words, build=model)
    with pytest.raises(Interrupted, match=r"stopped at step 5, after 30 s of 1 min, saved"):
        first.fit(Hooks(preview=lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 4 else None))
    second = make(tmp_path / "run", *words, build=model)
    assert second.restore()
    assert second.progress == pytest.approx(0.5)
    second.fit(Hooks())
    assert second.state.step == 10
    third = make(tmp_path / "run", *words, build=model)
    assert third.restore()
    assert third.finished


def test_a_run_by_minutes_saves_by_the_clock_too(tmp_path, slow, monkeypatch):
    trainer = make(tmp_path / "run", "trainer.minutes=20", "trainer.steps=1000", build=slow(50))
    saved = []
    monkeypatch.setattr(trainer, "save", lambda: saved.append(trainer.state.step))
    trainer.fit(Hooks())
    assert saved == [3, 6, 9, 12, 15, 18, 21, 24]  # every two minutes, after steps of 50 seconds, and at the end
    by_steps = make(tmp_path / "steps", "trainer.minutes=null", "trainer.steps=20", build=slow(50))
    assert by_steps.pace.save_due() is False


def test_slow_steps_are_looked_at_by_the_clock_and_leave_the_rows_as_they_are(tmp_path, slow):
    seen, lines = [], []
    words = ["trainer.steps=20", "trainer.log_every=5", "trainer.sample_every=1000"]
    hooks = Hooks(preview=seen.append, examine=lambda: {"score": 1.0}, plan=lambda plan: lines.append(plan) or ["plan"])
    make(tmp_path / "looked", *words, build=slow(10)).fit(hooks)
    assert seen == [3, 6, 12, 20]
    make(tmp_path / "plain", *words, "trainer.first_look=null", build=slow(10)).fit(Hooks())
    looked, plain = rows_of(tmp_path / "looked"), rows_of(tmp_path / "plain")
    assert list(looked) == [3, 5, 6, 10, 12, 15, 20]
    assert list(plain) == [5, 10, 15, 20]
    assert all(looked[step]["generator/loss"] == row["generator/loss"] for step, row in plain.items())
    assert list(rows_of(tmp_path / "looked", "examine/score")) == [3, 6, 12, 20]
    (plan,) = lines  # once, after a step that warms up and as many as are needed where they are slow
    assert (plan.steps, plan.seconds, plan.steps_per_second) == (17, pytest.approx(170), pytest.approx(0.1))
    assert plan.memory > 1e7


def test_a_run_that_ends_when_its_rate_is_known_has_no_plan(tmp_path, slow):
    lines = []
    make(tmp_path / "run", "trainer.steps=3", build=slow(10)).fit(Hooks(plan=lines.append))
    assert not lines


def test_a_stop_is_looked_at(tmp_path):
    seen = []

    class Stopped(Two):
        def phases(self, step):
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return super().phases(step)

    trainer = make(tmp_path / "run", "trainer.sample_every=1000", build=Stopped)
    with pytest.raises(Interrupted):
        trainer.fit(Hooks(preview=seen.append))
    assert seen == trainer.checkpoints.steps() == [3]


def test_what_is_long_for_a_cpu_comes_with_words_that_are_not():
    plan = Plan(steps=5000, seconds=36_000, steps_per_second=0.139, memory=1 << 30, disk=3 << 20)
    first, *more = plan_lines(plan, CONFIG, on_cpu=True, new=True)
    assert first == (
        "plan:        5,000 steps in about 10 h 00 min, 0.139 a second; memory 1.1 GB at the peak; "
        "checkpoints 3.1 MB at most"
    )
    assert [line.split()[0] for line in more] == ["long", "data.size=32", "model.width=48"]
    assert "trainer.minutes=30 has time for 5%" in more[0]
    resumed = plan_lines(plan, CONFIG, on_cpu=True, new=False)
    assert len(resumed) == 2  # a resumed run keeps its sizes
    assert resumed[0].startswith("plan:        5,000 more steps in about")
    assert len(plan_lines(plan, CONFIG, on_cpu=False, new=True)) == 1


def test_minutes_without_time_for_all_steps_say_which_share_they_have_and_how_many_do(tmp_path, slow):
    found = []
    for minutes in (1, 99):
        words = [f"trainer.minutes={minutes}", "trainer.steps=120"]
        make(tmp_path / str(minutes), *words, build=slow(6)).fit(Hooks(plan=lambda plan: found.append(plan) or []))
    short, whole = (
        plan_lines(plan, CONFIG | {"trainer": {"minutes": minutes, "steps": 120}}, on_cpu=False, new=False)[1:]
        for plan, minutes in zip(found, (1, 99), strict=True)
    )
    assert found[0].share == pytest.approx(10 / 120)
    (line,) = short
    assert line.strip() == (
        "8% of the 120 steps of a full run: rougher results; trainer.minutes=12 has time for all of them"
    )
    assert whole == []
