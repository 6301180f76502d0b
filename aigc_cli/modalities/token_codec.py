"""Content as the codes of a trained tokenizer, such as a VQ-VAE, or as the latents of an autoencoder, and back.

A tokenizer lies in a folder of a run, ``tokenizer/``, which a run that trains on its codes has a copy of: so that such
a run is whole, whatever becomes of the one that trained the tokenizer. The folder is that of a run of its own without
a training: ``config.yaml``, ``data.json``, ``model.safetensors``, the files of its own codec, and ``manifest.json``
with the SHA-256 of each. Its model and all keys are registered names: nothing in it is executed.
"""

from __future__ import annotations

import json
import math
import shutil
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.files import checksum, new_folder, read_json, resource_errors
from aigc_cli.modalities.base import Batch, Codec, DataSpec, modality
from aigc_cli.registry import find, names
from aigc_cli.runs import Run

if TYPE_CHECKING:
    from torch import Tensor

#: Of a run: the folder of its tokenizer, and the file, of each checkpoint too, that names it by its sum.
FOLDER, NAMED = "tokenizer", "tokens.json"
WEIGHTS, MANIFEST = "model.safetensors", "manifest.json"
#: Of an autoencoder: the mean and the deviation of each channel of its latents.
SCALE = "latents.json"
_AT_ONCE = 256  # items that are encoded, or decoded, at a time
_HINT = "restore the folder from a copy, or train again on a tokenizer that is whole"


class Tokenizer(Protocol):
    """What a model has to have, so that another can train on its codes."""

    #: How many codes there are, and how their places lie in an item: (rows, columns) of a picture, (times, rows,
    #: columns) of a clip. Where several codes stand for a place, each is of a codebook of its own, and all of these
    #: have equally many: those of the first come first.
    vocab_size: int
    token_grid: tuple[int, ...]
    codebooks: int

    def encode(self, batch: Batch) -> Tensor:
        """Codes, int64 (n, t), of items as its own codec encodes them: row by row of the grid, with those of all
        codebooks for each place."""

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """What they stand for, (n, *shape)."""


def is_tokenizer(model: object) -> bool:
    """Whether a model, or the class of one, has codes that another can train on."""
    return {"encode", "decode", "tokens"} <= getattr(model, "can", set())


def has_latents(model: object) -> bool:
    """Whether a model, or the class of one, has latents that another can train on: what its `encode` gives lies in its
    `latent_shape`, channels first there and last here."""
    return {"encode", "decode"} <= getattr(model, "can", set()) and hasattr(model, "latent_shape")


class LearnedCodec(Codec):
    """Base of codecs with a model that was trained before. It does not learn; it follows the content to its device."""

    def __init__(self, inner: Codec, model: Any, spec: DataSpec, folder: Path, named: Mapping[str, Any]) -> None:
        self.inner, self.spec, self.folder, self.named = inner, spec, folder, named
        self.model = model.requires_grad_(False).eval()

    @property
    @abstractmethod
    def grid(self) -> tuple[int, ...]:
        """How the places of what is encoded lie."""

    @property
    def codes(self) -> int | None:
        """How many different codes there are; None where places have numbers."""
        return None

    @abstractmethod
    def seen(self, data: DataSpec) -> DataSpec:
        """What a model sees of such data."""

    @property
    def sha256(self) -> str:
        """Of the manifest of the model, and so of all of it."""
        return str(self.named["sha256"])

    def _encoded(self, content: Tensor) -> Tensor:
        """What the model makes of raw content (n, ...)."""
        import torch

        model = self.model.to(content.device)
        with torch.no_grad():
            parts = [model.encode(Batch(self.inner.encode(part))) for part in torch.split(content, _AT_ONCE)]
        return torch.cat(parts)

    def _decoded(self, encoded: Tensor) -> Tensor:
        """Raw content of what the model makes of it."""
        import torch

        model = self.model.to(encoded.device)
        with torch.no_grad():
            parts = [self.inner.decode(model.decode(part)) for part in torch.split(encoded, _AT_ONCE)]
        return torch.cat(parts)

    def files(self) -> Mapping[str, str]:
        """Which model it is, and those of the codec of what items are made from."""
        return {NAMED: json.dumps(self.named, indent=2) + "\n", **({} if self.source is None else self.source.files())}

    def keep(self, folder: Path) -> None:
        """Copies the model into the folder of a run; it appears there whole or not at all."""
        with resource_errors(folder), new_folder(folder / FOLDER) as part:
            shutil.copytree(self.folder, part, dirs_exist_ok=True)


