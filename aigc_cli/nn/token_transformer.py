"""A transformer from tokens to scores of tokens."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from aigc_cli.nn.transformer import Transformer, TransformerConfig, fresh


class TokenTransformer(nn.Module):
    """Embedding, stack and vocabulary head.

    Args:
        config: Of the stack.
        vocab_size: Tokens that the head scores.
        length: The most tokens it can look at.
        causal: Whether a token sees only itself and those before it.
        cross: Whether it attends to a memory.
        tied: Whether the head's weights are the embedding (Press and Wolf 2017).
        extra: Tokens beyond the vocabulary that can be read, but not written.
    """

    def __init__(
        self, config: TransformerConfig, vocab_size: int, length: int, *, causal: bool, cross: bool = False,
        tied: bool = True, extra: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.vocab_size, self.length = vocab_size, length
        self.embedding = nn.Embedding(vocab_size + extra, config.width)
        self.stack = Transformer(config, length, causal=causal, cross=cross)
        self.head = None if tied else nn.Linear(config.width, vocab_size, bias=False)
        fresh(self.embedding)
        if self.head is not None:
            fresh(self.head)

    def hidden(self, tokens: Tensor, *, offset: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Features (n, t, width) of tokens (n, t), to whose embeddings `offset` (n, width) is added, a row's own.

        What the stack is given beside them is as of :meth:`Transformer.forward`.
        """
        embedded = self.embedding(tokens)
        features: Tensor = self.stack(embedded if offset is None else embedded + offset[:, None], **kwargs)
        return features

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., vocab_size) from features (..., width)."""
        if self.head is not None:
            scores: Tensor = self.head(hidden)
            return scores
        weight = self.embedding.weight
        return linear(hidden, weight if len(weight) == self.vocab_size else weight[: self.vocab_size])

    def forward(self, tokens: Tensor, targets: Tensor, ignored: int, smoothing: float = 0.0, **kwargs: Any) -> Tensor:
        """The mean cross-entropy, in nats per token, of targets (n, t) but for those that are `ignored`."""
        scores = self.logits(self.hidden(tokens, **kwargs))
        return cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=ignored, label_smoothing=smoothing)
