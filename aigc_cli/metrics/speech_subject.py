"""The model of a run that speaks, as what is measured: what it says for texts of held-out clips, in their voices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from aigc_cli.data.loader import batches_in_order
from aigc_cli.errors import ConfigError
from aigc_cli.metrics.base import View, kind_of
from aigc_cli.metrics.extractors.recognizer import Recognizer
from aigc_cli.metrics.items import DatasetItems, SampledItems
from aigc_cli.metrics.run_subject import RunSubject
from aigc_cli.metrics.subject import Source
from aigc_cli.modalities.audio_config import FULL, lengths
from aigc_cli.modalities.base import Batch, Items
from aigc_cli.modalities.text import Texts
from aigc_cli.modalities.tokenizers import PAD
from aigc_cli.models.base import Prompts
from aigc_cli.randomness import generator
from aigc_cli.sampling.generate import generate

_AT_ONCE = 64


class SpeechSubject(RunSubject):
    """The model of a run that speaks."""

    offers: ClassVar[frozenset[View]] = frozenset(get_args(View)) - {"fills"}

    def source(self, name: str) -> Source:
        """Samples, or what is understood of them beside what was to be said."""
        views = {view for some in kind_of(name).takes.values() for view in some}
        if "text" in views and "pairs" not in kind_of(name).takes:
            raise ConfigError(f"{name} measures what is written, and {self.name} speaks", "ask for word_accuracy")
        if "written" in views:
            return Source("items")
        return super().source(name)

    def fake(self, n: int | None, seed: int) -> Items:
        """What it says for held-out texts, each in its own voice, again and again until there are `n`."""
        items = self._held_out()
        count = len(items) if n is None else n
        spec = self.spec if self.model.conditional else items.spec
        called = f"{count:,} clips spoken by {self.named}"
        return SampledItems(
            lambda: self._spoken(items, count, seed), count, spec, self._stamp(items, seed), called=called
        )

    def pairs(self, kind: str, items: Items | None, seed: int, **options: Any) -> Items:
        """What is understood of the same, beside what was to be said; and of others in their place: held-out clips as
        they are, through the tokenizer, with noise as loud as they are, and reversed."""
        held = self._held_out()
        some = held if items is None else items
        assert isinstance(some, DatasetItems), "a model is measured on clips of a dataset"
        codec, ears = self.restored.codec, Recognizer(self.splits, self.device)
        assert codec.source is not None, "it reads texts"
        sources = (batch.source for batch in some.batches(_AT_ONCE))
        wanted = [text for part in sources if part is not None for text in codec.source.text(part) or []]

        def heard(change: Callable[[Tensor], Tensor]) -> list[str]:
            return [text for batch in some.batches(_AT_ONCE) for text in ears.written(change(batch.content))]

        texts = [text for batch in self._spoken(some, len(some), seed) for text in ears.written(batch.content)]
        beside = {
            "held-out": heard(lambda clips: clips),
            "held-out through the tokenizer": heard(lambda clips: codec.decode(codec.encode(clips)).cpu()),
            "held-out, noise at 0 dB": heard(_noisy),
            "held-out, reversed": heard(lambda clips: clips.flip(-1)),
        }
        facts = {**self._stamp(some, seed), "recognizer": ears.name, "recognizer_sha256": ears.checksum}
        made = Texts(texts, facts, sources=wanted, beside=beside)
        made.against, made.called = some, f"{len(some):,} clips spoken by {self.named}"
        return made

    def _stamp(self, items: DatasetItems, seed: int) -> dict[str, Any]:
        return self.stamp(self.controls, seed=seed, says=items.split)

    def _held_out(self) -> DatasetItems:
        if self.items is None:
            split, dataset = self.splits.held_out("train")
            self.items = DatasetItems(dataset, split, self.splits.name)
        return self.items

    def _prompts(self, items: DatasetItems) -> Prompts:
        """What each item of the split says, and in which voice."""
        return _told(batches_in_order(items.dataset, _AT_ONCE, "cpu"))

    def _spoken(self, items: DatasetItems, n: int, seed: int) -> Iterator[Batch]:
        """Clips that say what items do, in the same voices, with the labels of these."""
        prompts = _told(items.batches(_AT_ONCE))
        asked = self.model.turns(self.controls) if self.controls.class_ is not None else prompts.labels
        how: dict[str, Any] = {"device": self.device, "batch_size": self.batch_size, "controls": self.controls}
        start = 0
        for content in generate(self.model, self.restored.codec, range(n), seed=seed, prompts=prompts, **how):
            stop = start + len(content)
            own = torch.tensor([asked[index % len(asked)] for index in range(start, stop)]) if asked else None
            yield Batch(content, own)
            start = stop


def _told(batches: Iterable[Batch]) -> Prompts:
    """What items say, and in which voice, where that is known."""
    labels: list[int] = []
    rows: list[list[int]] = []
    for batch in batches:
        labels += [] if batch.labels is None else batch.labels.tolist()
        rows += [] if batch.source is None else [row[row != PAD].tolist() for row in batch.source]
    return Prompts(rows, labels=labels or None)


def _noisy(clips: Tensor) -> Tensor:
    """Clips (n, channels, samples) with white noise as loud as each, while it sounds."""
    waves = clips.float()
    noise = torch.from_numpy(generator("noise", len(clips)).standard_normal(clips.shape)).float()
    heard = torch.arange(clips.shape[2]) < lengths(clips)[:, None, None]
    loud = (waves.square().sum(2, keepdim=True) / lengths(clips)[:, None, None].clamp_min(1)).sqrt()
    return torch.where(heard, waves + noise * loud, waves).clamp(-FULL, FULL).round().to(torch.int16)
