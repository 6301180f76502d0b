"""The dataset's own classifier: a small network trained on its labels, whose penultimate features are looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from aigc_cli.data.base import Dataset
from aigc_cli.data.loader import batches_in_order
from aigc_cli.errors import ConfigError, DataError, tell
from aigc_cli.metrics.extractors.base import PlainConfig, Sources
from aigc_cli.metrics.extractors.learned import Learned
from aigc_cli.modalities.base import Batch, Codec, modality
from aigc_cli.registry import register

#: Images seen while it trains: so many passes over the data, within bounds that fit its two ends, digits and CIFAR-10.
_PASSES, _FEWEST, _MOST = 8, 20_000, 300_000
_WITHOUT = "`aigc eval --metric fd,prdc` learns without labels, and so do kd, vendi and memorization"


@register("extractor", "classifier", PlainConfig)
class Classifier(Learned):
    """``[<data>-cnn]``.

    Raises:
        ConfigError: there is no dataset, or it has no labels.
        DataError: the labels say nothing that can be learnt.
    """

    folder, version, architecture = "classifiers", 2, "cnn"
    suffix: ClassVar[str] = "cnn"  # of its name
    augments = True  # as the data usually is, which no word of a run changes
    layers: ClassVar[tuple[str, ...]] = ("features", "logits")
    known: ClassVar[Mapping[str, type]] = {"accuracy": float, "accuracy_on": str}

    def __init__(self, config: PlainConfig, sources: Sources) -> None:
        if sources.splits is None:
            what = "the classifier extractor learns from a dataset's labels, and no dataset is named"
            raise ConfigError(what, "name it with data=NAME, or use another extractor=, such as own-ssl with real=")
        train, name = sources.splits["train"], sources.splits.name
        if len(train.spec.classes) < 2:
            raise ConfigError(f"the classifier extractor needs labels, and {name} has none", _WITHOUT)
        self._splits = sources.splits
        super().__init__(f"{name}-{self.suffix}", train.plain.as_usual(), sources.device, sources.learns)
        score = self.facts["accuracy"]
        if score < 1.5 / len(train.spec.classes):  # of one that is kept too, so that it is not trained again in vain
            what = f"{self.name} cannot tell the classes apart (accuracy {score:.1%}): its features would mean nothing"
            raise DataError(what, "check the labels of the data, or use extractor=own-ssl, which learns without")

    def network(self) -> nn.Module:
        """Of the modality."""
        return modality(self.train.spec.modality).network(self.train.spec)

    def fit(self, network: nn.Module) -> dict[str, Any]:
        """Learns the labels; the accuracy on held-out items."""

        def objective(batch: Batch) -> Tensor:
            assert batch.labels is not None
            if callable(own := getattr(network, "objective", None)):  # one that learns more than the classes
                loss: Tensor = own(batch.content, batch.labels)
                return loss
            return nn.functional.cross_entropy(network(batch.content)["logits"], batch.labels)

        seen = min(max(_PASSES * len(self.train), _FEWEST), _MOST)
        kind = modality(self.train.spec.modality)
        self.descend(network, seen, f"labelled {kind.noun[1]}", objective)
        split, held_out = self._splits.held_out()
        score = accuracy(network, held_out, self.codec, self.device)
        tell(f"{self.name}: accuracy {score:.1%} on {len(held_out):,} {split} {kind.noun[1]}")
        return {"accuracy": score, "accuracy_on": f"{split} ({len(held_out)})"}


def accuracy(network: nn.Module, dataset: Dataset, codec: Codec, device: torch.device) -> float:
    """The share of a labelled dataset that the network names right."""
    right = 0
    with torch.inference_mode():
        for batch in batches_in_order(dataset, 500, device):
            logits = network(codec.encode(batch.content))["logits"]
            right += int((logits.argmax(dim=1) == batch.labels).sum())
    return right / len(dataset)
