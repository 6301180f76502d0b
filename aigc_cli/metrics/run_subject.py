"""The model of a run, as what is measured: what it draws, what it makes of held-out items, and what it says of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from aigc_cli.data.open import Splits, chosen_rows, encoded, items_at
from aigc_cli.errors import ConfigError
from aigc_cli.metrics.base import Metric, View, kind_of
from aigc_cli.metrics.items import DatasetItems, SampledItems, has_text
from aigc_cli.metrics.model_scores import Fills, gaps_of
from aigc_cli.metrics.passages import Passages
from aigc_cli.metrics.subject import Source, Subject
from aigc_cli.metrics.texts import Author, continuations, own_texts, reconstructions, translations
from aigc_cli.modalities.base import Batch, Items, modality
from aigc_cli.modalities.text import Texts
from aigc_cli.modalities.tokenizers import FIRST
from aigc_cli.progress import Progress
from aigc_cli.randomness import Noise
from aigc_cli.sampling.controls import named_values
from aigc_cli.sampling.generate import generate, in_batches, prepare, reconstruct
from aigc_cli.sampling.modes import ignored, modes_of, warn_of_idle
from aigc_cli.training.checkpoint import CheckpointFolder
from aigc_cli.training.restore import Restored

if TYPE_CHECKING:
    from aigc_cli.modalities.text import TextCodec

_COUNTED = 4096  # training items that the commonest token is counted on
_FILLED = 2**14  # tokens of a batch whose gaps are filled
_CONTINUED = 256  # held-out items that are continued, where nobody says how many
_SHARE = 0.5  # of an item that is continued, where no metric says
_WRITTEN = 128  # texts of its own, where nobody says how many
_NOT_OF_TEXT = {"features", "logits", "moments", "glance", "content", "labels"}
_LACKS = {
    "score": "gives no likelihood, nor a bound on one",
    "encode": "cannot reconstruct",
    "decode": "cannot reconstruct",
    "posterior": "has no posterior of a latent vector",
    "fill": "fills no gaps",
}
_WORKS = {"translate": "translations", "continue": "continuations", "reconstruct": "reconstructions"}
_DEEDS: dict[View, str] = {"scores": "predicted", "codes": "encoded", "fills": "filled in"}
#: Scores of a vocabulary weigh so much more than what a model holds of an item, where memory is slow.
_WEIGHT = {"cpu": 4}


class RunSubject(Subject):
    """The model of a run.

    Args:
        restored: The model with its codec.
        controls: How it is sampled, an instance of ``model.controls``.
        splits: Of the data that it was trained on.
        items: Held-out items: the model is asked about them, and makes others of them.
        filling: How it fills gaps; None is as it is sampled.
        batch_size: Items at a time; None suits the memory, and is halved where that runs out.

    Raises:
        ConfigError: a mode that does not give a set of samples.
    """

    def __init__(
        self,
        restored: Restored,
        controls: Any,
        splits: Splits,
        items: DatasetItems | None = None,
        *,
        filling: Any = None,
        batch_size: int | None = None,
    ) -> None:
        self.restored, self.splits, self.items, self.batch_size = restored, splits, items, batch_size
        self.name, self.model, self.spec, self.device = (
            restored.run.name, restored.model, restored.spec, restored.device
        )  # fmt: skip
        self.controls, self.filling = controls, controls if filling is None else filling
        self.mode: str = getattr(self.controls, "mode", None) or "sample"
        if self.mode not in ("sample", "reconstruct", "infill"):
            raise ConfigError(f"mode={self.mode} cannot be evaluated: it shows how samples change", "use mode=sample")

    @property
    def named(self) -> str:
        """Run and step, for a headline."""
        return f"{self.name} at step {self.restored.step}"

    @cached_property
    def origin(self) -> dict[str, Any]:
        """Which run, which checkpoint, and whether its averaged weights are in use, for a stamp."""
        folder = CheckpointFolder(self.restored.run.checkpoints).folder(self.restored.step)
        return {
            "run": str(self.restored.run.path),
            "step": self.restored.step,
            "checkpoint": self.restored.checksum,
            "weights": "ema" if (folder / "ema.safetensors").is_file() else "raw",
        }

    def stamp(self, controls: Any = None, **more: Any) -> dict[str, Any]:
        """What a stamp says of items that the model made, or was asked about."""
        named = {} if controls is None else named_values(controls)
        return {**self.origin, "controls": {word: value for word, value in named.items() if value is not None}, **more}

    def source(self, name: str) -> Source:
        """Samples, what the model makes of held-out items, or those."""
        kind = kind_of(name)
        views = {view for some in kind.takes.values() for view in some}
        if (has_text(self.spec) and views & _NOT_OF_TEXT) or (not has_text(self.spec) and kind.of_text()):
            what = f"{name} does not measure {modality(self.spec.modality).noun[1]}, which {self.name} makes"
            raise ConfigError(what, "`aigc ls metrics` lists the others")
        if self.spec.source is not None and (kind.made_by is not None or "fills" in views):
            raise ConfigError(f"{name} is for texts that stand alone, and {self.name} translates", "leave it out")
        if kind.made_by == "continue" and self.mode == "reconstruct":
            raise ConfigError(f"{name} needs prompts, and mode=reconstruct has none", "leave one of them out")
        for ability in sorted(kind.needs - self.model.can):
            raise ConfigError(f"{type(self.model).__name__} {_LACKS[ability]}: {name} needs that", "leave it out")
        if "items" in kind.takes:
            return Source("items", "fill" if "fills" in views else "")
        makes = self._makes(kind)
        usual = {"continue": _CONTINUED}.get(makes)
        return Source("pairs" if "pairs" in kind.takes else "fake", makes, makes != "reconstruct", usual)

    def _makes(self, kind: type[Metric]) -> str:
        """How it makes what suits a metric; "" of nothing."""
        if self.spec.source is not None:
            return "translate"
        if kind.made_by is not None:
            return kind.made_by
        if self.mode == "reconstruct":
            return "reconstruct"
        return "continue" if "pairs" in kind.takes else ""

    def warn_of_idle(self, sources: Iterable[Source]) -> None:
        """Warns of controls that have no effect in any of the ways in which the model is looked at."""
        modes, able = {"reconstruct": "reconstruct", "fill": "infill"}, modes_of(self.model)
        ways = {modes.get(source.kind, self.mode) for source in sources if source.stream != "items" or source.kind}
        deaf = [ignored(self.model, self.controls, way) for way in ways if way in able]
        names = [field.name for field in fields(self.controls) if field.name != "mode" or self.mode not in able[:1]]
        warn_of_idle(self.model, self.controls, [name for name in names if all(name in some for some in deaf)], "here")

    # items that it makes

    def fake(self, n: int | None, seed: int) -> Items:
        """`n` samples; what it makes of held-out items where it makes nothing else, or the controls say so."""
        makes = "translate" if self.spec.source is not None else "reconstruct" if self.mode == "reconstruct" else ""
        if makes:
            assert self.items is not None, "there are held-out items"
            some = self.items if n is None else self.items.take(n)
            made = self.pairs(makes, some, seed)
            if isinstance(made, SampledItems):  # which of all samples these are, no seed decides
                made.facts = self.stamp(self.controls, **some.asked_about())
                made.against = None
            return made
        if has_text(self.spec):
            assert isinstance(self.items, Passages), "the reference of text is text"
            texts = own_texts(self._author, self.items, seed, _WRITTEN if n is None else n)
            return self._named(texts, "texts written", self.items, self.stamp(self.controls, seed=seed))
        assert n is not None, "the reference says how many"
        return self._samples(n, seed)

    def _samples(self, n: int, seed: int) -> SampledItems:
        model, controls = self.model, self.controls
        labels = model.labels(range(n), controls, "cpu")

        def stream() -> Iterator[Batch]:
            prepare(model, lambda: self.splits["train"], controls, device=self.device)
            start = 0
            for content in generate(
                model, self.restored.codec, range(n), seed=seed, device=self.device, batch_size=self.batch_size,
                controls=controls,
            ):  # fmt: skip
                yield Batch(content, None if labels is None else labels[start : start + len(content)])
                start += len(content)

        spec = self.spec if labels is not None else replace(self.spec, classes=())
        called = f"{n:,} {modality(spec.modality).noun[1]} generated by {self.named}"
        return SampledItems(stream, n, spec, self.stamp(self.controls, seed=seed), called=called)

    def _named(self, texts: Texts, what: str, against: Items, facts: dict[str, Any]) -> Texts:
        texts.facts, texts.against = facts, against
        texts.called = f"{len(texts):,} {what} by {self.named}, against {against.called}"
        return texts

    def pairs(self, kind: str, items: Items | None, seed: int, **options: Any) -> Items:
        """Translations, reconstructions or continuations of `items`."""
        assert isinstance(items, DatasetItems), "a model is measured on items of a dataset"
        if not isinstance(items, Passages):
            return SampledItems(
                lambda: self._reconstructed(items), len(items), items.spec,
                self.stamp(seed=seed, **items.asked_about()),
                called=f"{items.called} as reconstructed by {self.named}", against=items,
            )  # fmt: skip
        if kind == "translate":
            texts, facts = translations(self._author, items, seed), self.stamp(self.controls, seed=seed)
        elif kind == "continue":
            share = float(options.get("share", _SHARE))
            texts = continuations(self._author, items, seed, share)
            facts = self.stamp(self.controls, seed=seed, prompt=share)
        else:
            texts = reconstructions(self._author, items)
            facts = self.stamp(seed=seed, reconstructed=items.split)
        return self._named(texts, _WORKS[kind], items, facts)

    def _reconstructed(self, items: DatasetItems) -> Iterator[Batch]:
        model, start = self.model, 0
        for originals, made in reconstruct(
            model, items.dataset, items.rows, device=self.device, batch_size=self.batch_size
        ):
            rows = items.rows[start : start + len(made)]
            yield Batch(made, items_at(items.dataset, rows).labels if items.spec.classes else None, originals)
            start += len(made)

    @cached_property
    def _author(self) -> Author:
        codec = cast("TextCodec", self.restored.codec)
        return Author(self.model, codec, self.controls, self.device, self.splits, self.batch_size)

    @property
    def corpus(self) -> Texts | None:
        """Of text, what it was trained on, or the beginning of it: where copies are looked for."""
        return Texts([self._author.training_text]) if has_text(self.spec) else None

    # what it says of items

    def asked(self, view: View, items: Items, seed: int) -> Items:
        """The items with what a stamp says of the model; it says the controls only where those matter."""
        assert isinstance(items, DatasetItems), "a model is measured on items of a dataset"
        facts = self.stamp(self.filling if view == "fills" else None, seed=seed, **items.asked_about())
        called = f"{items.called_as(view)} as {_DEEDS[view]} by {self.named}"
        return SampledItems(lambda: iter(()), len(items), items.spec, facts, called=called, against=items)

    def look(self, view: View, items: Items, seed: int, **options: Any) -> Iterator[dict[str, Any]]:
        """Scores, codes or fillings of `items`, whose noise depends on the seed and the item alone."""
        assert isinstance(items, DatasetItems), "a model is measured on items of a dataset"
        looks: dict[str, Any] = {"scores": self._scores, "codes": self._codes, "fills": self._fills}
        with Progress(len(items), f"{items.split} items", "items") as bar:
            for n, seen in looks[view](items, seed, **options):
                yield seen
                bar.advance(n)

    def _scores(self, items: DatasetItems, seed: int, samples: int) -> Iterator[tuple[int, dict[str, Any]]]:
        tokens = self.spec.vocab_size
        held = self.model.held() if tokens is None else tokens * self.spec.shape[0] * _WEIGHT.get(self.device.type, 1)
        size = self.batch_size and max(1, self.batch_size // samples)

        def score(rows: Sequence[int]) -> tuple[int, dict[str, Any]]:
            batch = encoded(items_at(items.dataset, rows).to(self.device), items.dataset.codec)
            found = self.model.score(batch, Noise(seed, rows, self.device))
            if found is None or found.keys() == {"mse"}:  # an autoencoder's error alone is no likelihood
                raise ConfigError(f"{type(self.model).__name__} {_LACKS['score']}", "ask for metrics of its samples")
            scores = dict(found)
            if samples > 1:
                tighter = self.model.score(batch, Noise(seed, rows, self.device), samples)
                assert tighter is not None, "the model has a score"
                names = {"bits_per_dim": "iw_bits_per_dim"}
                scores |= {names.get(name, name): values for name, values in tighter.items()}
            if isinstance(items, Passages):
                scores |= items.sizes(scores["tokens"])
            return len(rows), {"": scores}

        return in_batches(score, items.by_length(), held * samples, self.device, size)

    def _codes(self, items: DatasetItems, seed: int) -> Iterator[tuple[int, dict[str, Any]]]:
        model = self.model

        def encode(rows: Sequence[int]) -> tuple[int, dict[str, Any]]:
            batch = encoded(items_at(items.dataset, rows).to(self.device), items.dataset.codec)
            return len(rows), {"": model.encode(batch)}

        return in_batches(encode, items.rows, model.held(), self.device, self.batch_size)

    def _fills(
        self, items: DatasetItems, seed: int, shares: Mapping[str, float], mask_seed: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        model: Any = self.model
        longest = items.spec.shape[0]
        commonest = self._commonest_token()

        def fill(rows: Sequence[int]) -> tuple[int, dict[str, Any]]:
            tokens = items_at(items.dataset, rows).content.to(self.device)
            gaps = {name: gaps_of(tokens, rows, share, mask_seed, longest) for name, share in shares.items()}
            noise = {name: Noise(seed, rows, self.device) for name in gaps}
            guesses = {name: model.fill(tokens, gaps[name], noise[name], self.filling) for name in gaps}
            usual: dict[str, Tensor] = dict.fromkeys(gaps, torch.full_like(tokens, commonest))
            fills = Fills(rows, tokens, gaps, guesses, model.fills_from)
            return len(rows), {"": fills, "commonest token": fills._replace(guesses=usual)}

        size = min(self.batch_size or max(1, _FILLED // longest), len(items))
        return in_batches(fill, items.rows, longest, self.device, size)

    def _commonest_token(self) -> int:
        train = self.splits["train"]
        rows = sorted(chosen_rows(train, "commonest")[:_COUNTED])
        assert train.spec.vocab_size is not None, "only tokens are filled in"
        counts = torch.bincount(items_at(train, rows).content.flatten(), minlength=train.spec.vocab_size)
        counts[:FIRST] = 0
        return int(counts.argmax())
