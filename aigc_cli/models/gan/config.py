"""The keys of ``model=gan`` and its presets, checked; configs/model/gan.yaml says what each one means."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.models.base import ModelConfig

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Change = Literal["translation", "color", "cutout", "flip"]
AdaptiveChange = Literal[
    "flip", "quarter_turns", "translation", "scale", "rotation", "stretch",
    "brightness", "contrast", "luma_flip", "hue", "saturation",
]  # fmt: skip


@dataclass(config=STRICT, frozen=True, kw_only=True)
class GANConfig(ModelConfig):
    """What makes a GAN."""

    name: Literal["gan"]
    network: Literal["dcgan", "mlp", "resnet", "biggan", "r3gan", "wavegan", "dcgan3d"]
    loss: Literal["minimax", "non_saturating", "hinge", "lsgan", "wgan", "relativistic"]
    conditional: bool | Literal["auto"]
    latent: Count
    embedding: Count
    hidden: Annotated[int, Field(ge=0)]
    width: Count
    max_width: Count
    discriminator_width: Count | None
    blocks: Count
    attention: Annotated[int, Field(ge=0)]
    init: Literal["variance", "normal", "xavier", "orthogonal"]
    generator_norm: Literal["batch", "group", "pixel", "none"]
    discriminator_norm: Literal["batch", "group", "none"]
    spectral_norm: bool
    generator_spectral_norm: bool
    dropout: Annotated[float, Field(ge=0, lt=1)]
    minibatch_stddev: bool
    discriminator_steps: Count
    augment: tuple[Change | Literal["ada"], ...]
    ada_target: Annotated[float, Field(gt=-1, lt=1)]
    ada_length: Count
    ada_transforms: tuple[AdaptiveChange, ...]
    penalty: Literal["auto", "none", "r1", "r1r2", "gradient"]
    r1_gamma: Positive
    r1_every: Count
    gradient_penalty: Positive
    consistency: Weight
    consistency_augment: tuple[Change, ...]
    lecam: Weight
    phase_shuffle: Annotated[int, Field(ge=0, le=8)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> GANConfig:
        if self.network == "mlp" and not self.hidden:
            raise ValueError("the mlp needs hidden units: hidden must be at least 1")
        if self.regularizer == "gradient" and self.discriminator_norm == "batch":
            # Gulrajani et al. 2017, section 4: the penalty is on each item's gradient, batch norm mixes items.
            why = "batch normalisation mixes the items"
            raise ValueError(f"a gradient penalty needs discriminator_norm=group or none: {why}")
        own = self.generator_norm, self.discriminator_norm, self.init
        if self.network == "r3gan" and own != ("none", "none", "variance"):
            needs = "generator_norm=none, discriminator_norm=none and init=variance, as in model=r3gan_small"
            raise ValueError(f"r3gan has no normalisation and its own initial weights: it needs {needs}")
        if self.network == "wavegan" and own[:2] != ("none", "none"):
            raise ValueError("wavegan has no normalisation: it needs generator_norm=none and discriminator_norm=none")
        # Nothing is ignored in silence.
        served = {
            "minibatch_stddev": ("dcgan",), "dropout": ("dcgan", "mlp"), "attention": ("resnet", "biggan"),
            "phase_shuffle": ("wavegan",),
        }  # fmt: skip
        for key, networks in served.items():
            if getattr(self, key) and self.network not in networks:
                raise ValueError(f"{key} belongs to network={' and '.join(networks)}, not {self.network}")
        if self.consistency and not self.consistency_augment:
            raise ValueError("consistency needs augmentations: consistency_augment is empty")
        if "ada" in self.augment and not self.ada_transforms:
            raise ValueError("augment=[ada] needs transforms: ada_transforms is empty")
        return self

    @property
    def regularizer(self) -> Literal["none", "r1", "r1r2", "gradient"]:
        """The penalty that applies."""
        if self.penalty != "auto":
            return self.penalty
        if self.loss == "wgan":
            return "gradient"
        return "r1r2" if self.loss == "relativistic" else "r1"

    @property
    def generator_widths(self) -> tuple[int, int]:
        """Channels of the generator's largest map, and the most that any has."""
        return self.width, self.max_width

    @property
    def discriminator_widths(self) -> tuple[int, int]:
        """The same for the discriminator, whose limit stands in the same proportion."""
        own = self.discriminator_width or self.width
        return own, max(1, self.max_width * own // self.width)
