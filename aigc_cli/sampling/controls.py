"""The words that steer how a model is sampled, such as ``truncation=0.7`` or ``class=cat``: each model has its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, get_args, get_type_hints

from aigc_cli.config.folders import top_level_keys
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError, DataError, suggest
from aigc_cli.files import some_of
from aigc_cli.models.base import Model
from aigc_cli.registry import find, names
from aigc_cli.runs import Run
from aigc_cli.sampling.modes import modes_of

#: What to look at and how much of it, where the others say how to draw: scores are of all that a run makes.
_FOR_A_LOOK = {"mode", "class", "frames", "prompt", "to", "gap", "max_tokens", "region", "keep"}


def check_controls(run: Run, values: Mapping[str, Any], command: str = "sample") -> Any:
    """The controls of a run's model, typed and complete, from the words the user gave.

    A mode that is not named becomes the model's usual one. The words are those of a `command`, a misspelt key of whose
    own may be among them.

    Raises:
        ConfigError: a word is neither a control of the model nor a key of the command; a control has a wrong value; a
            mode that the model does not have.
    """
    name = run.config["model"]["name"]
    kind = model_class(name)
    schema: type = kind.controls
    known = list(_words(schema).values())
    unknown = [word for word in values if word not in known]
    attributes: list[str] = []
    with suppress(DataError):  # which is raised once words are right
        attributes = [word for word, _ in run.spec.attributes] if unknown and "class" in known else []
    if unknown := [word for word in unknown if word not in attributes]:
        # A word of other models is spelt well, and what is nearest to it here would mislead.
        of_others = {word for other in names("model") for word in _words(model_class(other).controls).values()}
        if foreign := [word for word in unknown if word in of_others]:
            takes = f"its controls are {', '.join(sorted(known))}" if known else "it has no controls"
            raise ConfigError(f"model={name} takes no {' and no '.join(foreign)}", f"leave that out; {takes}")
        more = [_of_other_labels(run, word) for word in unknown]
        choices = [*known, *attributes, *(top_level_keys(command) - {"controls"})]
        what = f"{' and '.join(unknown)}: neither a key of {command} nor a control of model={name}"
        hints = [*(suggest(word, choices, limit=20) for word in unknown), *filter(None, more)]
        raise ConfigError(what, "; ".join(dict.fromkeys(hints)))
    modes = modes_of(kind)
    if "mode" in known and values.get("mode") not in (None, *modes):
        raise ConfigError(f"mode={values['mode']}: model={name} has no such mode", suggest(str(values["mode"]), modes))
    asked = attributes or values.get("class") is not None
    return _with_usual_mode(check("", schema, _with_class(run, values) if asked else values), modes)


def _with_class(run: Run, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same words with `class` the names of all classes that attributes ask for, as ``speaker=theo`` does, or that
    `class` calls by the value of one, as ``class=seven`` does of "seven-theo"."""
    spec, attributes = run.spec, dict(run.spec.attributes)
    asked = {word: str(value) for word, value in values.items() if word in attributes and value is not None}
    others = {word: value for word, value in values.items() if word not in attributes}
    named = others.get("class")
    if not attributes or (named is None and not asked):
        return others
    if run.config["model"].get("conditional") is False:
        for word in asked:
            what = f"{word}=: this model was trained without classes"
            raise ConfigError(what, "train one with model.conditional=true")
        return others
    said = [{name, *parts} for name, *parts in zip(spec.classes, *attributes.values(), strict=True)]
    chosen = [place for place, name in enumerate(spec.classes) if name not in spec.untrained]
    if named is not None:
        names = _listed("class", str(named), list(set().union(*said)), "the data has no such class")
        if not asked and {*names} <= {*spec.classes}:
            return others
        chosen = [place for name in dict.fromkeys(names) for place in chosen if name in said[place]]
    for word, value in asked.items():
        names = _listed(word, value, attributes[word], f"this run knows no such {word}")
        chosen = [place for name in dict.fromkeys(names) for place in chosen if attributes[word][place] == name]
    if not chosen:
        told = " and ".join(f"{word}={value}" for word, value in values.items() if word in {*asked, "class"})
        known = [name for name in spec.classes if name not in spec.untrained]
        raise ConfigError(f"no training item is {told}", f"choose from: {some_of(known, 20)}")
    return {**others, "class": ",".join(spec.classes[place] for place in chosen)}


def _listed(word: str, value: str, known: Sequence[str], problem: str) -> list[str]:
    """The names in a value such as ``theo,lucas``."""
    names = [value] if value in known else [name.strip() for name in value.split(",")]
    for name in names:
        if name not in known:
            raise ConfigError(f"{word}={name}: {problem}", suggest(name, known, limit=20))
    return names


def _of_other_labels(run: Run, word: str) -> str:
    """A hint where a word may be an attribute of the data that the run was not told of; raises ConfigError where it
    surely is one."""
    data = run.config["data"]
    labels = get_args(get_type_hints(find("data", data["name"]).config).get("label"))
    if having := [label for label in labels if word in label.split("_")]:
        what = f"{word}=: this run knows no {word}s"
        raise ConfigError(what, f"train with data.label={max(having, key=len)} and model.conditional=true")
    column = data.get("label_column")
    return f"for a column of the metadata, train with data.label_column={column},{word}" if column else ""


def model_class(name: str) -> type[Model]:
    """The class behind a registered model's name."""
    kind = find("model", name).build
    assert isinstance(kind, type)
    assert issubclass(kind, Model)
    return kind


def usual_controls(model: Model, mode: str | None = None) -> Any:
    """The controls of a model as they are where nobody sets any; `mode`, if it has modes, in the usual one's place."""
    return _with_usual_mode(type(model).controls(), modes_of(model) if mode is None else (mode,))


def typed_again(run: Run, values: Mapping[str, Any]) -> list[str]:
    """The words that make another command draw as this one did, of the controls that the user gave."""
    looked_at = _FOR_A_LOOK | dict(run.spec.attributes).keys()
    return [f"{word}={value}" for word, value in values.items() if value is not None and word not in looked_at]


def _with_usual_mode(controls: Any, modes: tuple[str, ...]) -> Any:
    missing = modes and getattr(controls, "mode", modes) is None
    return dataclasses.replace(controls, mode=modes[0]) if missing else controls


def named_values(controls: Any) -> dict[str, Any]:
    """Controls by the words that users know them by."""
    return {word: getattr(controls, name) for name, word in _words(type(controls)).items()}


def _words(schema: Any) -> dict[str, str]:
    """The words of a controls dataclass by field: the same, but where an alias stands for a keyword such as class."""
    aliases = getattr(schema, "__pydantic_fields__", {})
    names = [field.name for field in dataclasses.fields(schema)]
    return {name: getattr(aliases.get(name), "alias", None) or name for name in names}
