"""Words -> a configuration, checked for names of code before anything in it is built.

A single run is composed with Hydra's own loader, which creates nothing on disk. Components go by their registered
names, never by ``_target_``: Hydra would call whatever that names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import yaml
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aigc_cli.config.explain import SECTIONS, wrong_composition
from aigc_cli.config.folders import GLOBAL, command_keys, options, top_level_keys
from aigc_cli.config.grammar import prepare
from aigc_cli.config.loader import config_loader
from aigc_cli.config.schema import walk
from aigc_cli.config.words import split_key
from aigc_cli.errors import ConfigError, suggest

_PLUGIN = re.compile(r"(hydra\._internal\.core_plugins|hydra_plugins)\.[\w.]+")
#: The only places where Hydra itself needs the name of a class, with what the name must match: a plugin's is looked up
#: among those that Hydra found, but any other is followed through modules to whatever they import.
_TARGETS = {
    "hydra.launcher._target_": _PLUGIN,
    "hydra.sweeper._target_": _PLUGIN,
    "hydra.sweeper.sampler._target_": re.compile(r"optuna\.samplers\.\w+Sampler"),
}
#: Hydra's own settings that name code or files by other means than ``_target_``, with the only value each may have.
_CLOSED = {
    "hydra.callbacks": None,
    "hydra.job_logging.root": None,
    "hydra.hydra_logging.root": None,
    "hydra.launcher.setup": None,  # lines of a shell
    "hydra.sweeper.custom_search_space": None,
}
#: Keeps Hydra from writing files and logs of its own: a run directory is ours alone.
QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null", "hydra.job.chdir=false")


#: All that Hydra and OmegaConf raise where the user's words are wrong, slips of their own included.
_COMPLAINTS = (
    HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, AssertionError, AttributeError
)  # fmt: skip


def compose(command: str, overrides: Sequence[str] = (), *, usual: Sequence[str] | None = None) -> dict[str, Any]:
    """The resolved configuration of `command` after the user's key=value words, as plain data.

    Args:
        command: ``train``, ``sample``, ``eval`` or ``embed``.
        overrides: the words as they were typed.
        usual: the metrics of ``eval`` where no word names any. What is usual depends on the run, which the words name:
            until it is known (None), they are those of ``eval.yaml`` and, so that no word is lost, those that a word
            sets a key of.

    Raises:
        ConfigError: a word that is misspelt or malformed, or a configuration that names code to run.
    """
    words = prepare(command, overrides)
    if command == "eval":
        words = _with_metrics(words, usual)
    return plain(command, compose_raw(command, words))


def _with_metrics(words: list[str], usual: Sequence[str] | None) -> list[str]:
    keys = [split_key(word)[1] for word in words]
    if "metric" in keys:
        return words
    if usual is None:
        chosen = re.findall(r"\w+", command_keys("eval")["defaults.metric"].value)
        named = [key.split(".")[1] for key in keys if key.startswith("metric.")]
        usual = [*chosen, *(name for name in named if name in options("metric"))]
    return [*words, f"metric=[{','.join(dict.fromkeys(usual))}]"]


def compose_raw(command: str, words: Sequence[str]) -> DictConfig:
    """The configuration with Hydra's own node, audited but not resolved, after words in Hydra's grammar.

    Raises:
        ConfigError: see :func:`compose`.
    """
    with config_loader() as loader, _explained():
        config = loader.load_configuration(command, [*words, *QUIET], RunMode.RUN, from_shell=False)
    audit(config)
    return config


def recipes(overrides: Sequence[str]) -> tuple[str, ...]:
    """The files that set values of ``train`` which nobody typed, such as ``recipe/gan_digits.yaml``."""
    with config_loader() as loader, _explained():
        files = loader.applied("train", prepare("train", overrides)).defaults
    paths = (str(file.config_path) for file in files)
    return tuple(f"{path}.yaml" for path in paths if path.partition("/")[0] in GLOBAL)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except _COMPLAINTS as error:
        raise wrong_composition(error) from error


def plain(command: str, config: DictConfig) -> dict[str, Any]:
    """The resolved configuration without Hydra's own node, as plain data.

    Raises:
        ConfigError: a value that cannot be resolved, a section that is missing, a top-level key that means nothing.
    """
    try:
        task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        resolved = OmegaConf.to_container(task, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        where = getattr(error, "full_key", None) or "the configuration"
        raise ConfigError(f"{where} has no value: {str(error).splitlines()[0]}", f"give it with {where}=") from error
    assert isinstance(resolved, dict)
    _check_sections(command, resolved)
    return {str(key): value for key, value in resolved.items()}


def show(command: str, overrides: Sequence[str], kind: str) -> str:
    """The YAML that ``--cfg`` prints: `kind` is ``job`` (ours, resolved), ``hydra`` or ``all`` (as Hydra has them)."""
    config = compose_raw(command, prepare(command, overrides))
    if kind == "job":
        return str(yaml.safe_dump(plain(command, config), sort_keys=False, allow_unicode=True, width=120))
    shown = config if kind == "all" else OmegaConf.masked_copy(config, "hydra")
    return OmegaConf.to_yaml(shown)


def audit(config: DictConfig) -> None:
    """Refuses a configuration that names code to run, before anything in it is built.

    Raises:
        ConfigError: ``_target_`` where it is not Hydra's own, a callback, or a logging configuration.
    """
    container = OmegaConf.to_container(config, resolve=False)
    for key, value in walk(container):
        if key.rsplit(".", 1)[-1] in ("_target_", "()"):
            allowed = _TARGETS.get(key)
            if allowed is None or not isinstance(value, str) or not allowed.fullmatch(value):
                raise ConfigError(f"the configuration names code to run: {key}={value}", _NO_CODE)
        elif key in _CLOSED and value != _CLOSED[key] and value != {}:
            raise ConfigError(f"{key} cannot be set: it can name code to run", "remove it")


_NO_CODE = "name a registered component instead; `aigc ls models` and `aigc ls data` list them"


def _check_sections(command: str, config: Mapping[Any, Any]) -> None:
    known = top_level_keys(command)
    for key in config:
        if key not in known:
            hint = suggest(str(key), known)
            if key in GLOBAL:
                hint = f"begin the file in {key}/ with the line `# @package _global_`"
            raise ConfigError(f"there is no key {key}", hint)
    if command == "train":
        for section in SECTIONS:
            if not isinstance(config.get(section), dict):
                raise ConfigError(f"{section} is {config.get(section)!r}, not a section", f"name one: {section}=NAME")