class TokenCodec(LearnedCodec):
    """Raw content (n, ...) to codes, int64 (n, t), place by place of a :attr:`grid`, through a tokenizer's own codec,
    and back."""

    preprocessing = "as codes of a tokenizer"

    def seen(self, data: DataSpec) -> DataSpec:
        """See :meth:`LearnedCodec.seen`: rows of codes."""
        length = math.prod(self.grid) * self.codebooks
        return replace(
            data, shape=(length,), vocab_size=self.codes, specials=self.specials, content=data.raw, padding=None,
            grid=self.grid,
        )  # fmt: skip

    @property
    def grid(self) -> tuple[int, ...]:
        """How the places of an item's codes lie. Of what lies along time each row is a time, so that what is written
        code by code is written as it is heard."""
        grid: tuple[int, ...] = tuple(self.model.token_grid)
        return grid[::-1] if self._turns else grid

    @property
    def codebooks(self) -> int:
        """How many codes stand for one place."""
        return int(getattr(self.model, "codebooks", 1))

    @property
    def _turns(self) -> bool:
        """Whether time lies along the columns of the tokenizer's grid, as in a map of sound; that of a clip begins with
        it."""
        return self.spec.rate is not None and len(self.model.token_grid) == 2

    def _turned(self, codes: Tensor, rows: int) -> Tensor:
        """Codes (n, t) of so many rows, column by column where time lies along these in the tokenizer."""
        if not self._turns:
            return codes
        return codes.view(len(codes), rows, -1, self.codebooks).transpose(1, 2).flatten(1)

    @property
    def specials(self) -> tuple[tuple[str, int], ...]:
        """The codes that stand for no content: "eos" where items end early."""
        end = getattr(self.model, "eos", None)
        return () if end is None else (("eos", int(end)),)

    def vectors(self) -> Tensor | None:
        """See :meth:`Codec.vectors`."""
        import torch

        if self.codebooks > 1 or self.specials or not hasattr(self.model, "quantizer"):
            return None
        return self.model.quantizer.lookup(torch.arange(self.codes))  # type: ignore[no-any-return]

    @property
    def codes(self) -> int:
        """How many different ones there are."""
        return int(self.model.vocab_size)

    def __str__(self) -> str:
        sides = [*self.grid, self.codebooks] if self.codebooks > 1 else self.grid
        return f"tokens {'x'.join(map(str, sides))} of {self.codes // self.codebooks:,}"

    def encode(self, content: Tensor) -> Tensor:
        """The codes of raw content, int64 (n, t)."""
        return self._turned(self._encoded(content), self.model.token_grid[0])

    def decode(self, encoded: Tensor) -> Tensor:
        """Raw content of codes (n, t)."""
        return self._decoded(self._turned(encoded.long(), self.grid[0]))

    def transfer(self, other: Codec) -> list[tuple[int, int]] | None:
        """All codes, if the other has those of the same tokenizer; else none: another's stand for other things."""
        same = isinstance(other, TokenCodec) and other.sha256 == self.sha256
        return [(code, code) for code in range(self.codes)] if same else []


