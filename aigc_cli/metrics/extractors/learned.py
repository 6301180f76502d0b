"""Extractors that learn from the data itself: their network is trained at its first use, and kept by the content.

They work where there is no network and for items that no published network ever saw. Scores on one compare only with
scores on the same weights, which is why its name and its weights' sum go with every one of them.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from aigc_cli.data.base import Dataset
from aigc_cli.data.cache import cache_dir
from aigc_cli.data.loader import Loader
from aigc_cli.data.open import items_at
from aigc_cli.errors import ConfigError, DataError, ResourceError, tell, warn
from aigc_cli.files import resource_errors, write_atomically
from aigc_cli.modalities.base import Batch, Codec, modality
from aigc_cli.nn.blocks import lay_out
from aigc_cli.progress import Progress
from aigc_cli.training.optimizers import lean

_SEED = 0
_BATCH = 128
_LEARNING_RATE = 4e-3
_WEIGHT_DECAY = 1e-2


class Learned(ABC):
    """A subclass says what its network is and how it learns; `version` is part of the name of what is kept, and is
    raised by a change to anything that changes the weights. Where that is the network of one modality alone, that
    network raises its own `edition`.

    Args:
        name: Of the extractor.
        train: What it learns from, which the network is kept by.
        device: Where it computes.
        learns: Whether it may train where no network is kept.

    Raises:
        ConfigError: none is kept, and it may not train.
    """

    canonical = False
    folder: ClassVar[str]  # of the cache, for networks of its kind
    version: ClassVar[int]
    augments: ClassVar[bool]  # whether it learns from items as `data.augment` and the like change them
    architecture: ClassVar[str]  # what a stamp says of the network, before its version
    layers: ClassVar[tuple[str, ...]]  # of the network, what it gives
    #: What is known of a network, beside its weights, with its type.
    known: ClassVar[Mapping[str, type]]

    def __init__(self, name: str, train: Dataset, device: torch.device, learns: bool = True) -> None:
        train = train.plain  # a network looks at items, whatever a model sees of them
        self.name, self.train, self.device = name, train, device
        network = self.network()
        self.codec: Codec = getattr(network, "codec", None) or train.codec
        edition = getattr(network, "edition", None)
        self._version = f"v{self.version}" if edition is None else f"v{self.version}.{edition}"
        path = cache_dir() / self.folder / f"{name}-{self._version}-{train.spec.fingerprint[:16]}.safetensors"
        kept = self._network_in(path.read_bytes(), path) if path.is_file() else None
        if kept is None and not learns:
            raise ConfigError(f"{name} has not learnt yet", "aigc eval has it learn")
        if kept is None:
            content = self._trained()
            try:
                with resource_errors(path, "with AIGC_CACHE"):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(path, content)
            except (ResourceError, ConfigError) as error:  # what it took to train it is not thrown away
                warn(f"{self.name} could not be kept, and will be trained again next time: {error}")
            kept = self._network_in(content, path)
            assert kept is not None
        trained, self.checksum, facts = kept
        self._network = trained.eval()
        with torch.inference_mode():
            found = self._network(self.codec.encode(items_at(train, [0]).content.to(device)))
        self.widths: Mapping[str, int] = {layer: found[layer].shape[1] for layer in self.layers}
        self.facts: Mapping[str, Any] = {"preprocessing": self.codec.preprocessing, **facts}

    @abstractmethod
    def network(self) -> nn.Module:
        """An untrained network of the data's modality: encoded items to their layers."""

    @abstractmethod
    def fit(self, network: nn.Module) -> dict[str, Any]:
        """Trains it; what is :attr:`known` of it then."""

    def __call__(self, content: Tensor) -> dict[str, Tensor]:
        """Features of raw items (n, ...), in float32.

        Raises:
            DataError: they are not of the data's own size, so that features would mean nothing.
        """
        spec = self.train.spec
        if tuple(content.shape[1:]) != spec.raw:
            found, wanted = ("x".join(map(str, shape)) for shape in (content.shape[1:], spec.raw))
            kind = modality(spec.modality)
            what = f"{self.name} knows {kind.noun[1]} of {wanted} ({' x '.join(kind.axes)}), and these are {found}"
            raise DataError(what, "bring them to that size, or use another extractor=, such as inception for images")
        with torch.inference_mode():
            layers = self._network(self.codec.encode(content.to(self.device)))
        return {layer: layers[layer].cpu() for layer in self.layers}

    def _fresh(self) -> nn.Module:
        """The network with random weights, as it lies in memory while it trains."""
        network = self.network().to(self.device)
        lay_out(network, modality(self.train.spec.modality).memory_format)
        return network

    def _network_in(self, content: bytes, path: Path) -> tuple[nn.Module, str, dict[str, Any]] | None:
        """The network in the content of the file `path`, its sum, and what is known of it; None where it is broken."""
        network = self._fresh()
        try:
            network.load_state_dict(load(content))
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            notes = json.loads(header["__metadata__"]["facts"])
            known = {name: kind(notes[name]) for name, kind in self.known.items()}
        except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
            warn(f"{path} is broken ({str(error).splitlines()[0]}); training it again")
            return None
        facts = {"architecture": f"{self.architecture}-{self._version}", **known}
        return network, hashlib.sha256(content).hexdigest(), facts

    def _trained(self) -> bytes:
        """A trained network, serialised with what is known of it."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            torch.manual_seed(_SEED)
            network = self._fresh()
            facts = self.fit(network)
        tensors = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
        # One entry, because several are written in no fixed order, and the file's sum would change with it.
        return save(tensors, {"facts": json.dumps(facts)})

    def descend(self, parts: nn.Module, seen: int, what: str, objective: Any) -> None:
        """Trains `parts` until they have `seen` so many items, on ``objective(batch)``, a scalar.

        `what` says what is learnt from, for the line at the start.
        """
        train = self.train
        size = min(_BATCH, len(train))
        steps = -(-seen // size)
        loader = Loader(train, batch_size=size, seed=_SEED, device=self.device, augment=self.augments, codec=self.codec)
        optimizer = lean(torch.optim.AdamW)(parts.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps, pct_start=0.2)
        parts.train()
        tell(f"training {self.name}, the extractor, on {len(train):,} {what} (once; it is kept)")
        with Progress(steps, f"training {self.name}", "steps") as bar:
            for step in range(steps):
                batch: Batch = loader.batch(step)
                loss: Tensor = objective(batch)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
                bar.advance()
        parts.eval()
