"""Compose, check, save and reload a configuration."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_cli.errors import ConfigError, DataError, suggest, unreadable
from aigc_cli.files import write_atomically

if TYPE_CHECKING:
    from pydantic import ConfigDict

#: How every component's config dataclass is declared: no unknown keys, no silent conversions, no NaN.
STRICT: ConfigDict = {"extra": "forbid", "strict": True, "allow_inf_nan": False}

#: Where a run lies and how a sweep looks at it, which change nothing of what it computes.
_NOT_IDENTITY = ("run_dir", "outputs", "sweep")


@dataclass(frozen=True)
class Options:
    """What the command line said beside the configuration."""

    overrides: tuple[str, ...] = ()  # the user's own key=value words, in order
    json: bool = False  # print one JSON object on stdout and nothing else
    resume: str | None = None  # a run's name or directory, or "latest"
    job: int | None = None  # the number of this job within a sweep
    sweep_dir: str | None = None  # where a sweep collects what its jobs report
    plugins: tuple[str, ...] = ()  # modules named with --plugin


def identity(config: Mapping[str, Any]) -> str:
    """The sha256 of a resolved configuration, but for where its run lies, and how an automatic batch is divided."""
    kept = {key: value for key, value in config.items() if key not in _NOT_IDENTITY}
    trainer = kept.get("trainer")
    if isinstance(trainer, dict) and trainer.get("auto_batch"):
        items = trainer["batch_size"] * trainer["accumulate"]
        kept["trainer"] = {**trainer, "batch_size": items, "accumulate": 1}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def save_yaml(path: Path, config: Mapping[str, Any]) -> None:
    """Writes plain data as YAML, keys in their order, atomically."""
    import yaml

    write_atomically(path, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=120))


def load_yaml(path: Path) -> dict[str, Any]:
    """A resolved configuration saved earlier, as plain data: nothing in it is run or filled in.

    Raises:
        DataError: it cannot be read, is no mapping, or names code or values to fetch.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        if "&" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise yaml.YAMLError("it holds aliases, which a run's own never does")  # they may expand without end
        loaded = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise unreadable(path, yaml_reason(error), "restore the file, or train the run again") from None
    if not isinstance(loaded, dict):
        raise DataError(f"{path} holds no configuration", "restore the file, or train the run again")
    for key, value in walk(loaded):
        if key.rsplit(".", 1)[-1] == "_target_":
            raise DataError(f"{path} names code to run, at {key}", "do not use a run that does: its maker means harm")
        if isinstance(value, str) and "${" in value:
            raise DataError(f"{path} is not resolved: {key} is {value}", "write the value itself there")
    return {str(key): value for key, value in loaded.items()}


def yaml_reason(error: BaseException) -> str:
    """Why YAML could not be read, in one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is not None and problem:
        return f"line {mark.line + 1}: {problem}"
    return " ".join(str(error).split()) or type(error).__name__


def walk(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key under `node`, dotted, with its value; mappings and lists come before what they hold."""
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        dotted = f"{prefix}{key}"
        yield dotted, value
        yield from walk(value, f"{dotted}.")


def check(section: str, schema: type, values: Mapping[str, Any]) -> Any:
    """Builds the dataclass `schema` from plain `values`, with every problem named at once.

    Raises:
        ConfigError: unknown keys, wrong types, values out of range, contradictory choices; `section` is their prefix.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        # Through JSON, because a YAML list may stand for a tuple, while "1" may not stand for 1.
        return TypeAdapter(schema).validate_json(json.dumps(values))
    except ValidationError as error:
        raise ConfigError(*_explain(section, schema, values, error)) from None


def _explain(section: str, schema: type, values: Any, error: Any) -> tuple[str, str]:
    """The message and the hint for all problems; those of one key, a branch of its union each, make one."""
    by_key: dict[str, list[Mapping[str, Any]]] = {}
    for problem in error.errors(include_url=False):
        key = ".".join([section, *_location(values, problem)]).strip(".")
        by_key.setdefault(key, []).append(problem)
    lines, hints = zip(*(_describe(key, schema, problems) for key, problems in by_key.items()), strict=True)
    return "; ".join(lines), "; ".join(dict.fromkeys(filter(None, hints)))


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


def _describe(key: str, schema: type, problems: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
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
        return f"{key}={shown} is not a section of keys", f"give its keys one by one: {names}"
    if len(problems) == 1 and kind == "literal_error":
        return f"{key}={shown} is not a choice", suggest(shown, _choices(problem))
    return f"{key}={shown} is not allowed", f"{key} must be {' or '.join(dict.fromkeys(map(_allowed, problems)))}"


def _allowed(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "literal_error":
        return " or ".join(_choices(problem))
    return _TYPES.get(problem["type"]) or str(problem["msg"]).removeprefix("Input ").removeprefix("should be ")


def _choices(problem: Mapping[str, Any]) -> list[str]:
    """The values in pydantic's ``'a', 'b' or 'c'``."""
    return [part.strip("'") for part in problem["ctx"]["expected"].replace(" or ", ", ").split(", ")]


_TYPES = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number, written without point or exponent",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text (quote it to keep a number as text)",
    "string_too_short": "a word, not nothing",
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
