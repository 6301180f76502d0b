"""What is asked for when a model is sampled, and what becomes of it: samples, drawn a batch at a time, as raw content.

Sample ``i`` depends on the seed and ``i`` alone, so that a plan of more samples begins with those of one of fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.open import chosen_rows, encoded, items_at
from aigc_cli.errors import ConfigError, DataError, NonFiniteError, ResourceError, too_many, warn
from aigc_cli.modalities.base import Batch, Codec
from aigc_cli.modalities.prompts import Prompt
from aigc_cli.modalities.samples import Arrangement
from aigc_cli.models.base import Model, Prompts
from aigc_cli.randomness import Noise
from aigc_cli.registry import name_of
from aigc_cli.training.memory import is_out_of_memory

# Values that a batch has in memory: enough to keep the device busy, few enough to fit. A first guess only: a batch that
# does not fit is halved.
_BUDGET = {"cpu": 2**26, "cuda": 2**29}
_LARGEST = 1024
#: Items of the training set, at most, that a model is shown before it is sampled.
SHOWN = 20_000
_SHOWN_AT_ONCE = 128

T = TypeVar("T")
#: Maps a batch size, None for one that suits, to all samples in order, raw content (b, ...) on the CPU.
Batches = Callable[[int | None], Iterator[Tensor]]
#: Sees samples as they are drawn, raw content (b, ...), where anybody looks.
Look = Callable[[Tensor], None] | None


def auto_batch_size(held: int, device: torch.device | str) -> int:
    """A power of two that suits a device, for items of which each has `held` values in memory."""
    room = _BUDGET.get(torch.device(device).type, _BUDGET["cpu"]) // max(1, held)
    return min(_LARGEST, 1 << max(0, room.bit_length() - 1))


def generate(
    model: Model, codec: Codec, indices: Sequence[int], *, seed: int, device: torch.device | str,
    batch_size: int | None = None, controls: Any = None, prompts: Prompts | None = None,
) -> Iterator[Tensor]:  # fmt: skip
    """Yields samples as raw content (b, ...) on the CPU, in the order of `indices`, of a model in evaluation mode.

    Sample ``i`` depends on ``(seed, i)`` alone. Its batch only changes which kernels the sums run through: encoded
    values of different batch sizes agree to within 1e-5 in float32, so decoded uint8 pixels to within one level.

    The usual `controls` and a batch size that suits stand for None; such a size is halved where memory runs out.

    Raises:
        ConfigError: the model cannot be sampled.
        NonFiniteError: a sample is not finite.
        ResourceError: a batch does not fit in memory.
    """
    if "sample" not in model.can:
        hint = "it can: mode=reconstruct" if {"encode", "decode"} <= model.can else "choose another run="
        raise ConfigError(f"model={name_of(type(model))} is not a model that can be sampled", hint)
    asked = model.controls() if controls is None else controls

    def draw(some: Sequence[int]) -> Tensor:
        drawn = model.sample(Noise(seed, some, device), asked, prompts)
        return decoded(drawn, codec, f"samples {some[0]} to {some[-1]} (seed {seed})")

    return in_batches(draw, indices, model.held(asked), device, batch_size)


def reconstruct(
    model: Model, dataset: Dataset, rows: Sequence[int], *, device: torch.device | str, batch_size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields items and what the model makes of them, raw content (b, ...) on the CPU, in the order of `rows`.

    The model is in evaluation mode; `batch_size` is as in :func:`generate`.

    Raises:
        ConfigError: the model has no reconstructions, or the data is not what it is made for.
        DataError: an item cannot be read.
        NonFiniteError: a reconstruction is not finite.
        ResourceError: a batch does not fit in memory.
    """
    if not {"encode", "decode"} <= model.can:
        raise ConfigError(f"model={name_of(type(model))} cannot reconstruct", "choose another run=")
    theirs, own = dataset.spec, model.spec
    hint = "say with data.root= where the data of the run lies"
    if theirs.shape != own.shape:
        shapes = ["x".join(map(str, spec.shape)) for spec in (theirs, own)]
        raise ConfigError(f"items are {shapes[0]}, and the model is made for {shapes[1]}", hint)
    if model.conditional and theirs.classes != own.classes:
        raise ConfigError("the classes of the data are not those that the model was trained on", hint)

    def draw(some: Sequence[int]) -> tuple[Tensor, Tensor]:
        raw = items_at(dataset, some)
        batch = encoded(raw.to(device), dataset.codec)
        made = model.decode(model.encode(batch), model.labels_of(batch))
        return raw.content, decoded(made, dataset.codec, "its reconstructions")

    return in_batches(draw, rows, model.held(), device, batch_size)


def prepare(model: Model, open_train: Callable[[], Dataset], controls: Any, *, device: torch.device | str) -> None:
    """Gets a model, in evaluation mode, ready to be sampled with `controls`, for which it may need to see the training
    set, encoded: only then `open_train` is called.

    Raises:
        ConfigError: the model cannot serve `controls`.
        DataError: the data is missing or cannot be trusted.
    """

    def items() -> Iterator[Batch]:
        # In stored order, but of all kinds: where there are many, each class may have a place of its own in it.
        dataset = open_train()
        rows = sorted(chosen_rows(dataset, "prepare")[:SHOWN])
        for start in range(0, len(rows), _SHOWN_AT_ONCE):
            batch = items_at(dataset, rows[start : start + _SHOWN_AT_ONCE])
            yield encoded(batch.to(device), dataset.codec)

    with torch.no_grad():  # not in inference mode: what a model keeps of this, it may train with
        model.prepare(items(), controls)


