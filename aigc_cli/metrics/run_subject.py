"""The model of a run, as what is measured: what it draws, what it makes of held-out items, and what it says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import cached_property
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from aigc_cli.data.open import Splits, chosen_rows, encoded, items_at
from aigc_cli.data.tokens import TokenDataset
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.base import Metric, View, kind_of
from aigc_cli.metrics.ceiling import through_tokenizer
from aigc_cli.metrics.class_order import class_order, in_class_order
from aigc_cli.metrics.items import DatasetItems, SampledItems
from aigc_cli.metrics.model_scores import Fills, gaps_of
from aigc_cli.metrics.subject import Source, Subject
from aigc_cli.modalities.base import Batch, Items, modality
from aigc_cli.modalities.tokenizers import FIRST
from aigc_cli.models.base import Prompts
from aigc_cli.progress import Progress
from aigc_cli.randomness import Noise
from aigc_cli.registry import name_of
from aigc_cli.sampling.controls import named_values
from aigc_cli.sampling.generate import generate, in_batches, prepare, reconstruct
from aigc_cli.sampling.modes import ignored, modes_of, warn_of_idle
from aigc_cli.training.restore import Restored

_COUNTED = 4096  # training items that the commonest token is counted on
_FILLED = 2**14  # tokens of a batch whose gaps are filled
_CONTINUED = 256  # held-out items that are continued, where nobody says how many
_LACKS = {
    "score": "gives no likelihood, nor a bound on one",
    "encode": "cannot reconstruct",
    "decode": "cannot reconstruct",
    "posterior": "has no posterior of a latent vector",
    "fill": "fills no gaps",
}
_DEEDS: dict[View, str] = {"scores": "predicted", "codes": "encoded", "fills": "filled in", "written": "written anew"}
#: Scores of a vocabulary weigh so much more than what a model holds of an item, where memory is slow.
_WEIGHT = {"cpu": 4}
#: What is done with some items, by their rows.
_See = Callable[[Sequence[int]], dict[str, Any]]


class RunSubject(Subject):
    """The model of a run.

    Args:
        restored: The model with its codec.
        controls: How it is sampled, an instance of ``model.controls``.
        splits: Of the data that it was trained on.
        filling: How it fills gaps.
        batch_size: Items at a time; None suits the memory, and is halved where that runs out.

    Raises:
        ConfigError: a mode that does not give a set of samples.
    """

    #: What metrics may see of what it makes.
    offers: ClassVar[frozenset[View]] = frozenset(get_args(View)) - {"text"}
    #: Held-out items that it makes others of.
    items: DatasetItems | None = None

    def __init__(
        self, restored: Restored, controls: Any, splits: Splits, filling: Any, batch_size: int | None = None
    ) -> None:
        self.restored, self.splits, self.batch_size = restored, splits, batch_size
        self.model, self.spec, self.device = restored.model, restored.spec, restored.device
        self.name: str = restored.run.name
        self.controls, self.filling = controls, filling
        self.mode: str = getattr(self.controls, "mode", None) or "sample"
        if self.mode not in ("sample", "reconstruct", *(["infill"] if "fill" in self.model.can else [])):
            raise ConfigError(
                f"mode={self.mode} cannot be evaluated: it shows samples that belong together", "use mode=sample"
            )

    @property
    def named(self) -> str:
        """Run and step, for a headline."""
        return f"{self.name} at step {self.restored.step}"

    @cached_property
    def origin(self) -> dict[str, Any]:
        """Which run, which checkpoint, and which of its weights are in use, for a stamp."""
        found = self.restored
        return {
            "run": str(found.run.path), "step": found.step, "checkpoint": found.checksum, "weights": found.weights
        }  # fmt: skip

    def stamp(self, controls: Any = None, **more: Any) -> dict[str, Any]:
        """What a stamp says of items that the model made, or was asked about."""
        named = {} if controls is None else named_values(controls)
        return {**self.origin, "controls": {word: value for word, value in named.items() if value is not None}, **more}

    def source(self, name: str) -> Source:
        """Samples, what the model makes of held-out items, or those."""
        kind = kind_of(name)
        views = {view for some in kind.takes.values() for view in some}
        if not views <= self.offers:
            what = f"{name} does not measure {modality(self.spec.modality).noun[1]}, which {self.name} makes"
            raise ConfigError(what, "`aigc ls metrics` lists the others")
        if self.spec.source is not None and (kind.made_by is not None or "fills" in views):
            raise ConfigError(f"{name} is for texts that stand alone, and {self.name} translates", "leave it out")
        if "written" in views and (self.spec.layout != "codes" or self.spec.source is not None):
            raise ConfigError(f"{name} is of models that write codes by themselves", "leave it out")
        if kind.made_by == "continue" and self.mode == "reconstruct":
            raise ConfigError(f"{name} needs prompts, and mode=reconstruct has none", "leave one of them out")
        for ability in sorted(kind.needs - self.model.can):
            who, hint = f"model={name_of(type(self.model))}", "leave it out"
            if ability in type(self.model).can:
                who, hint = f"what was exported of {self.name}", "name the run itself, or leave it out"
            raise ConfigError(f"{who} {_LACKS[ability]}: {name} needs that", hint)
        if "items" in kind.takes:
            return Source("items", "fill" if "fills" in views else "")
        makes = self.makes(kind)
        usual = _CONTINUED if makes == "continue" else None
        return Source("pairs" if "pairs" in kind.takes else "fake", makes, makes != "reconstruct", usual)

    def makes(self, kind: type[Metric] | None = None) -> str:
        """How it makes what suits a metric, or a set of samples; "" of nothing."""
        if self.spec.source is not None:
            return "translate"
        made_by = None if kind is None else kind.made_by
        if made_by is not None or self.mode == "reconstruct":
            return made_by or "reconstruct"
        return "continue" if kind is not None and "pairs" in kind.takes else ""

    def warn_of_idle(self, sources: Iterable[Source]) -> None:
        """Warns of controls that have no effect in any of the ways in which the model is looked at."""
        modes, able = {"reconstruct": "reconstruct", "fill": "infill"}, modes_of(self.model)
        ways = {modes.get(source.kind, self.mode) for source in sources if source.stream != "items" or source.kind}
        deaf = [ignored(self.model, self.controls, way) for way in ways if way in able]
        names = [field.name for field in fields(self.controls) if field.name != "mode" or self.mode not in able[:1]]
        warn_of_idle(self.model, self.controls, [name for name in names if all(name in some for some in deaf)], "here")

    # items that it makes

    def fake(self, n: int | None, seed: int) -> Items:
        """`n` samples; what it makes of held-out items where the controls say so."""
        if self.makes():
            assert self.items is not None, "there are held-out items"
            some = self.items if n is None else self.items.take(n)
            made = self.pairs("reconstruct", some, seed)
            made.facts = self.stamp(self.controls, **some.asked_about())  # which of them these are, no seed decides
            made.against = None
            return made
        assert n is not None, "the reference says how many"
        order: Sequence[int] = ()
        if self.model.conditional and getattr(self.controls, "class_", None) is None:
            with suppress(DataError):  # statistics in a file may be all that is left of the data
                order = class_order(self.splits["train"], n)
        with in_class_order(self.model, order):
            labels = self.model.labels(range(n), self.controls, "cpu")

        def stream() -> Iterator[Batch]:
            prepare(self.model, lambda: self.splits["train"], self.controls, device=self.device)
            how: dict[str, Any] = {"device": self.device, "batch_size": self.batch_size, "controls": self.controls}
            start = 0
            with in_class_order(self.model, order):
                for content in generate(self.model, self.restored.codec, range(n), seed=seed, **how):
                    yield Batch(content, None if labels is None else labels[start : start + len(content)])
                    start += len(content)

        # A model that knows no classes draws none, whatever its data has: then nothing may ask for them.
        spec = self.spec if labels is not None else replace(self.spec, classes=())
        called = f"{n:,} {modality(spec.modality).noun[1]} generated by {self.named}"
        shares = {"classes": "as in the training split"} if order else {}
        made = SampledItems(stream, n, spec, self.stamp(self.controls, seed=seed, **shares), called=called)
        made.notes = ("samples have each class as often as the training split has it",) if order else ()
        with suppress(ConfigError, DataError):  # nothing is held out, or it is not here
            best = through_tokenizer(self.splits, self.device)
            made.beside = {} if best is None else {"held-out through the tokenizer": best}
        return made

    def pairs(self, kind: str, items: Items | None, seed: int, **options: Any) -> Items:
        """Reconstructions of `items`."""
        assert isinstance(items, DatasetItems), "a model is measured on items of a dataset"

        def stream() -> Iterator[Batch]:
            start = 0
            for originals, made in self.remade(items):
                rows = items.rows[start : start + len(made)]
                yield Batch(made, items_at(items.dataset, rows).labels if items.spec.classes else None, originals)
                start += len(made)

        facts = self.stamp(seed=seed, **items.asked_about())
        called = f"{items.called} as reconstructed by {self.named}"
        return SampledItems(stream, len(items), items.spec, facts, called=called, against=items)

    def remade(self, items: DatasetItems) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of items, each beside what the model makes of it."""
        return reconstruct(self.model, items.dataset, items.rows, device=self.device, batch_size=self.batch_size)

    # what it says of items

    def asked(self, view: View, items: Items, seed: int) -> Items:
        """The items with what a stamp says of the model; it says the controls only where those matter."""
        assert isinstance(items, DatasetItems), "a model is measured on items of a dataset"
        facts = self.stamp(self.filling if view == "fills" else None, seed=seed, **items.asked_about())
        n, called = items.counted_for(view)
        called = f"{called} as {_DEEDS[view]} by {self.named}"
        made = SampledItems(lambda: iter(()), n, items.spec, facts, called=called, against=items)
        made.notes = items.notes if view == "scores" else ()
        return made

    def look(self, view: View, items: Items, seed: int, **options: Any) -> Iterator[dict[str, Any]]:
        """Scores, codes or fillings of `items`, whose noise depends on the seed and the item alone."""
        assert isinstance(items, DatasetItems), "a model is measured on items of a dataset"
        looks: dict[str, Any] = {
            "scores": self._scores, "codes": self._codes, "fills": self._fills, "written": self._written
        }  # fmt: skip
        see, rows, held, size = looks[view](items, seed, **options)
        with Progress(len(items), f"{items.split} items", "items") as bar:
            for n, seen in in_batches(lambda some: (len(some), see(some)), rows, held, self.device, size):
                yield seen
                bar.advance(n)

    # each with the rows that it is done for, how much an item holds, and how many are taken at a time

    def _scores(self, items: DatasetItems, seed: int, samples: int) -> tuple[_See, Sequence[int], int, int | None]:
        tokens = self.spec.vocab_size
        held = self.model.held() if tokens is None else tokens * self.spec.shape[0] * _WEIGHT.get(self.device.type, 1)

        def see(rows: Sequence[int]) -> dict[str, Any]:
            batch = self._encoded(items, rows)
            # Bounds of several draws stand beside those of one; a likelihood that needs several takes as many as asked.
            draws = 1 if self.model.probes == 1 else max(samples, self.model.probes)
            found = self.model.score(batch, Noise(seed, rows, self.device), draws)
            if found is None or found.keys() == {"mse"}:  # an autoencoder's error alone is no likelihood
                raise ConfigError(
                    f"model={name_of(type(self.model))} {_LACKS['score']}", "ask for metrics of its samples"
                )
            scores = dict(found)
            if samples > draws:
                tighter = self.model.score(batch, Noise(seed, rows, self.device), samples)
                assert tighter is not None, "the model has a score"
                names = {"bits_per_dim": "iw_bits_per_dim"}
                scores |= {names.get(name, name): values for name, values in tighter.items()}
            return {"": scores | items.sizes(scores)}

        return see, items.by_length(), held * samples, self.batch_size and max(1, self.batch_size // samples)

    def _codes(self, items: DatasetItems, seed: int) -> tuple[_See, Sequence[int], int, int | None]:
        def see(rows: Sequence[int]) -> dict[str, Any]:
            return {"": self.model.encode(self._encoded(items, rows))}

        return see, items.rows, self.model.held(), self.batch_size

    def _prompts(self, items: DatasetItems) -> Prompts | None:
        """What samples are made from, by the row of an item; None where that is nothing."""
        return None

    def _written(self, items: DatasetItems, seed: int) -> tuple[_See, Sequence[int], int, int | None]:
        train = self.splits["train"]
        assert isinstance(train, TokenDataset), "the data is seen as codes"
        known = {tuple(row) for row in train.all_codes(self.device).tolist()}
        prompts = self._prompts(items)

        def is_known(codes: Tensor) -> Tensor:
            return torch.tensor([tuple(row) in known for row in codes.tolist()])

        def see(rows: Sequence[int]) -> dict[str, Any]:
            made = self.model.sample(Noise(seed, rows, self.device), self.controls, prompts)
            return {"": is_known(made), "held-out": is_known(self._encoded(items, rows).content)}

        return see, items.rows, self.model.held(self.controls), self.batch_size

    def _encoded(self, items: DatasetItems, rows: Sequence[int]) -> Batch:
        return encoded(items_at(items.dataset, rows).to(self.device), items.dataset.codec)

    def _fills(
        self, items: DatasetItems, seed: int, shares: Mapping[str, float], mask_seed: int
    ) -> tuple[_See, Sequence[int], int, int | None]:
        model: Any = self.model
        longest, train = items.spec.shape[0], self.splits["train"]
        assert train.spec.vocab_size is not None, "only tokens are filled in"
        seen = items_at(train, sorted(chosen_rows(train, "commonest")[:_COUNTED])).content
        counts = torch.bincount(seen.flatten(), minlength=train.spec.vocab_size)
        counts[:FIRST] = 0
        commonest = int(counts.argmax())

        def see(rows: Sequence[int]) -> dict[str, Any]:
            tokens = items_at(items.dataset, rows).content.to(self.device)
            gaps = {name: gaps_of(tokens, rows, share, mask_seed, longest) for name, share in shares.items()}
            noise = {name: Noise(seed, rows, self.device) for name in gaps}
            guesses = {name: model.fill(tokens, gaps[name], noise[name], self.filling) for name in gaps}
            usual: dict[str, Tensor] = dict.fromkeys(gaps, torch.full_like(tokens, commonest))
            fills = Fills(rows, tokens, gaps, guesses, model.fills_from)
            return {"": fills, "commonest token": fills._replace(guesses=usual)}

        return see, items.rows, longest, min(self.batch_size or max(1, _FILLED // longest), len(items))
