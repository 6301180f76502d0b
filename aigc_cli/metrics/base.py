"""What a metric is: a ``torchmetrics.Metric`` that says what it takes, and adds up over batches and processes.

A metric names *streams* (whose items) and *views* (what it sees of them), and :mod:`aigc_cli.metrics.evaluate` brings
it both. So a metric knows neither models nor files nor modalities, and serves every modality that has its views.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torchmetrics.utilities  # noqa: F401  which the next has to find begun
from torch import Tensor
from torchmetrics.metric import Metric as Summed

from aigc_cli.errors import DataError
from aigc_cli.metrics.extractors.base import FeatureStatistics, merge_packed
from aigc_cli.modalities.base import DataSpec
from aigc_cli.registry import find, names

#: Whose items: of the reference; those in question; real ones that neither model nor reference has seen; what a model
#: made of items, beside what each should have been; held-out items that a model is asked about.
Stream = Literal["real", "fake", "held_out", "pairs", "items"]
#: What a metric sees of items. By an extractor: "features" and "logits" (n, d), "frames" (the logits of each frame of
#: a clip, one after the other), "moments" (statistics of features). Of the
#: items themselves: "labels" (n,), "glance" (small, uint8), "content" (raw), "text" (strings). Of a model: "scores",
#: "codes" (latents), "fills" (of masked tokens), "written" (which of as many samples are training items, code by code).
View = Literal[
    "features", "logits", "frames", "moments", "labels", "glance", "content", "text", "scores", "codes", "fills",
    "written",
]  # fmt: skip
#: Which way a score is better: "near" that of real items, where either may be too much; "" where nothing says.
Better = Literal["lower", "higher", "near", ""]
Takes = Mapping[Stream, tuple[View, ...]]
Figures = Mapping[str, Better]
#: With fewer items than these, scores that count neighbours say little: the five nearest are a tenth of all.
FEW = 50


class Metric(Summed):
    """Base of all metrics. A subclass is built as ``build(config, width)`` with its own typed config.

    ``update(stream, *views)`` adds a batch of a stream, with the views that :attr:`takes` names, in that order; of
    "pairs" each view twice: of what was made, and of what it should have been. ``compute()`` gives float64 scalars by
    the names of :attr:`figures`, and raises a :class:`DataError` where there are too few items for them to mean
    anything, or items not to be trusted. Whatever is held with ``add_state`` is joined over processes by ``sync()``.

    Args:
        config: Its settings.
        width: The d of the first of its views, where an extractor makes that.
    """

    is_differentiable = False
    full_state_update = False
    #: Its scores, and which way each is better.
    figures: ClassVar[Figures]
    #: The views of each stream that it looks at.
    takes: ClassVar[Takes]
    #: What must have made the pairs that it takes; None is whatever the model does best.
    made_by: ClassVar[Literal["reconstruct", "continue"] | None] = None
    #: The modalities whose runs are measured with it where nobody names a metric, if the model can do what it `needs`,
    #: each with its place among those metrics; "pairs" is of models that make one item from another, unless
    #: there are some of such as "audio from text", and "*" of modalities that have no such metric.
    usual_for: ClassVar[Mapping[str, int]] = {}
    #: What a model must be able to do, of :attr:`Model.can`.
    needs: ClassVar[frozenset[str]] = frozenset()
    #: The extractor that its plain name stands for in the literature; on any other its name takes a bracket.
    native: ClassVar[str | None] = None
    #: Held-out texts that those which it takes are to be like, if there are any: of text that a model makes, whose own
    #: script may say little of what it has learnt.
    like: Sequence[str] = ()
    #: What the items are that it is updated with.
    spec: DataSpec | None = None

    def __init__(self, config: Any, width: int = 0) -> None:
        # Every process that evaluates sees all items: to join theirs at compute() would count each several times, or
        # wait for a process that does not evaluate. Whoever shares the work calls sync().
        super().__init__(sync_on_compute=False)
        self.config, self.width = config, width

    @classmethod
    def compares(cls) -> bool:
        """Whether a stamp names a reference: text that is written freely is shown beside held-out text, too."""
        return set(cls.takes) != {"fake"} or cls.takes["fake"] == ("text",)

    @classmethod
    def of_text(cls) -> bool:
        """Whether it measures text, which nothing else looks at."""
        return any("text" in views for views in cls.takes.values())

    def options(self) -> dict[str, Any]:
        """What a model must be told where it is asked for this metric's view of items."""
        return {}

    def halve_held_out(self) -> int:
        """Puts half of the held-out items in the place of generated ones, judged by the rest; how many those are."""
        raise NotImplementedError

    def bounds(self) -> dict[str, str]:
        """Which scores only bound what they stand for: "<=" or ">=" by name."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What else a reader must know, such as a signature; to be called after ``compute``."""
        return {}

    def notes(self) -> list[str]:
        """How the scores came about, where a reader should mind it, a sentence each."""
        return []

    def gallery(self) -> Tensor | None:
        """Items worth a look after ``compute``, raw, (rows, columns, ...); None for most."""
        return None


