"""A GAN that writes text (Nie et al., RelGAN: Relational Generative Adversarial Networks for Text Generation, 2019).

Its generator is the transformer of ``model=transformer``, from whose run it is best begun (``model.init_from=``): so
its likelihood on held-out text is exact all through the game, and can be held against how its samples look. Drawn
tokens let gradients through as if they were shares of the vocabulary (Jang et al., Categorical Reparameterization with
Gumbel-Softmax, 2017, section 2.2), ever less smooth ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import embedding, leaky_relu, pad

from aigc_cli.config.schema import STRICT
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Phase, Transfer
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
    mixed_lengths: ClassVar[bool] = True  # else how long texts are would tell real from fake, batch by batch

    def __init__(self, config: TextGANConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)  # type: ignore[arg-type]
        self.discriminators = nn.ModuleList(
            TextDiscriminator(self.vocab_size, config.embedding, config.filters) for _ in range(config.discriminators)
        )
        self.adversarial = LOSSES[config.loss]
        self._fakes: list[tuple[Tensor, Tensor]] = []  # which the generator's phase takes up

    def phases(self, step: int) -> Sequence[Phase]:
        """The discriminators', then the generator's against the same texts."""
        super().phases(step)
        self._fakes.clear()
        return Phase("discriminator"), Phase("generator", new_batch=False)

    def network(self, phase: str) -> nn.Module:
        """The transformer, or all discriminators."""
        return {"generator": self.decoder, "discriminator": self.discriminators}[phase]

    def transfer(self) -> Transfer:
        """As of a transformer; the discriminators are new in each game."""
        known = super().transfer()
        judges = (name for name in self.state_dict() if name.startswith("discriminators."))
        return known._replace(own=(*known.own, *judges))

    def averaged(self) -> nn.Module:
        """The transformer."""
        return self.decoder

    def compile_networks(self, **options: Any) -> None:
        """Compiles nothing: rows grow while texts are drawn, and a penalty needs a double backward."""

    # training

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The losses of ``"discriminator"`` or ``"generator"`` on token ids (n, t)."""
        tokens = batch.content
        # A sample that is cut where the longest of a batch ends would be known by that.
        first, real = tokens[:, 0], pad(tokens[:, 1:], (0, self.context + 1 - tokens.shape[1]), value=self.pad)
        if phase == "generator":
            return self._generator_losses(first, real)
        drawn = self._drawn(first, self.context)
        if self.training:
            self.begins += summed(torch.zeros_like(self.begins).index_add_(0, first, torch.ones_like(first)))
            self._fakes.append(drawn)
        losses = self.adversarial.judged(self._scores(real), self._scores(drawn[0][:, 1:]))
        if self.config.r1_gamma:
            penalties = [r1_penalty(network.forward, network.read(real)) for network in self._each()]
            losses["r1"] = torch.stack(penalties).mean()
            losses["loss"] = losses["loss"] + self.config.r1_gamma * losses["r1"]
            losses["r1"] = losses["r1"].detach()
        return losses

    def _generator_losses(self, first: Tensor, real: Tensor) -> Losses:
        # Nothing of the generator has changed since the discriminators saw what it drew.
        drawn, noise = self._fakes.pop(0) if self._fakes else self._drawn(first, self.context)
        sharpness = self.config.sharpest ** min(1.0, self._step * self.pace / self.config.sharpen_steps)
        soft = self._smooth(drawn, noise, sharpness)
        read = [_through(network.embedding.weight.T, drawn[:, 1:], self.pad, soft) for network in self._each()]
        fake_score = torch.cat([network(rows) for network, rows in zip(self._each(), read, strict=True)]).float()
        real_score = fake_score
        if self.adversarial.paired:
            with torch.no_grad():
                real_score = self._scores(real)
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
        """The shares of the vocabulary (m, vocab) that each drawn token but `pad` stands for in gradients, row by row;
        see :func:`_through`.

        The gradient of a token's shares reaches the scores that it was drawn from; by each further pass of `through`,
        those of those before it too. All tokens take part in one pass, which finds the scores that drew them again: so
        a step costs that much, and no pass for each token.
        """
        network, targets = self.decoder, tokens[:, 1:]
        there = targets != self.pad
        noise, given = noise[there], network.embedding(tokens[:, :-1])
        for left in reversed(range(self.config.through)):
            scores = self._writable(network.logits(network.stack(given)[there]))
            shares = ((scores + noise) * sharpness).softmax(-1)
            if left:
                after = _through(network.embedding.weight[: self.vocab_size], targets, self.pad, shares)
                given = torch.cat([given[:, :1], after[:, :-1]], 1)
        return shares

    def _writable(self, scores: Tensor) -> Tensor:
        """Scores (..., vocab) without what no text has: real texts end in `pad`, so that discriminators would like it
        anywhere."""
        return scores.index_fill(-1, torch.tensor([self.pad, self.bos], device=scores.device), -torch.inf)

    def _each(self) -> Iterator[TextDiscriminator]:
        for network in self.discriminators:
            assert isinstance(network, TextDiscriminator)
            yield network

    def _scores(self, tokens: Tensor) -> Tensor:
        """What each discriminator makes of texts (n, t), (n * discriminators,)."""
        return torch.cat([network(network.read(tokens)) for network in self._each()]).float()

    # health

    def examine(self, train: Batch, held_out: Batch | None) -> Losses:
        """``diversity``, how many of the pairs of neighbours in samples differ, relative to as many of real texts."""
        tokens = train.content
        with torch.no_grad():
            drawn, _ = self._drawn(tokens[:, 0], self.context)
        pairs = [self._pairs(part) for part in (drawn, tokens)]
        counts = [len(torch.unique(part[: min(map(len, pairs))])) for part in pairs]
        return {"diversity": torch.tensor(counts[0] / max(counts[1], 1))}

    def _pairs(self, tokens: Tensor) -> Tensor:
        before, after = tokens[:, :-1], tokens[:, 1:]
        there = after != self.pad
        return before[there] * self.vocab_size + after[there]

    def warnings(self, figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        """What is going wrong; see :meth:`Model.warnings`."""
        if self.config.init_from is None:
            hint = "train model=transformer on it first, and name that run with model.init_from="
            yield "a start from nothing", f"this generator knows no text, and learns little from its opponents: {hint}"
        diversity = figures.get("examine/diversity", 1.0)
        if diversity < COLLAPSED:
            says = f"samples have {diversity:.0%} of the pairs of tokens that as many real texts have (mode collapse)"
            yield "mode collapse", f"{says}: take an earlier checkpoint with step=, or lower optimizer.generator.lr"


def _through(weight: Tensor, tokens: Tensor, pad: int, shares: Tensor) -> Tensor:
    """The rows of a weight (vocab, d) that tokens (n, t) name, (n, t, d), with the gradients of `shares` (m, vocab) of
    all rows in the place of each token but `pad`."""
    felt = (shares @ weight.detach()).to(weight.dtype)  # autocast may have it shorter
    return embedding(tokens, weight).index_put((tokens != pad,), felt - felt.detach(), accumulate=True)


class TextDiscriminator(nn.Module):
    """Texts as embedded tokens (n, t, embedding) to a score (n,), by what is strongest of spans of 2 to 5 tokens (Kim,
    Convolutional Neural Networks for Sentence Classification, 2014)."""

    def __init__(self, vocab_size: int, width: int, filters: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(vocab_size, width, bias=False)
        # A penalty on gradients of what is embedded keeps networks blind that would first have to make it larger.
        nn.init.normal_(self.embedding.weight)
        self.spans = nn.ModuleList(nn.Conv1d(width, filters, span, padding=span - 1) for span in _SPANS)
        self.mix = nn.Linear(len(_SPANS) * filters, filters)
        self.out = nn.Linear(filters, 1)

    def read(self, tokens: Tensor) -> Tensor:
        """Token ids (n, t) as (n, t, embedding)."""
        return embedding(tokens, self.embedding.weight.T)

    def forward(self, embedded: Tensor) -> Tensor:
        """See the class."""
        along = embedded.transpose(1, 2)
        strongest = [leaky_relu(span(along), 0.2).amax(2) for span in self.spans]
        score: Tensor = self.out(leaky_relu(self.mix(torch.cat(strongest, 1)), 0.2))
        return score[:, 0]
