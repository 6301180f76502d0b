"""What comes later wins, words are checked before they are applied, and nothing composed can name code."""

import json
from pathlib import Path

import pytest

from aigc_cli.config.compose import compose, compose_raw, recipes
from aigc_cli.config.folders import config_folders, header, options, packaged_configs
from aigc_cli.errors import ConfigError


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
    head = "# @package _global_\n# when: model=mine\n# Mine: on anything\n"
    write(
        user / "configs/recipe/mine.yaml", f"{head}model: {{b: recipe, c: recipe, d: recipe}}\noptimizer: {{lr: 0.5}}\n"
    )
    experiment = "defaults:\n  - override /model: mine\nseed: 7\nmodel: {c: experiment, d: experiment}\n"
    write(user / "configs/experiment/trial.yaml", f"# @package _global_\n{experiment}")
    config = compose("train", ["experiment=trial", "model.d=word"])
    own = {key: value for key, value in config["model"].items() if not key.startswith("init_")}
    assert own == {"name": "mine", "a": "model", "b": "recipe", "c": "experiment", "d": "word"}
    assert config["seed"] == 7
    assert config["optimizer"]["lr"] == 0.5
    assert compose("train", ["model=mine", "optimizer=sgd"])["optimizer"]["lr"] == 0.01
    assert compose("train", ["model=mine", "recipe=null"])["model"]["b"] == "model"


def test_folders_in_order_of_precedence(user: Path) -> None:
    assert config_folders() == [packaged_configs().resolve()]
    write(user / "home/aigc/model/gan.yaml", "# Home\nname: gan\nfrom: home\n")
    write(user / "configs/data/digits.yaml", "# Here\nname: digits\nfrom: here\n")
    config = compose("train", ["recipe=null"])
    assert config["model"]["from"] == "home"
    assert config["data"]["from"] == "here"
    write(user / "configs/model/gan.yaml", "# Here\nname: gan\nfrom: here\n")
    assert compose("train", ["recipe=null"])["model"]["from"] == "here"
    assert header(options("model")["gan"]) == ["Here"]


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
        ["hydra/sweeper=optuna", "+hydra.sweeper._target_=os.system"],
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
    if launcher.endswith("joblib"):
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    assert compose("train", [launcher])


def test_a_value_that_cannot_be_resolved() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        compose("train", ["seed=${nowhere}"])


def test_a_top_level_key_that_means_nothing() -> None:
    with pytest.raises(ConfigError, match="there is no key sede"):
        compose("train", ["+sede=3"])


def test_recipes_are_the_files_that_nobody_named() -> None:
    for words, files in (
        (["model=vae"], ["VAE on digits, from recipe/vae_digits.yaml"]),
        (["model=vae", "optimizer=sgd"], ["VAE on digits, from recipe/vae_digits.yaml"]),
        (["model=dcgan", "recipe=dcgan_paper"], ["DCGAN as in its paper, from recipe/dcgan_paper.yaml"]),
        (["experiment=debug", "recipe=null"], ["The smallest run that does everything, from experiment/debug.yaml"]),
        (
            ["experiment=hvae_cifar10"],
            ["Hierarchical VAE on CIFAR-10 in about forty minutes on one large GPU, from experiment/hvae_cifar10.yaml"],
        ),
    ):
        assert recipes(words) == tuple(files)


# a model's name stands for the variant of it that serves the data


def model(*words: str) -> str:
    name: str = compose("train", list(words))["model"]["name"]
    return name


@pytest.mark.parametrize("data", ["text", "pydocs", "multi30k"])
def test_vae_on_text_is_its_variant(data: str) -> None:
    assert model("model=vae", f"data={data}") == "vae_text"
    assert model(f"data={data}", "model=vae_text") == "vae_text"


@pytest.mark.parametrize(
    "words", [(), ("model=vae",), ("model=vae", "data=cifar10"), ("model=transformer", "data=text")]
)
def test_every_other_choice_stands_for_itself(words: tuple[str, ...]) -> None:
    expected = next((word.removeprefix("model=") for word in words if word.startswith("model=")), "gan")
    assert model(*words) == expected


def test_the_words_go_on_as_for_any_model() -> None:
    config = compose("train", ["model.word_dropout=0.5", "model=vae", "data=text", "seed=3"])
    assert (config["model"]["word_dropout"], config["seed"]) == (0.5, 3)


def test_the_recorded_words_are_those_that_were_typed() -> None:
    words = ["model=vae", "data=text", "seed=3"]
    assert list(compose_raw("train", words).hydra.overrides.task) == words


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["model=vae", "data=text", "model.latent_side=4"], "there is no key model.latent_side", "model.latent"),
        (["model=vae", "data=text", "model.likelihood=logistic"], "there is no key model.likelihood", "free_bits"),
        (["model=vae", "data=digits", "model.word_dropout=0.1"], "there is no key model.word_dropout", "model.width"),
        (["model=va", "data=text"], "there is no model named 'va'", "vae"),
        (["model=vae", "data=txt"], "there is no data named 'txt'", "text"),
        (["model=[vae]", "data=text"], "", ""),
    ],
)
def test_errors_are_of_the_variant(words: list[str], message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose("train", words)
    assert message in error.value.message
    assert hint in error.value.hint


def test_a_variant_within_an_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "configs" / "experiment"
    folder.mkdir(parents=True)
    lines = "# @package _global_\n# Mine\ndefaults:\n  - override /model: vae\n  - override /data: text\n"
    (folder / "mine.yaml").write_text(f"{lines}model:\n  word_dropout: 0.7\n")
    monkeypatch.chdir(tmp_path)
    config = compose("train", ["experiment=mine"])
    assert (config["model"]["name"], config["model"]["word_dropout"]) == ("vae_text", 0.7)


def test_a_variant_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "configs" / "model"
    folder.mkdir(parents=True)
    (folder / "gan_text.yaml").write_text("# Mine\nname: gan_text\nown: 1\n")
    monkeypatch.chdir(tmp_path)
    model = compose("train", ["model=gan", "data=text"])["model"]
    assert (model["name"], model["own"]) == ("gan_text", 1)