def require(count: int, least: int, whose: str, why: str, hint: str) -> None:
    """Refuses fewer than `least` items.

    Raises:
        DataError: there are too few.
    """
    if count < least:
        raise DataError(f"{count} {whose} items are too few: {why} needs at least {least}", hint)


class FeatureMetric(Metric):
    """A metric on features of real and generated items: on the statistics of a side that it takes as "moments", for
    which memory is O(d^2), or else on every row of one view, for which it is O(n d).

    Processes are joined in rank order: with each rank holding a contiguous share, the order is that of one process.
    """

    takes: ClassVar[Takes] = {"real": ("features",), "fake": ("features",)}
    real: Any
    fake: Any

    def __init__(self, config: Any, width: int) -> None:
        super().__init__(config, width)
        for side in ("real", "fake"):
            if self.takes.get(side) == ("moments",):
                empty = torch.zeros(width + 2, width, dtype=torch.float64)
                self.add_state(side, default=empty, dist_reduce_fx=merge_packed)
            else:
                self.add_state(side, default=[], dist_reduce_fx="cat")

    def update(self, stream: Stream, seen: FeatureStatistics | Tensor) -> None:
        """Merges the statistics of features; keeps rows (n, d) as float32."""
        if isinstance(seen, FeatureStatistics):
            setattr(self, stream, self.moments(stream).merge(seen).packed())
        else:
            getattr(self, stream).append(seen.detach().to(torch.float32))

    def moments(self, side: Stream) -> FeatureStatistics:
        """The statistics of a side that is taken as such."""
        return FeatureStatistics.unpacked(getattr(self, side))

    def rows(self, side: Stream) -> Tensor:
        """All rows of another, float32 (n, d)."""
        return joined(getattr(self, side), self.width)

    def gathered(self, least: int = 0, why: str = "", hint: str = "") -> tuple[Tensor, Tensor]:
        """All rows of both sides, real (n, d) and generated (m, d).

        Raises:
            DataError: either has fewer than `least`; see :func:`require`.
        """
        real, fake = self.rows("real"), self.rows("fake")
        require(len(real), least, "real", why, hint)
        require(len(fake), least, "generated", why, hint)
        return real, fake


def joined(parts: Tensor | list[Tensor], width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A state that is a list of (n, width) tensors as one tensor, whether or not torchmetrics has joined it."""
    if isinstance(parts, Tensor):  # of several processes
        return parts
    return torch.cat(parts) if parts else torch.zeros(0, width, dtype=dtype)


def kind_of(name: str) -> type[Metric]:
    """The class of the metric `name`.

    Raises:
        ConfigError: there is none.
    """
    kind = find("metric", name).build
    assert isinstance(kind, type)
    assert issubclass(kind, Metric), f"{name} is a metric"
    return kind


def usual_metrics(modality: str, source: bool, can: Collection[str]) -> list[str]:
    """The metrics of a run where nobody names any: those of its modality that suit what its model can do.

    Args:
        modality: Of what the model makes.
        source: Whether it makes one item from another.
        can: :attr:`Model.can`.
    """
    kinds = {name: kind_of(name) for name in names("metric")}
    places: dict[str, int] = {}
    for wanted in (f"{modality} from text", "pairs", "*") if source else (modality, "*"):
        places = places or {name: kind.usual_for[wanted] for name, kind in kinds.items() if wanted in kind.usual_for}
    return sorted((name for name in places if kinds[name].needs <= set(can)), key=places.__getitem__)
