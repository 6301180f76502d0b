"""The run directory: how it is named, found, locked, and what a broken one says."""

import json
import os
from dataclasses import replace

import pytest

from aigc_cli import registry
from aigc_cli.cli import main
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.base import DataSpec
from aigc_cli.new_run import create_run
from aigc_cli.runs import Run, find_run, list_runs

CONFIG = {"model": {"name": "gan"}, "data": {"name": "digits"}, "outputs": "outputs", "run_dir": None}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(**changes) -> Run:
    run = create_run({**CONFIG, **changes})
    (run.path / "config.yaml").write_text("model: {name: gan}\ndata: {name: digits}\n")
    return run


def test_what_names_a_run_finds_it(here):
    usual, elsewhere, apart = made(), made(outputs="elsewhere"), made(run_dir="some where/run")
    assert usual.word == usual.name
    assert elsewhere.word == str(elsewhere.path)
    assert apart.word == f"'{apart.path}'"
    for run in (usual, elsewhere, apart):
        assert find_run(run.word.strip("'")).path == run.path.resolve()


def test_two_runs_of_one_second_are_two():
    assert len({made().path for _ in range(3)}) == 3


def test_latest_points_right_from_outputs_that_lie_elsewhere(here):
    (here / "disk" / "deep").mkdir(parents=True)
    (here / "outputs").symlink_to("disk/deep")
    run = made(run_dir="apart")
    assert find_run("latest").path == run.path.resolve()


@pytest.mark.parametrize(
    "text", ["", "model: gan\n", "model: {name: gan}\n", "model: {name: gan}\ndata: {}\n", "a: &a [1]\nb: *a\n"]
)
def test_a_broken_configuration(text):
    run = made()
    (run.path / "config.yaml").write_text(text)
    with pytest.raises(DataError, match=r"config\.yaml"):
        _ = run.config


SAVED = {"modality": "image", "shape": [1, 8, 8], "classes": ["a"], "vocab_size": None, "fingerprint": "f"}


def test_what_the_model_knows_of_its_data_comes_back():
    run = made()
    source = DataSpec("text", (9,), vocab_size=7, specials=(("pad", 0),))
    image = DataSpec("image", (1, 8, 8), ("a", "b"), fingerprint="f", attributes=(("hue", ("red", "red")),))
    for spec in (image, replace(source, source=source)):
        run.save_config(CONFIG, spec)
        assert run.spec == spec


def test_pairs_were_a_modality_once():
    run = made()
    saved = {**SAVED, "modality": "pairs", "shape": [9], "classes": [], "vocab_size": 7, "specials": [["pad", 0]]}
    (run.path / "data.json").write_text(json.dumps(saved))
    side = DataSpec("text", (9,), vocab_size=7, specials=(("pad", 0),))
    assert run.spec == replace(side, fingerprint="f", source=side)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": [8, 8]}, r"shape \[8, 8\] is not that of image data"),
        ({"shape": [1, 0, 8]}, "is not that of image data"),
        ({"vocab_size": 9}, "is not that of image data"),
        ({"classes": None}, "not iterable"),
        ({"source": [1]}, "list indices"),
        ({"attributes": [["hue", ["red", "blue"]]]}, "a value for each class"),
    ],
    ids=str,
)
def test_a_broken_description_of_the_data(changes, words):
    run = made()
    (run.path / "data.json").write_text(json.dumps({**SAVED, **changes}))
    with pytest.raises(DataError, match=f"data.json cannot be read: .*{words}"):
        _ = run.spec


def test_a_modality_that_nobody_has():
    run = made()
    (run.path / "data.json").write_text(json.dumps({**SAVED, "modality": "smell"}))
    with pytest.raises(ConfigError, match="no modality named 'smell'") as caught:
        _ = run.spec
    assert "--plugin" in caught.value.hint


def test_what_is_not_found_may_come_from_the_plugin_that_the_run_named(monkeypatch):
    monkeypatch.setattr(registry, "of_runs", [])
    run = made()
    (run.path / "command.txt").write_text("aigc train seed=1\naigc train --plugin my_flow,other model=my_flow\n")
    find_run("latest")
    with pytest.raises(ConfigError, match="no model named 'my_flow'") as caught:
        registry.find("model", "my_flow")
    assert caught.value.hint == "add --plugin my_flow,other"
    monkeypatch.setitem(registry._plugins, "other", None)
    with pytest.raises(ConfigError, match="no model named 'my_flow'") as caught:
        registry.find("model", "my_flow")
    assert caught.value.hint == "add --plugin my_flow"


def test_to_resume_a_run_that_is_not_there_names_those_that_are(capsys):
    run = made()
    assert main(["train", "--resume", "nosuchrun"]) == 2
    assert f"choose from: {run.name}, latest" in capsys.readouterr().err


@pytest.mark.parametrize("command", ['aigc train "', "aigc train --nonsense", ""])
def test_a_command_that_cannot_be_read_names_no_plugin(command):
    run = made()
    assert run.plugins() == []
    (run.path / "command.txt").write_text(command)
    assert find_run("latest").plugins() == []


def test_figures_are_finite_numbers():
    run = made()
    rows = ['"abc"', "1.5", "true", "NaN", "null", "[1]", "9" * 400]
    (run.path / "metrics.jsonl").write_text("".join(f'{{"step": 1, "val/x": {value}}}\n' for value in rows))
    assert run.figures() == {"val/x": 1.5}


def test_a_lock_keeps_others_out_and_says_nothing_of_what_fails_within():
    run = made()
    with run.lock(), pytest.raises(ConfigError, match=f"process {os.getpid()}"), run.lock():
        pass
    with pytest.raises(PermissionError), run.lock():
        raise PermissionError(13, "Permission denied", "some/picture.png")


def test_what_lies_in_a_run_is_not_another_run():
    run = made(run_dir="outputs/mine")
    usual = made()
    (run.path / "tokenizer").mkdir()
    (run.path / "tokenizer" / "config.yaml").write_text("model: {name: vqvae}\ndata: {name: digits}\n")
    assert [found.path.resolve() for found in list_runs()] == [usual.path.resolve()]
