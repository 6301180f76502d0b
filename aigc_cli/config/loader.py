"""Hydra's loader over our folders: what it reads, checks and adds on the way from words to a configuration.

A model's name stands for the variant of it that serves the data: ``model=vae`` is ``vae_text`` on text. Where a model
needs other keys for another modality, its variant is a model of its own, ``<model>_<modality>``, or ``<model>_codes``
on the codes of a tokenizer, with a YAML file, a class and recipes under that name. What a user types stays the same,
and becomes the variant's name while a configuration is composed: so the variant's own keys are the only ones that there
are, ``--cfg job`` shows them, and a run, whose configuration names the variant, needs nothing of this to be read back.

In the same manner the words that choose recipes are added, where nobody typed any.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.defaults_list import DefaultsList, create_defaults_list
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime, setup_globals
from hydra.plugins.config_source import ConfigLoadError, ConfigResult
from omegaconf import DictConfig, OmegaConf
from typing_extensions import override

from aigc_cli.config import explain, folders
from aigc_cli.config.grammar import parse
from aigc_cli.config.recipes import facts_of, matching
from aigc_cli.config.schema import walk
from aigc_cli.errors import ConfigError

_PLUGIN = re.compile(r"(hydra\._internal\.core_plugins|hydra_plugins)\.[\w.]+")
#: The only places where Hydra itself needs the name of a class, with what the name must match: a plugin's is looked up
#: among those that Hydra found, but any other is followed through modules to whatever they import.
_TARGETS = {"hydra.launcher._target_": _PLUGIN, "hydra.sweeper._target_": _PLUGIN}
#: Hydra's own settings that name code, files or lines of a shell by other means than ``_target_``: they stay empty.
_CLOSED = ("hydra.callbacks", "hydra.job_logging.root", "hydra.hydra_logging.root", "hydra.launcher.setup")
_NO_CODE = "name a registered component instead; `aigc ls models` and `aigc ls data` list them"


def _audit(config: DictConfig) -> None:
    """Refuses a configuration that names code to run, by ``_target_`` where it is not Hydra's own or by other means."""
    for key, value in walk(OmegaConf.to_container(config, resolve=False)):
        if key.rsplit(".", 1)[-1] in ("_target_", "()"):
            allowed = _TARGETS.get(key)
            if allowed is None or not isinstance(value, str) or not allowed.fullmatch(value):
                raise ConfigError(f"the configuration names code to run: {key}={value}", _NO_CODE)
        elif key in _CLOSED and value is not None and value != {}:
            raise ConfigError(f"{key} cannot be set: it can name code to run", "remove it")


class _UserFolder(FileConfigSource):
    """A folder of the user's: it adds and replaces the options of groups, never the top-level files, which are ours.

    Many a project keeps a ``configs/train.yaml`` of its own, for another program.
    """

    @staticmethod
    def scheme() -> str:
        return "user"

    def is_config(self, config_path: str) -> bool:
        return "/" in config_path.strip("/") and super().is_config(config_path)

    def load_config(self, config_path: str) -> ConfigResult:
        if not self.is_config(config_path):
            raise ConfigLoadError(f"no {config_path} in {self.path}")
        try:
            loaded = super().load_config(config_path)
        except UnicodeDecodeError as error:
            raise self._unreadable(config_path, str(error)) from error
        except OSError as error:  # without the system's word for it: of OmegaConf, for a number or a truth value
            raise self._unreadable(config_path, error.strerror) from error
        if not isinstance(loaded.config, DictConfig):
            raise self._unreadable(config_path)
        return loaded

    def _unreadable(self, config_path: str, reason: str | None = None) -> ConfigError:
        file = Path(self.path, self._normalize_file_name(config_path))
        reason = reason or "it is not a mapping of keys to values"
        return ConfigError(f"{file} cannot be read: {reason}", "fix the file")


