"""The codes of sound that need no training run: k-means over patches of its spectrogram.

A patch is all frequencies of a few frames. Residual levels follow one another as in SoundStream (Zeghidour et al.,
SoundStream: An End-to-End Neural Audio Codec, 2021): each is of what those before it leave.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.nn.quantize import k_means
from aigc_cli.registry import register

#: Of encoded values, what is told from silence: quieter is rounding, or the tail of a window.
_HEARD = 0.02
#: Patches that are learnt from, at most: more of them move no centre far.
LEARNT = 50_000


@dataclass(config=STRICT, frozen=True, kw_only=True)
class KMeansConfig:
    """What the tokenizer of ``data.tokens=kmeans`` is made of."""

    name: Literal["kmeans"]
    codes: Annotated[int, Field(ge=2, le=2**15)]
    levels: Annotated[int, Field(ge=1, le=16)]
    frames: Annotated[int, Field(ge=1)]  # of a patch


@register("tokenizer", "kmeans", KMeansConfig)
class KMeansTokenizer(nn.Module):
    """Spectrograms (n, channels, bins, frames) to codes and back, without a weight that learns.

    The codes of level l are ``l * codes`` and those that follow; the first of level 0 is silence. After the last patch
    that is heard all are :attr:`eos`, so that no code is spent on what follows the end of a clip.
    """

    can: ClassVar[frozenset[str]] = frozenset({"encode", "decode", "tokens"})
    centres: Tensor

    def __init__(self, config: KMeansConfig, spec: DataSpec) -> None:
        super().__init__()
        if spec.layout != "map" or spec.rate is None or spec.padding is None:
            hint = "use data.codec.kind=mel, or name a run of model=vqvae with data.tokens="
            raise ConfigError(f"data.tokens=kmeans is for spectrograms of sound, and this data is {spec.layout}s", hint)
        self.config, self.spec, self.shape, self.padding = config, spec, spec.shape, spec.padding
        channels, bins, frames = spec.shape
        self.token_grid, self.codebooks = (1, -(-frames // config.frames)), config.levels
        self.vocab_size = config.levels * config.codes + 1
        self.eos = self.vocab_size - 1
        size = channels * bins * config.frames
        self.register_buffer("centres", torch.zeros(config.levels, config.codes, size))

    def fit(self, items: Iterable[Tensor]) -> None:
        """Learns the codebooks of encoded training items (n, channels, bins, frames) at a time; what is silent, or
        follows the end of an item, is left out.

        Raises:
            ConfigError: they have fewer patches than there are codes.
        """
        found, count = [], 0
        for content in items:
            patches = self._patches(content)
            found.append(patches[self._heard(patches)])
            count += len(found[-1])
            if count >= LEARNT:
                break
        left, codes = torch.cat(found)[:LEARNT], self.config.codes
        if len(left) < codes:
            what = f"training clips have {len(left)} patches that are heard, too few for {codes} codes"
            raise ConfigError(what, "use more clips, or fewer codes with data.codes=")
        for level, codebook in enumerate(self.centres):
            silence = codebook[:0] if level else codebook.new_full((1, codebook.shape[1]), self.padding)
            codebook.copy_(torch.cat([silence, k_means(left, codes - len(silence))[0]]))
            left = left - codebook[self._nearest(left, codebook)]

    def heard(self, content: Tensor) -> int:
        """How many patches of encoded items (n, channels, bins, frames) are not silent."""
        return int(self._heard(self._patches(content)).sum())

    def encode(self, batch: Batch) -> Tensor:
        """Codes, int64 (n, patches * levels), those of all levels for each patch."""
        left = self._patches(batch.content)
        heard = self._heard(left)
        ended = heard.flip(1).cumsum(1).flip(1) == 0
        found = []
        for level, codebook in enumerate(self.centres):
            nearest = self._nearest(left, codebook)
            nearest = nearest if level else nearest.masked_fill(~heard, 0)
            left = left - codebook[nearest]
            found.append((nearest + level * self.config.codes).masked_fill(ended, self.eos))
        return torch.stack(found, dim=2).flatten(1)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """The spectrograms that codes stand for; silence from the first :attr:`eos` on."""
        codes = latents.view(len(latents), -1, self.codebooks)
        ended = (codes == self.eos).any(dim=2).cumsum(1) > 0
        patches = self.centres.flatten(0, 1)[codes.clamp_max(self.eos - 1)].sum(2)
        patches = patches.clamp(-1, 1).masked_fill(ended[..., None], self.padding)
        channels, bins, frames = self.shape
        whole = patches.view(*patches.shape[:2], channels, bins, -1).permute(0, 2, 3, 1, 4).flatten(3)
        return whole[..., :frames].contiguous()

    def _patches(self, content: Tensor) -> Tensor:
        """(n, channels, bins, frames) as (n, patches, values)."""
        missing = -content.shape[-1] % self.config.frames
        content = nn.functional.pad(content, (0, missing), value=self.padding)
        whole = content.reshape(*content.shape[:3], -1, self.config.frames)
        return whole.permute(0, 3, 1, 2, 4).flatten(2)

    def _heard(self, patches: Tensor) -> Tensor:
        return (patches > self.padding + _HEARD).any(dim=2)

    @staticmethod
    def _nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
        """The numbers of the nearest centres, int64 (...), of vectors (..., d)."""
        # Each vector's own square is the same for all centres.
        nearest = (codebook.square().sum(1) - 2 * vectors.flatten(0, -2) @ codebook.T).argmin(1)
        return nearest.view(vectors.shape[:-1])
