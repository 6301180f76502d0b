import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from aigc_cli.cli import main
from aigc_cli.config.compose import compose
from aigc_cli.config.schema import save_yaml
from aigc_cli.run_index import INDEX, known_runs, rows_of
from aigc_cli.runs import PLACES, Run, find_run

OUTPUTS = Path("outputs")


def make(path: Path, step: int = 10, model: str = "gan", **optimizer: Any) -> Run:
    """A run without weights."""
    path.mkdir(parents=True)
    config = {"model": {"name": model}, "data": {"name": "digits"}, "optimizer": optimizer, "trainer": {"steps": 10}}
    save_yaml(path / "config.yaml", {**config, "outputs": "outputs"})
    run = Run(path)
    run.set_status("complete", step)
    (path / "metrics.jsonl").write_text(json.dumps({"step": step, "main/loss": step / 10, "seconds": 2.0}) + "\n")
    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make(OUTPUTS / "gan-digits/a", lr=1e-3)
    make(OUTPUTS / "gan-digits/b", step=5, lr=2e-3)
    make(OUTPUTS / "vae-digits/c", step=7, model="vae", lr=2e-3)
    return tmp_path


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["ls", "runs", "--json", *words]) == 0
    return [row["name"] for row in json.loads(capsys.readouterr().out)]


def test_runs_that_lie_elsewhere_are_found_and_named(here: Path) -> None:
    elsewhere = make(here / "else/where")
    elsewhere.record_command()
    elsewhere.record_command()  # as when it resumes
    make(OUTPUTS / "gan-digits/d").record_command()
    assert (OUTPUTS / PLACES).read_text() == f"{here / 'else/where'}\n"
    assert {run.name for run in known_runs(OUTPUTS)} >= {"else/where", "gan-digits/d"}
    assert find_run("where").path == find_run("else/where").path == here / "else/where"


def test_the_index_heals_itself(here: Path) -> None:
    make(here / "else/where").record_command()
    before = rows_of(OUTPUTS)
    assert rows_of(OUTPUTS) == before
    (OUTPUTS / INDEX).write_text("{")  # torn
    assert rows_of(OUTPUTS) == before
    (OUTPUTS / "gan-digits/a").rename(OUTPUTS / "gan-digits/moved")
    (here / "else/where").rename(here / "away")
    rows = {row["name"]: row for row in rows_of(OUTPUTS)}
    assert set(rows) == {"gan-digits/moved", "gan-digits/b", "vae-digits/c"}
    (here / "away").rename(here / "else/where")  # a disk that is mounted again
    Run(OUTPUTS / "gan-digits/b").set_status("failed", 6)
    rows = {row["name"]: row for row in rows_of(OUTPUTS)}
    assert rows["gan-digits/b"]["status"] == "failed"
    assert "else/where" in rows


def test_rows_that_change_while_their_size_and_time_stay_are_seen(here: Path) -> None:
    path = OUTPUTS / "gan-digits/a/metrics.jsonl"
    rows_of(OUTPUTS)
    stat, text = path.stat(), path.read_text()
    path.write_text(text.replace("1.0", "9.0"))  # of the loss, as another machine has it
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert next(row for row in rows_of(OUTPUTS) if row["name"] == "gan-digits/a")["figures"] == {"main/loss": 9.0}


def test_an_index_is_not_believed_where_it_says_what_no_run_is(here: Path) -> None:
    before = rows_of(OUTPUTS)
    index = json.loads((OUTPUTS / INDEX).read_text())
    changes: list[dict[str, Any]] = [
        {"status": None}, {"figures": 3}, {"figures": {"a": "x"}}, {"config": []}, {"path": "/", "name": "x"}
    ]  # fmt: skip
    for change in changes:
        changed = json.loads(json.dumps(index))
        for entry in changed["runs"].values():
            entry["row"] |= change
        (OUTPUTS / INDEX).write_text(json.dumps(changed))
        assert rows_of(OUTPUTS) == before


