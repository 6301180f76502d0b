import io
import os
import sys
import time
from collections.abc import Callable

import pytest

from aigc_cli.errors import say
from aigc_cli.progress import Progress, clock, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock_of_ours(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock on by so many seconds; it stands still otherwise."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_a_log_sees_plain_lines_now_and_then(
    clock_of_ours: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(1000, "sampling", "images", every=20) as bar:
        for _ in range(10):
            clock_of_ours(10)
            bar.advance(100, loss="0.5")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0] == "sampling: 200/1,000 images, 10 images/s, 1 min 20 s left, loss 0.5"
    assert lines[-1] == "sampling: 1,000/1,000 images, 10 images/s, done in 1 min 40 s, loss 0.5"
    assert len(lines) == 5  # the last is told once, though the bar ends then
    assert "\r" not in err


def test_the_total_may_change(clock_of_ours: Callable[[float], None], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(None, "training", "steps", every=1) as bar:
        clock_of_ours(10)
        bar.expect(40)
        bar.advance(10)
    assert capsys.readouterr().err.startswith("training: 10/40 steps, 1 steps/s, 30 s left\n")


def test_work_goes_on_when_nobody_reads_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    read, written = os.pipe()
    os.close(read)
    with os.fdopen(written, "w") as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        with Progress(10, "training", "steps", every=0) as bar:
            bar.advance()
            bar.write("a line of its own")
            say("a message")
    assert bar.count == 1


def test_what_is_quick_says_nothing_in_a_log(
    clock_of_ours: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(3, "reading", "items") as bar:
        clock_of_ours(9.9)
        bar.advance(3)
    assert capsys.readouterr().err == ""


def test_a_terminal_sees_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(10, "training", "steps", initial=4) as bar:
        bar.notes["loss"] = "0.25"
        bar.advance()
        bar.write("a line of its own")
        bar.advance(5)
    shown = terminal.getvalue()
    assert "10/10" in shown
    assert "loss=0.25" in shown
    assert "a line of its own\n" in shown


def test_bytes_and_unknown_totals(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(None, "download", "B", every=0.0) as bar:
        bar.advance(3_500_000)
    assert "download: 3.5 MB" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "text"), [(5.4, "5 s"), (65, "1 min 05 s"), (3600, "1 h 00 min")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_table_is_aligned() -> None:
    assert table([["a", "b", "c"], ["1", "xx"], ["22", "y"]]) == ["a   b   c", "1   xx", "22  y"]
    assert table([]) == []
