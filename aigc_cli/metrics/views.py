"""What metrics see of items: what extractors make of them, and what they are themselves, in one pass for all."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError, DataError, ResourceError, warn
from aigc_cli.metrics.base import View
from aigc_cli.metrics.extractors.base import Extractor, FeatureStatistics, Sources, check_finite, entry, load, store
from aigc_cli.modalities.base import Batch, Items
from aigc_cli.progress import Progress
from aigc_cli.registry import find

_BATCH = 128


class Key(NamedTuple):
    """A view, and the extractor that makes it; "" where that is none."""

    extractor: str
    view: View


#: Rows of views: features and logits (n, d) float32 on the CPU, labels (n,) int64, glances and content (n, ...); of
#: content a pair where items have sources.
Rows = dict[Key, Any]


def build_extractor(name: str, sources: Sources) -> Extractor:
    """The registered extractor `name`; a run that validates keeps its random state."""
    component = find("extractor", name)
    config = check("extractor", component.config, {"name": name})
    with torch.random.fork_rng(devices=[]):
        extractor: Extractor = component.build(config, sources)
    return extractor


class Views:
    """Extractors at work.

    Args:
        sources: What extractors may build themselves from, and where they compute.
        batch_size: Items at a time; None suits each extractor, and is halved where memory runs out.
        dtype: "float32", or "bfloat16" for automatic mixed precision.
    """

    def __init__(self, sources: Sources, batch_size: int | None = None, dtype: str = "float32") -> None:
        self.sources, self.device, self.dtype = sources, sources.device, dtype
        self._given = batch_size
        self._sizes: dict[str, int] = {}
        self._extractors: dict[str, Extractor] = {}

    def extractor(self, name: str) -> Extractor:
        """The extractor `name`, built when it is first asked for.

        Raises:
            ConfigError: there is none, or it cannot serve this data.
            DataError: weights or data that are missing or cannot be trusted.
        """
        if name not in self._extractors:
            self._extractors[name] = build_extractor(name, self.sources)
        return self._extractors[name]

    @cached_property
    def usual_extractor(self) -> str:
        """The extractor of data where nobody names one: its classifier, or where it has no labels that can be learnt,
        what learns without.

        Raises:
            DataError: the data cannot be read.
        """
        splits = self.sources.splits
        if splits is None or len(splits["train"].spec.classes) < 2:
            return "own-ssl"
        try:
            self.extractor("classifier")
        except DataError as error:
            warn(f"{error.message}; own-ssl, which learns without labels, takes its place")
            return "own-ssl"
        return "classifier"

    def rows(self, items: Items, what: str, wanted: Iterable[Key]) -> Iterator[Rows]:
        """The wanted views, a batch at a time; items are drawn or read beside the work on those before them.

        Raises:
            ConfigError: labels of items that have none.
            DataError: features that are not finite, or items that cannot be had.
        """
        keys = sorted(set(wanted))
        noun = items.modality.noun[1]
        if Key("", "labels") in keys and not items.spec.classes:
            hint = "evaluate a run trained with model.conditional=true on data with labels, or mode=reconstruct"
            raise ConfigError(f"{what} {noun} have no class to be checked", hint)
        with _whole_float32(), Progress(len(items), f"{what} {noun}", noun) as bar:
            for batch in ahead(items.batches(self._given or _BATCH)):
                found: Rows = {}
                for name in dict.fromkeys(key.extractor for key in keys if key.extractor):
                    own = [key for key in keys if key.extractor == name]
                    found |= self._features(name, batch.content, own, f"the features of {what} {noun}")
                found |= {key: _own(items, batch, key.view) for key in keys if not key.extractor}
                yield found
                bar.advance(len(batch))

    def _features(self, name: str, content: Tensor, keys: Iterable[Key], what: str) -> Rows:
        extractor = self.extractor(name)
        size: int = self._given or self._sizes.get(name, getattr(extractor, "batch_size", _BATCH))
        while True:
            try:
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
                    parts = [extractor(part) for part in torch.split(content, size)]
                break
            except torch.OutOfMemoryError:
                if self._given is not None or size == 1:
                    hint = "choose a smaller batch_size=, or device=cpu"
                    raise ResourceError(f"{size} items do not fit in the memory of {self.device}", hint) from None
                size = self._sizes[name] = size // 2
        return {key: check_finite(torch.cat([part[key.view] for part in parts]).float(), what) for key in keys}

    def reference(self, items: Items, what: str, wanted: Mapping[Key, bool]) -> dict[Key, Tensor | FeatureStatistics]:
        """Each view of items that are used again and again, from the cache where they were computed before.

        `wanted` says for each whether its rows are needed, or their statistics serve.

        Raises:
            DataError: there are no items, or they cannot be trusted.
        """
        known = {key: kept for key in wanted if (kept := self._kept(items, key, wanted[key])) is not None}
        missing = {key: rows for key, rows in wanted.items() if key not in known}
        parts: dict[Key, list[Any]] = {key: [] for key in missing}
        for batch in self.rows(items, what, missing) if missing else ():
            for key, found in batch.items():
                if missing[key]:
                    parts[key].append(found)
                else:  # are merged at once, so that memory does not grow
                    fresh = FeatureStatistics.of(found)
                    parts[key] = [parts[key][0].merge(fresh) if parts[key] else fresh]
        if not all(parts.values()):
            raise DataError(f"there are no {what} {items.modality.noun[1]}", "give at least two")
        computed = {key: torch.cat(some) if missing[key] else some[0] for key, some in parts.items()}
        for key, made in computed.items():
            if items.key is not None and key.extractor:
                store(self._entry("features" if missing[key] else "statistics", items, key), made)
        return {**known, **computed}

    def _entry(self, kind: str, items: Items, key: Key) -> Path:
        assert items.key is not None
        return entry(kind, items.key, self.extractor(key.extractor), key.view, self.dtype, self.device.type)

    def _kept(self, items: Items, key: Key, rows: bool) -> Tensor | FeatureStatistics | None:
        if items.key is None or not key.extractor:
            return None
        kinds = ["features"] if rows else ["statistics", "features"]  # either serves where statistics are wanted
        found = (load(self._entry(kind, items, key), len(items)) for kind in kinds)
        return next((kept for kept in found if kept is not None), None)


@contextmanager
def _whole_float32() -> Iterator[None]:
    """Within the context a GPU multiplies float32 in full: training allows TF32, and features outlive it.

    The flags are those of the whole process, so this goes around a pass, whose items are drawn in another thread.
    """
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def _own(items: Items, batch: Batch, view: View) -> Any:
    """A view that no extractor makes."""
    if view == "glance":
        return items.modality.glance(batch.content).cpu()
    if view == "labels":
        return batch.labels
    assert view == "content", f"{view} is not a view of a batch"
    return batch.content if batch.source is None else (batch.content, batch.source)


def rows_at(rows: Any, index: Tensor) -> Any:
    """Those at `index`, int64, of a tensor or a list."""
    return rows[index] if isinstance(rows, Tensor) else [rows[row] for row in index.tolist()]


T = TypeVar("T")
_END = object()


def ahead(items: Iterator[T], depth: int = 2) -> Iterator[T]:
    """The same items, up to `depth` of them made before they are asked for, in a thread.

    An exception comes where its item would have come. The thread ends with the iteration, given up or not.
    """
    pool = ThreadPoolExecutor(1, "ahead")
    try:
        made = deque(pool.submit(next, items, _END) for _ in range(depth))
        while (item := made.popleft().result()) is not _END:
            made.append(pool.submit(next, items, _END))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
