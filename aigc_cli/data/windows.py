"""A long text, of which an item is a window of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from aigc_cli.data.base import BatchPlan, Gatherer, Order, Split
from aigc_cli.data.corpus import Corpora, tokenizer_for
from aigc_cli.data.orders import WindowOrder
from aigc_cli.data.text_dataset import Lines, TextDataset, TokensConfig, lines_about, too_little
from aigc_cli.data.token_files import Tokens, stream_tokens
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.tokenizers import EOS, FIRST, PAD, UNK, Tokenizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor


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
    """The windows of a split, over the tokens of a tokenizer that is made for the training split.

    Raises:
        ConfigError: there is next to no text, or the training split is shorter than a window.
    """
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
    lines = lines_about(split, corpus, tokens, tokenizer, config)
    lines.notes.extend(notes)
    codec = TextCodec(tokenizer, _start(tokenizer, joined))
    return Windows(tokens, codec, context, resident=tokens.fit(config.memory_gb), lines=lines)


def _start(tokenizer: Tokenizer, joined: bool) -> int:
    """The token that a text without a prompt begins after: the end of a document or of a line (:class:`TextCodec`)."""
    if joined:
        return EOS
    found = (int(tokenizer.encode(text)[0]) for text in "\n ")
    return next((token for token in found if token != UNK), FIRST)
