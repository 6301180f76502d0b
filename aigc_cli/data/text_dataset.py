"""Datasets of text in tokens: windows of one long stream, or sequences padded to the longest of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import BatchPlan, BucketOrder, Dataset, Gatherer, Order, Split, WindowOrder
from aigc_cli.data.cache import digest_of
from aigc_cli.data.corpus import Corpora, Corpus, tokenizer_for
from aigc_cli.data.raw import offer
from aigc_cli.data.token_files import Extent, Tokens, sequence_tokens, stream_tokens
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.tokenizers import EOS, FIRST, PAD, SPECIALS, UNK, Tokenizer, TokenizerConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Lines = tuple[list[str], list[str]]  # see Dataset.problems and Dataset.describe


@dataclass(config=STRICT, frozen=True, kw_only=True)
class TokensConfig:
    """The keys that all datasets of text have."""

    tokenizer: TokenizerConfig
    memory_gb: Annotated[float, Field(gt=0)]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class SequencesConfig(TokensConfig):
    """The keys of datasets whose batches are counted in tokens."""

    max_length: Annotated[int, Field(ge=4, le=1 << 16)]
    batch_tokens: Annotated[int, Field(ge=1)] | None  # takes the place of trainer.batch_size


class TextDataset(Dataset):
    """Text in the tokens of a tokenizer, of which a gatherer makes items of at most `length`.

    `kind` says what items are, for the fingerprint, and `lines` are the problems and notes that a person should know.
    """

    codec: TextCodec
    extent: Extent

    def __init__(self, tokens: Tokens, codec: TextCodec, length: int, kind: Sequence[Any], lines: Lines) -> None:
        self.codec, self.extent = codec, tokens.extent
        self._problems, self._notes = lines
        spec = DataSpec("text", (length,), (), codec.tokenizer.vocab_size, SPECIALS)
        source = spec if tokens.sides == 2 else None
        self.spec = replace(spec, fingerprint=digest_of([*kind, tokens.key]), source=source)

    def resident(self) -> Batch | None:
        """None: items are made of the tokens."""
        return None

    def problems(self) -> list[str]:
        """What was wrong with the text, and what was cut or left out."""
        return self._problems

    def describe(self) -> list[str]:
        """How much text there is, in what tokens."""
        return self._notes


def lines_about(split: Split, corpus: Corpus, tokens: Tokens, tokenizer: Tokenizer, config: TokensConfig) -> Lines:
    """What was wrong with a split's text, and how much of it there is."""
    problems, extent = list(corpus.stock.problems), tokens.extent
    if tokens.unknown:
        some = ", ".join(f"{character!r}" for character in tokens.lacking)
        problems.append(
            f"{tokens.unknown} of {extent.characters} characters of the {split} split are not in the vocabulary, "
            f"and are read as unk: {some}"
        )
    if tokens.left_out:
        problems.append(
            f"{tokens.left_out} pairs of the {split} split are left out: too long (data.max_length), or empty"
        )
    if tokens.cut:
        problems.append(f"{tokens.cut} texts of the {split} split are cut: too long")
    side, what = (" of targets", "pair") if tokens.sides == 2 else ("", "document")
    count = max(1, extent.documents)
    notes = [
        f"{tokenizer.kind} vocabulary of {tokenizer.vocab_size:,} tokens; the {split} split has {extent.tokens:,} of "
        f"them for {extent.characters:,} characters{side} in {count:,} {what}{'' if count == 1 else 's'}"
    ]
    wanted = config.tokenizer
    if tokenizer.kind == "bpe" and wanted.path is None and tokenizer.vocab_size < wanted.vocab_size:
        notes.append(
            f"data.tokenizer.vocab_size={wanted.vocab_size} is more than the text can fill: "
            f"no two tokens come together twice beyond {tokenizer.vocab_size}"
        )
    if not tokens.fit(config.memory_gb):
        size = tokens.nbytes() / 1e9
        notes.append(f"the tokens stay on disk: {size:.1f} GB, above data.memory_gb={config.memory_gb:g}")
    return problems, notes


