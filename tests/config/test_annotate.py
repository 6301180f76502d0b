"""What ``--cfg job`` prints is the composed configuration, and says what each key means."""

import math
from typing import Any

import pytest
import yaml

from aigc_cli.cli import main
from aigc_cli.config.annotate import annotated
from aigc_cli.config.compose import compose
from aigc_cli.config.folders import Key, options


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*words, "--cfg", "job"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [["train", f"model={name}"] for name in options("model")]
    + [["train", "model=vae", "data=text", "data.root='a # b'"], ["sample", "prompt=a: b # c"]]
    + [["eval", f"metric={','.join(options('metric'))}"], ["embed", "input=x"]],
    ids=" ".join,
)
def test_it_loads_to_the_same_mapping_in_the_same_order(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found, wanted = yaml.safe_load(printed(words, capsys)), compose(words[0], words[1:])
    assert found == wanted
    assert list(found) == list(wanted)


def test_each_key_has_its_comment_and_the_composed_value(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(["train", "model=gan", "data=digits", "model.width=24", "model.loss=hinge"], capsys).splitlines()
    assert "seed: 0  # the seed of every random number" in lines
    assert "  width: 24  # channels at the image's size (dcgan: at half of it), doubled at each halving" in lines
    assert any(line.startswith("  loss: hinge  # minimax (the saturating original") for line in lines)
    assert "run_dir: null  # FOLDER: the run's own directory; null is <outputs>/<model>-<data>/<date and time>" in lines
    assert "  generator:  # for a model of several networks: its generator's own settings" in lines
    without = [line for line in lines if line.rstrip().endswith(":") is False and "#" not in line]
    assert len(without) < 12, without


def test_the_metrics_that_are_chosen_have_their_comments_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert "    subsets: 100  # random subsets that the score is averaged over" in printed(
        ["eval", "metric=kd"], capsys
    )


def test_any_value_comes_back() -> None:
    values: dict[str, Any] = {
        "texts": [
            "# no comment",
            "a: b",
            "two\nlines\n\n",
            "",
            " ",
            "null",
            "1",
            "~",
            "ä 漢 😀",
            "'\"",
            "\\",
            "x" * 300,
        ],
        "section": {"off": "on", "1": 2, "empty": {}, "list": [{"a": [1, {"b": None}]}]},
        "numbers": [1e-8, 2.0, -3, math.inf, True],
        **{f"text{number}": text for number, text in enumerate(["# x", "a\nb", "- a", "\t", "\x07", "2026-01-01"])},
    }
    keys = {name: Key(name, "", "TEXT", "what it is; " * 30) for name in [*values, "section.list"]}
    text = annotated(values, keys)
    assert yaml.safe_load(text) == values
    assert max(len(line) for line in text.splitlines() if line.lstrip().startswith("#")) <= 120