class Loader(ConfigLoaderImpl):
    """Hydra's loader, which checks words before it applies them, takes a model's name for the variant on its data, and
    audits what comes of them before Hydra acts on its own part of it.

    All hook into steps of Hydra's own: so sweeps, which compose each of their jobs themselves, have them too.
    """

    _command = ""
    _recipe: Override | None = None  # the word that stands for the recipes which were chosen for the data
    _other_optimizer = False  # whether somebody chose another optimizer than the recipes are for
    _data = ""  # the chosen dataset
    _keys: Sequence[Override] = ()  # the words that set keys, for as long as the files are composed

    @override
    def load_configuration(self, *arguments: Any, **named: Any) -> DictConfig:
        config = super().load_configuration(*arguments, **named)
        _audit(config)
        if self._recipe is not None:  # which nobody typed
            config.hydra.overrides.task.remove(self._recipe.input_line)
        return config

    @override
    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        explain.refuse(explain.unreadable_word(word) for word in overrides if parse(word) is None)
        words, repo = super()._parse_overrides_and_create_caching_repo(config_name, overrides)
        if config_name is None:
            return words, repo
        explain.refuse(explain.several_values(word) for word in words if word.is_sweep_override())
        # Hydra takes null for a group only by ~.
        words = [replace(word, _value=[]) if word.input_line == "recipe=null" else word for word in words]
        choices = [word for word in words if repo.group_exists(word.key_or_group)]
        explain.refuse(explain.wrong_choice(config_name, word, _names(repo, word.key_or_group)) for word in choices)
        self._command, self._keys = config_name, [word for word in words if word not in choices]
        words, self._recipe = self._with_variant(words, choices, repo), None
        return self._with_recipes(words, repo) if "recipe" in folders.groups(config_name) else words, repo

    @override
    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        config = super()._compose_config_from_defaults_list(defaults, repo)
        self._check_keys(config, self._keys)
        return config

    def _check_keys(self, config: DictConfig, words: Sequence[Override]) -> None:
        known = dict(walk(OmegaConf.to_container(config, resolve=False)))
        explain.refuse(explain.wrong_key(self._command, word, known) for word in words)

    def applied(self, command: str, words: Sequence[str]) -> DefaultsList:
        """The files that a configuration is composed of, in their order, and the choices that led to them."""
        parsed, repo = self._parse_overrides_and_create_caching_repo(command, list(words))
        return _defaults(command, parsed, repo)

    def _with_variant(
        self, words: list[Override], choices: Sequence[Override], repo: CachingConfigRepository
    ) -> list[Override]:
        """The words, in which the chosen model is its variant on the chosen data; those that are recorded stay."""
        names = _names(repo, "model")
        chosen = {word.key_or_group: word.value() for word in choices}
        bases = {name.rpartition("_")[0] for name in names}
        if "model" not in folders.groups(self._command) or not (chosen.get("model") in bases or "experiment" in chosen):
            return words  # without a look at the files, which takes a while
        found = _defaults(self._command, choices, repo).overrides.known_choices
        coded = any(word.key_or_group == "data.tokens" and word.value() is not None for word in self._keys)
        kinds = [*(["codes"] if coded else []), folders.modality_of(str(found["data"]))]
        variant = next((name for kind in kinds if (name := f"{found['model']}_{kind}") in names), None)
        added = None if variant is None else parse(f"model={variant}")
        if added is None:
            return words
        if "model" not in chosen:
            return [*words, added]
        return [replace(word, _value=variant) if word.key_or_group == "model" else word for word in words]

    def _with_recipes(self, words: list[Override], repo: CachingConfigRepository) -> list[Override]:
        """The words, with those that choose the recipes for the data, where nobody chose any."""
        found = _defaults(self._command, words, repo)
        chosen = found.overrides.known_choices
        if chosen.get("recipe") == "auto":
            keys = [word for word in self._keys if not word.is_hydra_override()]
            config = super()._compose_config_from_defaults_list(found.defaults, repo)
            self._check_keys(config, keys)
            config = copy.deepcopy(config)  # else a key that is added here would be there when Hydra reads it again
            OmegaConf.set_struct(config, True)
            self._apply_overrides_to_config(keys, config)
            known = facts_of(_values(config.data), chosen, str(config.trainer.get("device")))
            added = parse(f"recipe=[{','.join(matching(known))}]")
            self._recipe = added
            words = words if added is None else [*words, added]
        self._data, self._other_optimizer = str(chosen["data"]), self._chooses_another_optimizer(words, chosen, repo)
        return words

    def _chooses_another_optimizer(
        self, words: list[Override], chosen: Mapping[str, Any], repo: CachingConfigRepository
    ) -> bool:
        """Whether somebody does: the rates of a recipe are those of its own optimizer; another keeps its defaults."""
        if not {"optimizer", "experiment"} & {word.key_or_group for word in words}:
            return False  # without a look at the files, which takes a while
        rest = [word for word in words if word.key_or_group not in ("optimizer", "experiment", "model", "data")]
        same = [parsed for group in ("model", "data") if (parsed := parse(f"{group}={chosen[group]}")) is not None]
        meant = _defaults(self._command, [*rest, *same], repo).overrides.known_choices
        actual = _defaults(self._command, words, repo).overrides.known_choices
        return bool(actual["optimizer"] != meant["optimizer"])

    @override
    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        loaded = super()._load_single_config(default, repo)
        if not str(default.config_path).startswith("recipe/"):
            return loaded
        assert isinstance(loaded.config, DictConfig)
        left_out = {"optimizer"} if self._other_optimizer else set()
        config = OmegaConf.masked_copy(loaded.config, [str(key) for key in loaded.config if key not in left_out])
        if isinstance(config.get("data"), DictConfig):
            # A recipe is for a model on a modality, of which not all data have the same keys: those of other data have
            # no effect here. Else they would hide what is said of a model that cannot model the data.
            foreign = _top_keys("data") - _top_keys("data", self._data)
            config.data = OmegaConf.masked_copy(config.data, [str(key) for key in config.data if key not in foreign])
        return replace(loaded, config=config)