def in_batches(
    draw: Callable[[Sequence[int]], T],
    indices: Sequence[int],
    held: int,
    device: torch.device | str,
    batch_size: int | None = None,
) -> Iterator[T]:
    """Yields what `draw` makes of `indices`, a run of them at a time, without gradients.

    Each has `held` values in memory, see :meth:`Model.held`; `batch_size` is as in :func:`generate`.

    Raises:
        ResourceError: a batch does not fit in memory.
    """
    size = batch_size or auto_batch_size(held, device)
    start = 0
    while start < len(indices):
        some = indices[start : start + size]
        try:
            with torch.inference_mode():
                drawn = draw(some)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if batch_size is not None or size == 1:
                hint = "choose a smaller batch_size=" if size > 1 else "choose another device="
                raise ResourceError(f"a batch of {size} samples does not fit in the memory of {device}", hint) from None
            size //= 2
            continue
        yield drawn
        start += len(some)


def decoded(items: Tensor, codec: Codec, what: str) -> Tensor:
    """Encoded items as raw content on the CPU; a :class:`NonFiniteError` of `what` they are where one is not finite."""
    if items.is_floating_point() and not bool(torch.isfinite(items).all()):
        hint = "choose an earlier checkpoint with step=, or less extreme controls"
        raise NonFiniteError(f"{what} contain NaN or Inf", hint)
    return codec.decode(items).cpu()


@dataclass(frozen=True)
class Plan:
    """A set of samples, and how it is drawn."""

    arrangement: Arrangement
    batches: Batches
    #: What of the data the samples show.
    source: Mapping[str, Any] = field(default_factory=dict)

    def seen(self, look: Look) -> Plan:
        """The same, of which `look` sees what the model made, and no items of the data."""
        if look is None:
            return self

        def batches(batch_size: int | None) -> Iterator[Tensor]:
            index = 0
            for raw in self.batches(batch_size):
                look(raw[torch.tensor([self.arrangement.generated(index + place) for place in range(len(raw))])])
                yield raw
                index += len(raw)

        return replace(self, batches=batches)


class HeldOut(NamedTuple):
    """Some items that the model was not trained on, raw, and where they come from."""

    split: Split
    dataset: Dataset
    rows: list[int]
    batch: Batch

    @property
    def source(self) -> dict[str, Any]:
        """Which data it is."""
        return {"split": self.split, "fingerprint": self.dataset.spec.fingerprint}

    def __str__(self) -> str:
        return f"{len(self.rows)} {'item' if len(self.rows) == 1 else 'items'} of the {self.split} split"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be sampled, and what with."""

    model: Model
    codec: Codec
    #: Of ``model.controls``.
    controls: Any
    #: Samples, or what a mode counts in their place; None is as many as suit it.
    n: int | None
    seed: int
    device: torch.device
    #: Open the items that the model was trained on, and those that it was not; called only where they are needed.
    train: Callable[[], Dataset]
    held_out: Callable[[], tuple[Split, Dataset]]
    #: How many samples a person looks at together.
    usual: int
    #: What to begin from; samples take turns in them.
    prompts: Sequence[Prompt] = ()
    #: Whether fewer will do, where there are not `n`.
    at_most: bool = False

    def counted(self, usual: int, most: int, what: str) -> int:
        """How many are asked for; a :class:`ConfigError` where these are more than there are."""
        if self.n is not None and self.n > most and not self.at_most:
            raise too_many(self.n, most, what)
        return min(usual if self.n is None else self.n, most)

    def warn_of_n(self) -> None:
        """Warns where prompts say how many samples there are."""
        if self.n is not None:
            warn("n= has no effect here: each prompt is decoded once")

    def items(self, usual: int) -> HeldOut:
        """As many held-out items as are asked for; the seed decides which.

        Raises:
            ConfigError: there are fewer.
            DataError: they cannot be read.
        """
        try:
            split, dataset = self.held_out()
        except DataError as error:  # a run may be sampled where its data is not
            keys = "data.root=" if self.model.spec.source is None else "data.root=, or data.source= and data.target=,"
            instead = "give prompt= in its place" if "prompt" in self.model.can else ""
            hints = [error.hint, f"say with {keys} where the data is now", instead]
            raise DataError(error.message, "; or ".join(filter(None, hints))) from error
        n = self.counted(usual, len(dataset), f"items in the {split} split")
        rows = chosen_rows(dataset, self.seed)[:n]
        return HeldOut(split, dataset, rows, items_at(dataset, rows))

    def drawn(self, n: int, prompts: Prompts | None = None) -> Batches:
        """The batches of `n` samples, drawn from `prompts` if there are any."""
        return Drawn(self, n, prompts)

    def decoded(
        self, n: int, latents: Callable[[Sequence[int]], Tensor], labels: Sequence[int] | None = None
    ) -> Batches:
        """The batches of the `n` samples that `latents`, of some of their numbers in order, are decoded to."""

        def draw(some: Sequence[int]) -> Tensor:
            own = None if labels is None else torch.tensor([labels[index] for index in some], device=self.device)
            what = f"samples {some[0]} to {some[-1]} (seed {self.seed})"
            return decoded(self.model.decode(latents(some), own), self.codec, what)

        return lambda batch_size: in_batches(draw, range(n), self.model.held(), self.device, batch_size)


@dataclass(frozen=True)
class Drawn:
    """The batches of samples that are drawn each by itself."""

    request: Request
    n: int
    prompts: Prompts | None = None

    def __call__(self, batch_size: int | None) -> Iterator[Tensor]:
        """All of them."""
        return self.of(range(self.n), batch_size)

    def of(self, indices: Sequence[int], batch_size: int | None = None) -> Iterator[Tensor]:
        """Those of some numbers."""
        asked = self.request
        return generate(
            asked.model, asked.codec, indices, seed=asked.seed, device=asked.device, batch_size=batch_size,
            controls=asked.controls, prompts=self.prompts,
        )  # fmt: skip
