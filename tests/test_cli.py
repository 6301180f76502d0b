import errno
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from aigc_cli import __version__, cli
from aigc_cli.cli import main
from aigc_cli.config.schema import Options, own_keys
from aigc_cli.config.words import COMMANDS, parse
from aigc_cli.errors import ConfigError, Interrupted, ResourceError


class Recorder:
    """Stands in for a command's module and keeps what it was called with."""

    def __init__(self, answer: int | BaseException = 0) -> None:
        self.answer = answer
        self.config: dict[str, Any] = {}
        self.options = Options()

    def __call__(self, config: dict[str, Any], options: Options) -> int:
        self.config, self.options = config, options
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Replaces the three big commands by a recorder that answers as told."""
    monkeypatch.chdir(tmp_path)

    def install(answer: int | BaseException = 0) -> Recorder:
        recorder = Recorder(answer)
        for command in ("train", "sample", "eval"):
            module = types.ModuleType(f"aigc_cli.commands.{command}")
            module.main = recorder  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, module.__name__, module)
        return recorder

    return install


# words


def test_flags_and_keys_mix_in_any_order() -> None:
    one = parse(["train", "-m", "seed=0,1", "--debug", "model=gan"])
    other = parse(["seed=0,1", "--debug", "--multirun", "train", "model=gan"])
    assert one == other
    assert one.command == "train"
    assert one.overrides == ["seed=0,1", "model=gan"]
    assert one.multirun
    assert one.debug


@pytest.mark.parametrize(
    ("line", "run", "overrides"),
    [
        ("train --resume", "latest", []),
        ("train --resume gan-digits/1", "gan-digits/1", []),
        ("train --resume=a=b", "a=b", []),
        ("train --resume /tmp/a=b", "/tmp/a=b", []),
        ("train --resume trainer.steps=3", "latest", ["trainer.steps=3"]),
        ("--resume train trainer.steps=3", "latest", ["trainer.steps=3"]),
        ("train trainer.steps=3 --resume --debug", "latest", ["trainer.steps=3"]),
    ],
)
def test_resume_takes_a_run_or_none(line: str, run: str, overrides: list[str]) -> None:
    words = parse(line.split())
    assert (words.command, words.resume, words.overrides) == ("train", run, overrides)


@pytest.mark.parametrize("line", ["eval --metric fid,kid", "eval --metric=fid,kid", "eval --metric fid --metric kid"])
def test_metrics(line: str) -> None:
    assert parse(line.split()).metric == ["fid", "kid"]


def test_plugins_repeat() -> None:
    assert parse(["train", "--plugin", "a,b", "--plugin=b.c"]).plugin == ["a", "b", "b.c"]


@pytest.mark.parametrize(
    ("line", "kind"), [("train --cfg job", "job"), ("train -c all", "all"), ("train --cfg seed=1", "job")]
)
def test_cfg(line: str, kind: str) -> None:
    assert parse(line.split()).cfg == kind


@pytest.mark.parametrize("line", ["train --json=3", "train -m --resume", "train --cfg nothing", "eval --metric ,"])
def test_flags_that_are_misused(line: str) -> None:
    with pytest.raises(ConfigError):
        parse(line.split())


# dispatch


def test_a_command_gets_its_configuration_and_options(stand_in: Any) -> None:
    recorder = stand_in()
    assert main(["eval", "--metric", "fid,kid", "--json", "n=10"]) == 0
    assert list(recorder.config["metric"]) == ["fid", "kid"]
    assert recorder.config["n"] == 10
    assert recorder.options.json
    assert recorder.options.overrides[0] == "n=10"


def test_a_new_run_is_told_which_recipe_applies(stand_in: Any) -> None:
    recorder = stand_in()
    assert main(["train", "model=vae", "optimizer=sgd"]) == 0
    assert recorder.options.recipe == ("VAE on digits, from recipe/vae_digits.yaml",)
    assert main(["train", "--resume", "model=vae"]) == 0
    assert recorder.options.recipe == ()


def test_eval_with_a_flag_or_a_key_is_the_same(stand_in: Any) -> None:
    recorder = stand_in()
    main(["eval", "--metric", "fid"])
    by_flag = recorder.config
    main(["eval", "metric=fid"])
    assert by_flag == recorder.config


def test_resume_leaves_the_words_to_the_runs_own_configuration(stand_in: Any) -> None:
    recorder = stand_in()
    assert main(["train", "--resume", "a/b", "trainer.steps=9", "model.only_that_model_has_it=1", "outputs=x y"]) == 0
    assert recorder.options.resume == "a/b"
    assert recorder.options.overrides == ("trainer.steps=9", "model.only_that_model_has_it=1", "outputs='x y'")
    assert recorder.config["outputs"] == "x y"
    assert main(["train", "--resume", "trainer.steps=9,10"]) == 2


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ConfigError("wrong", "do it right"), 2, "aigc: wrong\n  do it right\n"),
        (Interrupted("saved"), 130, "saved"),
        (KeyboardInterrupt(), 130, "stopped"),
        (MemoryError(), 5, "out of memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried"), 5, "CUDA out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 5, "/x/y: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 5, "/x/y: Permission denied"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 5, "No space left"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exit_codes(
    error: BaseException, code: int, says: str, stand_in: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(error)
    assert main(["train"]) == code
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 2


def test_ctrl_c_before_a_command_begins_says_that_nothing_was_saved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("aigc_cli.config.compose.compose", interrupted)
    assert main(["train"]) == 130
    assert "nothing was saved\n  the same command starts it again\n" in capsys.readouterr().err


def test_a_bug_shows_its_traceback(stand_in: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(ZeroDivisionError("of ours"))
    assert main(["train"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "ZeroDivisionError: of ours" in err
    assert err.splitlines()[-1].startswith("aigc: this is a bug")


def test_resource_errors_keep_their_words(stand_in: Any, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(ResourceError("full", "empty it"))
    assert main(["sample"]) == 5
    assert capsys.readouterr().err == "aigc: full\n  empty it\n"


# help, version, configuration


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    overview = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == overview
    for command in COMMANDS:
        assert command in overview
        assert main([command, "--help"]) == 0
        text = capsys.readouterr().out
        assert f"aigc {command}" in text
        examples = text.partition("examples\n")[2].strip().splitlines()
        assert len(examples) == 3
        assert max(map(len, text.splitlines())) <= 100
    assert main(["help", "train"]) == 0
    assert "aigc train:" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["train", "sample", "eval"])
def test_the_examples_in_the_help_are_right(
    command: str, stand_in: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in()
    monkeypatch.setattr("aigc_cli.commands.sweep.main", lambda *_: 0)
    main([command, "--help"])
    for example in capsys.readouterr().out.partition("examples\n")[2].strip().splitlines():
        assert main(example.split()[1:]) == 0, capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"aigc {__version__}\n"


def test_cfg_prints_what_would_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import yaml

    monkeypatch.chdir(tmp_path)
    assert main(["train", "--cfg", "job", "seed=4"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["seed"] == 4
    assert main(["train", "--cfg", "hydra"]) == 0
    assert set(yaml.safe_load(capsys.readouterr().out)) == {"hydra"}
    assert main(["train", "--cfg", "all"]) == 0
    assert {"hydra", "model"} <= set(yaml.safe_load(capsys.readouterr().out))
    assert list(tmp_path.iterdir()) == []


def test_words_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model=gan"]) == 2
    assert "aigc train model=gan" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "aigc_cli", "ls", "models"], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == cli.EXIT_BROKEN_PIPE


# plugins


def test_a_plugin_brings_its_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: Any) -> None:
    from aigc_cli import registry

    package = tmp_path / "my_plugin"
    (package / "configs/data").mkdir(parents=True)
    (package / "configs/data/mine.yaml").write_text("# My data\nname: mine\nsize: 3\n")
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(registry, "_plugins", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    recorder = stand_in()
    try:
        assert main(["train", "data=mine"]) == 2
        assert main(["train", "--plugin", "my_plugin", "data=mine"]) == 0
        assert own_keys(recorder.config["data"]) == {"name": "mine", "size": 3}
        assert recorder.options.plugins == ("my_plugin",)
    finally:
        sys.modules.pop("my_plugin", None)


def test_a_plugin_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--plugin", "no_such_module"]) == 2
    assert "no_such_module" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "code", "hint"),
    [
        ("lost", None, "name a module that Python can import"),
        ("lost.py", None, "leave out .py and the folder: --plugin lost,"),
        ("some/where/lost.py", None, "leave out .py and the folder: --plugin lost,"),
        ("slip", "x = 1\ndef f(:\n", "its own code fails: HERE/slip.py, line 2"),
        ("needy", "import os\n\nimport no_such_module\n", "its own code fails: HERE/needy.py, line 3"),
        ("deep", "import json\njson.loads('x')\n", "its own code fails: HERE/deep.py, line 2"),
    ],
)
def test_a_plugin_that_cannot_be_imported_comes_with_a_hint(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    word: str,
    code: str | None,
    hint: str,
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    if code is not None:
        (tmp_path / f"{word}.py").write_text(code)
    assert main(["train", "--plugin", word]) == 2
    assert hint.replace("HERE", str(tmp_path)) in capsys.readouterr().err


def test_a_component_without_its_configuration_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from aigc_cli import registry

    monkeypatch.setattr(registry, "_components", dict(registry._components))
    registry.register("model", "my_flow")(object)
    assert main(["train", "model=my_flow"]) == 2
    assert "model my_flow is registered, but there is no configs/model/my_flow.yaml" in capsys.readouterr().err
    assert main(["train", "model=my_flaw"]) == 2
    assert "there is no model named 'my_flaw'" in capsys.readouterr().err