def _top_keys(group: str, name: str | None = None) -> set[str]:
    """The keys at the top of a group's option `name`, else those of all its options."""
    files = folders.options(group)
    chosen = files.values() if name is None else filter(None, [files.get(name)])
    return {key.partition(".")[0] for path in chosen for key in folders.keys_of(path)}


def _values(section: DictConfig) -> dict[str, Any]:
    return {str(key): value for key, value in OmegaConf.to_container(section, resolve=True).items()}  # type: ignore[union-attr]


def _names(repo: IConfigRepository, group: str) -> list[str]:
    return repo.get_group_options(group, ObjectType.CONFIG)


def _defaults(command: str, words: Sequence[Override], repo: IConfigRepository) -> DefaultsList:
    own = [word for word in words if not word.is_hydra_override()]
    return create_defaults_list(repo, command, own, prepend_hydra=False, skip_missing=False)


@functools.cache
def _set_up_hydra() -> None:
    """What Hydra's own entry points do first."""
    version.setbase("1.3")
    setup_globals()
    JobRuntime.instance().set("name", "aigc")
    Plugins.instance().register(_UserFolder)
    # hydra-optuna-sweeper, which is for Optuna 2 and prunes nothing, has a schema that our file would be held against.
    stored: Any = ConfigStore.instance().repo["hydra"]
    stored.get("sweeper", {}).pop("optuna.yaml", None)


def config_loader() -> Loader:
    """Hydra's loader over our folders as they are now, the user's before the packaged one; it creates no files."""
    _set_up_hydra()
    search_path = create_config_search_path(str(folders.packaged_configs()))
    for folder in reversed(folders.config_folders()[:-1]):
        search_path.prepend("user", f"{_UserFolder.scheme()}://{folder}")
    return Loader(search_path)
