import pytest

from aigc_cli.runs import Run, read_rows
from aigc_cli.training.journal import Journal, WarningLog


class Doubtful:
    """Warns where a figure says so."""

    def warnings(self, figures):
        if figures.get("main/loss", 0.0) > 1:
            yield "high loss", f"the loss is {figures['main/loss']}: lower the rate"
        if figures.get("examine/active", 9.0) < 1:
            yield "collapse", "nothing is active"


def test_newest_figures_are_kept_and_bookkeeping_is_not_judged(tmp_path):
    journal = Journal(Run(tmp_path), 0)
    journal.write(1, {"main/loss": 2.0, "main/kl": 1.0}, {"seconds": 3.0})
    journal.write(2, {"main/loss": 1.0})
    journal.close()
    assert journal.figures == {"main/loss": 1.0, "main/kl": 1.0}
    assert read_rows(tmp_path / "metrics.jsonl")[0] == {"step": 1, "seconds": 3.0, "main/loss": 2.0, "main/kl": 1.0}


def test_each_warning_is_said_once(tmp_path):
    journal, said = Journal(Run(tmp_path), 0), []
    for step, loss in ((10, 0.5), (20, 2.0), (30, 3.0)):
        journal.write(step, {"main/loss": loss})
        journal.warn(step, Doubtful(), said.append)
    journal.write(40, {"examine/active": 0.0})
    journal.warn(40, Doubtful(), said.append)
    journal.close()
    journal.draw()
    assert said == [
        "aigc: warning: step 20: the loss is 2.0: lower the rate", "aigc: warning: step 40: nothing is active"
    ]  # fmt: skip
    assert (tmp_path / "warnings.txt").read_text().splitlines() == [
        "step 20: high loss: the loss is 2.0: lower the rate", "step 40: collapse: nothing is active"
    ]  # fmt: skip
    assert journal.warned.steps == {"high loss": 20, "collapse": 40}
    assert (tmp_path / "curves.png").exists()


def test_a_resumed_run_says_it_again_and_writes_it_no_second_time(tmp_path):
    lines = ["step 20: high loss: first", "torn li", "step 40: collapse: beyond"]
    (tmp_path / "warnings.txt").write_text("\n".join(lines))
    (tmp_path / "metrics.jsonl").write_text('{"step": 20, "main/loss": 2.0}\n{"step": 40, "main/loss": 9.0}\n')
    journal, said = Journal(Run(tmp_path), 30), []
    assert journal.figures == {"main/loss": 2.0}
    assert (tmp_path / "warnings.txt").read_text().splitlines() == lines[:1]
    journal.warn(31, Doubtful(), said.append)
    journal.warn(32, Doubtful(), said.append)
    journal.close()
    assert len(said) == 1
    assert (tmp_path / "warnings.txt").read_text().splitlines() == lines[:1]
    assert journal.warned.steps == {"high loss": 20}


def test_no_warnings_no_file(tmp_path):
    WarningLog(tmp_path / "warnings.txt", 0)
    journal = Journal(Run(tmp_path), 0)
    journal.warn(1, Doubtful(), pytest.fail)
    journal.close()
    assert not (tmp_path / "warnings.txt").exists()
