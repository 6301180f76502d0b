"""What is wrong with a configuration and how to put it right, in the words of the person at the keyboard.

Words are looked at before Hydra applies them: what it would say of them names neither the nearest key nor a remedy.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aigc_cli.config.folders import GLOBAL, chosen_options, command_keys, groups, keys_of, modality_of, options
from aigc_cli.config.words import COMPOSED, ELSEWHERE, split_key
from aigc_cli.errors import ConfigError, namesake, nearest, no_such, suggest
from aigc_cli.registry import is_imported, own_data

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from pydantic import ValidationError

#: A message and a hint.
Problem = tuple[str, str]

#: The groups that a configuration cannot do without.
SECTIONS = ("model", "data", "optimizer", "trainer")
#: What to do in place of choosing again what a run has chosen, for the commands that are given one.
_INSTEAD = {
    "sample": "the run has its own: data.root= says where it is now, prompt_file=FILE gives texts of yours, and aigc "
    "eval measures on other data",
    "embed": "leave it out: the run has its own",
    "serve": "leave it out: the run has its own",
    "export": "leave it out: the run has its own",
}
_EXTRAS = {"hydra/launcher": "joblib"}


def refuse(problems: Iterable[Problem | None]) -> None:
    """Raises one :class:`ConfigError` for all problems, if there are any; None stands for what has none."""
    found = [problem for problem in problems if problem is not None]
    if found:
        messages, hints = zip(*found, strict=True)
        raise ConfigError("; ".join(messages), "; ".join(dict.fromkeys(filter(None, hints))))


def unreadable_word(word: str) -> Problem:
    """The problem of a word that Hydra's grammar makes no sense of."""
    return f"{word!r} cannot be read", "write key=value; quote a value with special characters"


def several_values(word: Override) -> Problem:
    """The problem of a word that sweeps where there is one job."""
    line, key = word.input_line, word.key_or_group
    return f"{line} gives several values", f"add -m to sweep over them, or write {key}=[a,b] for a list"


def wrong_choice(command: str, word: Override, names: Sequence[str]) -> Problem | None:
    """The problem of a word for a group whose options are `names`; None where it has none."""
    group, line, value = word.key_or_group, word.input_line, word.value()
    if command in _INSTEAD and group in SECTIONS:
        return f"{line}: aigc {command} does not choose the {group}", _INSTEAD[command]
    if "/" not in group and group not in groups(command) and not word.is_add():
        return f"there is no key {group}", suggest(group, groups(command))
    if group in SECTIONS and (value is None or word.is_delete()):
        return f"{line} removes the {group}, which is needed", suggest("", names)
    if word.is_delete() or (group == "recipe" and value == "auto"):
        return None
    if value is None:
        return f"{line} has no value", f"leave it out, or write ~{group} to remove the default"
    for name in value if isinstance(value, list) else [value]:
        if not isinstance(name, dict) and name not in names:
            if _EXTRAS.get(group) == name:
                return f"there is no {group} named {name!r}", "install it with: pip install 'aigc-cli[sweep]'"
            if is_imported(group, str(name)):
                what = f"{group} {name} is registered, but there is no configs/{group}/{name}.yaml"
                return what, f"write it in configs/{group} beside the plugin, or in ./configs/{group}"
            if group == "data" and (hint := own_data(str(name))):
                return f"data={name} names a path, not a kind of data", hint
            error = no_such(group, str(name), names, f"add one as a YAML file in ./configs/{group}")
            return error.message, error.hint
    return None


def wrong_key(command: str, word: Override, known: Mapping[str, Any]) -> Problem | None:
    """The problem of a word that sets a key, where the configuration has the keys `known`; None where it has none."""
    key, line = word.key_or_group, str(word.input_line)
    if word.is_add() and not word.is_force_add() and key in known:
        return f"{line}: the key {key} exists already", f"write it without the +: {line.lstrip('+')}"
    group, _, name = key.partition(".")
    if command == "train" and name == "name" and group in SECTIONS and known.get(key) not in (None, word.value()):
        chosen = str(word.value())
        hint = f"write {group}={chosen}" if chosen in options(group) else suggest(chosen, options(group))
        return f"{line} does not choose the {group}, whose other keys would stay", hint
    if word.is_add() or word.is_force_add() or key in known:
        return None
    if "/" in key or "@" in line.partition("=")[0]:
        return f"there is no group {key}", suggest(key, groups(command))
    chosen = str(known.get(f"{group}.name"))
    others = _with_key(group, name)
    # one types the same for a model and its variant, so it is no help to name the other of the two
    variant = any(chosen.rpartition("_")[0] == other or other.rpartition("_")[0] == chosen for other in others)
    if others and not variant and group in groups(command) and command not in _INSTEAD:
        named = ", ".join(f"{group}={option}" for option in others)
        hint = own_data(str(word.value())) if key == "data.root" else ""
        return f"there is no key {key} in the {group} that is chosen", hint or f"{key} is a key of {named}"
    hint = _nearest_key(command, key, [*known, *groups(command)])
    whole = hint.startswith("write ") and hint.endswith("=")
    return f"there is no key {key}", f"{hint}{line.partition('=')[2]}" if whole else hint