def test_one_odd_run_does_not_hide_the_others(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (OUTPUTS / "gan-digits/a/metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "seconds": 1' + "0" * 400 + "}\n" + '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    (OUTPUTS / "gan-digits/a/notes.json").write_text(json.dumps({"note": "two\nlines \x1b[2J", "tags": []}))
    assert main(["ls", "runs"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 4
    assert "\x1b" not in out


def test_an_index_that_cannot_be_written_costs_nothing_but_time(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aigc_cli.run_index.write_atomically", full)
    assert len(rows_of(OUTPUTS)) == 3


def test_a_folder_of_runs_is_answered_with_their_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (OUTPUTS / "latest").symlink_to("gan-digits/a")
    for word, count in (("gan-digits", 2), ("outputs", 3)):
        assert main(["sample", f"run={word}"]) == 2
        hint = capsys.readouterr().err.splitlines()[1]
        assert hint.startswith("  it holds runs, so name one: run=")
        assert hint.count("run=") == count


def test_filters_take_values_patterns_bounds_and_keys_of_the_configuration(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert listed(capsys, "model=gan") == ["gan-digits/a", "gan-digits/b"]
    assert listed(capsys, "model=vae,flow") == ["vae-digits/c"]
    assert listed(capsys, "model=g*", "lr=0.002") == ["gan-digits/b"]
    assert listed(capsys, "optimizer.lr=2e-3") == ["gan-digits/b", "vae-digits/c"]
    assert listed(capsys, "main/loss=<0.8") == ["gan-digits/b", "vae-digits/c"]
    assert listed(capsys, "sort=-main/loss") == ["gan-digits/a", "vae-digits/c", "gan-digits/b"]
    assert main(["ls", "runs", "model=gan", "columns=run,lr,disk", "sort=step"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["run", "lr"], ["gan-digits/b", "0.002"], ["gan-digits/a", "0.001"]]
    assert main(["ls", "runs", "model=bert"]) == 0
    assert capsys.readouterr().out == "no run has that\n"
    assert main(["ls", "runs", "fd=<x"]) == 2


def test_scores_can_be_sorted_by_without_the_extractor(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("a", 3.0), ("b", 2.0)):
        folder = OUTPUTS / f"gan-digits/{name}/eval"
        folder.mkdir()
        record = {"metric": "fd", "figures": {"fd[digits-cnn]": value}, "time": "2026"}
        (folder / "fd.json").write_text(json.dumps(record))
    assert listed(capsys, "sort=fd") == ["gan-digits/b", "gan-digits/a", "vae-digits/c"]
    assert listed(capsys, "fd=<2.5") == ["gan-digits/b"]


def test_scores_that_do_not_compare_share_no_column_and_no_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, score, value in (("a", "own-ssl", 23.5), ("b", "own-ssl", 21.5), ("c", "cnn", 0.8), ("d", "cnn", 0.7)):
        folder = make(OUTPUTS / f"{'vae' if name == 'c' else 'gan'}-digits/{name}").path / "eval"
        folder.mkdir()
        record = {"metric": "fd", "figures": {f"fd[{score}]": value}, "time": "2026"}
        (folder / "fd.json").write_text(json.dumps(record))
    other = OUTPUTS / "gan-digits/d/config.yaml"
    other.write_text(other.read_text().replace("name: digits", "name: own\n  root: there"))
    assert main(["ls", "runs", "sort=fd"]) == 0
    out, err = capsys.readouterr()
    head, *lines = out.splitlines()
    assert head.split()[:3] == ["run", "fd[own-ssl]", "fd[cnn]"]
    assert [line.split()[:2] for line in lines] == [
        ["gan-digits/b", "21.5"], ["gan-digits/a", "23.5"], ["vae-digits/c", "0.8"], ["gan-digits/d", "0.7"]
    ]  # fmt: skip
    assert "fd of different features or data does not compare" in err
    assert main(["ls", "runs", "sort=-fd", "columns=run,fd", "data=digits"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == [
        "gan-digits/a", "gan-digits/b", "vae-digits/c"
    ]  # fmt: skip


def test_a_thousand_runs_are_listed_in_two_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in processor time, without an index, when every configuration is read, and with one."""
    monkeypatch.chdir(tmp_path)
    first = make(OUTPUTS / "gan-digits/0")
    save_yaml(first.path / "config.yaml", {**compose("train", ["model=gan", "data=digits"]), "seed": 12345})
    text = (first.path / "config.yaml").read_text()
    for number in range(1, 1000):
        path = OUTPUTS / f"gan-digits/{number}"
        path.mkdir()
        (path / "config.yaml").write_text(text.replace("12345", str(number)))
        for name in ("status.json", "metrics.jsonl"):
            os.link(first.path / name, path / name)
    for _ in range(2):
        began = time.process_time()
        assert main(["ls", "runs", "sort=main/loss"]) == 0
        assert time.process_time() - began < 2
