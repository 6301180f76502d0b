from typing import Annotated, Any

import pytest
from pydantic import AliasChoices, Field
from pydantic.dataclasses import dataclass
from toy import Toy, ToyControls

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import DataSpec
from aigc_cli.models.base import Model, NoControls
from aigc_cli.models.gan.gan import GAN
from aigc_cli.models.latent import LatentModel
from aigc_cli.runs import Run
from aigc_cli.sampling.controls import check_controls, named_values, usual_controls
from aigc_cli.sampling.modes import modes_of

SPEC = DataSpec("image", (1, 8, 8), tuple("0123456789"))


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Controls:
    class_: Annotated[int | None, Field(alias="class", validation_alias=AliasChoices("class", "class_"))] = None
    prompt: str = ""
    mode: str | None = None


def test_controls_named_by_python_keywords(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GAN, "controls", Controls)
    checked = check_controls(tiny_run, {"class": 3, "prompt": "To be, or not"})
    assert vars(checked) == {"class_": 3, "prompt": "To be, or not", "mode": "sample"}
    assert named_values(checked) == {"class": 3, "prompt": "To be, or not", "mode": "sample"}
    for word in ("clas", "class_"):
        with pytest.raises(ConfigError, match=f"{word}: neither") as caught:
            check_controls(tiny_run, {word: 3})
        assert "class" in caught.value.hint
    with pytest.raises(ConfigError, match="mode=bottom"):
        check_controls(tiny_run, {"mode": "bottom"})
    monkeypatch.setattr(GAN, "controls", NoControls)
    assert named_values(check_controls(tiny_run, {})) == {}


@pytest.mark.parametrize(("command", "key"), [("sample", "overwrite"), ("eval", "held_out")])
def test_a_misspelt_key_of_the_command_is_told_from_a_control(tiny_run: Run, command: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"neither a key of {command} nor a control of model=gan") as caught:
        check_controls(tiny_run, {f"{key}x": 1}, command)
    assert caught.value.hint == f"did you mean {key}?"


@pytest.mark.parametrize("command", ["sample", "eval"])
def test_a_word_of_another_model_is_not_taken_for_a_misspelt_one(
    tiny_run: Run, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="model=gan takes no prompt") as caught:
        check_controls(tiny_run, {"prompt": "the ", "class": "7"}, command)
    assert caught.value.hint == "leave that out; its controls are class, frames, mode, truncation"
    with pytest.raises(ConfigError, match="model=gan takes no top_k and no prompt"):
        check_controls(tiny_run, {"top_k": 3, "prompt": "the "}, command)
    monkeypatch.setattr(GAN, "controls", NoControls)
    with pytest.raises(ConfigError, match="model=gan takes no prompt") as caught:
        check_controls(tiny_run, {"prompt": "the "}, command)
    assert caught.value.hint == "leave that out; it has no controls"


SPOKEN = tuple(f"{digit}-{speaker}" for digit in ("one", "two") for speaker in ("theo", "lucas"))


@pytest.fixture
def spoken_run(tiny_run: Run) -> Run:
    """A run whose classes are combinations, of which one has no training item."""
    attributes = (("digit", ("one", "one", "two", "two")), ("speaker", ("theo", "lucas") * 2))
    spec = DataSpec("image", (1, 8, 8), SPOKEN, untrained=("two-lucas",), attributes=attributes)
    config = tiny_run.config | {"model": {**tiny_run.config["model"], "conditional": True}}
    tiny_run.save_config(config, spec)
    return Run(tiny_run.path)