def _with_key(group: str, name: str) -> list[str]:
    """The options of a group that have a key."""
    return [option for option, path in options(group).items() if name in keys_of(path)]


def _elsewhere(command: str, key: str) -> str:
    """A hint for a key without a section, which other options or commands have; "" where none has."""
    for group in groups(command):
        if group not in GLOBAL and (others := _with_key(group, key)):
            named = ", ".join(f"{group}={option}" for option in others)
            return f"did you mean {group}.{key}? It is a key of {named}"
    having = [f"aigc {other}" for other in COMPOSED if {key, f"controls.{key}"} & set(command_keys(other))]
    return f"{key} is a key of {' and '.join(having)}" if having else ""


def no_model_of(overrides: Sequence[str]) -> Problem | None:
    """The problem of words that name data and no model, where the usual model is of other data; None where it is not.

    What a model is of, the data tells that its YAML file brings."""
    typed = {key: value or "" for _, key, value in map(split_key, overrides)}
    data, files = typed.get("data", ""), options("data")
    if data not in files or "experiment" in typed or any(key.split(".")[0] == "model" for key in typed):
        return None
    usual, suited = command_keys("train")["defaults.model"].value, []  # not its variant: that has to be asked for
    for name in options("model"):
        brought = chosen_options("train", [("model", name)])["data"]
        kinds = {(modality_of(each), "source" in keys_of(files[each])) for each in (data, *brought)}
        suited += [name] if len(kinds) == 1 else []
    if not suited or not modality_of(data) or usual in suited:
        return None
    words = sorted({f"model={name.removesuffix(f'_{modality_of(data)}')}" for name in suited} - {f"model={usual}"})
    what = f"data={data} is {modality_of(data)}, and model={usual}, the usual one, is not a model of that"
    return what, f"add {', '.join(words[:-1])}{' or ' if words[1:] else ''}{words[-1]}"


def _nearest_key(command: str, key: str, known: Sequence[str]) -> str:
    """A hint: the one key with the same last part, else a sibling, else any but where a run has chosen already."""
    section, _, last = key.rpartition(".")
    group, _, name = section.partition(".")
    if group in groups(command) and name in options(group):
        return f"{name} is not measured here: add it with {group}="
    own = [other for other in known if other.split(".")[0] != "hydra" or group == "hydra"]
    if command == "train" and last in ELSEWHERE and (last != "name" or not section):
        return ELSEWHERE[last]
    sections = {other.rpartition(".")[0] for other in own} - {*groups(command)}
    siblings = [other.rpartition(".")[2] for other in own if other.rpartition(".")[0] == section]
    close = nearest(last, siblings, count=2) if section else []
    instead = _INSTEAD.get(command, "") if key.split(".")[0] in SECTIONS else ""
    same = namesake(last, own)
    if same is not None and not instead:
        return f"did you mean {same}?"
    if close:
        return f"did you mean {' or '.join(f'{section}.{name}'.lstrip('.') for name in close)}? {instead}".rstrip()
    if instead or (elsewhere := "" if section else _elsewhere(command, key)):
        return instead or elsewhere
    close = nearest(key, [other for other in own if other not in sections], count=2)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return suggest(last, siblings, limit=16) if siblings and section else "`--cfg job` prints all keys"


def wrong_composition(error: Exception) -> ConfigError:
    """The error behind an exception that Hydra, OmegaConf or YAML raised over a file, or over a value."""
    if hasattr(error, "problem_mark") or isinstance(error, UnicodeDecodeError):
        name = getattr(getattr(error, "problem_mark", None), "name", "a YAML file")
        return ConfigError(f"{name} cannot be read: {yaml_reason(error)}", "fix the file")
    missing = getattr(error, "missing_cfg_file", None)
    if missing is not None:
        group, _, name = missing.rpartition("/")
        where = re.match(r"In '([^']*)'", str(error))
        place = f"configs/{where[1]}.yaml names" if where else "the configuration names"
        what = f"{place} {group}={name}, which does not exist"
        return ConfigError(what, suggest(name, getattr(error, "options", [])))
    cause = error.__cause__ if error.__cause__ is not None and not str(error).strip() else error
    return ConfigError(yaml_reason(cause), "check the arguments; `--cfg job` shows the configuration that they make")


