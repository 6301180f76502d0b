"""Transformers that see both sides of a token: they guess what is masked, and write by filling masks.

Two objectives: ``mlm``, a fixed share of tokens is masked (Devlin et al., BERT, 2019); ``diffusion``, any number of
them is, which bounds the likelihood (Sahoo et al., Simple and Effective Masked Diffusion Language Models, 2024; Nie et
al., Large Language Diffusion Models, 2025).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn.functional import cross_entropy

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Prompts
from aigc_cli.models.language_model import (
    DrawingControls,
    LanguageModel,
    LanguageModelConfig,
    mean_of_tokens,
    per_token,
    unless_all,
)
from aigc_cli.nn.collective import draw, draw_common, integers, rank, weighted, world_size
from aigc_cli.nn.decoding import padded
from aigc_cli.nn.masking import Filling, Masks, ancestral, by_confidence, gibbs, masks_at
from aigc_cli.nn.transformer import TokenTransformer
from aigc_cli.randomness import Noise
from aigc_cli.registry import register

SCORED_RATE = 0.15  # of tokens that a model with a fixed mask rate is scored on, whatever it was trained on
STRATA = 8  # numbers of masks that an item's bound is averaged over, spread evenly


@dataclass(config=STRICT, frozen=True, kw_only=True)
class BertConfig(LanguageModelConfig):
    """The keys of ``model=bert``; configs/model/bert.yaml explains them."""

    name: Literal["bert"]
    objective: Literal["diffusion", "mlm"]
    mask_rate: Annotated[float, Field(gt=0, le=1)]
    mixed_masks: bool


@dataclass(config=STRICT, frozen=True, kw_only=True)
class FillingControls(DrawingControls):
    """What ``sample`` takes; `prompt` is what the text begins with, or the text with gaps."""

    #: Text of its own, after `prompt` if there is one; or `prompt` with its gaps filled.
    mode: str | None = None
    #: In a random order; all at once, then the least likely again; or one by one, over and over.
    sampler: Literal["ancestral", "confidence", "gibbs"] = "ancestral"
    #: Passes (of gibbs: over all tokens); None is one a token for ancestral, 10 for confidence and 4 for gibbs.
    steps: Annotated[int, Field(ge=1)] | None = None
    #: Tokens that each gap in the text of `prompt` stands for; None is one for each underscore of it.
    gap: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _drawn_or_taken(self) -> FillingControls:
        self.check_drawing()
        return self


@register("model", "bert", BertConfig)
class MaskedLanguageModel(LanguageModel):
    """Guesses masked tokens from all others. An item (n, t) is looked at whole."""

    can = frozenset({"sample", "prompt", "infill", "encode", "score", "fill"})
    controls: ClassVar[type] = FillingControls
    config: BertConfig
    tokens = "encoder"
    left_to_right = False
    fills_from = "what is left around it"
    filling: ClassVar[dict[str, Any]] = {"sampler": "confidence", "temperature": 0.0}

    def __init__(self, config: BertConfig, spec: DataSpec) -> None:
        super().__init__(spec)
        self.config = config
        self.length = spec.shape[0]
        #: The token that stands for what is to be guessed; beyond the vocabulary, so that it is never a guess.
        self.mask: int = self.vocab_size
        self.encoder = TokenTransformer(
            config, self.vocab_size, self.length, causal=False, tied=config.tie_embeddings, extra=1
        )

    def compile_networks(self, **options: Any) -> None:
        """Compiles the stack: which features the head runs on changes from step to step."""
        self.encoder.stack.compile(**options)

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The objective on token ids (n, t), in nats per token: of those that are masked, or of the bound."""
        tokens, n, diffusion = batch.content, len(batch), self.config.objective == "diffusion"
        there = tokens != self.pad
        shares = [self.config.mask_rate] * n
        if diffusion:
            # Shares spread evenly over the items of all processes, from one common draw on: each is uniform by itself,
            # and their mean, which the loss follows, hardly varies (Kingma et al., Variational Diffusion Models, 2021,
            # appendix I.1). It is drawn on the host, which has to know how many tokens are masked.
            first = float(draw_common(torch.rand, 1))
            shares = [(row + first) / (n * world_size()) for row in range(n * rank(), n * (rank() + 1))]
        masks = masks_at(shares, there, draw(torch.rand, *tokens.shape, device=tokens.device))
        shown = masks.apply(tokens, self.mask)
        if self.config.mixed_masks and not diffusion:
            shown = self._mixed(shown, tokens, masks)
        nats, _ = self._guessed(tokens, shown, there, masks)
        total, count = nats.sum(), masks.counts.sum()
        if diffusion:
            total, count = (nats * _weights(masks)).sum(), masks.lengths.sum()
        return {"loss": weighted(total / count, count)}

    def _mixed(self, shown: Tensor, tokens: Tensor, masks: Masks) -> Tensor:
        """Of masked tokens, a tenth shows a random one, not the mask, and a tenth itself (Devlin et al. 2019)."""
        chance = draw(torch.rand, len(masks.rows), device=tokens.device)
        other = draw(integers(self.vocab_size), len(masks.rows), device=tokens.device)
        own, seen = tokens[masks.rows, masks.places], shown[masks.rows, masks.places]
        other = torch.where(masks.counts, other, own)
        mixed = torch.where(chance < 0.8, seen, torch.where(chance < 0.9, other, own))
        return shown.index_put((masks.rows, masks.places), mixed)

    def _guessed(self, tokens: Tensor, shown: Tensor, there: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
        """The nats of each masked token (m,), 0 where it does not count, and whether it is the likeliest, (m,)."""
        hidden = self.encoder.hidden(shown, mask=unless_all(there))
        logits = self.encoder.logits(hidden[masks.rows, masks.places]).float()
        targets = tokens[masks.rows, masks.places]
        nats = cross_entropy(logits, targets, reduction="none")
        return torch.where(masks.counts, nats, 0), (logits.argmax(-1) == targets) & masks.counts

    def held(self, controls: FillingControls | None = None) -> int:
        """As of other models of tokens, with the scores of as many places as are guessed at once."""
        asked = controls or FillingControls()
        at_once = {"ancestral": -(-self.length // (asked.steps or self.length)), "confidence": self.length, "gibbs": 1}
        return super().held() + (at_once[asked.sampler] - 1) * self.vocab_size

    def score(self, batch: Batch, noise: Noise, samples: int = 1) -> dict[str, Tensor]:
        """Held-out figures of each item, (n,) float64, given its first token, which no writer from the left predicts.

        Of ``diffusion``: ``nelbo_per_token``, ``nelbo`` and ``tokens``, a bound on the negative log-likelihood in nats,
        averaged over 8 numbers of masks for each of `samples`, which are spread evenly from 1 to all. Of ``mlm``:
        ``masked_nll_per_token``, ``masked_nll``, ``tokens`` and ``masked_accuracy`` of a random 15 % of the tokens.
        """
        tokens, diffusion = batch.content, self.config.objective == "diffusion"
        there = tokens != self.pad
        targets = there & (torch.arange(tokens.shape[1], device=tokens.device) > 0)
        strata = STRATA * samples if diffusion else samples
        first = noise.uniform().double()
        keys = noise.uniform(strata, self.length)  # as wide whatever the batch
        totals, right, masked = (torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device) for _ in range(3))
        for stratum in range(strata):
            shares = ((stratum + first) / strata).tolist() if diffusion else [SCORED_RATE] * len(tokens)
            masks = masks_at(shares, targets, keys[:, stratum, : tokens.shape[1]])
            nats, hits = self._guessed(tokens, masks.apply(tokens, self.mask), there, masks)
            if diffusion:
                nats = nats * _weights(masks) / strata
            totals.index_add_(0, masks.rows, nats.double())
            right.index_add_(0, masks.rows, hits.double())
            masked += masks.of_row
        if diffusion:
            return per_token(totals, targets.sum(1), "nelbo")
        return {**per_token(totals, masked, "masked_nll"), "masked_accuracy": right / masked}

    def encode(self, batch: Batch) -> Tensor:
        """The mean of the features of each item's tokens, (n, width)."""
        there = batch.content != self.pad
        return mean_of_tokens(self.encoder.hidden(batch.content, mask=unless_all(there)), there)

    def sample(self, noise: Noise, controls: FillingControls, prompts: Prompts | None = None) -> Tensor:
        """Token ids (n, t), int64: with `mode` "sample", a prompt and what follows it; with "infill", prompts with
        :attr:`mask` for gaps, filled. Rows that are shorter than others end in ``pad``.

        Raises:
            ConfigError: a prompt that does not fit, that is empty, or that has no gaps to fill; more tokens than the
                model looks at. Of fewer, each row gets as many as still fit.
        """
        if prompts is None:
            if controls.mode == "infill":
                raise ConfigError("mode=infill needs a text with gaps", 'give it one, such as prompt="to be, or ____"')
            rows: list[list[int]] = [[] for _ in noise.indices]
        else:
            rows = self.given(prompts.rows, noise, most=self.vocab_size + 1)
        longest = max(map(len, rows))
        if longest > self.length:
            raise ConfigError(f"a prompt has {longest} tokens, and this model reads {self.length}", "shorten it")
        if controls.mode == "infill":
            if any(self.mask not in row for row in rows):
                raise ConfigError("mode=infill: a prompt has no gaps", "write ____ for each gap")
        else:
            more = self.most(controls, self.length)
            rows = [row + [self.mask] * min(more, self.length - len(row)) for row in rows]
        canvas, allowed = padded(rows, self.pad, noise.device), self.allowed(prompts, noise)
        there = (canvas == self.mask).int().argmax(1)
        return self._filled(canvas, noise, controls, None if allowed is None else (there, allowed))

    def fill(self, tokens: Tensor, gaps: Tensor, noise: Noise, controls: FillingControls) -> Tensor:
        """Token ids (n, t) with their gaps (n, t) filled."""
        return self._filled(torch.where(gaps, self.mask, tokens), noise, controls)

    def _filled(
        self, canvas: Tensor, noise: Noise, asked: FillingControls, first: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Token ids (n, t) of a canvas with its masks filled; `first` is as of :class:`Filling`."""
        there = unless_all(canvas != self.pad)
        filling = Filling(
            read=lambda tokens: self.encoder.hidden(tokens, mask=there),
            score=self._scores_of_text if asked.mode == "infill" else self.encoder.logits,
            mask=self.mask,
            canvas=canvas,
            choice=self.choice(asked),
            first=first,
        )
        width = canvas.shape[1]

        def draws(*count: int) -> Tensor:
            return noise.uniform(*count, self.length)[..., :width]  # as wide whatever the batch

        if asked.sampler == "confidence":
            return by_confidence(filling, draws(asked.steps or 10), asked.steps or 10)
        if asked.sampler == "gibbs":
            return gibbs(filling, draws(asked.steps or 4), draws(asked.steps or 4))
        return ancestral(filling, draws(), draws(), asked.steps)

    def _scores_of_text(self, hidden: Tensor) -> Tensor:
        """Scores of the vocabulary by which nothing ends, or begins anew, within a text with gaps."""
        special = torch.tensor([token for _, token in self.spec.specials], device=hidden.device)
        return self.encoder.logits(hidden).index_fill(-1, special, -torch.inf)


def _weights(masks: Masks) -> Tensor:
    """T / k for each masked token (m,) of a row of T, of which k are masked: so the sum over a row, with k uniform in 1
    to T, bounds its negative log-likelihood on average (Nie et al. 2025, appendix A)."""
    return (masks.lengths / masks.of_row)[masks.rows]
