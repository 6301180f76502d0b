"""Small datasets of token ids, held in memory: what models of text train on in tests."""

from __future__ import annotations

import torch
from torch import Tensor

from aigc_cli.data.base import Batch, Dataset, DataSpec
from aigc_cli.data.codecs import TextCodec
from aigc_cli.data.tokenizers import BOS, EOS, FIRST, PAD, SPECIALS, CharTokenizer

TOKENIZER = CharTokenizer("abcdefgh")


def windows(n: int, length: int, seed: int = 0) -> Tensor:
    """Token ids (n, length) that count upwards from anywhere, and begin anew after the last."""
    count = TOKENIZER.vocab_size - FIRST
    first = torch.randint(count, (n, 1), generator=torch.Generator().manual_seed(seed))
    return (first + torch.arange(length)) % count + FIRST


def documents(n: int, longest: int, seed: int = 0) -> Tensor:
    """The same between `bos` and `eos`, of any length up to `longest`, filled up with `pad`."""
    rows = windows(n, longest, seed)
    ends = torch.randint(2, longest, (n, 1), generator=torch.Generator().manual_seed(seed + 1))
    ends[0] = longest - 1
    rows[:, 0] = BOS
    places = torch.arange(longest)
    return torch.where(places < ends, rows, torch.where(places == ends, EOS, PAD))


class ToyText(Dataset):
    """Rows of token ids (n, t), and of pairs the sources (n, s) too."""

    def __init__(self, content: Tensor, source: Tensor | None = None) -> None:
        self.batch = Batch(content, source=source)
        self.codec = TextCodec(TOKENIZER)
        modality = "text" if source is None else "pairs"
        width = max(part.shape[1] for part in (content, source) if part is not None)
        self.spec = DataSpec(modality, (width,), vocab_size=TOKENIZER.vocab_size, specials=SPECIALS)

    def __len__(self) -> int:
        return len(self.batch)

    def resident(self) -> Batch | None:
        return None

    def read(self, index: int) -> tuple[Tensor, int | None]:
        return self.batch.content[index], None

    def gatherer(self, device: torch.device | str) -> _Rows:
        return _Rows(self.batch)


class _Rows:
    device = torch.device("cpu")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __call__(self, index: Tensor, uniform: Tensor | None = None) -> Batch:
        return self.batch.take(index)
