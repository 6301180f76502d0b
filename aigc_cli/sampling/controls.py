"""The words that steer how a model is sampled, such as ``truncation=0.7`` or ``class=cat``: each model has its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from aigc_cli.config.folders import top_level_keys
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError, suggest
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
    if unknown:
        # A word of other models is spelt well, and what is nearest to it here would mislead.
        of_others = {word for other in names("model") for word in _words(model_class(other).controls).values()}
        if foreign := [word for word in unknown if word in of_others]:
            takes = f"its controls are {', '.join(sorted(known))}" if known else "it has no controls"
            raise ConfigError(f"model={name} takes no {' and no '.join(foreign)}", f"leave that out; {takes}")
        choices = [*known, *(top_level_keys(command) - {"controls"})]
        what = f"{' and '.join(unknown)}: neither a key of {command} nor a control of model={name}"
        raise ConfigError(what, "; ".join(dict.fromkeys(suggest(word, choices, limit=20) for word in unknown)))
    modes = modes_of(kind)
    if "mode" in known and values.get("mode") not in (None, *modes):
        raise ConfigError(f"mode={values['mode']}: model={name} has no such mode", suggest(str(values["mode"]), modes))
    return _with_usual_mode(check("", schema, values), modes)


def model_class(name: str) -> type[Model]:
    """The class behind a registered model's name."""
    kind = find("model", name).build
    assert isinstance(kind, type)
    assert issubclass(kind, Model)
    return kind


def usual_controls(model: Model, mode: str | None = None) -> Any:
    """The controls of a model as they are where nobody sets any; `mode`, if it has modes, in the usual one's place."""
    return _with_usual_mode(type(model).controls(), modes_of(model) if mode is None else (mode,))


def typed_again(values: Mapping[str, Any]) -> list[str]:
    """The words that make another command draw as this one did, of the controls that the user gave."""
    return [f"{word}={value}" for word, value in values.items() if value is not None and word not in _FOR_A_LOOK]


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
