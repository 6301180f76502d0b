"""How processes that were started together are said to have ended."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from together import fails_in_one
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from aigc_cli.errors import ConfigError, DataError, NonFiniteError, ResourceError, Terminated
from aigc_cli.training.batch_size import BatchTooLarge
from aigc_cli.training.launch import first_cause, run_together


def reason(folder: Path, *told: dict[str, Any], exitcode: int = 1, interrupted: bool = False) -> BaseException:
    """What two processes are said to have ended by, of which some wrote down why."""
    usual = {"time": 1.0, "code": 1, "too_large": False, "lost": False, "message": "m", "hint": "do", "traceback": "T"}
    for rank, failure in enumerate(told):
        (folder / f"{rank}.json").write_text(json.dumps({**usual, "rank": rank, **failure}))
    error = SimpleNamespace(failures={1: SimpleNamespace(local_rank=1, exitcode=exitcode)})
    return first_cause(folder, cast(ChildFailedError, error), 2, interrupted=interrupted)


@pytest.mark.parametrize("kind", [ConfigError, DataError, NonFiniteError, ResourceError])
def test_an_error_keeps_its_kind_and_words(tmp_path: Path, kind: type[ConfigError]) -> None:
    found = reason(tmp_path, {"code": kind.exit_code})
    assert type(found) is kind
    assert str(found) == "m\n  do"


def test_the_first_error_that_is_no_consequence_counts(tmp_path: Path) -> None:
    lost = {"lost": True, "time": 0.0}
    assert isinstance(reason(tmp_path, lost, {"code": 4, "time": 2.0}), NonFiniteError)
    assert isinstance(reason(tmp_path, {"code": 3, "time": 1.0}, {"code": 4, "time": 2.0}), DataError)


def test_a_batch_that_is_too_large_stays_one(tmp_path: Path) -> None:
    assert isinstance(reason(tmp_path, {"code": 5, "too_large": True}), BatchTooLarge)


def test_a_bug_comes_with_its_traceback(tmp_path: Path) -> None:
    found = reason(tmp_path, {"traceback": "Traceback: here"})
    assert isinstance(found, RuntimeError)
    assert "in process 0:\nTraceback: here" in str(found)


def test_processes_that_signals_ended(tmp_path: Path) -> None:
    lost = {"lost": True}
    killed = reason(tmp_path, lost, exitcode=-signal.SIGKILL)
    assert isinstance(killed, ResourceError)
    assert "process 1 of 2 was killed (SIGKILL)" in str(killed)
    assert isinstance(reason(tmp_path, lost, exitcode=-signal.SIGTERM), Terminated)
    assert isinstance(reason(tmp_path, {}, interrupted=True), KeyboardInterrupt)
    assert isinstance(reason(tmp_path, {"code": 5}, interrupted=True), ResourceError)  # it says more


@pytest.mark.slow
def test_one_process_that_raises_ends_all() -> None:
    with pytest.raises(NonFiniteError, match="step 7: main/loss is not finite"):
        run_together(2, fails_in_one)
