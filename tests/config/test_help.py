"""The help is made from the comments of the YAML files, and leaves none of their keys out."""

import re
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from aigc_cli.cli import main
from aigc_cli.config.folders import choices_of, keys_of, options, packaged_configs
from aigc_cli.config.help import help_text
from aigc_cli.config.words import COMMANDS
from aigc_cli.errors import ConfigError
from aigc_cli.registry import find

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


@pytest.mark.parametrize("command", ["train", "sample", "eval", "embed", "data", "serve"])
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


# a key, a section, a group


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "train --help model.loss",
            ["model.loss=non_saturating", "minimax the saturating original", "non_saturating (default) the usual form"],
        ),
        ("help train model.loss", ["model.loss=non_saturating", "hinge margins of 1"]),
        ("train --help model.loss=hinge", ["model.loss=non_saturating", "hinge margins of 1"]),
        ("train model=vae --help model.network", ["model.network=auto", "conv convolutions", "auto (default) conv"]),
        ("train --help model=wgan_gp model.loss", ["model.loss=wgan", "wgan (default)"]),
        ("train --help optimizer", ["optimizer=adam", "rmsprop RMSprop", "optimizer.lr=2e-4 the learning rate"]),
        ("train --help optimizer=sgd optimizer", ["adam (default)", "optimizer.momentum=0.9"]),
        ("train --help optimizer.generator", ["optimizer.generator.lr= null is lr above"]),
        ("train --help model", ["model=gan", "vqvae Vector", "model.init_from=RUN", "model.lecam="]),
        ("train model=transformer --help data", ["data=pydocs", "data.tokenizer.kind=bpe"]),
        ("train model=vae data=text --help model.word_dropout", ["model.word_dropout="]),
        ("train --help trainer.prec", ["trainer.precision=auto", "bf16"]),
        ("train --help lr", ["optimizer.lr=2e-4", "optimizer.discriminator.lr="]),
        ("train --help seed trainer.keep", ["seed=0", "trainer.keep=2"]),
        (
            "train --help model.latent_side",
            ["model.latent_side=auto", "a key of model=autoencoder, model=vae; not of model=gan"],
        ),
        ("train --help experiment", ["experiment=NAME", "debug The smallest run"]),
        ("eval --help split", ["split=train", "the reference", "val", "test"]),
        ("eval --help metric=kd metric.kd.subsets", ["metric.kd.subsets=100"]),
        ("sample --help mode", ["mode=interpolate 8 rows"]),
        ("embed --help device", ["device=auto"]),
    ],
)
def test_help_of_a_key_or_a_section(line: str, says: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 0
    out, err = capsys.readouterr()
    text = " ".join(out.split())
    assert not err
    assert not text.startswith("aigc train: ")  # not the help of the whole command
    for words in says:
        assert words in text


@pytest.mark.parametrize(
    ("topic", "hint"),
    [
        ("modle.loss", "did you mean model.loss?"),
        ("optimiser", "did you mean optimizer?"),
        ("zzz", "`aigc train --help`"),
    ],
)
def test_a_key_that_there_is_not_gets_the_nearest(topic: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help", topic]) == 2
    assert f"aigc train has no key {topic}\n  {hint}" in capsys.readouterr().err


def test_the_overview_says_where_keys_and_choices_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "aigc train --help KEY" in out
    assert "optimizers, networks, losses, schedules, experiments, recipes" in out


@pytest.mark.parametrize(
    ("comment", "names", "rest"),
    [
        ("a | b | c", ["a", "b", "c"], ""),
        ("of the rate: a | b (why: so) | c; never d", ["a", "b", "c"], "of the rate; never d"),
        ("a: the first one | b: two, three", ["a", "b"], ""),
        ("a (x) | b, or one of your own", ["a", "b"], "or one of your own"),
        ("channels at most", [], "channels at most"),
        ("r1: weight | of something else entirely", [], "r1: weight | of something else entirely"),
    ],
)
def test_choices_are_read_from_a_comment(comment: str, names: list[str], rest: str) -> None:
    found, said = choices_of(comment)
    assert ([choice.name for choice in found], said) == (names, rest)


def test_the_choices_that_a_comment_lists_are_those_that_the_schema_allows() -> None:
    checked = 0
    for kind in ("model", "optimizer"):
        for path in options(kind).values():
            own = keys_of(path)
            types = get_type_hints(find(kind, own["name"].value).config)
            for name, key in own.items():
                listed = [choice.name for choice in choices_of(key.comment)[0]]
                if listed and get_origin(types.get(name)) is Literal:
                    assert sorted(listed) == sorted(map(str, get_args(types[name]))), f"{kind}.{name} of {path.stem}"
                    checked += 1
    assert checked > 20
