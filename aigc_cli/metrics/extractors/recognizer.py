"""A small network that writes down what is said in a clip, which learns from the data's own recordings.

It hears the waveform, so that what the way back to sound costs counts. Its units are words where the data has few of
them, and characters else; how long each of them is, nobody has to say (Graves et al., Connectionist Temporal
Classification, 2006).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from aigc_cli.data.base import Dataset
from aigc_cli.data.loader import batches_in_order
from aigc_cli.data.open import Splits, chosen_rows, items_at
from aigc_cli.errors import ConfigError, tell
from aigc_cli.metrics.extractors.learned import Learned
from aigc_cli.metrics.words import errors_of
from aigc_cli.modalities.audio_codecs import MelCodec
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.progress import Progress
from aigc_cli.training.optimizers import lean

#: More different words than these are written by their characters.
MOST_WORDS = 100
_MOST, _STEPS, _BATCH, _RATE = 6000, 600, 64, 4e-3  # training clips at most, and how it learns from them
_WIDTH, _BINS, _FRAME_S = 128, 64, 0.016
_BLANK = 0
_GAIN = 0.08  # of the range of the logarithm, by which clips are louder or quieter in training


class SpeechNetwork(nn.Module):
    """Log-mel spectrograms (n, channels, 64, frames) to log-probabilities of units, (n, frames / 2, units + 1)."""

    def __init__(self, spec: DataSpec, units: int) -> None:
        super().__init__()
        channels, samples = spec.raw
        rate = spec.rate or 8000
        self.codec = MelCodec(rate, channels, samples, 2 ** round(math.log2(rate * _FRAME_S)), _BINS)
        layers: list[nn.Module] = []
        width = channels * _BINS
        for stride in (2, 1, 1, 1):
            layers += [nn.Conv1d(width, _WIDTH, 5, stride, 2, bias=False), nn.BatchNorm1d(_WIDTH), nn.ReLU()]
            width = _WIDTH
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(_WIDTH, units + 1)

    def forward(self, mel: Tensor) -> dict[str, Tensor]:
        """``"logits"``, log-probabilities in time."""
        mel = _changed(mel) if self.training else mel
        features = self.body(mel.flatten(1, 2))
        return {"logits": self.head(features.transpose(1, 2)).log_softmax(2), "features": features.mean(2)}


def _changed(mel: Tensor) -> Tensor:
    """The same said a little higher or lower, louder or quieter."""
    rows, device = len(mel), mel.device
    shift = torch.randint(-1, 2, (rows, 1), device=device)
    bins = (torch.arange(mel.shape[2], device=device) + shift).clamp(0, mel.shape[2] - 1)
    mel = mel.gather(2, bins[:, None, :, None].expand_as(mel))
    gain = (torch.rand(rows, 1, 1, 1, device=device) * 2 - 1) * _GAIN
    return torch.where(mel > -1, (mel + gain).clamp(-1, 1), mel)


def _loss(found: Mapping[str, Tensor], said: Sequence[Sequence[int]], there: Tensor) -> Tensor:
    """Of the order of units, and of which there are: scores (n, units)."""
    logits = found["logits"]
    lengths = torch.full((len(logits),), logits.shape[1], dtype=torch.int64)
    flat = torch.tensor([unit for row in said for unit in row], dtype=torch.int64, device=logits.device)
    sizes = torch.tensor([len(row) for row in said])
    order = nn.functional.ctc_loss(logits.transpose(0, 1), flat, lengths, sizes, blank=_BLANK, zero_infinity=True)
    wanted = torch.zeros_like(there)
    for place, row in enumerate(said):
        wanted[place, [unit - 1 for unit in row]] = 1
    return order + there.shape[1] * nn.functional.binary_cross_entropy_with_logits(there, wanted)


class Recognizer(Learned):
    """``[<data>-words]``, of data that says what is said."""

    folder, version, architecture = "recognizers", 1, "ctc-cnn"
    augments = False
    layers = ("logits",)
    known: ClassVar[Mapping[str, type]] = {"word_accuracy": float, "accuracy_on": str}

    def __init__(self, splits: Splits, device: torch.device) -> None:
        train = splits["train"].plain
        if train.codec.source is None:
            raise ConfigError(f"nothing says what is said in {splits.name}", "use data that does: data.task=speech")
        self._splits, self._source = splits, train.codec.source
        super().__init__(f"{splits.name}-words", train, device)

    @cached_property
    def units(self) -> list[str]:
        """What it writes: the words of the training split, or its characters."""
        texts = {text for batch in batches_in_order(self.train, 512, "cpu") for text in self._read(batch)}
        words = sorted({word for text in texts for word in text.split()})
        return words if len(words) <= MOST_WORDS else sorted(set().union(*texts))

    @property
    def _of_words(self) -> bool:
        return any(len(unit) > 1 for unit in self.units)

    def _read(self, batch: Batch) -> list[str]:
        assert batch.source is not None, "the data says what is said"
        return self._source.text(batch.source) or []

    def network(self) -> nn.Module:
        """Of the units."""
        return SpeechNetwork(self.train.spec, len(self.units))

    def fit(self, network: nn.Module) -> dict[str, Any]:
        """Learns to write training clips down; the share of words of held-out ones that it has right."""
        self._learn(network, self.train)
        split, held_out = self._splits.held_out()
        self._network, wrong, count = network, 0, 0
        for batch in batches_in_order(held_out.plain, 256, self.device):
            for heard, said in zip(self.written(batch.content), self._read(batch), strict=True):
                wrong += errors_of(heard.split(), said.split())
                count += len(said.split())
        score = 1 - wrong / max(1, count)
        tell(f"{self.name}: {score:.1%} of {count:,} words in {len(held_out):,} {split} clips right")
        return {"word_accuracy": score, "accuracy_on": f"{split} ({len(held_out)})"}

    def _learn(self, network: nn.Module, train: Dataset) -> None:
        """Trains on clips that are encoded once: to transform them anew would cost more than all else."""
        numbers = {unit: place for place, unit in enumerate(self.units, start=1)}
        rows = sorted(chosen_rows(train, "recognizer")[:_MOST])
        tell(f"training {self.name}, the extractor, on {len(rows):,} clips with what is said (once; it is kept)")
        mels, said = [], []
        for start in range(0, len(rows), _BATCH):
            batch = items_at(train, rows[start : start + _BATCH])
            mels.append(self.codec.encode(batch.content).half())
            said += [[numbers[unit] for unit in self._cut(text) if unit in numbers] for text in self._read(batch)]
        content = torch.cat(mels)
        # Which units there are at all is learnt beside their order: without it nothing but blanks is written for long.
        there = nn.Linear(_WIDTH, len(self.units)).to(self.device)
        weights = [*network.parameters(), *there.parameters()]
        optimizer = lean(torch.optim.AdamW)(weights, lr=_RATE, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=_STEPS, pct_start=0.2)
        network.train()
        with Progress(_STEPS, f"training {self.name}", "steps") as bar:
            for _ in range(_STEPS):
                index = torch.randint(len(content), (_BATCH,))
                own = [said[row] for row in index.tolist()]
                found = network(content[index].float().to(self.device))
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(_loss(found, own, there(found["features"])))
                optimizer.step()
                schedule.step()
                bar.advance()
        network.eval()

    def _cut(self, text: str) -> Sequence[str]:
        return text.split() if self._of_words else text

    def written(self, content: Tensor) -> list[str]:
        """What is said in raw clips (n, channels, samples), the likeliest unit at each time."""
        with torch.inference_mode():
            best = self._network(self.codec.encode(content.to(self.device)))["logits"].argmax(2).cpu()
        joint = " " if self._of_words else ""
        found = []
        for row in best:
            kept = row[torch.cat([torch.tensor([True]), row[1:] != row[:-1]])]
            found.append(joint.join(self.units[unit - 1] for unit in kept.tolist() if unit != _BLANK))
        return found
