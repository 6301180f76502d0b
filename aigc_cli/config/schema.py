"""Check, save and reload a configuration."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_cli.config.words import split_key
from aigc_cli.errors import DataError, unreadable
from aigc_cli.files import write_atomically

if TYPE_CHECKING:
    from pydantic import ConfigDict

#: How every component's config dataclass is declared: no unknown keys, no silent conversions, no NaN.
STRICT: ConfigDict = {"extra": "forbid", "strict": True, "allow_inf_nan": False}

#: Where a run lies and how a sweep looks at it, which change nothing of what it computes.
_NOT_IDENTITY = ("run_dir", "outputs", "sweep")
_NOT_WORDS = ("trainer.steps", "model.init_sha256")


@dataclass(frozen=True)
class Options:
    """What the command line said beside the configuration."""

    overrides: tuple[str, ...] = ()  # the user's own key=value words, in order
    json: bool = False  # print one JSON object on stdout and nothing else
    resume: str | None = None  # a run's name or directory, or "latest"
    job: int | None = None  # the number of this job within a sweep
    search: str | None = None  # the file of the search that has chosen it
    plugins: tuple[str, ...] = ()  # modules named with --plugin
    metric: tuple[str, ...] = ()  # metrics named with --metric
    recipe: tuple[str, ...] = ()  # files that set values which nobody typed; of a new run
    began: float = 0.0  # when the command did, by the monotonic clock

    def named(self, group: str, name: str) -> str:
        """What the user's words call the choice of a group; `name` where none does, or several do."""
        typed = [value for _, key, value in map(split_key, self.overrides) if key == group and value]
        return typed[-1] if typed and "," not in typed[-1] else name

    def as_typed(self, message: str, group: str, name: str) -> str:
        """A message that begins with the choice `name` of a group, which it calls as the user's words do."""
        own = f"{group}={name} "
        return f"{group}={self.named(group, name)} {message.removeprefix(own)}" if message.startswith(own) else message

    @property
    def given(self) -> set[str]:
        """The keys that the user's words set."""
        return {split_key(word)[1] for word in self.overrides}


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
    """A resolved configuration saved earlier, as plain data; a :class:`DataError` where it cannot be read, is not a
    mapping, or names code or values to fetch: nothing in it is run or filled in."""
    import yaml

    from aigc_cli.config.explain import yaml_reason

    try:
        text = path.read_text(encoding="utf-8")
        if "&" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            # Ours never has any, and they may expand without end.
            raise yaml.YAMLError("it contains aliases, which the file of a run never does")
        loaded = _of_sections(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise unreadable(path, yaml_reason(error), "restore the file, or train the run again") from None
    if not isinstance(loaded, dict):
        raise DataError(f"{path} is not a configuration", "restore the file, or train the run again")
    for key, value in walk(loaded):
        if key.rsplit(".", 1)[-1] == "_target_":
            raise DataError(f"{path} names code to run, at {key}", "this run may be malicious; do not use it")
        if isinstance(value, str) and "${" in value:
            raise DataError(f"{path} is not resolved: {key} is {value}", "write the value itself there")
    return {str(key): value for key, value in loaded.items()}


#: A key of the first level, with the indented lines and lists below it: what a run's configuration has nothing beside.
_SECTION = re.compile(r"^[A-Za-z_]\w*:(?: .*)?\n(?:(?: |- ).*\n)*", re.MULTILINE)


def _of_sections(text: str) -> Any:
    """What YAML says, read a section at a time, as the sections of many runs are the same."""
    import yaml

    sections = _SECTION.findall(text)
    if sections and sum(map(len, sections)) == len(text):
        with suppress(yaml.YAMLError):  # something reaches over the end of its section
            return copy.deepcopy({key: value for part in sections for key, value in _parsed(part).items()})
    return _parsed.__wrapped__(text)


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Any:
    import yaml

    # The parser in C is ten times as fast, as safe, and lets nothing nest deeper than a thousand times.
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def walk(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key under `node`, dotted, with its value; mappings and lists come before what they hold."""
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        dotted = f"{prefix}{key}"
        yield dotted, value
        yield from walk(value, f"{dotted}.")


def leaves(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every value of a configuration by its dotted key; a list is one value."""
    return {
        key: value for key, value in walk(config)
        if not isinstance(value, Mapping) and not key.rpartition(".")[2].isdecimal()
    }  # fmt: skip


def differing(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each of several configurations, the keys in which they differ, dotted, with its own values: not where their
    runs lie, how far they train or which weights they started from, which are known by other names."""
    flat = [
        {key: value for key, value in leaves(config).items()
         if key not in _NOT_WORDS and key.split(".")[0] not in _NOT_IDENTITY}
        for config in configs
    ]  # fmt: skip
    keys = dict.fromkeys(key for each in flat for key in each)
    apart = [key for key in keys if any(key not in each or each[key] != flat[0].get(key) for each in flat)]
    return [{key: each[key] for key in apart if key in each} for each in flat]


#: The keys of a section `data` that every dataset has: they say what is made of its items, not what these are.
OF_ALL_DATA = ("tokens", "latents", "tokens_sha256", "views", "codes", "residual")


def own_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """A section `data` without the keys of :data:`OF_ALL_DATA`, as the dataset's own schema knows it."""
    return {key: value for key, value in values.items() if key not in OF_ALL_DATA}


def check(section: str, schema: type, values: Mapping[str, Any]) -> Any:
    """Builds the dataclass `schema` from plain `values`, with every problem named at once.

    Raises:
        ConfigError: unknown keys, wrong types, values out of range, contradictory choices; `section` is their prefix.
    """
    from pydantic import TypeAdapter, ValidationError

    from aigc_cli.config.explain import refuse, wrong_values

    try:
        # Through JSON, because a YAML list may stand for a tuple, while "1" may not stand for 1.
        return TypeAdapter(schema).validate_json(json.dumps(values))
    except ValidationError as error:
        refuse(wrong_values(section, schema, values, error))
        raise AssertionError("an error names at least one problem") from error
