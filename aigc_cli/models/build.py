"""Builds the model that a configuration describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aigc_cli.config.schema import check
from aigc_cli.modalities.base import DataSpec
from aigc_cli.models.base import Model, keys_of
from aigc_cli.nn.lora import train_adapters_only
from aigc_cli.registry import find


def build_model(config: Mapping[str, Any], spec: DataSpec) -> Model:
    """The model of the section `model` of a configuration, with fresh weights.

    Raises:
        ConfigError: there is no such model, a value is wrong, or it does not serve the data of `spec`.
    """
    component = find("model", config["name"])
    model = component.build(check("model", component.config, keys_of(component.config, config)), spec)
    assert isinstance(model, Model)
    train_adapters_only(model)
    return model
