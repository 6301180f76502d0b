"""What a model is to the rest of the house.

A model owns its networks, its losses and how it is sampled. It knows nothing of files, devices, loggers or loops: the
trainer asks for its phases, calls it once a phase, and steps the phase's optimizer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from aigc_cli.config.schema import STRICT, check
from aigc_cli.data.report import USUAL
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec, Layout
from aigc_cli.nn.lora import train_adapters_only
from aigc_cli.randomness import Noise
from aigc_cli.registry import find, name_of, names

#: What a model can do: each is the name of the method that does it, but for the last four, which say that
#: :meth:`Model.sample` reads prompts that are typed, that these may have gaps for it to fill, that it goes on from the
#: beginning of an item, and that :meth:`Model.encode` gives codes which another model can train on.
Ability = Literal[
    "sample", "latents", "decode", "encode", "posterior", "score", "fill", "examine",
    "prompt", "infill", "continue", "tokens",
]  # fmt: skip
#: Those that are methods.
METHODS: tuple[Ability, ...] = get_args(Ability)[:-4]
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
            raise ValueError("init_step and init_sha256 describe the run of init_from: add model.init_from=RUN")
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


class Prompts(NamedTuple):
    """What samples are written from, as a model reads it; sample ``i`` takes row ``i mod k`` of the k there are."""

    #: The token ids of each.
    rows: Sequence[Sequence[int]]
    #: For each, tokens of which the next is one, or none where it may be any: a prompt may end within a token.
    first: Sequence[Sequence[int]] = ()
    #: The class of each, where that is known.
    labels: Sequence[int] | None = None
    #: In place of rows, for models that see no tokens: encoded items (k, ...), of which a model keeps a part.
    items: Tensor | None = None


class Model(nn.Module):
    """Base of all models. A subclass is built as ``build(config, spec)`` with its own typed config.

    It says in :attr:`can` what it can do, and has the methods for that. All that the command line offers of a model,
    its modes of sampling and the metrics of it, follows from what it says.
    """

    #: What it can do. It is said, and not found out, so that what a model merely inherits is not taken for a promise.
    can: ClassVar[frozenset[Ability]] = frozenset()
    #: The layouts of items that it takes, of :attr:`DataSpec.layout`.
    layouts: ClassVar[frozenset[Layout]] = frozenset()
    #: Whether it makes an item from another, its source, which its data has to have.
    from_source: ClassVar[bool] = False
    #: A dataclass with a field for each control that :meth:`sample` takes.
    controls: ClassVar[type] = NoControls
    #: Whether batches hold sequences of all lengths, as :attr:`BatchPlan.mixed`: for what compares batches.
    mixed_lengths: ClassVar[bool] = False
    #: Whether it was built to be told the class.
    conditional: bool = False
    #: The classes of samples 0, 1, ... where nobody asks for any; with none, all that it has learnt take turns.
    class_order: Sequence[int] = ()
    #: Whether what it makes may be any numbers, as latents are, and not only those of content.
    unbounded: ClassVar[bool] = False
    #: The controls that :meth:`latents` heeds, None is all: the others have no effect on a walk between latents.
    of_latents: ClassVar[frozenset[str] | None] = None
    #: Whether it writes beyond its window, which moves on, so that of a long prompt it reads the last tokens; and the
    #: token that stands for a gap in a prompt.
    moves_on: ClassVar[bool] = False
    mask: int | None = None
    #: The draws that :meth:`score` takes in evaluation, where nobody asks for more: a likelihood may need some.
    probes: ClassVar[int] = 1
    #: Of a model that can "fill": what it guesses from, for the record, and the controls that this is measured with
    #: where nobody sets others.
    fills_from: ClassVar[str] = ""
    filling: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    #: How much faster than the steps its schedules go: 1, but in a run by minutes, which they follow.
    pace: float = 1.0

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for ability in METHODS:  # a method that nobody is told about would never be called
            if ability in vars(cls) and ability not in cls.can:
                raise TypeError(f"{cls.__name__} has {ability}() and does not say so: add {ability!r} to its `can`")

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        if not self.takes(spec):
            source = " with a source" if self.from_source else " without a source" if spec.source else ""
            name = name_of(type(self))
            able = spec.vocab_size is None and f"{name}_codes" in names("model")
            tokens = "add data.tokens=RUN, of a run of model=vqvae, or " if able else ""
            kind = f"latents of {spec.kind}" if spec.latents else f"{spec.kind} data"
            raise ConfigError(
                f"model={name} cannot model {kind}",
                f"{tokens}choose {', '.join(_models_of(spec))} or other data=; `aigc ls` lists them "
                f"(this model takes items laid out as {' or '.join(sorted(self.layouts))}{source})",
            )
        self.spec = spec
        self._step = 0

    @classmethod
    def takes(cls, spec: DataSpec) -> bool:
        """Whether data is laid out as it models it, with a source if it makes items from one."""
        able = cls.unbounded or not spec.latents
        return able and spec.layout in cls.layouts and cls.from_source == (spec.source is not None)

    @property
    def values(self) -> int:
        """How many an encoded item has."""
        return math.prod(self.spec.shape)

    def phases(self, step: int) -> Sequence[Phase]:
        """The optimizer steps of training step `step`, in order; a model takes note of it for what changes with it."""
        self._step = step
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

    # sampling; `controls` is an instance of :attr:`controls`

    def sample(self, noise: Noise, controls: Any, prompts: Prompts | None = None) -> Tensor:
        """Encoded items, ``(len(noise), *spec.shape)``; from `prompts` where the model can "prompt"."""
        raise NotImplementedError

    def latents(self, noise: Noise, controls: Any) -> Tensor:
        """Latents ``(len(noise), d)`` from the prior that `controls` name."""
        raise NotImplementedError

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Encoded items ``(n, *spec.shape)`` from latents ``(n, d)`` and, if conditional, labels ``(n,)``."""
        raise NotImplementedError

    def encode(self, batch: Batch) -> Tensor:
        """Vectors ``(n, d)`` of encoded items, without noise; where there is :meth:`decode`, what it takes."""
        raise NotImplementedError

    def turns(self, controls: Any) -> list[int]:
        """The classes that samples take turns in, as `controls` ask; none where the model is not told classes.

        Raises:
            ConfigError: a class that the data does not have, or a model that is not told classes.
        """
        return []

    def labels(self, indices: Sequence[int], controls: Any, device: torch.device | str) -> Tensor | None:
        """The classes ``(n,)`` of samples `indices`, int64, by :meth:`turns`; None where there are none."""
        turns = self.turns(controls)
        return torch.tensor([turns[index % len(turns)] for index in indices], device=device) if turns else None

    def labels_of(self, batch: Batch) -> Tensor | None:
        """The classes ``(n,)`` of encoded items, where the model is told them."""
        assert batch.labels is not None or not self.conditional, "a conditional model is given labels"
        return batch.labels if self.conditional else None

    def fill(self, tokens: Tensor, gaps: Tensor, noise: Noise, controls: Any) -> Tensor:
        """Token ids ``(n, t)``, `pad` behind shorter ones, with the gaps ``(n, t)``, bool, filled as it sees fit. The
        first token of an item is not a gap. `noise` has a stream for each item."""
        raise NotImplementedError

    def held(self, controls: Any = None) -> int:
        """About how many values an item has in memory while it is made: so many fewer fit in a batch. None for
        `controls` stands for what is not drawn, such as a reconstruction."""
        return FEATURES * self.values

    # looked at

    def bits(self, nats: Tensor) -> dict[str, Tensor]:
        """``"bits_per_dim"`` of nats per item; none of values that are not bytes, where it would say how finely a
        likelihood divides them, and would compare with nothing."""
        return {"bits_per_dim": nats / (self.values * math.log(2))} if self.spec.in_bytes else {}

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, Tensor]:
        """Held-out scores of encoded items, each ``(n,)``; the first is what the best checkpoint minimises.

        `noise` has a stream for each item, so that scores do not depend on the batch. Above 1, `samples` are the draws
        of an item's latent for the importance-weighted bound.
        """
        raise NotImplementedError

    def heed(self, controls: Any) -> None:
        """Takes note of the `controls` that :meth:`decode` and :meth:`encode` go by, of which most have none."""

    def prepare(self, items: Iterable[Batch], controls: Any) -> None:
        """Gets ready to :meth:`sample` with `controls` that need to see the encoded training set, such as a prior that
        is fitted on its latents. Most need not; `items` is read only if they do."""

    def examine(self, train: Batch, held_out: Batch | None) -> Losses:
        """Further curves, looked at now and then in evaluation mode: what is too dear for every step. They are of
        encoded training items, and of as many that it does not train on, where there are any."""
        raise NotImplementedError

    def warnings(self, figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        """What the newest curves say is going wrong: a name for it, and one line for a person, with a hint.

        `figures` has means since the last look by their full names, such as ``"discriminator/loss"``; those of
        :meth:`examine` begin with ``"examine/"``.
        """
        return iter(())

    def compile_networks(self, **options: Any) -> None:
        """Compiles, in place, the networks for which it pays, with the `options` of :func:`torch.compile`."""
        for child in self.children():
            child.compile(**options)


def _models_of(spec: DataSpec) -> list[str]:
    """The words that choose a model for such data, the usual one first; those for a variant are the model's own."""
    models: dict[str, Any] = {name: find("model", name).build for name in names("model")}
    found = [re.sub(rf"_({spec.modality}|codes)$", "", name) for name, model in models.items() if model.takes(spec)]
    usual = USUAL.get(spec.kind, "")
    ordered = sorted({*found}, key=lambda name: (name != usual, name))
    return [f"model={name}{' (the usual one)' if name == usual else ''}" for name in ordered]


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
