"""Prompts, paths and names arrive as they were typed, whatever Hydra's grammar makes of them."""

import dataclasses
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest

from aigc_cli.commands.data import DataConfig
from aigc_cli.commands.embed import EmbedConfig
from aigc_cli.commands.sample import SampleConfig
from aigc_cli.commands.serve import ServeConfig
from aigc_cli.config.compose import compose
from aigc_cli.config.folders import Key, command_keys, keys_of, options
from aigc_cli.errors import ConfigError
from aigc_cli.metrics.asked import EvalConfig
from aigc_cli.registry import find, names
from aigc_cli.training.build import TrainConfig
from aigc_cli.training.settings import TrainerConfig


@pytest.mark.parametrize(
    "prompt",
    [
        "To be, or not to be",
        "It costs ${5} (or \\$4)?",
        "a=b: {c} [d # e",
        'it\'s "quoted"',
        "ends in a \\",
        "two\nlines",
        "42",
        "true",
        "choice(a,b)",
        "größe 漢字",
        "[x",
        "",
    ],
)
def test_prompts_arrive_as_typed(prompt: str) -> None:
    assert compose("sample", [f"prompt={prompt}"])["controls"] == {"prompt": prompt}


@pytest.mark.parametrize("path", ["/a b/c=d,(e)/f", "it's here", "2026", "{x}/[y]", "a,b", "C:\\x\\"])
def test_paths_arrive_as_typed(path: str) -> None:
    config = compose("sample", [f"run={path}", f"out={path}"])
    assert (config["run"], config["out"]) == (path, path)
    assert compose("train", ["data=cifar10", f"data.root={path}"])["data"]["root"] == path


def test_controls_keep_numbers_and_lists() -> None:
    words = ["temperature=0.7", "top_k=5", "class=cat,dog", "some=[1,2]", "flag=true", "none=null", "n=3"]
    config = compose("sample", words)
    expected = {"temperature": 0.7, "top_k": 5, "class": "cat,dog", "some": [1, 2], "flag": True, "none": None}
    assert config["controls"] == expected
    assert config["n"] == 3
    assert compose("sample", ["controls.temperature=0.7"])["controls"] == {"temperature": 0.7}


@pytest.mark.parametrize("word", ["metric=fid,kid", "metric=[fid,kid]"])
def test_metrics_are_a_list(word: str) -> None:
    assert list(compose("eval", [word])["metric"]) == ["fid", "kid"]


def test_words_for_a_metric_that_nobody_named_yet() -> None:
    words = ["metric.likelihood.samples=64"]
    assert compose("eval", words)["metric"]["likelihood"]["samples"] == 64
    assert list(compose("eval", words, usual=("likelihood", "distinct"))["metric"]) == ["likelihood", "distinct"]
    assert list(compose("eval", ["metric=fid"], usual=("likelihood",))["metric"]) == ["fid"]
    with pytest.raises(ConfigError, match=r"metric\.likelihood\.samples.*\n.*metric="):
        compose("eval", words, usual=("distinct",))
    with pytest.raises(ConfigError, match=r"metric\.likelihod\.samples"):
        compose("eval", ["metric.likelihod.samples=64"])


# which keys are text


def is_text(annotation: Any) -> bool:
    """Whether a type takes any text, rather than one of a few words."""
    if get_origin(annotation) in (Annotated, Union, UnionType):
        return any(map(is_text, get_args(annotation)))
    return annotation is str


def fields(schema: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """The keys of a configuration's dataclass, each with whether it is text."""
    for name, annotation in get_type_hints(schema, include_extras=True).items():
        if dataclasses.is_dataclass(annotation):
            yield from fields(annotation, f"{prefix}{name}.")
        elif not name.startswith("__") and name != "name":  # which no word sets: it comes with the choice of a file
            yield f"{prefix}{name}", is_text(annotation)


def schemas() -> Iterator[tuple[str, dict[str, Key], Any]]:
    """Every YAML file of ours with the dataclass that checks it."""
    for command, schema in (
        ("sample", SampleConfig),
        ("eval", EvalConfig),
        ("embed", EmbedConfig),
        ("serve", ServeConfig),
        ("data", DataConfig),
    ):
        yield command, command_keys(command), schema
    yield "train", command_keys("train"), TrainConfig
    yield "trainer", keys_of(options("trainer")["default"]), TrainerConfig
    for kind, name in ((each, name) for each in ("model", "data", "optimizer", "metric") for name in names(each)):
        prefix = f"{name}." if kind == "metric" else ""
        keys = {key.name.removeprefix(prefix): key for key in keys_of(options(kind)[name]).values()}
        yield f"{kind}={name}", keys, find(kind, name).config


@pytest.mark.parametrize(("where", "keys", "schema"), [pytest.param(*each, id=each[0]) for each in schemas()])
def test_a_key_is_declared_as_text_where_its_type_is(where: str, keys: dict[str, Key], schema: Any) -> None:
    shared = command_keys("train")
    for name, text in fields(schema):
        declaration = keys.get(name) or shared.get(f"{where.partition('=')[0]}.{name}")
        if declaration is not None and declaration.value != "":
            assert bool(declaration.kind) == text, f"{where}: {name}: {declaration.value}  # {declaration.comment}"


def test_controls_are_declared_as_text_where_their_type_is() -> None:
    keys = command_keys("sample")
    for model in names("model"):
        for name, text in fields(find("model", model).build.controls):  # type: ignore[attr-defined]
            declaration = keys.get(f"controls.{name.strip('_')}")
            assert bool(declaration and declaration.kind) == text, f"model={model}: {name}"


@pytest.mark.parametrize("value", ["7", "007", "1e3", "true", "a,b", "[x]", "null and void"])
def test_text_that_looks_like_something_else(value: str) -> None:
    assert compose("sample", [f"run={value}"])["run"] == value
    assert compose("train", ["data=parquet", f"data.label_column={value}"])["data"]["label_column"] == value
    assert compose("eval", [f"class={value}"])["controls"]["class"] == value


def test_a_path_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert compose("train", ["data=text", "data.root=~/words"])["data"]["root"] == "/home/ada/words"
    assert compose("sample", ["prompt=~/words"])["controls"]["prompt"] == "~/words"
