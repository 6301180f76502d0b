"""The keys of the VAEs of images whose networks are files of their own."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.models.base import ModelConfig
from aigc_cli.models.variational import VariationalConfig

#: Blocks at a side, as "side x blocks" in a word.
LevelWord = Annotated[str, Field(pattern=r"^[1-9][0-9]*x[1-9][0-9]*$")]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class VAEConfig(VariationalConfig):
    """The keys of ``model=vae``; configs/model/vae.yaml explains them."""

    name: Literal["vae"]
    network: Literal["auto", "mlp", "conv", "resnet", "conv3d"]
    likelihood: Literal["bernoulli", "gaussian", "gaussian_fixed", "gaussian_pixel", "logistic", "logistic_mixture"]
    deviation: Annotated[float, Field(gt=0)]
    components: Annotated[int, Field(ge=1)]
    latent_side: Annotated[int, Field(ge=0)] | Literal["auto"]
    hidden: Annotated[int, Field(ge=0)]
    width: Annotated[int, Field(ge=1)]
    max_width: Annotated[int, Field(ge=1)]
    blocks: Annotated[int, Field(ge=1)]
    norm: Literal["batch", "group", "none"]
    conditional: bool
    importance_samples: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _consistent(self) -> VAEConfig:
        if self.network == "mlp" and self.latent_side:
            raise ValueError("the mlp has a flat latent: latent_side must be 0")
        if self.importance_samples > 1 and self.free_bits:
            raise ValueError("free_bits works with the ELBO alone: it must be 0 where importance_samples is above 1")
        return self


class Level(NamedTuple):
    """The blocks at one height and width."""

    side: int
    blocks: int


@dataclass(config=STRICT, frozen=True, kw_only=True)
class HVAEConfig(ModelConfig):
    """The keys of ``model=hvae``; configs/model/hvae.yaml explains them."""

    name: Literal["hvae"]
    layout: Annotated[tuple[LevelWord, ...], Field(min_length=1)] | None
    width: Annotated[int, Field(ge=1)]
    bottleneck: Annotated[float, Field(gt=0, le=1)]
    latent: Annotated[int, Field(ge=1)]
    encoder_blocks: Annotated[int, Field(ge=1)]
    whole_map: bool
    likelihood: Literal["bernoulli", "gaussian", "gaussian_fixed", "gaussian_pixel", "logistic", "logistic_mixture"]
    deviation: Annotated[float, Field(gt=0)]
    components: Annotated[int, Field(ge=1)]
    coarse_first: Annotated[int, Field(ge=0)]
    conditional: bool

    @property
    def hidden(self) -> int:
        """Channels within a bottleneck."""
        return max(1, round(self.width * self.bottleneck))


@dataclass(config=STRICT, frozen=True, kw_only=True)
class VQVAEConfig(ModelConfig):
    """The keys of ``model=vqvae``; configs/model/vqvae.yaml explains them."""

    name: Literal["vqvae"]
    tokens: Literal["map", "time"] = "map"
    downsampling: Literal[2, 4, 8, 16]
    time_downsampling: Literal[1, 2, 4, 8] = 4  # runs from before it was there are of images and sound
    stem: Literal["strided", "patches"] = "strided"
    width: Annotated[int, Field(ge=2)]
    blocks: Annotated[int, Field(ge=0)]
    quantizer: Literal["ema", "fsq"] = "ema"
    codes: Annotated[int, Field(ge=2)]
    codebooks: Annotated[int, Field(ge=1, le=32)] = 1
    code_dimensions: Annotated[int, Field(ge=1)]
    levels: Annotated[tuple[Annotated[int, Field(ge=3)], ...], Field(min_length=1)] = (8, 8, 8)
    cosine: bool
    commitment: Annotated[float, Field(ge=0)]
    decay: Annotated[float, Field(ge=0, lt=1)]
    restart_below: Annotated[float, Field(ge=0, lt=1)]
    warmup: Annotated[int, Field(ge=0)] = 0
    usage_window: Annotated[int, Field(ge=1)]
    adversarial: Annotated[float, Field(ge=0)] = 0.0
    reconstruction: Literal["mse", "bernoulli", "gaussian", "gaussian_pixel", "logistic", "logistic_mixture"]
    components: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _consistent(self) -> VQVAEConfig:
        if self.quantizer == "fsq" and self.cosine:
            raise ValueError("cosine belongs to quantizer=ema: the levels of fsq have no unit length")
        if self.quantizer == "fsq" and self.codebooks > 1:
            raise ValueError("codebooks belongs to quantizer=ema: more levels make fsq finer")
        return self

    @property
    def dimensions(self) -> int:
        """Of what is quantised."""
        return len(self.levels) if self.quantizer == "fsq" else self.code_dimensions
