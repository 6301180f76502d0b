"""Documents, or pairs of texts, as items: each is padded to the longest in its batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import BatchPlan, Gatherer, Order, Split
from aigc_cli.data.corpus import Corpora, tokenizer_for
from aigc_cli.data.orders import BucketOrder
from aigc_cli.data.text_dataset import Lines, TextDataset, TokensConfig, lines_about, too_little
from aigc_cli.data.token_files import Tokens, sequence_tokens
from aigc_cli.modalities.base import Batch
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.tokenizers import PAD

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(config=STRICT, frozen=True, kw_only=True)
class SequencesConfig(TokensConfig):
    """The keys of datasets whose batches are counted in tokens."""

    max_length: Annotated[int, Field(ge=4, le=1 << 16)]
    batch_tokens: Annotated[int, Field(ge=1)] | None  # takes the place of trainer.batch_size


class Sequences(TextDataset):
    """Sequences of `bos`, text and `eos`, int64 (n, t), filled up with `pad` to the longest of a batch.

    Of pairs, `content` is the target and `source` the source, each padded to its own longest. In training, a batch
    holds items of similar length. A sequence that was cut, because it has more than `longest` tokens, has no `eos`.
    """

    def __init__(
        self, tokens: Tokens, codec: TextCodec, longest: int, *, resident: bool, batch_tokens: int | None, lines: Lines
    ) -> None:
        super().__init__(tokens, codec, longest, ["sequences", longest], lines)
        self._batch_tokens = batch_tokens
        self._sides = [
            _Side(tokens.load(side, resident=resident), tokens.offsets(side)) for side in range(tokens.sides)
        ]

    def __len__(self) -> int:
        return len(self._sides[0])

    def read(self, index: int) -> tuple[Tensor, int | None]:
        """One target, or text, filled up to the longest that is allowed."""
        import torch

        return torch.from_numpy(self._sides[-1].padded(np.array([index]), self.spec.shape[0])[0]), None

    def gatherer(self, device: torch.device | str) -> Gatherer:
        """Pads on the CPU: the lengths, which say how wide a batch is, would have to come back from a GPU."""
        return _Padder(self._sides)

    def order(self, plan: BatchPlan, device: torch.device | str) -> Order:
        """Items of similar length together: see :class:`BucketOrder`."""
        return BucketOrder(self._longer_side(), plan, batch_tokens=self._batch_tokens)

    def padding(self, plan: BatchPlan) -> float:
        """The share of the tokens in an epoch's batches that is `pad`."""
        order = BucketOrder(self._longer_side(), plan, batch_tokens=self._batch_tokens)
        full = real = 0
        for k in range(order.batches):
            items = order.entries(k)[0].numpy()
            for side in self._sides:
                lengths = side.lengths[items]
                full += len(items) * int(lengths.max())
                real += int(lengths.sum())
        return 1 - real / full

    def describe(self) -> list[str]:
        """How much text there is, in what tokens, and how much of a batch is padding."""
        if self._batch_tokens is None:
            return self._lines.notes
        share = self.padding(BatchPlan(1, 0))
        said = f"batches of up to {self._batch_tokens:,} tokens (data.batch_tokens, not trainer.batch_size)"
        return [*self._lines.notes, f"{said}, of which {share:.1%} are padding"]

    def _longer_side(self) -> np.ndarray:
        longer: np.ndarray = np.maximum.reduce([side.lengths for side in self._sides])
        return longer


class _Side:
    """The sequences on one side, end to end."""

    def __init__(self, stream: np.ndarray, offsets: np.ndarray) -> None:
        self.stream, self.offsets = stream, offsets
        self.lengths = np.diff(offsets)

    def __len__(self) -> int:
        return len(self.lengths)

    def padded(self, index: np.ndarray, width: int | None = None) -> np.ndarray:
        """The sequences at `index`, int64 (n, width), where width is that of the longest if it is not given."""
        lengths = self.lengths[index][:, None]
        columns = np.arange(int(lengths.max()) if width is None else width)
        places = np.minimum(self.offsets[index][:, None] + columns, len(self.stream) - 1)
        padded: np.ndarray = np.where(columns < lengths, self.stream[places], PAD).astype(np.int64)
        return padded


class _Padder:
    def __init__(self, sides: list[_Side]) -> None:
        import torch

        self._sides = sides
        self.device = torch.device("cpu")

    def __call__(self, index: Tensor, uniform: Tensor | None = None) -> Batch:
        import torch

        *source, target = (torch.from_numpy(side.padded(index.numpy())) for side in self._sides)
        return Batch(target, source=source[0] if source else None)


def open_sequences(
    split: Split,
    corpora: Corpora,
    config: TokensConfig,
    *,
    sides: int,
    longest: int,
    batch_tokens: int | None = None,
) -> Sequences:
    """The documents or pairs of a split, in the tokens of a tokenizer that is made for the training split.

    Training pairs of more than `longest` tokens on a side are left out, and all other sequences cut.

    Raises:
        ConfigError: there is nothing in the split.
    """
    train = corpora["train"]
    tokenizer = tokenizer_for(config.tokenizer, train)
    corpus = train if split == "train" else corpora[split]
    leave_out = sides == 2 and split == "train"
    tokens = sequence_tokens(corpus, tokenizer, sides=sides, longest=longest, leave_out=leave_out)
    if not tokens.extent.documents:
        left_out = f" but {tokens.left_out} pairs that are too long or empty" if tokens.left_out else ""
        raise too_little(split, corpus, f"nothing in it{left_out}")
    lines = lines_about(split, corpus, tokens, tokenizer, config)
    resident = tokens.fit(config.memory_gb)
    return Sequences(tokens, TextCodec(tokenizer), longest, resident=resident, batch_tokens=batch_tokens, lines=lines)
