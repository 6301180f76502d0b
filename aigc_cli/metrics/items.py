"""Items that are measured: those of a dataset, those that a model draws, and those in memory. Files are read by their
modality."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aigc_cli.data.base import Dataset
from aigc_cli.data.open import items_at, reference_rows
from aigc_cli.errors import ConfigError, DataError, NonFiniteError
from aigc_cli.metrics.base import View
from aigc_cli.modalities.base import Batch, DataSpec, Items, modality
from aigc_cli.registry import names

if TYPE_CHECKING:
    from torch import Tensor


def has_text(spec: DataSpec) -> bool:
    """Whether items of that kind can be read as text, and not as numbers that an extractor makes features of."""
    return modality(spec.modality).axes == ("tokens",)


class DatasetItems(Items):
    """Items of a split of the data `name`: all, at most `n` that stand for them, or `rows`, which stand for nothing."""

    def __init__(
        self, dataset: Dataset, split: str, name: str, n: int | None = None, *, rows: Sequence[int] | None = None
    ) -> None:
        self.dataset, self.split, self.name, self.spec = dataset, split, name, dataset.spec
        self.rows = reference_rows(dataset, split, n) if rows is None else rows
        # Features of a reference are kept on disk under this name.
        self.key: str | None = f"{self.spec.fingerprint}/{split}/{len(self.rows)}" if rows is None else None

    @cached_property
    def facts(self) -> dict[str, Any]:  # type: ignore[override]
        """Name, split and content."""
        known = {"data": self.name, "split": self.split, "fingerprint": self.spec.fingerprint}
        return {**known, "original": self.dataset.original}

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, size: int) -> Iterator[Batch]:
        """Gathered from memory where the dataset is there, else read one by one."""
        for start in range(0, len(self), size):
            yield items_at(self.dataset, self.rows[start : start + size])

    def take(self, n: int) -> DatasetItems:
        """`n` that stand for the whole split, of which these may be a part."""
        return type(self)(self.dataset, self.split, self.name, n)

    def where(self) -> dict[str, Any]:
        """All but whether it is the published data, which only counts of a reference."""
        return {key: value for key, value in self.facts.items() if key != "original"}

    @property
    def called(self) -> str:  # type: ignore[override]
        """How many of what, in words."""
        return f"{len(self):,} {self.split} {self.modality.noun[1]} of {self.name}"

    def counted_for(self, view: View) -> tuple[int, str]:
        """How many of what a model is asked about, and that in words."""
        return len(self), self.called

    def sizes(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """How much of what content that differs in size is what was scored of each item (n,)."""
        return {}

    def by_length(self) -> Sequence[int]:
        """Their rows, longest first, so that a batch that fits is followed by batches that fit."""
        return self.rows

    def asked_about(self) -> dict[str, Any]:
        """What a stamp says beside the model where that is asked about these items."""
        return {"reconstructed": self.split}


class SampledItems(Items):
    """`n` items that a model makes, drawn as they are asked for.

    Args:
        stream: Gives all of them, raw, in order, a batch at a time.
        n: How many there are.
        spec: What they are; it has classes if batches have labels.
        facts, called, against: As of all items.
    """

    def __init__(
        self, stream: Callable[[], Iterator[Batch]], n: int, spec: DataSpec, facts: Mapping[str, Any] | None = None,
        *, called: str = "", against: Items | None = None,
    ) -> None:  # fmt: skip
        self._stream, self._n, self.spec, self.facts = stream, n, spec, dict(facts or {})
        self.called, self.against = called, against

    def __len__(self) -> int:
        return self._n

    def batches(self, size: int) -> Iterator[Batch]:
        """Drawn in order, in batches that suit the model.

        Raises:
            DataError: the model draws NaN or infinite values; no score can be given of them.
        """
        try:
            yield from self._stream()
        except NonFiniteError as error:
            raise DataError(error.message, error.hint) from None


def same_shape(items: Items, reference: Items, what: str = "generated") -> None:
    """Refuses to compare items, which are called `what`, with a reference of another size.

    Raises:
        ConfigError: they are not of one modality.
        DataError: the shapes differ.
    """
    own, other = items.spec, reference.spec
    if own.modality != other.modality:
        raise ConfigError(f"{what} items are {own.modality}, and real ones {other.modality}", "name others")
    if own.raw != other.raw:
        kind, sizes = items.modality, ["x".join(map(str, spec.raw)) for spec in (own, other)]
        hint = "bring both to one size: how they are resized changes the scores"
        if own.raw[1:] == other.raw[1:]:
            hint = f"bring both to as many {kind.axes[0]}"
        sizes_differ = f"{what} {kind.noun[1]} are {sizes[0]} and real ones {sizes[1]} ({' x '.join(kind.axes)})"
        raise DataError(sizes_differ, hint)


class HeldItems(Items):
    """Raw content (n, ...) in memory, of the modality that has as many axes."""

    def __init__(self, content: Tensor) -> None:
        axes = {name: modality(name).axes for name in names("modality")}
        fitting = [name for name, own in axes.items() if len(own) == content.ndim - 1 and own != ("tokens",)]
        if not fitting or content.is_floating_point() or not len(content):
            sizes = "x".join(map(str, content.shape))
            what = f"these are not items: {str(content.dtype).removeprefix('torch.')} of {sizes}"
            raise ConfigError(what, "give raw content, integers (n, ...), as run.sample() or a dataset gives it")
        self.content = content.cpu()
        self.spec = DataSpec(fitting[0], tuple(content.shape[1:]))
        self.key = None
        self.facts = {"sha256": hashlib.sha256(self.content.contiguous().numpy().tobytes()).hexdigest()}
        self.called = f"{len(content):,} {self.modality.noun[1]}"

    def __len__(self) -> int:
        return len(self.content)

    def batches(self, size: int) -> Iterator[Batch]:
        """Slices of the tensor."""
        for start in range(0, len(self), size):
            yield Batch(self.content[start : start + size])

    def take(self, n: int) -> Items:
        """The first `n`."""
        if n > len(self):
            raise DataError(f"n={n}: there are {len(self)} items", f"use n={len(self)}, or no n=")
        return HeldItems(self.content[:n])

    def like(self, spec: DataSpec) -> Items:
        """With the rate of others, which a tensor does not say."""
        if spec.modality != self.spec.modality or spec.rate is None:
            return self
        other = HeldItems(self.content)
        other.spec = replace(other.spec, rate=spec.rate, content=other.spec.shape, level=spec.level)
        return other