class LatentCodec(LearnedCodec):
    """Raw content (n, ...) to the latents of an autoencoder, float32 (n, channels, ...) in a map or a sequence as they
    lie in it, with mean 0 and variance 1 in each channel over training items; and back."""

    preprocessing = "as latents of an autoencoder"

    def __init__(
        self, inner: Codec, model: Any, spec: DataSpec, folder: Path, named: Mapping[str, Any],
        mean: Sequence[float], deviation: Sequence[float],
    ) -> None:  # fmt: skip
        super().__init__(inner, model, spec, folder, named)
        self.mean, self.deviation = list(mean), list(deviation)
        if not len(self.mean) == len(self.deviation) == model.latent_shape[0]:
            raise ValueError(f"{SCALE} is of {len(self.mean)} channels")

    @property
    def grid(self) -> tuple[int, ...]:
        """The places of the map, or the sequence."""
        return tuple(self.model.latent_shape[1:])

    def seen(self, data: DataSpec) -> DataSpec:
        """See :meth:`LearnedCodec.seen`: a map of latents."""
        return replace(data, shape=(len(self.mean), *self.grid), content=data.raw, padding=None, grid=self.grid)

    def __str__(self) -> str:
        return f"latents {'x'.join(map(str, (len(self.mean), *self.grid)))}"

    def _scale(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return like.new_tensor(self.mean), like.new_tensor(self.deviation)

    def encode(self, content: Tensor) -> Tensor:
        """The latents of raw content, (n, channels, ...)."""
        latents = self._encoded(content).float()
        mean, deviation = self._scale(latents)
        return ((latents.view(len(latents), *self.grid, -1) - mean) / deviation).movedim(-1, 1)

    def decode(self, encoded: Tensor) -> Tensor:
        """Raw content of latents."""
        return self._decoded(self.unscaled(encoded.float()))

    def unscaled(self, encoded: Tensor) -> Tensor:
        """Latents (n, d) as the autoencoder decodes them, of those that another model sees."""
        mean, deviation = self._scale(encoded)
        return (encoded.movedim(1, -1) * deviation + mean).flatten(1)


def open_tokenizer(folder: Path, wanted: str | None = None) -> LearnedCodec:
    """The tokenizer, or the autoencoder, in a folder; `wanted` is the SHA-256 of its manifest.

    Raises:
        ConfigError: its model is not registered here, or has neither codes nor latents that lie in a map.
        DataError: a file is missing, or is not what it was.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _verify(folder, wanted)
    run = Run(folder, writes=False)
    section, spec = run.config["model"], run.spec
    component = find("tokenizer" if section["name"] in names("tokenizer") else "model", section["name"])
    if not is_tokenizer(component.build) and not has_latents(component.build):
        raise ConfigError(f"model={section['name']} in {folder} is not a tokenizer", "choose a run of model=vqvae")
    with torch.random.fork_rng(devices=()):
        model = component.build(check("model", component.config, section), spec)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError(f"the weights in {folder} are not those of its model: {_brief(error)}", _HINT) from None
    known = {"run": run.config.get("run"), "step": run.config.get("step")}
    named = {"sha256": checksum(folder / MANIFEST), "model": section["name"], **known}
    inner = modality(spec.modality).codec(spec, folder)
    if is_tokenizer(model):
        return TokenCodec(inner, model, spec, folder, named)
    try:
        scale = read_json(folder / SCALE)
        return LatentCodec(inner, model, spec, folder, named, scale["mean"], scale["deviation"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / SCALE} cannot be used: {_brief(error)}", _HINT) from None


def is_whole(folder: Path, wanted: str) -> bool:
    """Whether a folder holds the tokenizer of that sum, as it was."""
    try:
        _verify(folder, wanted)
    except DataError:
        return False
    return True


def _verify(folder: Path, wanted: str | None) -> None:
    try:
        if wanted is not None and checksum(folder / MANIFEST) != wanted:
            raise ValueError(f"{MANIFEST} does not match its sum")
        manifest = read_json(folder / MANIFEST)
        if not isinstance(manifest, dict) or not {WEIGHTS, "config.yaml", "data.json"} <= manifest.keys():
            raise ValueError(f"{MANIFEST} is not a manifest")
        for name, sum_ in manifest.items():
            if Path(name).name != name or checksum(folder / name) != sum_:
                raise ValueError(f"{name} does not match its sum")
    except (OSError, ValueError) as error:
        raise DataError(f"the tokenizer in {folder} cannot be trusted: {_brief(error)}", _HINT) from None


def _brief(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{Path(error.filename).name} is missing"
    return " ".join(str(error).split())[:200]


def codec_of(spec: DataSpec, folder: Path, named: Path) -> Codec:
    """The codec of a run, in a `folder`, from its spec and the files of :meth:`Codec.files` in the folder `named`, its
    own or that of a checkpoint; raises DataError where one is missing or cannot be trusted."""
    if not spec.grid and spec.layout != "codes":
        return modality(spec.modality).codec(spec, named)
    try:
        wanted = str(read_json(named / NAMED)["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{named / NAMED} does not name a tokenizer: {_brief(error)}", _HINT) from None
    found = open_tokenizer(folder / FOLDER, wanted)
    found.source = None if spec.source is None else _spoken(spec.source, named)
    return found


def _spoken(spec: DataSpec, folder: Path) -> Codec:
    """The codec of texts that are to be said, as a folder keeps it."""
    from aigc_cli.modalities.spoken import SpokenText
    from aigc_cli.modalities.text import TextCodec

    kept = modality(spec.modality).codec(spec, folder)
    assert isinstance(kept, TextCodec), "a source is text"
    return SpokenText(kept.tokenizer, kept.start)