def too_little(split: Split, corpus: Corpus, what: str) -> ConfigError:
    """The error of a split that has too little in it to be used."""
    return ConfigError(
        f"the {split} split of {corpus.source.where} has {what}",
        "use more text, or other fractions: data.val_fraction=, data.test_fraction=",
    )


class Windows(TextDataset):
    """Windows of one long stream of tokens: an item is `context` + 1 of them, int64; the last is only predicted.

    In training, item i of an epoch begins at ``i * context`` plus a random offset below `context`, drawn anew in each
    epoch, so that a model does not see the same cuts again. In order, it begins at ``i * context``, so that all items
    together have each token but the first as a target once; the last is filled up with `pad`, which is not a target.
    """

    def __init__(self, tokens: Tokens, codec: TextCodec, context: int, *, resident: bool, lines: Lines) -> None:
        import torch

        super().__init__(tokens, codec, context + 1, ["windows", context], lines)
        self.context = context
        stream = torch.from_numpy(tokens.load(resident=resident))
        short = context + 1 - len(stream)
        self._stream = torch.nn.functional.pad(stream.int(), (0, short), value=PAD) if short > 0 else stream
        self._resident = resident
        self._on = lru_cache(maxsize=2)(self._move)  # on the device that trains, and on the CPU for single items

    def __len__(self) -> int:
        return max(1, -(-(self.extent.tokens - 1) // self.context))

    def read(self, index: int) -> tuple[Tensor, int | None]:
        """One window, in its place in order."""
        import torch

        return self._on("cpu")(torch.tensor([index])).content[0], None

    def gatherer(self, device: torch.device | str) -> Gatherer:
        """Cuts windows out of the stream, on `device` if the stream may be held in memory."""
        return self._on(str(device) if self._resident else "cpu")

    def order(self, plan: BatchPlan, device: torch.device | str) -> Order:
        """A permutation an epoch, and a draw for each window."""
        return WindowOrder(len(self), plan, device)

    def _move(self, device: str) -> _WindowGatherer:
        import torch

        stream = self._stream
        if device != "cpu" and stream.dtype == torch.uint16:  # which only the CPU can index
            stream = stream.view(torch.int16) if self.codec.tokenizer.vocab_size <= 1 << 15 else stream.int()
        return _WindowGatherer(stream.to(device), len(self), self.context)


class _WindowGatherer:
    def __init__(self, stream: Tensor, n: int, context: int) -> None:
        import torch

        self.device = stream.device
        self._windows = stream.unfold(0, context + 1, 1)  # a view: one row for each place where a window can begin
        self._context = context
        self._columns = torch.arange(context + 1, device=stream.device)

    def __call__(self, index: Tensor, uniform: Tensor | None = None) -> Batch:
        starts = index * self._context
        if uniform is not None:
            starts = starts + (uniform[:, 0] * self._context).long()
        last = len(self._windows) - 1
        windows = self._windows.index_select(0, starts.clamp(max=last)).long()
        if uniform is None:
            # The last window would reach beyond the end of the stream. So the last whole window is taken in its place,
            # and its tokens move to the left until they begin where the last window does.
            columns = self._columns + (starts - last).clamp(min=0)[:, None]
            windows = windows.gather(1, columns.clamp(max=self._context))
            windows = windows.masked_fill(columns > self._context, PAD)
        return Batch(windows)


def open_windows(
    split: Split, corpora: Corpora, config: TokensConfig, *, context: int, notes: Sequence[str] = ()
) -> Windows:
    """The windows of a split, over the tokens of a tokenizer that is made for the training split; raises ConfigError
    where there is next to no text, or the training split is shorter than a window."""
    offer("text", corpora)
    train = corpora["train"]
    tokenizer = tokenizer_for(config.tokenizer, train)
    joined = train.stock.documents > 1
    corpus = train if split == "train" else corpora[split]
    tokens = stream_tokens(corpus, tokenizer, joined=joined)
    count = tokens.extent.tokens
    if count < 2:
        raise too_little(split, corpus, f"{count} tokens")
    if split == "train" and count <= context:
        raise ConfigError(
            f"the training split of {corpus.source.where} has {count} tokens, and a window data.context={context} + 1",
            f"use more text, or data.context={count - 1} or less",
        )
    problems, found = lines_about(split, corpus, tokens, tokenizer, config)
    if split == "train":
        problems, found = [*corpora.left_out, *problems], [*found, *corpora.held_out()]
    # A text without a prompt begins after the end of a document, or of a line where there is but one document.
    ends = (int(tokenizer.encode(text)[0]) for text in "\n ")
    start = EOS if joined else next((token for token in ends if token != UNK), FIRST)
    resident, lines = tokens.fit(config.memory_gb), (problems, [*found, *notes])
    return Windows(tokens, TextCodec(tokenizer, start), context, resident=resident, lines=lines)


class Sequences(TextDataset):
    """Sequences of `bos`, text and `eos`, int64 (n, t), filled up with `pad` to the longest of a batch.

    Of pairs, `content` is the target and `source` the source, each padded to its own longest. In training, a batch
    holds items of similar length, unless it is :attr:`BatchPlan.mixed`. A sequence that was cut, because it has more
    than `longest` tokens, has no `eos`.
    """

    def __init__(
        self, tokens: Tokens, codec: TextCodec, longest: int, *, resident: bool, batch_tokens: int | None, lines: Lines
    ) -> None:
        super().__init__(tokens, codec, longest, ["sequences", longest], lines)
        self._batch_tokens = batch_tokens
        sides = range(tokens.sides)
        self._sides = [_Side(tokens.load(side, resident=resident), tokens.offsets(side)) for side in sides]

    def __len__(self) -> int:
        return len(self._sides[0].lengths)

    def read(self, index: int) -> tuple[Tensor, int | None]:
        """One target, or text, filled up to the longest that is allowed."""
        import torch

        return torch.from_numpy(self._sides[-1].padded(np.array([index]), self.spec.shape[0])[0]), None

    def gatherer(self, device: torch.device | str) -> Gatherer:
        """Pads on the CPU: the lengths, which say how wide a batch is, would have to come back from a GPU."""
        return _Padder(self._sides)

    def order(self, plan: BatchPlan, device: torch.device | str = "cpu") -> BucketOrder:
        """Items of similar length together: see :class:`BucketOrder`."""
        longer = np.maximum.reduce([side.lengths for side in self._sides])
        return BucketOrder(longer, plan, batch_tokens=self._batch_tokens, buckets=1 if plan.mixed else 16)

    def padding(self, plan: BatchPlan) -> float:
        """The share of the tokens in an epoch's batches that is `pad`."""
        order = self.order(plan)
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
            return self._notes
        share = self.padding(BatchPlan(1, 0))
        said = f"batches of up to {self._batch_tokens:,} tokens (data.batch_tokens, not trainer.batch_size)"
        return [*self._notes, f"{said}, of which {share:.1%} are padding"]


class _Side:
    """The sequences on one side, end to end."""

    def __init__(self, stream: np.ndarray, offsets: np.ndarray) -> None:
        self.stream, self.offsets = stream, offsets
        self.lengths = np.diff(offsets)

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
    split: Split, corpora: Corpora, config: TokensConfig, *, sides: int, longest: int, batch_tokens: int | None = None
) -> Sequences:
    """The documents or pairs of a split, in the tokens of a tokenizer that is made for the training split.

    Training pairs of more than `longest` tokens on a side are left out, and all other sequences cut. Raises ConfigError
    where there is nothing in the split.
    """
    offer("text" if sides == 1 else "text from text", corpora)
    train = corpora["train"]
    tokenizer = tokenizer_for(config.tokenizer, train)
    corpus = train if split == "train" else corpora[split]
    leave_out = sides == 2 and split == "train"
    tokens = sequence_tokens(corpus, tokenizer, sides=sides, longest=longest, leave_out=leave_out)
    if not tokens.extent.documents:
        left_out = f" but {tokens.left_out} pairs that are too long or empty" if tokens.left_out else ""
        raise too_little(split, corpus, f"nothing in it{left_out}")
    problems, notes = lines_about(split, corpus, tokens, tokenizer, config)
    lines = [*(corpora.left_out if split == "train" else []), *problems], notes
    resident = tokens.fit(config.memory_gb)
    return Sequences(tokens, TextCodec(tokenizer), longest, resident=resident, batch_tokens=batch_tokens, lines=lines)
