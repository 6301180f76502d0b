"""What a model is to the rest of the house.

A model owns its networks, its losses and how it is sampled. It knows nothing of files, devices, loggers or loops: the
trainer asks for its phases, calls it once a phase, and steps the phase's optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.randomness import Noise

#: Features that a deep network has for each value of an item, as a first guess.
FEATURES = 128
#: ``"loss"`` is what the phase minimises; every other entry is a scalar worth a curve.
Losses = dict[str, Tensor]


class Phase(NamedTuple):
    """One optimizer step within a training step."""

    name: str
    #: Whether it takes new data; otherwise it sees again what the phase before it saw.
    new_batch: bool = True


@dataclass(config=STRICT, frozen=True, kw_only=True)
class NoControls:
    """The sampling controls of a model that has none."""


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ModelConfig:
    """What the section `model` of every configuration has; configs/train.yaml explains it."""

    init_from: str | None = None
    init_step: Annotated[int, Field(ge=0)] | Literal["best"] | None = None
    init_sha256: str | None = None
    init_tokenizer: Literal["keep", "new"] = "keep"

    @model_validator(mode="after")
    def _of_a_run(self) -> Self:
        if self.init_from is None and (self.init_step is not None or self.init_sha256 is not None):
            raise ValueError("init_step and init_sha256 are of the run that init_from names: add model.init_from=RUN")
        return self


def keys_of(schema: type, section: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a section `model` for a `schema`, which need not be a :class:`ModelConfig` if it is a plugin's."""
    known = set() if issubclass(schema, ModelConfig) else set(ModelConfig.__dataclass_fields__)
    return {key: value for key, value in section.items() if key not in known}


class Transfer(NamedTuple):
    """What there is to know of a model's tensors, by their names, where it starts from the weights of another."""

    #: What begins the names of a part that other models have too, by the name that it has among them.
    parts: Mapping[str, str] = MappingProxyType({})
    #: Those with a row for each token.
    rows: tuple[str, ...] = ()
    #: Those that only some have, each with what takes its place where the other model has none.
    stand_ins: Mapping[str, str] = MappingProxyType({})
    #: Those that belong to the data or to this training, and are never taken.
    own: tuple[str, ...] = ()


class Model(nn.Module):
    """Base of all models. A subclass is built as ``build(config, spec)`` with its own typed config."""

    #: The modalities it serves, of :attr:`DataSpec.kind`.
    modalities: ClassVar[tuple[str, ...]] = ()
    #: A dataclass with a field for each control that :meth:`sample` takes.
    controls: ClassVar[type] = NoControls

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        if spec.kind not in self.modalities:
            name = type(self).__name__
            raise ConfigError(
                f"{name} cannot model {spec.kind} data; it serves {', '.join(self.modalities)}",
                "choose other data= or another model=; `aigc ls data` and `aigc ls models` list them",
            )
        self.spec = spec

    def phases(self, step: int) -> Sequence[Phase]:
        """The optimizer steps of training step `step`, in order."""
        return (Phase("main"),)

    def network(self, phase: str) -> nn.Module:
        """The module whose parameters the optimizer of `phase` owns."""
        return self

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The losses of one phase on one batch; ``"loss"`` is minimised, scalars all."""
        raise NotImplementedError

    def averaged(self) -> nn.Module:
        """The module that the exponential moving average follows and that sampling uses."""
        return self

    def transfer(self) -> Transfer:
        """How its tensors go with those of another model; by default, by their names and shapes alone."""
        return Transfer()

    def sample(self, noise: Noise, **controls: Any) -> Tensor:
        """Encoded items, ``(len(noise), *spec.shape)``; `controls` are the fields of :attr:`controls`."""
        raise NotImplementedError

    def held(self, **controls: Any) -> int:
        """About how many values a sample has in memory while it is drawn: so many fewer fit in a batch."""
        return FEATURES * math.prod(self.spec.shape)

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, Tensor] | None:
        """Held-out figures of encoded items, each ``(n,)``; the first is what the best checkpoint minimises.

        None where the model has no likelihood, nor a bound on one.

        Args:
            batch: Encoded items.
            noise: What is drawn on the way, a stream for each item, so that figures do not depend on the batch.
            samples: Draws of the latent for each item; above 1 the figures are of the importance-weighted bound.
        """
        return None

    def prepare(self, items: Iterable[Batch], **controls: Any) -> None:
        """Gets ready to :meth:`sample` with `controls` that need to see the encoded training set, such as a prior that
        is fitted on its latents. Most need not; `items` is read only if they do."""

    def examine(self, train: Batch, held_out: Batch | None) -> Losses:
        """Further curves, looked at now and then in evaluation mode: what is too dear for every step.

        Args:
            train: Encoded training items.
            held_out: As many encoded items that it does not train on; None where there are none.
        """
        return {}

    def warnings(self, figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        """What the newest curves say is going wrong: a name for it, and one line for a person, with advice.

        Args:
            figures: Means since the last look by their full names, such as ``"discriminator/loss"``; those of
                :meth:`examine` begin with ``"examine/"``.
        """
        return iter(())

    def compile_networks(self) -> None:
        """Compiles, in place, the networks for which it pays."""
        for child in self.children():
            child.compile()
