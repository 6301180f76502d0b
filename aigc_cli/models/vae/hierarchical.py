"""A small hierarchical variational autoencoder in the manner of VDVAE (Child, Very Deep VAEs Generalize Autoregressive
Models and Can Outperform Them on Images, 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses
from aigc_cli.models.latent import check_conditional
from aigc_cli.models.vae.config import HVAEConfig, Level
from aigc_cli.models.vae.hierarchical_networks import BottomUp, Latent, TopDown
from aigc_cli.models.variational import ACTIVE, SETTLED, Draw, VariationalModel
from aigc_cli.nn.collective import draw
from aigc_cli.nn.likelihoods import LogisticMixture, build_likelihood
from aigc_cli.nn.padding import ending
from aigc_cli.registry import register

#: How many times the KL of the coarsest latents counts at first, and that of the others, where coarse is to come first.
COARSEST, OTHERS = 10.0, 20.0

SMALLEST, LARGEST = 8, 128  # the shorter side of an image


@register("model", "hvae", HVAEConfig)
class HVAE(VariationalModel):
    """Maps of latents from 1x1 up, each drawn given all coarser ones, that maximise a bound on the likelihood together.

    The phase ``"main"`` minimises nats per dimension, with weights on the KL while the coarsest latents come first. Its
    curves beside ``"loss"`` are ``"reconstruction"`` and ``"kl"`` in nats per item, the KL of each side, such as
    ``"kl_8"``, and ``"bits_per_dim"`` of the bound, whatever the weights.

    A latent vector holds the standard normal draws behind all maps, the top-most first: z = mean + deviation * draw,
    where the prior has its mean and deviation from what is above.
    """

    can = frozenset({"sample", "latents", "decode", "encode", "score", "examine"})
    layouts = frozenset({"map"})

    def __init__(self, config: HVAEConfig, spec: DataSpec) -> None:
        super().__init__(spec)
        self.config = config
        self.conditional = check_conditional(config.conditional, spec)
        layout = levels(config.layout, spec.shape)
        self.patch = min(spec.shape[1:]) // layout[-1].side
        likelihood = build_likelihood(config.likelihood, spec.shape[0], config.deviation, config.components)
        self.likelihood = ending(likelihood, spec.padding)
        self.bottom_up = BottomUp(config, spec.shape, layout)
        self.top_down = TopDown(config, spec.shape, layout, self.likelihood.width, self.classes)
        if isinstance(likelihood, LogisticMixture):
            bias = self.top_down.head.bias
            assert bias is not None
            with torch.no_grad():
                likelihood.begin(bias.view(-1, self.likelihood.width)[:, : likelihood.width], log_scale=-1.5)
        self.dimensions = self.top_down.dimensions

    @property
    def coarsest(self) -> int:
        """Those of the top-most maps, whose prior alone is the same for every image."""
        return self.top_down.coarsest

    # training

    def forward(self, phase: str, batch: Batch) -> Losses:
        """The negative ELBO and its terms on encoded images (n, c, h, w)."""
        x, labels = self._seen(batch)
        noise = draw(torch.randn, len(x), self.top_down.dimensions, device=x.device)
        parameters, latents = self.top_down(self.bottom_up(x), labels, noise)
        reconstruction = self._reconstruction(parameters, x).mean()
        kl = {side: each.mean() for side, each in self._by_side([latent.kl() for latent in latents]).items()}
        paid = torch.stack([self.kl_weight(side) * each for side, each in kl.items()]).sum()
        total = torch.stack(list(kl.values())).sum().detach()
        terms = {"reconstruction": reconstruction, "kl": total, **{f"kl_{side}": each for side, each in kl.items()}}
        return {
            "loss": (reconstruction + paid) / self.values,
            **self.bits(reconstruction.detach() + total),
            **{name: term.detach() for name, term in terms.items()},
        }

    def kl_weight(self, side: int) -> float:
        """Of the KL of a side in the objective: it falls linearly to 1 over the first ``coarse_first`` steps.

        While latents are dear they hold what tells most of an image, its shape, in few nats that a prior can match
        (Burgess et al., Understanding disentangling in beta-VAE, 2018), and the finer ones, dearer yet, leave that to
        the coarsest. Without it they are the first to say it all, place by place, and the coarsest stay idle.
        """
        steps = self.config.coarse_first
        ahead = max(0.0, 1 - self._step * self.pace / steps) if steps else 0.0
        first = COARSEST if side == self.top_down.sides[0] else OTHERS
        return 1 + (first - 1) * ahead

    def _seen(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """What is modelled of a batch: its content as the likelihood has it, and its labels if they matter."""
        return self.likelihood.target(batch.content), self.labels_of(batch)

    def _posterior(self, batch: Batch) -> list[Latent]:
        """Of each block, given the posterior's means above it."""
        x, labels = self._seen(batch)
        latents: list[Latent] = self.top_down(self.bottom_up(x), labels, None)[1]
        return latents

    def _reconstruction(self, parameters: Tensor, x: Tensor) -> Tensor:
        """-log p(x|z), nats, (n,)."""
        log_prob: Tensor = self.likelihood(parameters, to_patches(x, self.patch))
        return -log_prob.view(len(x), -1).sum(1)

    def _by_side(self, of_blocks: Iterable[Tensor]) -> dict[int, Tensor]:
        """Sums over all blocks of a side, by side."""
        sums: dict[int, Tensor] = {}
        for side, each in zip(self.top_down.sides, of_blocks, strict=True):
            sums[side] = sums[side] + each if side in sums else each
        return sums

    # encoding and decoding

    def encode(self, batch: Batch) -> Tensor:
        """The draws (n, d) for which every prior gives the posterior's mean."""
        # Not the latents themselves: their priors move with what is above, and only the draws are N(0, 1) throughout,
        # so that walks, mixtures and the activity of dimensions mean what they mean for one latent vector.
        return self.top_down.flat([latent.standardised() for latent in self._posterior(batch)])

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """The expected images in [-1, 1], (n, c, h, w)."""
        # Not by way of what torch.compile made of the module, which is of the pass that trains.
        parameters, _ = self.top_down.forward(None, labels if self.conditional else None, latents)
        return from_patches(self.likelihood.mean(parameters), self.patch)

    def inference(self, batch: Batch) -> Callable[[Tensor], Draw]:
        """See :meth:`VariationalModel.inference`; each KL is exact, given the draws above it."""
        x, labels = self._seen(batch)
        features = self.bottom_up(x)

        def drawn(normal: Tensor) -> Draw:
            parameters, latents = self.top_down(features, labels, normal)
            kl = torch.stack([latent.kl() for latent in latents]).sum(0)
            log_ratio = torch.stack([latent.log_ratio() for latent in latents]).sum(0)
            return Draw(self._reconstruction(parameters, x), kl, log_ratio)

        return drawn

    # health

    def examine(self, train: Batch, held_out: Batch | None) -> Losses:
        """How many latents are in use, in all and of each side: those that move by the item beyond what is above."""
        latents = self._posterior(train)
        active = self._by_side((each.standardised().var(0) > ACTIVE).sum().double() for each in latents)
        total = torch.stack(list(active.values())).sum()
        return {"active_units": total, **{f"active_units_{side}": count for side, count in active.items()}}

    def warnings(self, figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        """Of posterior collapse: a top-down path that does without the image."""
        kl = figures.get("main/kl", math.inf)
        if self._step >= SETTLED and self._step * self.pace >= self.config.coarse_first and kl < 0.5:
            says = f"the latents tell {kl:.2g} nats about an image: what they stand for does not depend on it"
            yield "posterior collapse", f"{says}; lower optimizer.lr, or give model.layout= blocks at higher sides"


def levels(layout: Sequence[str] | None, shape: tuple[int, ...]) -> list[Level]:
    """The levels from coarse to fine, of a layout such as ``["1x1", "4x2", "8x3"]``: side x blocks. Where height and
    width differ, a side is the shorter one of a map in the same proportion.

    None gives two blocks at half the image's size, a quarter, ... down to 4 to 7, and above them one at 1.

    Raises:
        ConfigError: images that it does not serve, or a layout that does not fit them.
    """
    _, height, width = shape
    shorter, longer = min(height, width), max(height, width)
    if shorter % 2 or not SMALLEST <= shorter <= LARGEST or longer % 2:
        what = f"model=hvae models maps of even sides, the shorter {SMALLEST} to {LARGEST}, not {height}x{width}"
        raise ConfigError(what, "set data.size= to a number such as 16, 32 or 64")
    if layout is None:
        sides = [shorter // 2]
        while sides[-1] % 2 == 0 and sides[-1] >= 8 and longer * sides[-1] // 2 % shorter == 0:
            sides.append(sides[-1] // 2)
        return [Level(1, 1), *(Level(side, 2) for side in reversed(sides))]
    chosen = [Level(*map(int, word.split("x"))) for word in layout]
    for coarse, fine in pairwise([*(level.side for level in chosen), shorter]):
        if fine % coarse or (fine == coarse and fine != shorter) or (coarse > 1 and longer * coarse % shorter):
            raise ConfigError(
                f"model.layout={','.join(layout)} does not fit images of {height}x{width}: "
                f"from {coarse}x{coarse} there is no whole step to {fine}x{fine}",
                "name sides from coarse to fine, each a divisor of the next and of the image's, or null for all halves",
            )
    return chosen


def to_patches(images: Tensor, patch: int) -> Tensor:
    """Images (n, c, h, w) as the patch^2 coarser images (n * patch^2, c, h / patch, w / patch) that interleave."""
    cut = torch.unflatten(pixel_unshuffle(images, patch), 1, (images.shape[1], -1))
    return cut.transpose(1, 2).flatten(0, 1)


def from_patches(patches: Tensor, patch: int) -> Tensor:
    """The inverse of :func:`to_patches`."""
    cut = torch.unflatten(patches, 0, (-1, patch * patch)).transpose(1, 2)
    return pixel_shuffle(cut.flatten(1, 2), patch)
