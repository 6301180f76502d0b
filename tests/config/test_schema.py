"""A configuration is checked with all its problems at once, saved, and read back without trust."""

import json
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import STRICT, check, identity, load_yaml, save_yaml
from aigc_cli.errors import ConfigError, DataError


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Inner:
    lr: Annotated[float, Field(gt=0)] | None


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Example:
    name: Literal["example"]
    loss: Literal["hinge", "wgan"]
    step: Annotated[int, Field(ge=0)] | Literal["best"]
    sizes: tuple[int, int]
    inner: Inner

    @model_validator(mode="after")
    def _agree(self) -> "Example":
        if self.loss == "wgan" and self.inner.lr is None:
            raise ValueError("loss=wgan needs inner.lr")
        return self


GOOD = {"name": "example", "loss": "hinge", "step": 3, "sizes": [1, 2], "inner": {"lr": None}}


def problem(**changes: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check("part", Example, {**GOOD, **changes})
    return caught.value


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_check_builds_the_dataclass() -> None:
    assert check("part", Example, GOOD) == Example(
        name="example", loss="hinge", step=3, sizes=(1, 2), inner=Inner(lr=None)
    )
    assert check("part", Example, {**GOOD, "step": "best"}).step == "best"


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"lost": 1}, "there is no key part.lost", "did you mean loss?"),
        ({"inner": {"lr": 1.0, "lrr": 2}}, "there is no key part.inner.lrr", "did you mean lr?"),
        ({"loss": "hing"}, "part.loss=hing is not a choice", "did you mean hinge?"),
        ({"step": "bst"}, "part.step=bst is not allowed", "part.step must be a whole number or best"),
        ({"step": True}, "part.step=true is not allowed", "part.step must be a whole number or best"),
        ({"step": 2.5}, "part.step=2.5 is not allowed", "part.step must be a whole number or best"),
        ({"inner": {"lr": -1}}, "part.inner.lr=-1 is not allowed", "part.inner.lr must be greater than 0"),
        ({"inner": {"lr": "1"}}, "part.inner.lr=1 is not allowed", "part.inner.lr must be a number"),
        ({"inner": {"lr": float("nan")}}, "part.inner.lr=NaN is not allowed", "must be a finite number"),
        ({"inner": {"lr": float("inf")}}, "part.inner.lr=Infinity is not allowed", "must be a finite number"),
        ({"inner": 3}, "part.inner=3: part.inner is a section, not a value", "part.inner.lr="),
        ({"sizes": [1]}, "part.sizes has too few values", "part.sizes=[a,b]"),
        ({"sizes": [1, "x"]}, "part.sizes.1=x is not allowed", "a whole number"),
        ({"loss": "wgan"}, "part: loss=wgan needs inner.lr", ""),
    ],
    ids=str,
)
def test_check_says_what_is_wrong_and_what_is_right(changes: dict[str, object], message: str, hint: str) -> None:
    error = problem(**changes)
    assert error.message == message
    assert hint in error.hint
    assert len(str(error).splitlines()) <= 2


def test_check_names_every_problem_at_once() -> None:
    error = problem(loss="hing", step=-1, lost=2)
    for words in ("part.loss=hing", "part.step=-1", "part.lost"):
        assert words in error.message


def test_check_names_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"part\.name is missing; part\.loss is missing"):
        check("part", Example, {})


# saved configurations


def test_identity_is_of_what_is_computed() -> None:
    config = compose("train")
    assert identity(config) == identity({**config, "run_dir": "x", "outputs": "y"})
    assert identity(config) != identity({**config, "seed": 1})
    assert identity(config) == identity(json.loads(json.dumps(config)))


def test_saved_and_loaded_again(tmp_path: Path) -> None:
    config = compose("train", ["optimizer.lr=1e-5", "optimizer.eps=1e-8"])
    save_yaml(tmp_path / "config.yaml", config)
    assert load_yaml(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [1", "cannot be read: line"),
        ("- 1\n", "is not a configuration"),
        ("a: {b: [{_target_: os.system}]}", "names code to run, at a.b.0._target_"),
        ("a: !!python/object/apply:os.system [ls]", "cannot be read"),
        ("a: ${b}", "is not resolved"),
    ],
)
def test_a_saved_configuration_is_not_trusted(text: str, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "config.yaml", text)
    with pytest.raises(DataError) as caught:
        load_yaml(path)
    assert reason in caught.value.message
    assert str(path) in caught.value.message
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize(
    "text",
    [
        "a: 'x\nb: y'\n", "a: {x: 1,\nb: 2}\n", "a:\n- 1\n- b: 2\n  c: 3\nd: 3\n", "a: |\n  x\nb: y\n", "a: 1\na: 2\n",
        "a: 1\n# b\nc: 2\n", "a: 1\nb: 'c\n\n  d'\n", "a: 1", "on: 1\n", "a: >\n  b: c\n\nd: 1\n",
    ],
)  # fmt: skip
def test_what_is_read_by_sections_is_what_yaml_says(text: str, tmp_path: Path) -> None:
    path, expected = write(tmp_path / "config.yaml", text), yaml.safe_load(text)
    for _ in range(2):  # what was read before is not changed by who has it
        found = load_yaml(path)
        assert found == {str(key): value for key, value in expected.items()}
        for value in found.values():
            if isinstance(value, list):
                value.clear()


def test_a_saved_configuration_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_yaml(tmp_path / "config.yaml")
