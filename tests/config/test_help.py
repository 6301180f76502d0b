"""The help is made from the comments of the YAML files, and leaves none of their keys out."""

import re
from pathlib import Path

import pytest

from aigc_cli.cli import main
from aigc_cli.config.folders import options, packaged_configs
from aigc_cli.config.help import help_text
from aigc_cli.config.words import COMMANDS
from aigc_cli.errors import ConfigError

GROUPS = ("model", "data", "optimizer", "trainer", "metric")
PARTS = [(group, name) for group in GROUPS for name in options(group)]


def keys_in(path: Path, prefix: str = "") -> list[str]:
    """The keys of a YAML file that hold values, with dots; of a command's, those that hold none of a group."""
    import yaml

    def walk(node: dict[str, object], prefix: str) -> list[str]:
        inner = {key: value for key, value in node.items() if key not in ("defaults", "name")}
        found = (walk(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]
                 for key, value in inner.items())  # fmt: skip
        return [key for keys in found for key in keys]

    return walk(yaml.safe_load(path.read_text()), prefix)


def explained(text: str) -> dict[str, str]:
    """The keys that a help lists, with what it says of each."""
    text = re.sub(r"\n {20,}", " ", text)
    rows = (line.split(None, 1) for line in text.splitlines() if line.startswith("  "))
    return {row[0].partition("=")[0]: row[1] if len(row) > 1 else "" for row in rows}


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    overview = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == overview
    assert all(f"  {command} " in overview for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", command]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"aigc {command}: {COMMANDS[command]}\n")
    assert len(text.partition("examples\n")[2].strip().splitlines()) == 3
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("command", ["train", "sample", "eval", "embed", "data"])
def test_every_key_of_a_command_is_explained(command: str) -> None:
    said = explained(help_text(command))
    for key in keys_in(packaged_configs() / f"{command}.yaml"):
        assert said.get(key), f"{command}.yaml does not say what {key} means"


@pytest.mark.parametrize(("group", "name"), PARTS, ids=lambda part: part)
def test_every_key_of_a_part_is_in_the_help_that_names_it(group: str, name: str) -> None:
    said = explained(help_text("eval" if group == "metric" else "train", [(group, name)]))
    for key in keys_in(options(group)[name], f"{group}."):
        assert key in said, f"{group}/{name}.yaml has a key {key} that the help leaves out"


def test_parts_are_named_beside_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help", "model=dcgan"]) == 0
    out = capsys.readouterr().out
    assert "model.width=128" in out
    assert "model.lecam=" in out  # of the model that it builds upon
    with pytest.raises(ConfigError, match="dcgan"):
        help_text("train", [("model", "dcgn")])
