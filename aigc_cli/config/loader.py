"""Hydra's loader over our folders: words are checked before they apply, and a model's name may mean its variant.

A model's name stands for the variant of it that serves the data: ``model=vae`` is ``vae_text`` on text. Where a model
needs other keys for another modality, its variant is a model of its own, ``<model>_<modality>``, with a YAML file, a
class and recipes under that name. What a user types stays the same, and becomes the variant's name while a
configuration is composed: so the variant's own keys are the only ones that there are, ``--cfg job`` shows them, and a
run, whose configuration names the variant, needs nothing of this to be read back.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.defaults_list import DefaultsList, create_defaults_list
from hydra._internal.utils import create_config_search_path
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime, setup_globals
from hydra.plugins.config_source import ConfigLoadError, ConfigResult
from omegaconf import DictConfig, OmegaConf
from typing_extensions import override

from aigc_cli.config.explain import refuse, several_values, unreadable_word, wrong_choice, wrong_key
from aigc_cli.config.folders import config_folders, groups, modality_of, packaged_configs
from aigc_cli.config.grammar import parse
from aigc_cli.config.schema import walk
from aigc_cli.errors import ConfigError


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
    """Hydra's loader, which checks words before it applies them, and takes a model's name for the variant on its data.

    Both hook into steps of Hydra's own: so sweeps, which compose each of their jobs themselves, have them too.
    """

    _command = ""
    _keys: Sequence[Override] = ()  # the words that set keys, for as long as the files are composed

    @override
    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        refuse(unreadable_word(word) for word in overrides if parse(word) is None)
        words, repo = super()._parse_overrides_and_create_caching_repo(config_name, overrides)
        if config_name is None:
            return words, repo
        refuse(several_values(word) for word in words if word.is_sweep_override())
        choices = [word for word in words if repo.group_exists(word.key_or_group)]
        refuse(wrong_choice(config_name, word, self._names(repo, word.key_or_group)) for word in choices)
        self._command, self._keys = config_name, [word for word in words if word not in choices]
        return self._with_variant(words, choices, repo), repo

    @override
    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        config = super()._compose_config_from_defaults_list(defaults, repo)
        known = {key for key, _ in walk(OmegaConf.to_container(config, resolve=False))}
        refuse(wrong_key(self._command, word, known) for word in self._keys)
        return config

    def applied(self, command: str, words: Sequence[str]) -> DefaultsList:
        """The files that a configuration is composed of, in their order, and the choices that led to them."""
        parsed, repo = self._parse_overrides_and_create_caching_repo(command, list(words))
        return _defaults(command, parsed, repo)

    def _with_variant(
        self, words: list[Override], choices: Sequence[Override], repo: CachingConfigRepository
    ) -> list[Override]:
        """The words, in which the chosen model is its variant on the chosen data; those that are recorded stay."""
        names = self._names(repo, "model")
        chosen = {word.key_or_group: word.value() for word in choices}
        bases = {name.rpartition("_")[0] for name in names}
        if "model" not in groups(self._command) or not (chosen.get("model") in bases or "experiment" in chosen):
            return words  # without a look at the files, which takes a while
        found = _defaults(self._command, choices, repo).overrides.known_choices
        variant = f"{found['model']}_{modality_of(str(found['data']))}"
        if variant not in names:
            return words
        if "model" not in chosen:
            return [*words, *OverridesParser.create().parse_overrides([f"model={variant}"])]
        return [replace(word, _value=variant) if word.key_or_group == "model" else word for word in words]

    @staticmethod
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


@contextmanager
def config_loader() -> Iterator[Loader]:
    """Hydra's loader over our folders as they are now, the user's before the packaged one."""
    _set_up_hydra()
    search_path = create_config_search_path(str(packaged_configs()))
    for folder in reversed(config_folders()[:-1]):
        search_path.prepend("user", f"{_UserFolder.scheme()}://{folder}")
    yield Loader(search_path)
