"""What the models of codes share: tokens of classes, which are read and never written, and guidance by them.

An item is a row of codes (t,) of a fixed length. Before it stands the token of its class; in training that is now and
then the token for any class, so that one network also knows the codes as a whole (Ho and Salimans, Classifier-Free
Diffusion Guidance, 2022).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AliasChoices, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, Codec, DataSpec
from aigc_cli.models.base import Model, ModelConfig, Prompts, Transfer
from aigc_cli.models.latent import check_conditional, classes_asked_for
from aigc_cli.nn.collective import draw, integers
from aigc_cli.nn.decoding import Choice
from aigc_cli.nn.style import TransformerConfig
from aigc_cli.nn.transformer import FRESH_STD
from aigc_cli.randomness import Noise

_OF_SCORES = 0.1  # how far a codebook spreads the output layer
_NOTHING = 1e-4  # of the largest singular value


@dataclass(config=STRICT, frozen=True, kw_only=True)
class CodesModelConfig(ModelConfig, TransformerConfig):
    """The keys of every model of codes."""

    tie_embeddings: bool
    conditional: bool | Literal["auto"]
    class_dropout: Annotated[float, Field(ge=0, lt=1)]
    embedding_init: Literal["random", "codebook"] = "random"


@dataclass(config=STRICT, frozen=True, kw_only=True)
class CodesControls:
    """What ``sample`` of every model of codes takes."""

    #: Items of its own, or what is left of others completed.
    mode: str | None = None
    #: The class, or several separated by commas, of a model that was trained on labels; None is all of them, in turn.
    class_: Annotated[str | None, Field(alias="class", validation_alias=AliasChoices("class", "class_"))] = None
    #: A file to begin from, of which a part is kept.
    prompt: str | None = None
    #: Above 1, more of what tells the class from others; 0 pays the class no heed.
    guidance: Annotated[float, Field(ge=0)] = 1.0
    #: Divides scores: below 1, more of what is likely anyway; 0 always takes the likeliest code.
    temperature: Annotated[float, Field(ge=0)] = 1.0
    #: Draws from so many of the likeliest codes.
    top_k: Annotated[int, Field(ge=1)] | None = None
    #: Draws from the fewest codes that have this probability together (Holtzman et al. 2020).
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _drawn_or_taken(self) -> CodesControls:
        named = [name for name in ("top_k", "top_p") if getattr(self, name) is not None]
        if self.temperature == 0 and named:
            hint = f"add temperature=1, or leave out {' and '.join(named)}"
            raise ValueError(f"temperature=0 takes the likeliest code: {hint}")
        return self

    def choice(self) -> Choice:
        """How a code is chosen."""
        return Choice(self.temperature, self.top_k, self.top_p)


class CodesModel(Model):
    """Base of the models of codes. Beyond the K codes, its network reads a token for each class and one for any."""

    layouts = frozenset({"codes"})
    #: The name of the :class:`TokenTransformer` in it.
    tokens: ClassVar[str]
    config: CodesModelConfig

    def __init__(self, config: CodesModelConfig, spec: DataSpec) -> None:
        super().__init__(spec)
        assert spec.vocab_size is not None, "codes are of a vocabulary"
        self.config, self.vocab_size, self.length = config, spec.vocab_size, spec.shape[0]
        #: How many codes stand for each place of the grid, of a codebook each, one after the other.
        self.codebooks = self.length // math.prod(spec.grid) if spec.grid else 1
        self.conditional = check_conditional(config.conditional, spec)
        #: Tokens that are read and never written: the classes, and any.
        self.any = self.vocab_size + (len(spec.classes) if self.conditional else 0)

    def begin(self, codec: Codec) -> None:
        """With ``model.embedding_init=codebook`` codes that stand for alike things begin alike, in what is read of them
        and in their scores.

        Raises:
            ConfigError: the codes are not of one codebook.
        """
        if self.config.embedding_init == "random":
            return
        vectors = codec.vectors()
        if vectors is None:
            what = "model.embedding_init=codebook is for a tokenizer of one codebook"
            raise ConfigError(what, "leave model.embedding_init=random")
        network = getattr(self, self.tokens)
        with torch.no_grad():
            network.embedding.weight[: len(vectors)] += FRESH_STD * spread(vectors, self.config.width)
            if network.head is not None:
                network.head.weight[: len(vectors)] += _OF_SCORES * spread(vectors, self.config.width)
            if network.neighbours is not None:
                network.neighbours.begin(spread(vectors, network.neighbours.embedding.embedding_dim))

    @property
    def places(self) -> tuple[int, ...]:
        """The grid that the codes lie in, with an axis for those of a place where there are several."""
        return (*self.spec.grid, self.codebooks) if self.codebooks > 1 else self.spec.grid

    def limited(self, scores: Tensor, places: Tensor) -> Tensor:
        """Scores (..., vocab) of the codes at `places` (...) of a row, where only a codebook's own can be, and those
        that belong to none, such as that of the end."""
        if self.codebooks == 1:
            return scores
        owner = torch.arange(self.vocab_size, device=scores.device) // (self.vocab_size // self.codebooks)
        others = (owner != (places % self.codebooks)[..., None]) & (owner < self.codebooks)
        return scores.masked_fill(others, -torch.inf)

    def transfer(self) -> Transfer:
        """One family's transformer of codes may start from another's; of another tokenizer, no code is the same."""
        embedding, head = f"{self.tokens}.embedding.weight", f"{self.tokens}.head.weight"
        around = f"{self.tokens}.neighbours.embedding.weight"
        return Transfer(parts={"codes": self.tokens}, rows=(embedding, head, around), stand_ins={head: embedding})

    def held(self, controls: Any = None) -> int:
        """The keys and values of a whole item in every layer, and the scores of its codes, twice for guidance."""
        rows = 2 if getattr(controls, "guidance", 1.0) != 1.0 else 1
        return rows * self.length * (2 * self.config.layers * self.config.width + self.vocab_size)

    def turns(self, controls: Any) -> list[int]:
        """See :meth:`Model.turns`; the classes that a word such as ``cat,dog`` names, all for None."""
        return classes_asked_for(self, controls.class_)

    def told(self, batch: Batch) -> Tensor:
        """The token of each item's class (n,); in training now and then that of any."""
        labels = self.labels_of(batch)
        rows, device = len(batch), batch.content.device
        if labels is None:
            return torch.full((rows,), self.any, device=device)
        tokens = self.vocab_size + labels
        if self.training and self.config.class_dropout:
            tokens = torch.where(draw(torch.rand, rows, device=device) < self.config.class_dropout, self.any, tokens)
        return tokens

    def replaced(self, codes: Tensor, share: float) -> Tensor:
        """Codes (n, t) as they are read in training, of which a `share` is random: a small set is soon known by heart,
        and so some of what is read is not what was there."""
        if not share:
            return codes
        other = draw(integers(self.vocab_size), *codes.shape, device=codes.device)
        return torch.where(draw(torch.rand, *codes.shape, device=codes.device) < share, other, codes)

    def asked_for(self, noise: Noise, controls: CodesControls, prompts: Prompts | None) -> tuple[Tensor, bool]:
        """The token that stands before each sample (n,), of its class; and whether it is guided by the class. What is
        begun by prompts has their classes where no class is asked for, or any."""
        labels = self.labels(noise.indices, controls, noise.device)
        why, hint = "this model is not told classes", "leave guidance= out, or train on data with labels"
        if labels is not None and prompts is not None and controls.class_ is None:
            known = prompts.labels
            labels = None if known is None else torch.tensor([known[index % len(known)] for index in noise.indices])
            why, hint = "nothing says of which class the prompt is", "add class=, or leave guidance= out"
        if labels is None and controls.guidance != 1:
            raise ConfigError(f"guidance={controls.guidance:g}: {why}", hint)
        if labels is None:
            return torch.full((len(noise),), self.any, device=noise.device), False
        return self.vocab_size + labels.to(noise.device), controls.guidance != 1

    def given(self, prompts: Prompts | None, noise: Noise) -> list[list[int]]:
        """The codes that each sample is given, none without prompts; sample i takes row i mod k of the k."""
        if prompts is None:
            return [[] for _ in noise.indices]
        return [list(prompts.rows[index % len(prompts.rows)]) for index in noise.indices]

    def per_code(self, nats: Tensor, name: str) -> dict[str, Tensor]:
        """Held-out scores of items, (n,) float64, from the nats (n,) of all of an item's codes: nats per code, and
        ``code_bits_per_dim``, the bits that the codes take for each value of the raw item. What the tokenizer leaves
        out counts in neither: they do not compare with the ``bits_per_dim`` of a model of raw items."""
        nats = nats.double()
        return {name: nats / self.length, "code_bits_per_dim": nats / (math.log(2) * math.prod(self.spec.raw))}


def spread(vectors: Tensor, width: int) -> Tensor:
    """Vectors (k, d) in `width` dimensions, (k, width): whitened, and turned at random where those are more than they
    have; each dimension has a mean square of 1."""
    left, sizes, _ = torch.linalg.svd((vectors - vectors.mean(0)).double(), full_matrices=False)
    white = left[:, : min(width, int((sizes > _NOTHING * sizes[0]).sum()))].float() * math.sqrt(len(vectors))
    turn = torch.linalg.qr(torch.randn(width, white.shape[1]))[0]
    return torch.mm(white, turn.T) * math.sqrt(width / white.shape[1])


def guided(scores: Tensor, guidance: float) -> Tensor:
    """Scores (n, ...) of rows whose second half (2n, ...) is told of no class, pushed away from that half."""
    told, untold = scores.chunk(2)
    return untold + guidance * (told - untold)
