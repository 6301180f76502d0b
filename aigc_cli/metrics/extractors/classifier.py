"""The dataset's own classifier: a small network trained on its labels, whose penultimate features serve as extractor.

It works where there is no network and for images that Inception never saw. Figures on it compare only with figures on
the same weights, which is why its name and its weights' sum go with every one of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from aigc_cli.data.base import Dataset
from aigc_cli.data.cache import cache_dir
from aigc_cli.data.loader import Loader, batches_in_order
from aigc_cli.errors import ConfigError, DataError, warn
from aigc_cli.files import checksum, resource_errors, write_atomically
from aigc_cli.metrics.extractors.base import PlainConfig, Sources
from aigc_cli.modalities.base import Codec, modality
from aigc_cli.progress import Progress
from aigc_cli.registry import register

#: Part of the name of a cached network: a change to anything below that changes its weights raises it.
VERSION = 1
_SEED = 0
_BATCH = 128
_LEARNING_RATE = 4e-3
_WEIGHT_DECAY = 1e-2
#: Images seen while it trains: so many passes over the data, within bounds that fit its two ends, digits and CIFAR-10.
_PASSES, _FEWEST, _MOST = 8, 20_000, 300_000


@register("extractor", "classifier", PlainConfig)
class Classifier:
    """``[<data>-cnn]``: trained at its first use, then kept in the cache folder.

    Raises:
        ConfigError: there is no dataset, or it has no labels.
    """

    canonical = False

    def __init__(self, config: PlainConfig, sources: Sources) -> None:
        instead = "extractor=inception, as --metric fid does, or extractor=torchvision model=resnet50 weights=FILE"
        if sources.splits is None:
            what = "the classifier extractor learns from a dataset's labels, and no dataset is named"
            raise ConfigError(what, f"name it with data=NAME, or use {instead}")
        train, name = sources.splits["train"], sources.splits.name
        if len(train.spec.classes) < 2:
            raise ConfigError(f"the classifier extractor needs labels, and {name} has none", f"use {instead}")
        self.name = f"{name}-cnn"
        path = cache_dir() / "classifiers" / f"{self.name}-v{VERSION}-{train.spec.fingerprint[:16]}.safetensors"
        kept = _read(path, train, sources.device)
        if kept is None:
            with resource_errors(path, "with AIGC_CACHE"):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, _trained(train, sources, self.name))
            kept = _read(path, train, sources.device)
            assert kept is not None
        network, self.checksum, facts = kept
        self._network = network.eval()
        self._codec, self._device, self._spec = train.codec, sources.device, train.spec
        with torch.inference_mode():
            layers = self._network(torch.zeros(1, *train.spec.shape, device=sources.device))
        self.widths: Mapping[str, int] = {name: values.shape[1] for name, values in layers.items()}
        self.facts: Mapping[str, Any] = {"preprocessing": train.codec.preprocessing, **facts}

    def __call__(self, content: Tensor) -> dict[str, Tensor]:
        """Features of raw items (n, ...), in float32.

        Raises:
            DataError: they are not of the dataset's own size, so that features would mean nothing.
        """
        if tuple(content.shape[1:]) != self._spec.shape:
            found, wanted = ("x".join(map(str, shape)) for shape in (content.shape[1:], self._spec.shape))
            kind = modality(self._spec.modality)
            what = f"{self.name} knows {kind.noun[1]} of {wanted} ({' x '.join(kind.axes)}), and these are {found}"
            raise DataError(what, "bring them to that size, or use another extractor=, such as inception for images")
        with torch.inference_mode():
            layers = self._network(self._codec.encode(content.to(self._device)))
        return {name: values.cpu() for name, values in layers.items()}


def _fresh(train: Dataset, device: torch.device) -> nn.Module:
    """The network of the data's modality, with random weights, as it lies in memory while it trains."""
    kind = modality(train.spec.modality)
    network = kind.network(train.spec).to(device)
    return network if kind.memory_format is None else network.to(memory_format=kind.memory_format)


def _read(path: Path, train: Dataset, device: torch.device) -> tuple[nn.Module, str, dict[str, Any]] | None:
    """The network kept at `path`, its sum, and what is known of it; None where there is none, or it cannot be read."""
    if not path.is_file():
        return None
    network = _fresh(train, device)
    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads((file.metadata() or {})["facts"])
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        known = {"accuracy": float(notes["accuracy"]), "accuracy_on": str(notes["accuracy_on"])}
    except (SafetensorError, RuntimeError, OSError, KeyError, TypeError, ValueError) as error:
        warn(f"{path} is broken ({str(error).splitlines()[0]}); training it again")
        return None
    return network, checksum(path), {"architecture": f"cnn-v{VERSION}", **known}


def _trained(train: Dataset, sources: Sources, name: str) -> bytes:
    """A trained network, serialised with its held-out accuracy."""
    assert sources.splits is not None
    devices = [sources.device] if sources.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(_SEED)
        network = _fresh(train, sources.device)
        _fit(network, train, sources.device, name)
    network.eval()
    split, held_out = sources.splits.held_out()
    score = accuracy(network, held_out, train.codec, sources.device)
    print(f"{name}: accuracy {score:.1%} on {len(held_out):,} {split} images", file=sys.stderr)
    if score < 1.5 / len(train.spec.classes):
        what = f"{name} cannot tell the classes apart (accuracy {score:.1%}): its features would mean nothing"
        raise DataError(what, "check the labels of the data, or use --metric fid")
    tensors = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
    # One entry, because several are written in no fixed order, and the file's sum would change with it.
    return save(tensors, {"facts": json.dumps({"accuracy": score, "accuracy_on": f"{split} ({len(held_out)})"})})


def _fit(network: nn.Module, train: Dataset, device: torch.device, name: str) -> None:
    batch_size = min(_BATCH, len(train))
    steps = -(-min(max(_PASSES * len(train), _FEWEST), _MOST) // batch_size)
    loader = Loader(train, batch_size=batch_size, seed=_SEED, device=device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps, pct_start=0.2)
    network.train()
    print(f"training {name}, the extractor, on {len(train):,} labelled images (once; it is kept)", file=sys.stderr)
    with Progress(steps, f"training {name}", "steps") as bar:
        for step in range(steps):
            batch = loader.batch(step)
            logits = network(batch.content)["logits"]
            assert batch.labels is not None
            loss = nn.functional.cross_entropy(logits, batch.labels)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            bar.advance()


def accuracy(network: nn.Module, dataset: Dataset, codec: Codec, device: torch.device) -> float:
    """The share of a labelled dataset that the network names right."""
    right = 0
    with torch.inference_mode():
        for batch in batches_in_order(dataset, 500, device):
            logits = network(codec.encode(batch.content))["logits"]
            right += int((logits.argmax(dim=1) == batch.labels).sum())
    return right / len(dataset)