@pytest.mark.parametrize(
    ("words", "classes"),
    [
        ({"class": "one", "speaker": "theo"}, "one-theo"),
        ({"speaker": "theo"}, "one-theo,two-theo"),
        ({"digit": "two"}, "two-theo"),
        ({"class": "two, one"}, "two-theo,one-theo,one-lucas"),
        ({"class": "two-theo,one-theo"}, "two-theo,one-theo"),
        ({"digit": "one", "speaker": "lucas,theo"}, "one-lucas,one-theo"),
        ({"speaker": None}, None),
    ],
    ids=str,
)
def test_classes_that_are_combinations_are_asked_for_by_their_parts(
    spoken_run: Run, words: dict[str, Any], classes: str | None
) -> None:
    assert check_controls(spoken_run, words).class_ == classes


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ({"speaker": "teo"}, "speaker=teo: this run knows no such speaker", "did you mean theo?"),
        ({"class": "7"}, "class=7: the data has no such class", "choose from: lucas, one, "),
        ({"digit": "two", "speaker": "lucas"}, "no training item is digit=two and speaker=lucas", "choose from: one-t"),
        ({"speakr": "theo"}, "speakr: neither a key", "did you mean speaker?"),
    ],
    ids=str,
)
def test_parts_of_classes_that_are_not_there(spoken_run: Run, words: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_controls(spoken_run, words)
    assert hint in caught.value.hint


def test_a_part_of_classes_that_a_run_was_not_told_is_named_with_what_tells_it(spoken_run: Run) -> None:
    config = spoken_run.config
    spoken_run.save_config(config | {"model": {**config["model"], "conditional": False}}, spoken_run.spec)
    with pytest.raises(ConfigError, match="speaker=: this model was trained without classes"):
        check_controls(Run(spoken_run.path), {"speaker": "theo"})
    spoken_run.save_config(config | {"data": {"name": "fsdd", "label": "digit"}}, DataSpec("image", (1, 8, 8)))
    with pytest.raises(ConfigError, match="speaker=: this run knows no speakers") as caught:
        check_controls(Run(spoken_run.path), {"speaker": "theo"})
    assert caught.value.hint == "train with data.label=digit_speaker and model.conditional=true"
    own = {"name": "audio_folder", "label_column": "digit"}
    spoken_run.save_config(config | {"data": own}, DataSpec("image", (1, 8, 8)))
    with pytest.raises(ConfigError) as caught:
        check_controls(Run(spoken_run.path), {"speaker": "theo"})
    assert "data.label_column=digit,speaker" in caught.value.hint


def test_the_mode_is_the_models_usual_one(monkeypatch: pytest.MonkeyPatch, tiny_run: Run) -> None:
    monkeypatch.setattr(GAN, "controls", ToyControls)
    monkeypatch.setattr(GAN, "can", frozenset({"encode", "decode"}))
    assert check_controls(tiny_run, {}).mode == "reconstruct"
    with pytest.raises(ConfigError, match="mode=sample: model=gan has no such mode") as caught:
        check_controls(tiny_run, {"mode": "sample"})
    assert caught.value.hint == "choose from: reconstruct"


def test_modes_of_models() -> None:
    class Scorer(Model):
        layouts = frozenset({"map"})

    class Plain(Scorer):
        can = frozenset({"sample"})

        def sample(self, noise: Any, controls: Any, prompts: Any = None) -> Any: ...

    assert modes_of(Scorer) == ()
    assert modes_of(Plain(SPEC)) == ("sample",)
    assert modes_of(LatentModel) == ("sample", "interpolate", "traverse")
    assert usual_controls(Plain(SPEC)) == NoControls()


def test_usual_controls_name_their_mode() -> None:
    class Coder(Toy):
        can = frozenset({"encode", "decode"})

        def __init__(self) -> None:
            Model.__init__(self, SPEC)

    assert usual_controls(Coder()) == ToyControls(mode="reconstruct")
    assert usual_controls(Coder(), "interpolate") == ToyControls(mode="interpolate")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("class=7", "7"),
        ("class=cat,dog", "cat,dog"),
        ("class=[a]", "[a]"),
        ("class='a b'", "a b"),
        ("class=null", None),
    ],
)
@pytest.mark.parametrize("command", ["sample", "eval"])
def test_classes_are_text_without_quotes(command: str, word: str, value: str | None) -> None:
    assert compose(command, [word])["controls"] == {"class": value}


def test_the_controls_of_eval_are_those_of_sample() -> None:
    config = compose("eval", ["truncation=0.5", "prior=gmm", "n=3", "metric=fd,kid", "data.root=a b"])
    assert config["controls"] == {"truncation": 0.5, "prior": "gmm"}
    assert (config["n"], list(config["metric"]), config["data"]["root"]) == (3, ["fd", "kid"], "a b")
