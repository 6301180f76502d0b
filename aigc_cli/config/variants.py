"""A model's name stands for the variant of it that serves the data: ``model=vae`` is ``vae_text`` where that is text.

Where a model needs other keys for another modality, its variant for it is a model of its own, ``<model>_<modality>``,
with a YAML file, a class and recipes under that name. What a user types stays the same, and becomes the variant's name
while a configuration is composed: so the variant's own keys are the only ones that there are, ``--cfg job`` shows them,
and a run, whose configuration names the variant, needs nothing of this to be read back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from aigc_cli.config.folders import groups


class VariantLoader(ConfigLoaderImpl):
    """Hydra's loader, to which the name of a model means the variant of it that serves the data."""

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """See Hydra's; the words that it records stay those that were typed."""
        typed = dict(zip(overrides, OverridesParser.create(config_loader=self).parse_overrides(overrides), strict=True))
        variant = self._variant(config_name, typed)
        words = overrides
        if variant is not None:
            words = [word for word, parsed in typed.items() if parsed.key_or_group != "model"] + [f"model={variant}"]
        config = super().load_configuration(config_name, words, run_mode, from_shell, validate_sweep_overrides)
        if variant is not None:
            with open_dict(config.hydra):
                config.hydra.overrides.task = [word for word, parsed in typed.items() if not parsed.is_hydra_override()]
        return config

    def _variant(self, config_name: str | None, words: Mapping[str, Override]) -> str | None:
        """The variant that the chosen model is on the chosen data; None where it is itself.

        Choices are composed without the other words, which may set keys that only the variant has.
        """
        names = self.get_group_options("model")
        if config_name is None or "model" not in groups(config_name) or not _may_choose(words.values(), names):
            return None
        chosen = [
            word for word, parsed in words.items()
            if not parsed.is_sweep_override() and self.repository.group_exists(parsed.key_or_group)
        ]  # fmt: skip
        base = super().load_configuration(config_name, chosen, RunMode.RUN, from_shell=False)
        variant = f"{base.hydra.runtime.choices.get('model')}_{_modality(base)}"
        return variant if variant in names else None


def _may_choose(words: Iterable[Override], names: Iterable[str]) -> bool:
    """Whether words choose a model that has a variant, by its name or within an experiment."""
    bases = {name.rpartition("_")[0] for name in names}
    chosen = {word.key_or_group: word.value() for word in words}
    return str(chosen["model"]) in bases if "model" in chosen else "experiment" in chosen


def _modality(config: DictConfig) -> str:
    """What the data of a configuration is, as far as models have variants for it: what has a tokenizer is text."""
    data = config.get("data")
    return "text" if isinstance(data, DictConfig) and "tokenizer" in data else "image"
