"""A run that stops since its held-out score became no better, and what a resumed one remembers of the wait."""

import math
import os
import signal

import pytest
from test_trainer import assert_equal, make, weigh

from aigc_cli.config.compose import compose
from aigc_cli.errors import ConfigError, Interrupted
from aigc_cli.runs import read_rows
from aigc_cli.training.build import check_config
from aigc_cli.training.checkpoint import State
from aigc_cli.training.early_stop import note_score, why_early
from aigc_cli.training.settings import Hooks

SCORES = [3.0, 1.0, 2.0, 1.5, 0.5, 0.4]
WORDS = [
    "trainer.validate_every=1",
    "trainer.examine_every=1",
    "trainer.early_stop=2",
    "trainer.log_every=8",
    "trainer.steps=6",
]


def fit(trainer, **hooks):
    """Trains with a held-out score that is the same at the same step, whatever process measures it."""
    return trainer.fit(Hooks(validate=lambda: {"fd": SCORES[trainer.state.step - 1]}, **hooks))


def interrupt(now):
    if now:
        os.kill(os.getpid(), signal.SIGINT)
    return {}


WAITS = [(0.0, [0, 0, 1, 2, 0, 0]), (0.6, [0, 0, 1, 2, 3, 0]), (9.0, [0, 1, 2, 3, 4, 5])]


@pytest.mark.parametrize(("delta", "waits"), WAITS)
def test_a_score_is_better_where_it_is_lower_by_more_than_the_delta(delta, waits):
    state, found, best = State(), [], []
    for state.step, value in enumerate([3.0, 1.0, 2.0, 1.0, 0.5, 0.39], start=1):
        best.append(note_score(state, value, delta))
        found.append(state.since_better)
    assert found == waits
    assert best == [True, True, False, False, True, True]  # the best checkpoint is the best, by however little
    assert not note_score(state, math.nan, delta)
    compared = "much better than 3; the best, 0.39 of step 6, is kept" if delta == 9 else "better than 0.39, that of"
    assert compared in why_early(state)
    assert (state.since_better, state.best) == (waits[-1] + 1, 0.39)


def test_a_run_stops_where_its_score_became_no_better_and_keeps_the_best(tmp_path, capsys):
    trainer, seen = make(tmp_path / "run", *WORDS, "trainer.keep=1"), []
    fit(trainer, preview=seen.append)
    assert (trainer.state.step, trainer.run.status(), trainer.run.step) == (4, "complete", 4)
    assert trainer.run.stopped_early
    why = "stopped early at step 4: 2 validations without a held-out score better than 1, that of step 2, which is kept"
    assert trainer.run.why == why
    assert f"aigc: {why}" in capsys.readouterr().err
    assert trainer.checkpoints.steps() == [2, 4]
    assert seen == [4]
    assert "generator/loss" in read_rows(trainer.run.path / "metrics.jsonl")[-1]  # it ends with a row of its own


def test_a_run_that_was_stopped_in_its_wait_ends_where_the_uninterrupted_one_ends(tmp_path):
    whole, part = make(tmp_path / "whole", *WORDS), make(tmp_path / "part", *WORDS)
    fit(whole)
    with pytest.raises(Interrupted):
        fit(part, examine=lambda: interrupt(part.state.step == 2))
    again = make(tmp_path / "part", *WORDS)
    assert again.restore()
    assert again.state.since_better == 1
    fit(again)
    assert again.state.step == 4
    assert_equal(*({f: dict(g) for f, g in one.checkpoints.load(4).tensors.items()} for one in (whole, again)))
    third = make(tmp_path / "part", *WORDS)
    assert third.restore()
    assert third.finished
    assert third.why_early == again.run.why


def test_more_patience_or_none_lets_it_go_on(tmp_path):
    fit(make(tmp_path / "run", *WORDS))
    for word, ends in (("trainer.early_stop=3", 6), ("trainer.early_stop=null", 6)):
        trainer = make(tmp_path / "run", *WORDS, word)
        assert trainer.restore()
        assert trainer.finished == (trainer.state.step == 6)
        fit(trainer)
        assert (trainer.state.step, trainer.run.why) == (ends, "")


def test_the_last_step_and_a_run_by_minutes(tmp_path):
    trainer = make(tmp_path / "run", *WORDS, "trainer.steps=4")
    fit(trainer)  # the wait is over with the run
    assert not trainer.run.stopped_early
    timed = make(tmp_path / "timed", *WORDS, "trainer.minutes=5", "trainer.steps=9")
    fit(timed)
    assert (timed.state.step, timed.run.stopped_early) == (4, True)


def test_the_wait_has_no_effect_on_what_is_trained(tmp_path):
    plain, waits = make(tmp_path / "a", "trainer.steps=6"), make(tmp_path / "b", *WORDS, "trainer.early_stop=9")
    plain.fit(Hooks())
    fit(waits, examine=weigh(waits))
    assert_equal(*(dict(one.checkpoints.load(6).tensors) for one in (plain, waits)))


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["trainer.early_stop=3"], "trainer.validate_every"),
        (["trainer.early_stop_delta=0.1"], "trainer.early_stop"),
        (["trainer.early_stop=0", "trainer.validate_every=1"], ""),
    ],
)
def test_what_has_nothing_to_wait_for_is_refused(words, hint):
    with pytest.raises(ConfigError, match="early_stop") as caught:
        check_config(compose("train", words))
    assert hint in caught.value.hint
