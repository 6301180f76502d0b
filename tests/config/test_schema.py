import json
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from aigc_cli.config.compose import compose
from aigc_cli.config.folders import config_folders, describe, options, packaged_configs
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


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with its own home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# check


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
        ({"inner": 3}, "part.inner=3 is not a section of keys", "give its keys one by one: part.inner.lr="),
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


# composition


def test_the_default_configuration() -> None:
    config = compose("train")
    assert (config["model"]["name"], config["data"]["name"], config["optimizer"]["name"]) == ("gan", "digits", "adam")
    assert config["seed"] == 0
    assert config["run_dir"] is None
    assert config["outputs"] == "outputs"
    assert config["sweep"] == {"objective": None}
    assert "hydra" not in config
    json.dumps(config)  # plain data


def test_composing_twice_leaves_nothing_behind() -> None:
    from hydra.core.global_hydra import GlobalHydra

    assert compose("train", ["seed=3"])["seed"] == 3
    with pytest.raises(ConfigError):
        compose("train", ["sed=3"])
    assert compose("train")["seed"] == 0
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize("command", ["train", "sample", "eval"])
def test_every_command_composes(command: str) -> None:
    assert compose(command)


def test_every_option_of_every_group_composes() -> None:
    for group in ("model", "data", "optimizer", "trainer", "experiment"):
        for name in options(group):
            assert compose("train", [f"{group}={name}"])


def test_what_comes_later_wins(user: Path) -> None:
    write(user / "configs/model/mine.yaml", "# Mine\nname: mine\na: model\nb: model\nc: model\nd: model\n")
    recipe = "# @package _global_\nmodel: {b: recipe, c: recipe, d: recipe}\n"
    write(user / "configs/recipe/mine_digits.yaml", recipe)
    write(user / "configs/recipe/mine_digits_sgd.yaml", "# @package _global_\noptimizer: {momentum: 0.5}\n")
    experiment = "defaults:\n  - override /model: mine\nseed: 7\nmodel: {c: experiment, d: experiment}\n"
    write(user / "configs/experiment/trial.yaml", f"# @package _global_\n{experiment}")
    config = compose("train", ["experiment=trial", "model.d=word"])
    own = {key: value for key, value in config["model"].items() if not key.startswith("init_")}
    assert own == {"name": "mine", "a": "model", "b": "recipe", "c": "experiment", "d": "word"}
    assert config["seed"] == 7
    assert "momentum" not in config["optimizer"]
    assert compose("train", ["model=mine", "optimizer=sgd"])["optimizer"]["momentum"] == 0.5
    assert compose("train", ["model=mine", "~recipe"])["model"]["b"] == "model"


def test_folders_in_order_of_precedence(user: Path) -> None:
    assert config_folders() == [packaged_configs().resolve()]
    write(user / "home/aigc/model/gan.yaml", "# Home\nname: gan\nfrom: home\n")
    write(user / "configs/data/digits.yaml", "# Here\nname: digits\nfrom: here\n")
    config = compose("train", ["~recipe"])
    assert config["model"]["from"] == "home"
    assert config["data"]["from"] == "here"
    write(user / "configs/model/gan.yaml", "# Here\nname: gan\nfrom: here\n")
    assert compose("train", ["~recipe"])["model"]["from"] == "here"
    assert describe(options("model")["gan"]) == "Here"


def test_another_programs_train_yaml_is_left_alone(user: Path) -> None:
    write(user / "configs/train.yaml", "_target_: os.system\n")
    assert compose("train")["model"]["name"] == "gan"


def test_an_experiment_that_forgets_its_package_is_refused(user: Path) -> None:
    write(user / "configs/experiment/lost.yaml", "# Lost\nseed: 3\n")
    with pytest.raises(ConfigError, match="@package _global_"):
        compose("train", ["experiment=lost"])


def test_a_broken_yaml_is_named_with_its_line(user: Path) -> None:
    write(user / "configs/model/broken.yaml", "name: [x\na: b: c\n")
    with pytest.raises(ConfigError, match=r"configs/model/broken\.yaml cannot be read: line 2"):
        compose("train", ["model=broken"])


@pytest.mark.parametrize(
    ("content", "says"), [(b"true", "not a mapping"), (b"[1, 2]", "not a mapping"), (b"\xff", "0xff")]
)
def test_a_yaml_that_is_no_mapping_is_named(user: Path, content: bytes, says: str) -> None:
    write(user / "configs/model/broken.yaml", "")
    (user / "configs/model/broken.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"configs/model/broken\.yaml cannot be read: .*{says}"):
        compose("train", ["model=broken"])


def test_an_experiment_that_names_nothing_there_is(user: Path) -> None:
    write(user / "configs/experiment/off.yaml", "# @package _global_\ndefaults:\n  - override /model: gann\n")
    with pytest.raises(ConfigError, match=r"model=gann, which does not exist\n  did you mean gan"):
        compose("train", ["experiment=off"])


@pytest.mark.parametrize(
    "words",
    [
        ["+model._target_=os.system"],
        ["+model.deep={a:[{_target_:os.system}]}"],
        ["+hydra.callbacks.mine._target_=os.system"],
        ["hydra.launcher._target_=os.system"],
        ["hydra.sweeper._target_=subprocess.run"],
        ["+hydra.job_logging.handlers.mine.class=os.system", "hydra.job_logging.root={handlers:[mine]}"],
        ["+hydra.hydra_logging.handlers.mine={'()':os.system}"],
        ["hydra/sweeper=optuna", "+hydra.sweeper.sampler.independent_sampler._target_=os.system"],
        ["hydra/sweeper=optuna", "hydra.sweeper.sampler._target_=os.system"],
        ["hydra/sweeper=optuna", "hydra.sweeper.sampler._target_=optuna.samplers._base.os.system"],
        ["hydra/sweeper=optuna", "hydra.sweeper.custom_search_space=os.system"],
    ],
    ids=str,
)
def test_a_configuration_cannot_name_code(words: list[str]) -> None:
    with pytest.raises(ConfigError):
        compose("train", words)


def test_a_users_file_cannot_name_code(user: Path) -> None:
    write(user / "configs/model/evil.yaml", "# Evil\nname: gan\nextra:\n  _target_: os.system\n")
    with pytest.raises(ConfigError, match=r"model\.extra\._target_=os\.system"):
        compose("train", ["model=evil"])
    write(
        user / "configs/experiment/evil.yaml", "# @package _global_\nhydra:\n  callbacks: {a: {_target_: os.system}}\n"
    )
    with pytest.raises(ConfigError, match=r"hydra\.callbacks"):
        compose("train", ["experiment=evil"])


@pytest.mark.parametrize("launcher", ["hydra/launcher=joblib", "hydra/sweeper=optuna"])
def test_hydras_own_plugins_are_allowed(launcher: str) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('=')[2]}_{launcher.split('/')[1].split('=')[0]}")
    assert compose("train", [launcher])


def test_a_value_that_cannot_be_resolved() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        compose("train", ["seed=${nowhere}"])


def test_a_top_level_key_that_means_nothing() -> None:
    with pytest.raises(ConfigError, match="there is no key sede"):
        compose("train", ["+sede=3"])


# values that Hydra's grammar would choke on


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
        ("- 1\n", "holds no configuration"),
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


def test_a_saved_configuration_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_yaml(tmp_path / "config.yaml")
