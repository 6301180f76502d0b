"""What Hydra and OmegaConf complain about, in the words of the person at the keyboard."""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aigc_cli.config.folders import groups, options
from aigc_cli.config.grammar import parse, several_values
from aigc_cli.config.schema import walk, yaml_reason
from aigc_cli.errors import ConfigError, nearest, suggest

#: The groups that a configuration cannot do without.
SECTIONS = ("model", "data", "optimizer", "trainer")
#: What to do in place of choosing again what a run has chosen, for the commands that are given one.
_INSTEAD = {
    "sample": "the run has its own: data.root= says where it lies now, prompt_file=FILE names texts of yours, and aigc "
    "eval measures on other data",
    "embed": "leave it out: the run has its own",
}
_EXTRAS = {"hydra/launcher": "joblib", "hydra/sweeper": "optuna"}


def explain(
    error: Exception, loader: ConfigLoader, command: str, words: Sequence[str], quiet: Sequence[str]
) -> ConfigError:
    """The user's error behind an exception of Hydra's; every misspelt word is named at once."""
    if isinstance(error, yaml.YAMLError | UnicodeDecodeError):
        name = getattr(getattr(error, "problem_mark", None), "name", "a YAML file")
        return ConfigError(f"{name} cannot be read: {yaml_reason(error)}", "correct the file there")
    problems = _problems(loader, command, words, quiet)
    if problems:
        messages, hints = zip(*problems, strict=True)
        return ConfigError("; ".join(messages), "; ".join(dict.fromkeys(filter(None, hints))))
    if isinstance(error, MissingConfigException):
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        where = re.match(r"In '([^']*)'", str(error))
        place = f"configs/{where[1]}.yaml names" if where else "the configuration names"
        return ConfigError(f"{place} {group}={name}, which does not exist", suggest(name, error.options or []))
    cause = error.__cause__ if error.__cause__ is not None and not str(error).strip() else error
    return ConfigError(_one_line(cause), "check the words on the command line; `--cfg job` shows what they make")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _problems(loader: ConfigLoader, command: str, words: Sequence[str], quiet: Sequence[str]) -> list[tuple[str, str]]:
    """What is wrong with each word by itself: (message, hint)."""
    problems: list[tuple[str, str]] = []
    good: list[str] = []
    others: list[tuple[str, Override]] = []
    for word in words:
        parsed = parse(word)
        if parsed is None:
            problems.append((f"{word!r} cannot be read", "write key=value; quote the value if it has odd characters"))
        elif parsed.is_sweep_override():
            problems.append(several_values(word, parsed))
        elif parsed.key_or_group in groups(command) or loader.get_group_options(parsed.key_or_group):
            problem = _group(loader, command, parsed)
            problems += [problem] if problem else []
            good += [] if problem else [word]
        else:
            others.append((word, parsed))
    return problems + _keys(loader, command, [*good, *quiet], others)


def _group(loader: ConfigLoader, command: str, parsed: Override) -> tuple[str, str] | None:
    group, value = parsed.key_or_group, parsed.value()
    if command in _INSTEAD and group in SECTIONS:
        return f"{parsed.input_line}: aigc {command} does not choose the {group}", _INSTEAD[command]
    options = loader.get_group_options(group)
    if group in SECTIONS and (value is None or parsed.is_delete()):
        return f"{parsed.input_line} leaves no {group}", suggest("", options)
    if value is None and not parsed.is_delete():
        return f"{parsed.input_line} names nothing", f"leave the word out, or write ~{group} to do without it"
    chosen = value if isinstance(value, list) else [value]
    for name in chosen:
        if isinstance(name, dict) or parsed.is_delete() or name in options:
            continue
        hint = suggest(str(name), options) or f"there is none yet: put YAML files in ./configs/{group}"
        if _EXTRAS.get(group) == name:
            hint = "install it with: pip install 'aigc-cli[sweep]'"
        return f"there is no {group} named {str(name)!r}", hint
    return None


def _keys(
    loader: ConfigLoader, command: str, good: Sequence[str], others: Sequence[tuple[str, Override]]
) -> list[tuple[str, str]]:
    """The words among `others` that set a key which the configuration does not have."""
    try:
        base = loader.load_configuration(command, list(good), RunMode.RUN, from_shell=False)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError):
        return []
    known = known_keys(base)
    problems = []
    for word, parsed in others:
        key = parsed.key_or_group
        if parsed.is_add() and not parsed.is_force_add() and key in known:
            problems.append((f"{word}: there is a key {key} already", f"write it without the +: {word.lstrip('+')}"))
        elif parsed.is_add() or parsed.is_force_add() or key in known:
            continue
        elif "/" in key or "@" in word.partition("=")[0]:
            problems.append((f"there is no group {key}", suggest(key, groups(command))))
        else:
            problems.append((f"there is no key {key}", _nearest_key(command, key, [*known, *groups(command)])))
    return problems


def known_keys(config: DictConfig) -> set[str]:
    """Every dotted key of a composed configuration, Hydra's own among them."""
    container = OmegaConf.to_container(config, resolve=False)
    return {key for key, _ in walk(container)}


def _nearest_key(command: str, key: str, known: Sequence[str]) -> str:
    """A hint that looks among the key's own siblings first, then everywhere but where a run has chosen already."""
    group, _, name = key.rpartition(".")[0].partition(".")
    if group in groups(command) and name in options(group):
        return f"{name} is not among the metrics that are measured here: name it with {group}="
    own = [other for other in known if other.split(".")[0] != "hydra" or key.split(".")[0] == "hydra"]
    section, _, last = key.rpartition(".")
    siblings = [other for other in own if other.rpartition(".")[0] == section]
    close = nearest(last, [other.rpartition(".")[2] for other in siblings], count=2)
    instead = _INSTEAD.get(command, "") if key.split(".")[0] in SECTIONS else ""
    if close:
        return f"did you mean {' or '.join(f'{section}.{name}'.lstrip('.') for name in close)}? {instead}".rstrip()
    if instead:
        return instead
    sections = {other.rpartition(".")[0] for other in own}
    close = nearest(key, [other for other in own if other not in sections], count=2)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if siblings and section:
        return suggest(last, [other.rpartition(".")[2] for other in siblings], limit=16)
    return "`--cfg job` prints all keys"
