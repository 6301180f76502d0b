"""Models whose samples are a function of a latent vector, so that one can walk from sample to sample."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AliasChoices, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError, suggest
from aigc_cli.modalities.base import DataSpec
from aigc_cli.models.base import Model, Prompts
from aigc_cli.randomness import Noise


@dataclass(config=STRICT, frozen=True, kw_only=True)
class LatentControls:
    """What ``sample`` of every latent model takes."""

    #: The way of sampling, such as "interpolate"; None is the model's usual one.
    mode: str | None = None
    #: The class, or several separated by commas, of a model that was trained on labels; None is all of them, in turn.
    class_: Annotated[str | None, Field(alias="class", validation_alias=AliasChoices("class", "class_"))] = None
    #: The samples of a row, where a row is a walk or moves a dimension; None is 8 for a walk, 9 for a dimension.
    frames: Annotated[int, Field(ge=2, le=1000)] | None = None


@dataclass(config=STRICT, frozen=True, kw_only=True)
class EncodingControls(LatentControls):
    """What ``sample`` takes of models that encode, too."""

    #: A file whose content is reconstructed, or where a walk begins, and one where it ends.
    prompt: str | None = None
    to: str | None = None


class LatentModel(Model):
    """Base of the models whose samples are a function of a latent vector: ``decode(latents(noise, controls))``.

    Sample ``i`` of a conditional model is of class ``i mod k`` of the k that are asked for.
    """

    can = frozenset({"sample", "latents", "decode"})
    controls: ClassVar[type] = LatentControls

    @property
    def classes(self) -> int:
        """How many it tells apart; none if it is not conditional."""
        return len(self.spec.classes) if self.conditional else 0

    def sample(self, noise: Noise, controls: Any, prompts: Prompts | None = None) -> Tensor:
        """Encoded items (len(noise), *spec.shape), of the classes asked for."""
        return self.decode(self.latents(noise, controls), self.labels(noise.indices, controls, noise.device))

    def turns(self, controls: Any) -> list[int]:
        """See :meth:`Model.turns`; the classes that a word such as ``cat,dog`` names, all for None."""
        return classes_asked_for(self, controls.class_)


def classes_asked_for(model: Model, word: str | None) -> list[int]:
    """The classes that a word such as ``cat,dog`` names, for None those of :attr:`Model.class_order`; none where the
    model is not told classes. A ConfigError where there is no such class to draw."""
    classes, untrained = model.spec.classes, model.spec.untrained
    if word is None and not model.conditional:
        return []
    if word is None:
        return [*model.class_order] or [label for label, name in enumerate(classes) if name not in untrained]
    if not model.conditional:
        what = f"class={word}: this model was trained without classes"
        raise ConfigError(what, "train one with model.conditional=true, on data with labels")
    names = [word] if word in classes else [name.strip() for name in word.split(",")]
    for name in names:
        if name not in classes:
            raise ConfigError(f"class={name}: the data has no such class", suggest(name, classes, limit=20))
        if name in untrained:
            known = [other for other in classes if other not in untrained]
            raise ConfigError(f"class={name}: no training item had this class", suggest(name, known, limit=20))
    return [classes.index(name) for name in names]


def check_conditional(conditional: bool | Literal["auto"], spec: DataSpec) -> bool:
    """Whether a model is told the class, by its key `conditional`: auto is where the data has classes to tell; a
    ConfigError where it is to be told and there are none."""
    if conditional == "auto":
        return len(spec.classes) > 1
    if conditional and len(spec.classes) < 2:
        what = "model.conditional=true needs labels, and this data has none"
        hint = "set model.conditional=false, or use data with classes, such as files in a folder for each"
        raise ConfigError(what, hint)
    return conditional


def slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Spherical interpolation of latents (n, d) at shares (k,) in [0, 1], as (n, k, d) (White 2016, section 2.1). Where
    two latents point the same way, or one is 0, it is linear."""
    # Nearly all of N(0, 1) in d dimensions lies about sqrt(d) from 0. A straight line would pass closer to 0 than any
    # latent that a decoder has seen; an arc does not.
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=1)[:, None, None]
    angle = torch.acos(cosine.clamp(-1, 1))
    share = share[None, :, None]
    sine = torch.sin(angle)
    straight = sine.abs() < 1e-4
    safe = torch.where(straight, 1.0, sine)
    first = torch.where(straight, 1 - share, torch.sin((1 - share) * angle) / safe)
    second = torch.where(straight, share, torch.sin(share * angle) / safe)
    return first * start[:, None] + second * end[:, None]
