"""Any data as the codes of a trained tokenizer, ``data.tokens=RUN``, or as the latents of an autoencoder,
``data.latents=RUN``.

Only the codec is wrapped. Splits, labels, fingerprint, augmentation and all that is measured stay those of the data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT, own_keys
from aigc_cli.data.base import DRAWS, BatchPlan, Dataset, Gatherer, Order, Split
from aigc_cli.data.cache import cache_dir
from aigc_cli.data.loader import batches_in_order, gatherer_of, read_batch
from aigc_cli.errors import ConfigError, DataError, tell
from aigc_cli.files import write_atomically
from aigc_cli.modalities.base import Batch
from aigc_cli.modalities.token_codec import FOLDER, LearnedCodec, open_tokenizer
from aigc_cli.randomness import generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: The word for a tokenizer of sound that is made of the training data itself.
KMEANS = "kmeans"
_VERSION = 3  # of what is kept, and of how it is worked out
#: Views of an item that is augmented, where nobody says how many: at least, at most, and of all items together, since
#: to encode them takes a while.
_FEWEST, _MOST, _OF_ALL = 2, 8, 100_000
_BELOW_ONE = np.float32(1 - 2**-24)  # the largest draw there is
_TOGETHER = 512  # items that are encoded at a time
_TRIED = 16  # items that show whether the data is augmented


@dataclass(config=STRICT, frozen=True, kw_only=True)
class CodesConfig:
    """The keys of every dataset that are about codes; configs/train.yaml explains them."""

    tokens: str | None = None
    latents: str | None = None
    tokens_sha256: str | None = None
    views: Annotated[int, Field(ge=0, le=1024)] | None = None
    codes: Annotated[int, Field(ge=2, le=2**15)] | None = None
    residual: Annotated[int, Field(ge=1, le=16)] | None = None

    @model_validator(mode="after")
    def _of_a_tokenizer(self) -> Self:
        if self.tokens != KMEANS and (self.codes is not None or self.residual is not None):
            raise ValueError(f"codes and residual are about the tokenizer that needs no run: add data.tokens={KMEANS}")
        if self.tokens is not None and self.latents is not None:
            raise ValueError("tokens and latents are two ways to see an item: leave one of them out")
        if self.tokens is self.latents is None and (self.views is not None or self.tokens_sha256 is not None):
            raise ValueError("views and tokens_sha256 are about the codes of a tokenizer: add data.tokens=RUN")
        return self


def tokenizers_folder() -> Path:
    """Where a tokenizer waits, under its sum, for the run that takes a copy of it."""
    return cache_dir() / "tokenizers"


def tokenizer_of(values: Mapping[str, Any], folder: Path | None) -> LearnedCodec | None:
    """The tokenizer, or the autoencoder, that a `data` section names, None where it names none: the copy in the
    `folder` of a run, or for a new one, the one that waits for it."""
    run = values.get("tokens") or values.get("latents")
    if run is None:
        return None
    wanted = values.get("tokens_sha256")
    if folder is not None and (folder / FOLDER).is_dir():
        return open_tokenizer(folder / FOLDER, wanted)
    waiting = None if wanted is None else tokenizers_folder() / str(wanted)
    if waiting is None or not waiting.is_dir():
        what = f"the tokenizer of {run} is gone"
        where = "" if folder is None else f": {folder / FOLDER} does not exist"
        raise DataError(f"{what}{where}", "restore that folder, or train again with data.tokens=RUN")
    return open_tokenizer(waiting, wanted)


class TokenDataset(Dataset):
    """A split of some data of which a model sees codes.

    Args:
        inner: The data itself.
        codec: With the tokenizer.
        split: For the name of what is kept of it.
        values: The `data` section, whose ``views`` says how many training views of an item are encoded and kept, by
            draws of its own. 0 keeps none: views are drawn anew and encoded in each epoch. None is 1, or 2 to 8 of data
            that is augmented.

    Raises:
        ConfigError: the tokenizer is for other content.
    """

    codec: LearnedCodec

    def __init__(self, inner: Dataset, codec: LearnedCodec, split: Split, values: Mapping[str, Any]) -> None:
        self.inner, self.codec, self.split, self._values = inner, codec, split, values
        own, theirs = inner.spec, codec.spec
        if (own.modality, own.raw, own.rate) != (theirs.modality, theirs.raw, theirs.rate):
            found, wanted = (f"{spec.modality} of {'x'.join(map(str, spec.raw))}" for spec in (own, theirs))
            what = f"the data is {found}, and the tokenizer of {codec.named['run']} is for {wanted}"
            raise ConfigError(what, "bring the data to that size, or train a tokenizer on it: aigc train model=vqvae")
        if theirs.level not in (None, own.level):
            what = f"data.normalize={own.level}, and the tokenizer of {codec.named['run']} knows {theirs.level}"
            raise ConfigError(what, f"set data.normalize={theirs.level}, or train a tokenizer: aigc train model=vqvae")
        self.spec = codec.seen(own)
        self.original = inner.original
        codec.source = inner.codec.source

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def plain(self) -> Dataset:
        """The data itself."""
        return self.inner

    def resident(self) -> Batch | None:
        """Raw, as of the data itself."""
        return self.inner.resident()

    def read(self, index: int) -> tuple[Tensor, int | None]:
        """Raw, as of the data itself."""
        return self.inner.read(index)

    def gatherer(self, device: torch.device | str) -> Gatherer | None:
        """Of raw items, as of the data itself."""
        return self.inner.gatherer(device)

    def order(self, plan: BatchPlan, device: torch.device | str) -> Order | None:
        """That of the data itself."""
        return self.inner.order(plan, device)

    def augment(self, content: Tensor, uniform: Tensor) -> Tensor:
        """As the data itself does."""
        return self.inner.augment(content, uniform)

    def problems(self) -> list[str]:
        """Those of the data itself."""
        return self.inner.problems()

    def describe(self) -> list[str]:
        """What is known of the data itself, and which tokens a model sees of it."""
        named = self.codec.named
        seen = (
            "views are drawn and encoded anew in each epoch"
            if self.views == 0
            else (f"{self.views} view{'s' if self.views > 1 else ''} of each item kept as codes")
        )
        return [*self.inner.describe(), f"{self.codec} by {named['run']}, step {named['step']}; {seen}"]

    @cached_property
    def views(self) -> int:
        """How many of each item are kept."""
        asked = self._values.get("views")
        if asked is not None:
            return int(asked)
        return min(_MOST, max(_FEWEST, _OF_ALL // len(self))) if self._is_augmented() else 1

    def _is_augmented(self) -> bool:
        import torch

        gatherer = gatherer_of(self.inner, "cpu")
        tried = min(len(self), _TRIED if gatherer is None else _TOGETHER)
        index = torch.arange(tried) * len(self) // tried  # some files of sound may be longer than a clip, others not
        draws = torch.from_numpy(generator("views", 0).random((tried, DRAWS), dtype=np.float32))
        if gatherer is not None:
            return not torch.equal(gatherer(index).content, gatherer(index, draws).content)
        content = read_batch(self.inner, index.tolist()).content
        return not torch.equal(content, self.inner.augment(content, draws))

    def kept(self, device: torch.device | str) -> Gatherer | None:
        """Batches of codes, int64 (n, t), gathered from those that are kept."""
        if self.views == 0:
            return None
        return _Codes(self._codes(device), self._beside("labels"), self._beside("source"), device)

    def all_codes(self, device: torch.device | str) -> Tensor:
        """The codes (m, t) of all items, in all of their views that are kept, or as they are if none is."""
        return self._codes(device).flatten(0, 1) if self.views else self._encoded(device)

    def _codes(self, device: torch.device | str) -> Tensor:
        """All codes, int16 (n, views, t), or int32 where there are too many; worked out once, and kept by all that they
        depend on."""
        import torch
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import save

        shape = [len(self), self.views, *self.spec.shape]
        places = ("root", "source", "target")
        own = {key: value for key, value in own_keys(self._values).items() if key not in places}
        facts = [_VERSION, self.spec.fingerprint, self.split, self.codec.sha256, list(self.spec.raw), shape, own]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        path = cache_dir() / "codes" / f"{digest[:40]}.safetensors"
        with suppress(OSError, SafetensorError, KeyError, ValueError), safe_open(path, framework="pt") as file:
            found: Tensor = file.get_tensor("codes")
            if list(found.shape) == shape and (file.metadata() or {})["sum"] == _sum(found):
                return found
        tell(
            f"encoding {len(self):,} items as {self.codec}"
            + (f", {self.views} views of each" if self.views > 1 else "")
        )
        made = torch.stack([self._view(view, device) for view in range(self.views)], dim=1)
        if self.codec.codes is None:
            made = made.half().contiguous()
        else:
            made = made.to(torch.int16 if self.codec.codes <= 2**15 else torch.int32)
        with suppress(OSError):  # a full disk costs time at the next start, nothing else
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, save({"codes": made}, {"sum": _sum(made)}))
        return made

    def _view(self, view: int, device: torch.device | str) -> Tensor:
        """Codes (n, t) of every item, by its own draws for that view, of which each lies in another share of the range:
        so of two views of a picture that may be mirrored, one is."""
        import torch

        shape = len(self), DRAWS
        place = generator("views", "places").integers(self.views, size=shape)
        place[:, 0] = 0
        uniform = generator("views", view).random(shape, dtype=np.float32)
        shares = ((place + view) % self.views + uniform) / self.views
        draws = torch.from_numpy(np.minimum(shares.astype(np.float32), _BELOW_ONE))
        return self._encoded(device, draws)

    def _encoded(self, device: torch.device | str, draws: Tensor | None = None) -> Tensor:
        """Codes (n, t) of every item, as it is or by `draws` (n, DRAWS)."""
        import torch

        batches = batches_in_order(self.inner, _TOGETHER, device, draws=draws)
        return torch.cat([self.codec.encode(batch.content).cpu() for batch in batches])

    def _beside(self, what: str) -> Tensor | None:
        """The labels, or the sources, of all items."""
        import torch

        if not (self.spec.classes if what == "labels" else self.spec.source):
            return None
        held = self.inner.resident()
        batches = [held] if held is not None else batches_in_order(self.inner, _TOGETHER, "cpu")
        found = [getattr(batch, what) for batch in batches]
        return torch.cat([part for part in found if part is not None])


def _sum(codes: Tensor) -> str:
    return hashlib.sha256(codes.numpy().data).hexdigest()


class _Codes:
    """Gathers batches of codes that are held on a device; an item's first draw says which of its views."""

    def __init__(self, codes: Tensor, labels: Tensor | None, source: Tensor | None, device: torch.device | str) -> None:
        self._codes, self._views = codes.to(device).flatten(0, 1), codes.shape[1]
        self._beside = [None if part is None else part.to(device) for part in (labels, source)]
        self.device = self._codes.device

    def __call__(self, index: Tensor, uniform: Tensor | None = None) -> Batch:
        rows = index * self._views
        if uniform is not None:
            rows = rows + (uniform[:, 0] * self._views).long().clamp_(max=self._views - 1)
        beside = [None if part is None else part.index_select(0, index) for part in self._beside]
        found = self._codes.index_select(0, rows)
        return Batch(found.float() if found.is_floating_point() else found.long(), *beside)
