"""Recipes are chosen by what is known before training, and only as much is found out as their conditions need."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aigc_cli.config.compose import compose, recipes
from aigc_cli.config.recipes import Condition, Facts, conditions_of, matching
from aigc_cli.errors import ConfigError

HEAD = "# @package _global_\n# when: {}\n# {}: a test\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Adds a recipe to the folder of a user who stands in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    folder = tmp_path / "configs/recipe"
    folder.mkdir(parents=True)

    def add(name: str, when: str, values: str) -> Path:
        path = folder / f"{name}.yaml"
        path.write_text(HEAD.format(when, name.capitalize()) + values + "\n")
        return path

    return add


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    for number in range(10):
        path = tmp_path / f"own/{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(path)
    return ["model=vae", "data=image_folder", "data.root=own", "data.size=8", "data.channels=1", "trainer.device=cpu"]


@pytest.mark.parametrize(
    ("sign", "value", "known", "holds"),
    [
        ("<=", "32", 32, True), ("<", "32", 32, False), (">", "32", 64, True), (">=", "32", 16, False),
        ("=", "1", 1, True), ("=", "image|text", "text", True), ("!=", "han", "latin", True),
        ("=", "1", None, False), ("!=", "1", None, False), ("<", "1", None, False),
    ],
)  # fmt: skip
def test_a_condition(sign: str, value: str, known: Any, holds: bool) -> None:
    assert Condition("fact", sign, value).holds(known) is holds


def test_recipes_with_more_conditions_come_later_and_typed_words_win(write: Any, pictures: list[str]) -> None:
    write("narrow", "model=vae modality=image items<9 classes=2 side<=8", "trainer: {steps: 3, keep: 9}")
    write("wide", "model=vae modality=image items>0", "trainer: {steps: 2, log_every: 7}")
    write("other", "model=vae items>=9", "trainer: {steps: 1}")
    trainer = compose("train", [*pictures, "trainer.keep=4"])["trainer"]
    assert (trainer["steps"], trainer["log_every"], trainer["keep"]) == (3, 7, 4)
    assert [line for line in recipes(pictures) if "Narrow" in line or "Wide" in line] == [
        "Wide, from recipe/wide.yaml", "Narrow, from recipe/narrow.yaml"
    ]  # fmt: skip
    assert compose("train", [*pictures, "recipe=null"])["trainer"]["steps"] == 5000
    assert compose("train", [*pictures, "recipe=other"])["trainer"]["steps"] == 1


def test_the_recipe_of_a_dataset_replaces_those_of_its_kind(write: Any) -> None:
    write("kind", "model=vae modality=image", "trainer: {keep: 7}")
    write("paper", "model=vae", "trainer: {log_every: 7}")
    trainer = compose("train", ["model=vae"])["trainer"]
    assert (trainer["keep"], trainer["log_every"], trainer["steps"]) == (2, 7, 6000)
    assert compose("train", ["model=vae", "data=mnist"])["trainer"]["keep"] == 7


def test_latents_of_pictures_have_a_recipe_of_their_own() -> None:
    words = ["model=flow", "data=cifar10", "trainer.device=cpu"]
    assert recipes(words)[-1].endswith("from recipe/flow_pictures.yaml")
    (line,) = recipes([*words, "data.latents=latest"])
    assert line.endswith("from recipe/flow_latents.yaml")


def test_recipes_of_ones_own_come_after_ours(write: Any) -> None:
    write("mine", "model=vae", "trainer: {steps: 3}")
    assert compose("train", ["model=vae"])["trainer"]["steps"] == 3


def test_another_optimizer_keeps_its_own_defaults(write: Any, pictures: list[str]) -> None:
    values = "defaults:\n  - override /optimizer: adamw\noptimizer: {lr: 0.5}"
    write("mine", "model=vae modality=image items<=10 side<=8 channels=1", values)
    assert compose("train", pictures)["optimizer"]["lr"] == 0.5
    assert compose("train", pictures)["optimizer"]["name"] == "adamw"
    assert compose("train", [*pictures, "optimizer=sgd"])["optimizer"]["lr"] == 0.01
    assert compose("train", [*pictures, "optimizer.lr=0.25"])["optimizer"]["lr"] == 0.25


@pytest.mark.parametrize(
    ("words", "kept"),
    [(["model=seq2seq", "data=text"], "context"), (["model=transformer", "data=pairs"], "batch_tokens")],
)
def test_keys_of_other_data_in_a_recipe_have_no_effect(write: Any, words: list[str], kept: str) -> None:
    write("mine", "items<1", "data: {batch_tokens: 32, context: 32, misspelt: 1}")
    section = compose("train", [*words, "recipe=mine"])["data"]
    assert {"batch_tokens", "context"} & set(section) == {kept}
    assert (section[kept], section["misspelt"]) == (32, 1)


def test_nothing_is_looked_at_that_no_condition_asks_for(write: Any) -> None:
    write("mine", "model=vae items>0", "trainer: {keep: 7}")

    def look() -> dict[str, Any]:
        raise AssertionError("looked")

    matching(Facts({"model": "gan", "modality": "image", "side": 8, "channels": 1, "data": "digits"}, look, look))


def test_data_that_cannot_be_read_leaves_the_word_to_whoever_opens_it(write: Any, pictures: list[str]) -> None:
    write("mine", "model=vae items>0", "trainer: {keep: 7}")
    assert compose("train", [*pictures, "data.root=nowhere"])["trainer"]["keep"] == 2


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ("sise<=3", "size?|side"),
        ("side", "side<=32"),
        ("side~3", "cannot"),
        ("side<x", "numbers"),
        ("model<3", "numbers"),
    ],
)
def test_a_condition_that_cannot_be_read(write: Any, when: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        conditions_of(write("mine", when, ""))
    assert any(word in f"{caught.value.message} {caught.value.hint}" for word in says.split("|"))


def test_facts_of_own_text(write: Any, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("春眠不觉晓 处处闻啼鸟\n" * 100, encoding="utf-8")
    write("han", "model=transformer script=han line<20 characters>900 characters<1200", "trainer: {keep: 7}")
    words = ["model=transformer", "data=text", "data.root=own.txt"]
    assert compose("train", words)["trainer"]["keep"] == 7


def test_facts_of_own_pairs(write: Any, tmp_path: Path) -> None:
    (tmp_path / "own.tsv").write_text("en\tde\n" + "one\teins\n" * 100, encoding="utf-8")
    write("mine", "model=seq2seq items>80 items<100", "trainer: {keep: 7}")
    words = ["model=seq2seq", "data=pairs", "data.root=own.tsv", "data.source=en", "data.target=de"]
    assert compose("train", words)["trainer"]["keep"] == 7


def test_facts_of_own_parquet(write: Any, tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"image": [b""] * 100}), tmp_path / "own.parquet")
    write("mine", "model=gan items>70 items<100", "trainer: {keep: 7}")
    assert compose("train", ["model=gan", "data=parquet", "data.root=own.parquet"])["trainer"]["keep"] == 7
