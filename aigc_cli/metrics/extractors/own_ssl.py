"""``own-ssl``: a small network that learns without labels, from the items themselves, which of two changed items were
one; for pictures of any kind that carry no classes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from aigc_cli.data.base import Dataset
from aigc_cli.data.open import chosen_rows, items_at
from aigc_cli.errors import ConfigError, DataError, tell, warn
from aigc_cli.metrics.extractors.base import PlainConfig, Sources
from aigc_cli.metrics.extractors.learned import Learned
from aigc_cli.modalities.base import Batch, Items, modality
from aigc_cli.registry import register

#: Items seen while it trains, each in two views: so many passes over the data, within bounds that fit its two ends, a
#: few hundred pictures and some ten thousand. One CPU core takes two minutes for the most of 32 pixels a side; of items
#: of more values than a picture of 64 pixels in colour it is fewer.
_PASSES, _FEWEST, _MOST = 10, 10_000, 50_000
_VALUES = 3 * 64 * 64
_HELD = 10_000  # items of files, which are all read before it learns from them
_TESTED = 256  # items that it is tried on once it has learnt
_SCALED = 2048  # items that say where features lie
_PROJECTED = 128  # the width of what views are compared in
_TEMPERATURE = 0.2


@register("extractor", "own-ssl", PlainConfig)
class OwnSSL(Learned):
    """Chen et al., A Simple Framework for Contrastive Learning of Visual Representations (SimCLR), 2020: the features
    before the projection (section 4.2), trained with the loss of its equation 1.

    Raises:
        ConfigError: there is nothing to learn from, or the modality's network does not know how items may be changed
            and still be the same.
        DataError: there is one item.
    """

    folder, version, architecture = "self-supervised", 2, "ssl"
    augments = False  # its own views say what it does not see, and what it is kept by knows of no others
    layers = ("features",)
    known: ClassVar[Mapping[str, type]] = {"told_apart": float}

    def __init__(self, config: PlainConfig, sources: Sources) -> None:
        if sources.splits is not None:
            train = sources.splits["train"]
        elif sources.items is not None:
            train = _Held(sources.items)
        else:
            what = "own-ssl learns from real items, and none are named"
            raise ConfigError(what, "name a folder of them with real=, a dataset with data=, or a run with run=")
        if len(train) < 2:
            raise DataError(f"own-ssl cannot learn from a single {modality(train.spec.modality).noun[0]}", "give more")
        super().__init__("own-ssl", train, sources.device, sources.learns)

    def network(self) -> nn.Module:
        """The one that learns classes in other places, with one alone, which nothing looks at."""
        kind = modality(self.train.spec.modality)
        network = kind.network(replace(self.train.spec, classes=("any",)))
        if not callable(getattr(network, "augment", None)):
            what = f"own-ssl cannot learn from {kind.noun[1]}: their network has no augment()"
            raise ConfigError(what, "name another with extractor=, or give the network that method")
        with torch.inference_mode():
            codec = getattr(network, "codec", None) or self.train.codec
            width = network.eval()(codec.encode(items_at(self.train, [0]).content))["features"].shape[1]
        return _Centred(network, width)

    def fit(self, network: nn.Module) -> dict[str, Any]:
        """Learns to find the other view of each item among all others; how often it does once it has learnt."""
        assert isinstance(network, _Centred)
        width = len(network.centre)
        head = nn.Sequential(
            nn.Linear(width, 2 * width, bias=False), nn.BatchNorm1d(2 * width), nn.ReLU(),
            nn.Linear(2 * width, _PROJECTED),
        ).to(self.device)  # fmt: skip

        def likeness(content: Tensor) -> Tensor:
            """The cosines between both views of items (n, ...), (2n, 2n); of a view with itself -inf."""
            augment: Any = network.body.augment
            views = torch.cat([augment(content), augment(content)])
            projected = normalize(head(network(views)["features"]))
            return (projected @ projected.T).masked_fill(torch.eye(len(views), device=views.device) > 0, -torch.inf)

        def objective(batch: Batch) -> Tensor:
            loss = cross_entropy(likeness(batch.content) / _TEMPERATURE, _others(len(batch), self.device))
            beside: Any = getattr(network.body, "beside", None)  # what the features of a modality are to see, too
            return loss if beside is None else loss + beside(batch.content)

        most = max(_FEWEST, _MOST * _VALUES // max(_VALUES, math.prod(self.train.spec.raw)))
        seen = min(max(_PASSES * len(self.train), _FEWEST), most)
        self.descend(nn.ModuleList([network, head]), seen, modality(self.train.spec.modality).noun[1], objective)
        some = items_at(self.train, sorted(chosen_rows(self.train, "own-ssl")[:_SCALED])).content
        with torch.inference_mode():
            parts = [self.codec.encode(part.to(self.device)) for part in torch.split(some, _TESTED)]
            found = likeness(parts[0]).argmax(1) == _others(len(parts[0]), self.device)
            network.settle(torch.cat([network(part)["features"] for part in parts]))
        told_apart = float(found.float().mean())
        tell(f"own-ssl: finds a changed item among {len(parts[0]):,} {told_apart:.1%} of the time")
        if told_apart < 0.1:
            warn("own-ssl cannot tell the items apart, which are nearly alike: scores on its features say little")
        return {"told_apart": told_apart}


class _Centred(nn.Module):
    """A network whose features have a mean of 0 and, over all of them, a variance of 1: cosines and products, which
    `vendi` and `kd` are of, then say how items differ, and not what all of them share."""

    centre: Tensor
    scale: Tensor

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body, self.codec, self.edition = body, getattr(body, "codec", None), getattr(body, "edition", None)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, items: Tensor) -> dict[str, Tensor]:
        """``"features"``."""
        return {"features": (self.body(items)["features"] - self.centre) / self.scale}

    def settle(self, features: Tensor) -> None:
        """Moves features such as these (n, d) there."""
        self.centre.copy_(features.mean(dim=0))
        self.scale.copy_((features - self.centre).square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny))


def _others(n: int, device: torch.device) -> Tensor:
    """Where the other view of each view is, of `n` items."""
    return torch.arange(2 * n, device=device).roll(n)


class _Held(Dataset):
    """The items of files, or as many of them as are held."""

    def __init__(self, items: Items) -> None:
        some = items if len(items) <= _HELD else items.take(_HELD)
        self._content = torch.cat([batch.content for batch in some.batches(_TESTED)])
        digest = hashlib.sha256(f"{tuple(self._content.shape)}".encode())
        digest.update(self._content.contiguous().numpy().data)
        self.spec = replace(items.spec, classes=(), fingerprint=digest.hexdigest())
        self.codec = items.modality.codec(self.spec)

    def __len__(self) -> int:
        return len(self._content)

    def resident(self) -> Batch:
        """All."""
        return Batch(self._content)

    def read(self, index: int) -> tuple[Tensor, int | None]:
        """One."""
        return self._content[index], None
