"""Words -> a configuration, as plain data; what comes of them names no code.

Components go by their registered names, never by ``_target_``: Hydra would call whatever that names.
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

from aigc_cli.config import explain, folders
from aigc_cli.config.annotate import annotated
from aigc_cli.config.grammar import prepare
from aigc_cli.config.loader import config_loader
from aigc_cli.config.recipes import title_of
from aigc_cli.config.words import split_key
from aigc_cli.errors import ConfigError, suggest

#: Keeps Hydra from writing files and logs of its own: a run directory is ours alone.
QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null", "hydra.job.chdir=false")
#: All that Hydra and OmegaConf raise where the user's words are wrong, slips of their own included.
_COMPLAINTS = (
    HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, AssertionError, AttributeError
)  # fmt: skip


def compose(command: str, overrides: Sequence[str] = (), *, usual: Sequence[str] | None = None) -> dict[str, Any]:
    """The resolved configuration of `command` after the user's key=value words as they were typed, as plain data.

    `usual` are the metrics of ``eval`` where no word names any. What is usual depends on the run, which the words name:
    until it is known (None), they are those of ``eval.yaml`` and, so that no word is lost, those that a word sets a
    key of.

    Raises:
        ConfigError: a word that is misspelt or malformed, or a configuration that names code to run.
    """
    words = prepare(command, overrides)
    keys = [split_key(word)[1] for word in words]
    if command == "eval" and "metric" not in keys:
        if usual is None:
            chosen = re.findall(r"\w+", folders.command_keys("eval")["defaults.metric"].value)
            named = [key.split(".")[1] for key in keys if key.startswith("metric.")]
            usual = [*chosen, *(name for name in named if name in folders.options("metric"))]
        words.append(f"metric=[{','.join(dict.fromkeys(usual))}]")
    return plain(command, compose_raw(command, words))


def compose_raw(command: str, words: Sequence[str]) -> DictConfig:
    """The configuration with Hydra's own node, audited but not resolved, after words in Hydra's grammar.

    Raises:
        ConfigError: see :func:`compose`.
    """
    with _explained():
        return config_loader().load_configuration(command, [*words, *QUIET], RunMode.RUN, from_shell=False)


def recipes(overrides: Sequence[str]) -> tuple[str, ...]:
    """The files that set values of ``train`` which nobody typed, such as ``GAN on digits, from
    recipe/gan_digits.yaml``."""
    with _explained():
        files = config_loader().applied("train", prepare("train", overrides)).defaults
    parts = (str(file.config_path).partition("/") for file in files)
    named = {
        f"{group}/{name}.yaml": folders.options(group)[name] for group, _, name in parts if group in folders.GLOBAL
    }
    return tuple(f"{title_of(path)}, from {name}" for name, path in named.items())


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except _COMPLAINTS as error:
        raise explain.wrong_composition(error) from error


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


def _check_sections(command: str, config: Mapping[Any, Any]) -> None:
    known = folders.top_level_keys(command)
    for key in config:
        if key not in known:
            hint = suggest(str(key), known)
            if key in folders.GLOBAL:
                hint = f"begin the file in {key}/ with the line `# @package _global_`"
            raise ConfigError(f"there is no key {key}", hint)
    for section in explain.SECTIONS if command == "train" else ():
        if not isinstance(config.get(section), dict):
            raise ConfigError(f"{section} is {config.get(section)!r}, not a section", f"name one: {section}=NAME")


def show(command: str, overrides: Sequence[str], kind: str) -> str:
    """The YAML that ``--cfg`` prints: `kind` is ``job`` (ours, resolved, each key with its comment), ``hydra`` or
    ``all`` (as Hydra has them)."""
    config = compose_raw(command, prepare(command, overrides))
    if kind == "job":
        values, choices = plain(command, config), config.hydra.runtime.choices
        picked = {group: [str(choices.get(group)), *(values.get(group) or ())] for group in folders.groups(command)}
        return annotated(values, folders.explained_keys(command, picked))
    return OmegaConf.to_yaml(config if kind == "all" else OmegaConf.masked_copy(config, "hydra"))
