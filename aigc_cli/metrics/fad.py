"""The Fréchet audio distance, ``fad``, for those who have the weights of its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.base import Figures
from aigc_cli.metrics.distances import FD
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.registry import register


@dataclass(config=STRICT, frozen=True, kw_only=True)
class FADConfig(PlainConfig):
    """The Fréchet audio distance: that of the features of VGGish."""

    extractor: Literal["vggish"] = "vggish"


@register("metric", "fad", FADConfig)
class FAD(FD):
    """``fad``: Kilgour et al., Fréchet Audio Distance, 2019."""

    native = "vggish"
    figures: ClassVar[Figures] = {"fad": "lower"}
    usual_for: ClassVar[Mapping[str, int]] = {}
