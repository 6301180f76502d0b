"""Batches, as a pure function of (seed, k).

The order of items is the endless concatenation of one permutation per epoch; micro-batch `k` of all ranks together is
the k-th run of ``batch_size * world_size`` entries of it, and each rank takes its contiguous share: the same items
train a step, whatever the number of ranks. A dataset may bring another order and another way to gather items.
"""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_cli.data.base import BatchPlan, Dataset, Gatherer, Order, PermutedOrder
from aigc_cli.errors import AigcError, DataError, as_user_error, dead_worker
from aigc_cli.modalities.base import Batch, Codec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Device = torch.device | str


class Loader:
    """The encoded micro-batches of one rank.

    Data that is held moves to the device once, and batches are gathered and augmented there without a host sync. Other
    data streams, in the same order, through `workers` processes.
    """

    def __init__(
        self, dataset: Dataset, *, batch_size: int, seed: int, device: Device, rank: int = 0, world_size: int = 1,
        workers: int = 0, augment: bool = True, codec: Codec | None = None, mixed: bool = False,
    ) -> None:  # fmt: skip
        """Without `augment` items come as they are, whatever the data's configuration says of training; a `codec`
        encodes them in place of the data's own. `mixed` is as of :class:`BatchPlan`."""
        if not len(dataset):
            raise DataError("the dataset is empty", "point data.root= at data with at least one item")
        self.dataset, self.device, self.workers, self._codec = dataset, device, workers, codec or dataset.codec
        plan = BatchPlan(batch_size, seed, rank, world_size, mixed)
        self._kept = dataset.kept(device) if augment and codec is None else None
        self._gatherer = gatherer_of(dataset, device) if self._kept is None else self._kept
        where: Device = "cpu" if self._gatherer is None else self._gatherer.device
        kind = type(dataset)
        # Else none would be used.
        draws = augment and (kind.augment is not Dataset.augment or kind.gatherer is not Dataset.gatherer)
        self._order: Order = dataset.order(plan, where) or PermutedOrder(len(dataset), plan, where, draws)
        self._stream: Iterator[Batch] | None = None
        self._next = -1

    def batch(self, k: int) -> Batch:
        """The k-th encoded micro-batch of this rank, on the device; raises DataError where an item cannot be read, or a
        worker process died."""
        index, uniform = self._order.entries(k)
        if self._gatherer is not None:
            raw = _moved(self._gatherer(index, uniform), self.device)
        else:
            raw = self._streamed(k).to(self.device)
            if uniform is not None:
                raw = raw.with_content(self.dataset.augment(raw.content, uniform.to(self.device)))
        if self._kept is not None:
            return raw
        return raw.with_content(self._codec.encode(raw.content))

    def epoch(self, k: int) -> float:
        """See :meth:`Order.epoch`."""
        return self._order.epoch(k)

    def _streamed(self, k: int) -> Batch:
        if self._stream is None or k != self._next:
            self._stream = None  # ends its workers
            order = self._order  # without `self`, so that the workers end with the last reference to the loader
            indices = (order.entries(position)[0].tolist() for position in count(k))
            self._stream = _stream(self.dataset, indices, self.workers, self.device)
        self._next = k + 1
        return next(self._stream)


