"""A model's name stands for the variant of it that serves the data, whatever chose either."""

from __future__ import annotations

from pathlib import Path

import pytest

from aigc_cli.config.compose import compose, compose_raw
from aigc_cli.errors import ConfigError


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
