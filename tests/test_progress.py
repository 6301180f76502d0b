import io
import sys
import time

import pytest

from aigc_cli.progress import Progress, clock, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_sees_plain_lines_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(1000, "sampling", "images", every=0.02) as bar:
        for _ in range(10):
            time.sleep(0.01)
            bar.advance(100, loss="0.5")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert 2 <= len(lines) <= 6
    assert lines[0].startswith("sampling: ")
    assert "/1,000 images" in lines[0]
    assert "left" in lines[0]
    assert "loss 0.5" in lines[0]
    assert lines[-1].startswith("sampling: 1,000/1,000 images")
    assert "done in" in lines[-1]
    assert "\r" not in err


def test_what_is_quick_says_nothing_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(3, "reading", "items") as bar:
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