class _Held:
    """Gathers batches of data that is held on a device, and augments them there."""

    def __init__(self, data: Batch, augment: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._data, self._augment, self.device = data, augment, data.content.device

    def __call__(self, index: Tensor, uniform: Tensor | None = None) -> Batch:
        batch = self._data.take(index)
        return batch if uniform is None else batch.with_content(self._augment(batch.content, uniform))


def gatherer_of(dataset: Dataset, device: Device) -> Gatherer | None:
    """What makes batches of the dataset's items in one go; None where each has to be read."""
    own = dataset.gatherer(device)
    resident = dataset.resident() if own is None else None
    return own if resident is None else _Held(resident.to(device), dataset.augment)


def batches_in_order(
    dataset: Dataset, batch_size: int, device: Device, *, workers: int = 0, draws: Tensor | None = None
) -> Iterator[Batch]:
    """All items once, in order, raw; without augmentation, unless `draws` (n, DRAWS) say what training would make of
    each. The last batch may be smaller. Raises DataError where an item cannot be read, or a worker process died."""
    spans = [(start, min(start + batch_size, len(dataset))) for start in range(0, len(dataset), batch_size)]
    # What is held moves a batch at a time: the device may have no room for all of a split that is looked at once.
    gatherer = dataset.gatherer(device) or gatherer_of(dataset, "cpu")
    if gatherer is None:
        batches = _stream(dataset, (list(range(*span)) for span in spans), workers, device)
        for span, batch in zip(spans, batches, strict=True):
            raw = batch.to(device)
            own = None if draws is None else draws[slice(*span)].to(raw.content.device)
            yield raw if own is None else raw.with_content(dataset.augment(raw.content, own))
        return
    import torch

    where = gatherer.device
    for span in spans:
        own = None if draws is None else draws[slice(*span)].to(where)
        yield _moved(gatherer(torch.arange(*span, device=where), own), device)


def _moved(batch: Batch, device: Device) -> Batch:
    import torch

    if torch.device(device).type == "cuda" and batch.content.device.type == "cpu":
        batch = batch.each(torch.Tensor.pin_memory)  # else the copy waits for all that the device has yet to do
    return batch.to(device)


def read_batch(dataset: Dataset, rows: Sequence[int]) -> Batch:
    """The raw items of some rows, read one by one; raises DataError where one cannot be read."""
    import torch

    contents, labels = zip(*(dataset.read(row) for row in rows), strict=True)
    known = [label for label in labels if label is not None]
    return Batch(torch.stack(contents), torch.tensor(known) if known else None)


@dataclass(frozen=True)
class _Copied:
    """A batch that goes through a pipe, byte by byte."""

    arrays: tuple[np.ndarray | None, ...]

    @classmethod
    def of(cls, batch: Batch) -> _Copied:
        parts = (batch.content, batch.labels, batch.source)
        return cls(tuple(None if part is None else part.numpy() for part in parts))

    def batch(self) -> Batch:
        import torch

        content, labels, source = (None if array is None else torch.from_numpy(array) for array in self.arrays)
        assert content is not None
        return Batch(content, labels, source)


class _Reader:
    """Reads whole batches, in a worker process or in this one; an error of ours is handed back, not wrapped.

    A worker hands tensors over in shared memory, which containers have little of. Where that is full the arrays
    themselves go through the pipe: left to torch, such a batch would be lost, and waited for without end.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: Sequence[int]) -> Batch | AigcError | _Copied:
        import torch
        from torch.utils.data import get_worker_info

        try:
            batch = read_batch(self.dataset, indices)
        except AigcError as error:
            return error
        if get_worker_info() is None:
            return batch
        try:
            return batch.each(torch.Tensor.share_memory_)
        except (RuntimeError, OSError):
            return _Copied.of(batch)


def _stream(dataset: Dataset, indices: Iterator[list[int]], workers: int, device: Device) -> Iterator[Batch]:
    import torch
    from torch.utils.data import DataLoader

    pin = torch.device(device).type == "cuda"
    loader: Any = DataLoader(
        _Reader(dataset),  # type: ignore[arg-type]
        batch_size=None,
        sampler=indices,
        num_workers=workers,
        worker_init_fn=_in_worker,
        generator=torch.Generator(),  # it draws a seed for the workers, which must not come out of the step's own
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: fork beside torch's own threads
        batches = iter(loader)
    try:
        for batch in batches:
            if isinstance(batch, AigcError):
                raise batch
            if isinstance(batch, _Copied):
                batch = batch.batch()
            yield batch.each(torch.Tensor.pin_memory) if pin else batch
    except RuntimeError as error:
        known = as_user_error(error)
        if isinstance(known, DataError):  # a worker process died
            raise known from error
        raise
    except (ConnectionError, EOFError) as error:
        processes = batches._workers if workers else []
        for process in processes:
            process.join(1)  # one that has just been killed is given a moment
        dead = [str(process.pid) for process in processes if not process.is_alive()]
        if not dead:
            raise
        raise dead_worker(f"process {', '.join(dead)} is gone, in the middle of handing a batch over") from error
    finally:
        if workers:
            batches._shutdown_workers()  # at once: an error's traceback would keep them until it is forgotten


def _in_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the main process decides
    # Errors of items are handed over. What else comes here is a thread that offers shared memory to a process which has
    # ended: its traceback would stand above the error that the main process names.
    sys.excepthook = lambda *_: None