def yaml_reason(error: BaseException) -> str:
    """What went wrong in one line, with its place in a YAML file where there is one."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is not None and problem:
        return f"line {mark.line + 1}: {problem}"
    return " ".join(str(error).split()) or type(error).__name__


def wrong_values(section: str, schema: type, values: Any, error: ValidationError) -> list[Problem]:
    """What pydantic found wrong; the problems of one key, a branch of its union each, make one."""
    by_key: dict[str, list[Any]] = {}
    for problem in error.errors(include_url=False):
        key = ".".join([section, *_location(values, problem)]).strip(".")
        by_key.setdefault(key, []).append(problem)
    return [_wrong_value(key, schema, problems) for key, problems in by_key.items()]


def _location(values: Any, problem: Mapping[str, Any]) -> list[str]:
    """The keys that lead to a problem, without the names of union branches that pydantic puts between them."""
    *path, last = problem["loc"] or ("",)
    kept = []
    for part in path:
        if (isinstance(values, Mapping) and part in values) or (isinstance(values, list) and isinstance(part, int)):
            values = values[part]
            kept.append(str(part))
    absent = problem["type"].startswith("missing")
    if absent or (isinstance(values, Mapping) and last in values) or isinstance(last, int):
        kept.append(str(last))
    return kept


def _wrong_value(key: str, schema: type, problems: Sequence[Mapping[str, Any]]) -> Problem:
    problem = problems[0]
    kind, name = problem["type"], key.rpartition(".")[2]
    if kind == "unexpected_keyword_argument":
        return f"there is no key {key}", suggest(name, _fields_at(schema, problem["loc"][:-1]))
    if kind == "missing" and isinstance(problem["loc"][-1], int):
        key = key.rpartition(".")[0]
        return f"{key} has too few values", f"give {key} as a list that is long enough, such as {key}=[a,b]"
    if kind.startswith("missing"):
        return f"{key} is missing", f"give it with {key}=VALUE"
    if kind == "value_error":
        message = str(problem.get("ctx", {}).get("error", problem["msg"]))
        return (f"{key}: {message}" if key else message), ""
    value = problem["input"]
    shown = value if isinstance(value, str) else json.dumps(value)
    if kind == "dataclass_type":
        names = " ".join(f"{key}.{name}=" for name in _fields_at(schema, problem["loc"]))
        return f"{key}={shown}: {key} is a section, not a value", f"set its keys: {names}"
    if len(problems) == 1 and kind == "literal_error":
        return f"{key}={shown} is not a choice", suggest(shown, _choices(problem))
    allowed: dict[str, None] = {}
    for each in problems:
        says = " or ".join(_choices(each)) if each["type"] == "literal_error" else _TYPES.get(each["type"])
        allowed[says or str(each["msg"]).removeprefix("Input ").removeprefix("should be ")] = None
    return f"{key}={shown} is not allowed", f"{key} must be {' or '.join(allowed)}"


def _choices(problem: Mapping[str, Any]) -> list[str]:
    """The values in pydantic's ``'a', 'b' or 'c'``."""
    return [part.strip("'") for part in problem["ctx"]["expected"].replace(" or ", ", ").split(", ")]


_TYPES = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number, without a decimal point or an exponent",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text (quote it to keep a number as text)",
    "string_too_short": "text that is not empty",
    "list_type": "a list, written [a,b]",
    "tuple_type": "a list, written [a,b]",
    "dict_type": "a mapping, written {a:1,b:2}",
    "none_required": "null",
}


def _fields_at(schema: Any, location: Sequence[int | str]) -> list[str]:
    """The field names of the dataclass that `location` leads to within `schema`."""
    for part in location:
        types = _hints(schema)
        if part in types:
            schema = _dataclass_in(types[str(part)])
    return list(_hints(schema))


def _hints(schema: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(schema):
        return {}
    types = typing.get_type_hints(schema)
    return {field.name: types[field.name] for field in dataclasses.fields(schema)}


def _dataclass_in(annotation: Any) -> Any:
    """The dataclass within ``X | None``, ``list[X]`` and the like; the annotation itself where there is none."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        inner = [_dataclass_in(argument) for argument in typing.get_args(annotation)]
        return next((found for found in inner if dataclasses.is_dataclass(found)), annotation)
    return annotation
