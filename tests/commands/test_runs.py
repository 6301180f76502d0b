import io
import json
import shutil
from pathlib import Path

import pytest

from aigc_cli.cli import main
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import CheckpointFolder


def steps(run: Run) -> list[int]:
    return CheckpointFolder(run.checkpoints).steps()


def test_a_note_is_a_file_in_the_run(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "note", "latest", "text=lr=1e-3 is better", "tags=best, paper"]) == 0
    assert main(["runs", "note", "tags=best", "--json"]) == 0
    saved = {"note": "lr=1e-3 is better", "tags": ["best"]}
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"run": tiny_run.name, **saved}
    assert json.loads((tiny_run.path / "notes.json").read_text()) == saved
    assert main(["ls", "runs", "tags=best"]) == 0
    assert "lr=1e-3 is better" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["note", "a", "b"], ["note", "txet=a"], ["prnue"], [], ["prune", "keep=0"], ["prune", "yes=maybe"]]
)
def test_other_words_are_refused(tiny_run: Run, words: list[str]) -> None:
    assert main(["runs", *words]) == 2


def test_prune_asks_and_keeps_the_newest(
    tiny_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "prune"]) == 2  # nobody to ask
    assert "add yes=true" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", terminal := io.StringIO("n\n"))
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    assert main(["runs", "prune"]) == 0
    assert "nothing was deleted" in capsys.readouterr().out
    assert steps(tiny_run) == [3, 5]
    assert main(["runs", "prune", "model=vae", "yes=true"]) == 0
    assert steps(tiny_run) == [3, 5]
    assert main(["runs", "prune", tiny_run.name, "yes=true"]) == 0
    assert "deleted 1 checkpoint" in capsys.readouterr().out
    assert steps(tiny_run) == [5]


def test_prune_keeps_the_best_and_what_a_run_would_resume_from(tiny_run: Run, tmp_path: Path) -> None:
    (tiny_run.checkpoints / "step-5/model.safetensors").write_bytes(b"broken")
    assert main(["runs", "prune", "yes=true"]) == 0
    assert steps(tiny_run) == [3, 5]
    CheckpointFolder(tiny_run.checkpoints).save(7, {}, {"step": 7})
    (tiny_run.path / "best.json").write_text('{"step": 3}')
    assert main(["runs", "prune", "yes=true"]) == 0
    assert steps(tiny_run) == [3, 7]
    (tiny_run.path / "best.json").unlink()
    with tiny_run.lock():
        tiny_run.set_status("running", 7)
        assert main(["runs", "prune", "yes=true"]) == 0
    assert steps(tiny_run) == [3, 7]


def test_prune_leaves_links_and_runs_of_other_folders_alone(
    tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_run.path, other)
    assert main(["runs", "prune", "other", "yes=true"]) == 2
    assert "outputs=" in capsys.readouterr().err
    shutil.rmtree(tiny_run.checkpoints / "step-3")
    (tiny_run.checkpoints / "step-3").symlink_to(other / "checkpoints/step-3")
    assert main(["runs", "prune", "yes=true"]) == 0
    shutil.rmtree(tiny_run.checkpoints)
    tiny_run.checkpoints.symlink_to(other / "checkpoints")
    assert main(["runs", "prune", "yes=true"]) == 0
    assert steps(Run(other)) == [3, 5]


def test_prune_looks_again_once_it_has_the_run(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_: str) -> str:  # the best is another by the time that somebody answers
        (tiny_run.path / "best.json").write_text('{"step": 3}')
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert main(["runs", "prune"]) == 0
    assert steps(tiny_run) == [3, 5]


def test_a_word_that_is_nearly_one_of_the_commands_is_not_taken_for_a_metric(
    tiny_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for word, meant in (("kep=2", "keep"), ("outptus=x", "outputs"), ("yess=true", "yes")):
        assert main(["runs", "prune", word]) == 2
        assert f"did you mean {meant}" in capsys.readouterr().err
