"""The codec of some data alone, without a model: what it makes of held-out items is what a model can reach at best."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aigc_cli.errors import ConfigError
from aigc_cli.metrics.base import kind_of
from aigc_cli.metrics.items import DatasetItems, SampledItems
from aigc_cli.metrics.subject import Source, Subject
from aigc_cli.modalities.base import Batch, Items

_AT_ONCE = 64


class CodecSubject(Subject):
    """Held-out items, encoded and decoded again."""

    def __init__(self, items: DatasetItems) -> None:
        self.items = items

    def source(self, name: str) -> Source:
        """What becomes of the items, each beside the item where a metric takes pairs."""
        kind = kind_of(name)
        if "items" in kind.takes or kind.of_text():
            raise ConfigError(f"{name} needs a model, and a codec alone is measured here", "name a run with run=")
        return Source("pairs" if "pairs" in kind.takes else "fake")

    def fake(self, n: int | None, seed: int) -> Items:
        """All of them, or `n` that stand for them."""
        return self._made(self.items if n is None or n >= len(self.items) else self.items.take(n))

    def pairs(self, kind: str, items: Items | None, seed: int, **options: Any) -> Items:
        """The same, beside the items."""
        return self._made(self.items if items is None else items)

    def _made(self, items: Items) -> SampledItems:
        codec, name = self.items.dataset.codec, self.items.name

        def stream() -> Iterator[Batch]:
            for batch in items.batches(_AT_ONCE):
                made = codec.decode(codec.encode(batch.content))
                yield Batch(made, batch.labels if items.spec.classes else None, batch.content)

        facts = {"codec": codec.preprocessing, "data": name, "reconstructed": self.items.split}
        called = f"{items.called} as their codec encodes and decodes them"
        return SampledItems(stream, len(items), items.spec, facts, called=called, against=items)
