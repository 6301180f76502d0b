"""A GAN that writes text (Nie et al., RelGAN: Relational Generative Adversarial Networks for Text Generation, 2019).

Its generator is the transformer of ``model=transformer``, from whose run it is best begun (``model.init_from=``): so
its likelihood on held-out text is exact all through the game, and can be held against how its samples look. Drawn
tokens let gradients through as if they were shares of the vocabulary (Jang et al., Categorical Reparameterization with
Gumbel-Softmax, 2017, section 2.2), ever less smooth ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, one_hot

from aigc_cli.config.schema import STRICT
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Phase
from aigc_cli.models.gan.losses import LOSSES, r1_penalty
from aigc_cli.models.language_model import LanguageModelConfig
from aigc_cli.models.transformer import DecoderLanguageModel
from aigc_cli.nn.collective import draw, summed
from aigc_cli.nn.decoding import Session
from aigc_cli.registry import register

_SPANS = (2, 3, 4, 5)  # of tokens that the discriminators look at
_TINY = 1e-20  # below a uniform draw, so that its logarithm is finite
#: Below this share of the pairs of tokens that real texts differ in, samples have collapsed.
COLLAPSED = 0.5


@dataclass(config=STRICT, frozen=True, kw_only=True)
class TextGANConfig(LanguageModelConfig):
    """The keys of ``model=gan`` on text; configs/model/gan_text.yaml explains them."""

    name: Literal["gan_text"]
    loss: Literal["non_saturating", "hinge", "lsgan", "relativistic"]
    discriminators: Annotated[int, Field(ge=1)]
    embedding: Annotated[int, Field(ge=1)]
    filters: Annotated[int, Field(ge=1)]
    r1_gamma: Annotated[float, Field(ge=0)]
    sharpest: Annotated[float, Field(ge=1)]
    sharpen_steps: Annotated[int, Field(ge=1)]
    through: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _draws_what_it_scores(self) -> Self:
        if self.dropout:  # a second pass would not find the scores that drew a token
            raise ValueError(f"dropout={self.dropout:g}: a generator that is played against has none; leave it out")
        return self


@register("model", "gan_text", TextGANConfig)
class TextGAN(DecoderLanguageModel):
    """A transformer that writes, and several small networks that tell its texts from real ones.

    Phases ``"discriminator"`` and ``"generator"``; curves beside ``"loss"`` are the mean scores of real and fake, the
    share of scores on the right side, R1, and ``"sharpness"``, the inverse temperature of the shares.
    """

    can = frozenset({"sample", "prompt", "encode", "score", "fill", "examine"})
    config: TextGANConfig  # type: ignore[assignment]

    def __init__(self, config: TextGANConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)  # type: ignore[arg-type]
        self.discriminators = nn.ModuleList(
            TextDiscriminator(self.vocab_size, config.embedding, config.filters) for _ in range(config.discriminators)
        )
        self.adversarial = LOSSES[config.loss]

    def phases(self, step: int) -> Sequence[Phase]:
        """The discriminators', then the generator's against the same texts."""
        super().phases(step)
        return Phase("discriminator"), Phase("generator", new_batch=False)

    def network(self, phase: str) -> nn.Module:
        """The transformer, or all discriminators."""
        return {"generator": self.decoder, "discriminator": self.discriminators}[phase]

    def averaged(self) -> nn.Module:
        """The transformer."""
        return self.decoder

    def compile_networks(self) -> None:
        """Compiles nothing: rows grow while texts are drawn, and a penalty needs a double backward."""

    # training

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The losses of ``"discriminator"`` or ``"generator"`` on token ids (n, t)."""
        tokens = batch.content
        if phase == "generator":
            return self._generator_losses(tokens)
        first = tokens[:, 0]
        if self.training:
            self.begins += summed(torch.zeros_like(self.begins).index_add_(0, first, torch.ones_like(first)))
        with torch.no_grad():
            fake = self._drawn(first, tokens.shape[1] - 1)[0][:, 1:]
        real_score, fake_score = self._scores(self._hard(tokens[:, 1:])), self._scores(self._hard(fake))
        losses = self.adversarial.judged(real_score, fake_score)
        if self.config.r1_gamma:
            penalties = [self._r1(network, tokens[:, 1:]) for network in self._each()]
            losses["r1"] = torch.stack(penalties).mean()
            losses["loss"] = losses["loss"] + self.config.r1_gamma * losses["r1"]
            losses["r1"] = losses["r1"].detach()
        return losses

    def _generator_losses(self, tokens: Tensor) -> Losses:
        drawn, noise = self._drawn(tokens[:, 0], tokens.shape[1] - 1)
        sharpness = self.config.sharpest ** min(1.0, self._step * self.pace / self.config.sharpen_steps)
        fake_score = self._scores(self._smooth(drawn, noise, sharpness))
        real_score = fake_score
        if self.adversarial.paired:
            with torch.no_grad():
                real_score = self._scores(self._hard(tokens[:, 1:]))
        loss = self.adversarial.generator(fake_score, real_score)
        return {"loss": loss, "sharpness": torch.tensor(sharpness)}

    @torch.no_grad()
    def _drawn(self, first: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Token ids (n, 1 + count) that go on from the `first` (n,), `pad` after ``eos``, and the Gumbel noise
        (n, count, vocab) by which the best score of each was a draw (Gumbel-max)."""
        uniform = draw(torch.rand, len(first), count, self.vocab_size, device=first.device)
        noise = -torch.log((-torch.log(uniform.clamp_min(_TINY))).clamp_min(_TINY))
        session = Session(self.decoder, first[:, None].tolist(), count, self.pad)
        done = torch.zeros_like(first, dtype=torch.bool)
        for step in range(count):
            token = (self._writable(session.logits()) + noise[:, step]).argmax(-1)
            token = torch.where(done, self.pad, token)
            done = done | (token == self.eos)
            session.append(token)
        return session.tokens, noise

    def _smooth(self, tokens: Tensor, noise: Tensor, sharpness: float) -> Tensor:
        """Drawn tokens as shares of the vocabulary (n, count, vocab), of which each is one, with the gradients of
        shares that are less sure.

        That of a token's shares reaches the scores that it was drawn from; by each further pass of `through`, those of
        those before it too. All tokens take part in one pass, which finds the scores that drew them again: so a step
        costs that much, and no pass for each token.
        """
        network, targets = self.decoder, tokens[:, 1:]
        hard = self._hard(targets)
        ended = (targets == self.pad)[..., None]
        given = network.embedding(tokens[:, :-1])
        shares = hard
        for _ in range(self.config.through):
            scores = self._writable(network.logits(network.stack(given)))
            soft = ((scores + noise) * sharpness).softmax(-1)
            shares = torch.where(ended, hard, hard + soft - soft.detach())
            after = shares[:, :-1] @ network.embedding.weight[: self.vocab_size]
            given = torch.cat([given[:, :1], after], 1)
        return shares

    def _writable(self, scores: Tensor) -> Tensor:
        """Scores (..., vocab) without what no text has: real texts end in `pad`, so that discriminators would like it
        anywhere."""
        return scores.index_fill(-1, torch.tensor([self.pad, self.bos], device=scores.device), -torch.inf)

    def _hard(self, tokens: Tensor) -> Tensor:
        """Tokens (n, t) as shares of the vocabulary, of which each is one, (n, t, vocab)."""
        return one_hot(tokens, self.vocab_size).to(self.decoder.embedding.weight.dtype)

    def _each(self) -> Iterator[TextDiscriminator]:
        for network in self.discriminators:
            assert isinstance(network, TextDiscriminator)
            yield network

    def _scores(self, shares: Tensor) -> Tensor:
        """What each discriminator makes of texts (n, t, vocab), (n * discriminators,)."""
        return torch.cat([network(network.embed(shares)) for network in self._each()]).float()

    @staticmethod
    def _r1(network: TextDiscriminator, tokens: Tensor) -> Tensor:
        return r1_penalty(network.forward, network.embedding.weight.T[tokens])

    # health

    def examine(self, train: Batch, held_out: Batch | None) -> Losses:
        """``diversity``, how many different pairs of neighbours so many samples have, relative to real texts."""
        tokens = train.content
        with torch.no_grad():
            drawn, _ = self._drawn(tokens[:, 0], tokens.shape[1] - 1)
        counts = [self._pairs(part) for part in (drawn, tokens)]
        return {"diversity": torch.tensor(counts[0] / max(counts[1], 1))}

    def _pairs(self, tokens: Tensor) -> int:
        before, after = tokens[:, :-1], tokens[:, 1:]
        there = after != self.pad
        return len(torch.unique(before[there] * self.vocab_size + after[there]))

    def warnings(self, figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        """What is going wrong; see :meth:`Model.warnings`."""
        diversity = figures.get("examine/diversity", 1.0)
        if diversity < COLLAPSED:
            says = f"samples have {diversity:.0%} of the pairs of tokens that as many real texts have (mode collapse)"
            yield "mode collapse", f"{says}: take an earlier checkpoint with step=, or lower optimizer.generator.lr"


class TextDiscriminator(nn.Module):
    """Texts as embedded tokens (n, t, embedding) to a score (n,), by what is strongest of spans of 2 to 5 tokens (Kim,
    Convolutional Neural Networks for Sentence Classification, 2014)."""

    def __init__(self, vocab_size: int, embedding: int, filters: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(vocab_size, embedding, bias=False)
        self.spans = nn.ModuleList(nn.Conv1d(embedding, filters, span, padding=span - 1) for span in _SPANS)
        self.mix = nn.Linear(len(_SPANS) * filters, filters)
        self.out = nn.Linear(filters, 1)

    def embed(self, shares: Tensor) -> Tensor:
        """Shares of the vocabulary (n, t, vocab) as (n, t, embedding)."""
        embedded: Tensor = self.embedding(shares)
        return embedded

    def forward(self, embedded: Tensor) -> Tensor:
        """See the class."""
        along = embedded.transpose(1, 2)
        strongest = [leaky_relu(span(along), 0.2).amax(2) for span in self.spans]
        score: Tensor = self.out(leaky_relu(self.mix(torch.cat(strongest, 1)), 0.2))
        return score[:, 0]
