"""What a trained model is outside of this house: a few plain functions of tensors, each with names for what goes in and
out. Every size that may vary does: how many items there are, how long a text is, how much of it was read before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from aigc_cli.errors import ConfigError
from aigc_cli.export.text import text_parts
from aigc_cli.export.wrap import Part
from aigc_cli.modalities.base import Batch, Codec
from aigc_cli.modalities.token_codec import LatentCodec, TokenCodec
from aigc_cli.models.base import Model
from aigc_cli.models.flow import Flow
from aigc_cli.nn.quantize import Quantizer
from aigc_cli.training.restore import Restored

_SIZES = ((3,), (1,), (5,), (64,))  # items at a time; the first is what a part is traced with


@dataclass(frozen=True)
class Exported:
    """The parts of a model, and what a program has to know to use them together."""

    kind: str  # of the loop that draws samples from them: "latent", "codes", "flow", "writer", "filler", ...
    parts: list[Part] = field(default_factory=list)


def parts_of(restored: Restored) -> Exported:
    """What there is to export of a model.

    Raises:
        ConfigError: it is of a kind that has no parts of which this knows, such as a plugin's.
    """
    model, codec = restored.model, restored.codec
    settle(model)
    if isinstance(codec, TokenCodec):
        settle(codec.model)
        kind, parts = text_parts(model)
        rows = codec.grid[0]
        decode = _Codes(codec.model, codec.inner, lambda codes: codec._turned(codes, rows))
        length = restored.spec.shape[0]
        return Exported(
            f"codes_{kind}", [*parts, Part("codes_decoder", decode, _codes(length, codec.codes), _SIZES, decode.names)]
        )
    if model.spec.layout == "tokens":
        return Exported(*text_parts(model))
    if isinstance(model, Flow):
        network = _Velocity(model)
        flow = Part("velocity", network, _flow(model), _SIZES, ("velocity",))
        return Exported("flow", [flow, *_raw_part(restored), *_of_latents(codec)])
    found = _of_latents(codec)
    if "decode" in model.can and "tokens" in model.can:
        tokenizer: Any = model
        decode = _Codes(model, codec, lambda codes: codes)
        length = math.prod(tokenizer.token_grid) * getattr(tokenizer, "codebooks", 1)
        found.append(Part("decoder", decode, _codes(length, tokenizer.quantizer.codes), _SIZES, decode.names))
    elif "decode" in model.can:
        name = "decoder" if "encode" in model.can else "generator"
        decoder = _Decoder(model, codec)
        found.append(Part(name, decoder, _latents(model), _SIZES, decoder.names))
    if "encode" in model.can:
        outputs = ("codes",) if "tokens" in model.can else ("latent",)
        found.append(Part("encoder", _Encoder(model), _content(model), _SIZES, outputs))
    if not found:
        name = restored.run.config["model"]["name"]
        raise ConfigError(f"model={name} has no part that can be exported", "export it with format=safetensors")
    return Exported("codes_only" if "tokens" in model.can else "latent", found)


def _of_latents(codec: Codec) -> list[Part]:
    """What a model of latents needs behind it: the decoder of the autoencoder that they are of."""
    if not isinstance(codec, LatentCodec):
        return []
    settle(codec.model)
    decode, shape = _Latents(codec), (len(codec.mean), *codec.grid)
    return [Part("latents_decoder", decode, lambda n: {"latents": _normal(n, *shape)}, _SIZES, decode.names)]


def settle(model: nn.Module) -> None:
    """Writes down, in place, what a model works out anew at each call: the codes of a running mean."""
    for layer in model.modules():
        if isinstance(layer, Quantizer):
            book = layer.codebook.clone()
            layer.sums.copy_(book)
            layer.sizes.fill_(1.0)
            layer.late = False


def _labels(model: Model, n: int) -> dict[str, Tensor]:
    """Classes in turn, where the model is told them."""
    return {"label": torch.arange(n) % len(model.spec.classes)} if model.conditional else {}


def _latents(model: Model) -> Callable[..., dict[str, Tensor]]:
    dimensions = int(getattr(model, "dimensions", 0) or model.config.latent)  # type: ignore[arg-type,union-attr]
    return lambda n: {"latent": _normal(n, dimensions), **_labels(model, n)}


def _content(model: Model) -> Callable[..., dict[str, Tensor]]:
    return lambda n: {"content": _normal(n, *model.spec.shape).clamp(-1, 1), **_labels(model, n)}


def _flow(model: Model) -> Callable[..., dict[str, Tensor]]:
    return lambda n: {"x": _normal(n, *model.spec.shape), "time": torch.linspace(0, 1, n), **_labels(model, n)}


def _codes(length: int, codes: int) -> Callable[..., dict[str, Tensor]]:
    return lambda n: {"codes": torch.arange(n * length).view(n, length) * 7 % codes}


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _raw_part(restored: Restored) -> Sequence[Part]:
    """What brings encoded items back to raw content, of a model whose samples take several calls."""
    if not restored.codec.traceable:
        return ()
    shape = restored.spec.shape
    return (Part("codec", _Raw(restored.codec), lambda n: {"content": _normal(n, *shape)}, _SIZES, ("raw",)),)


class _Raw(nn.Module):
    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, content: Tensor) -> Tensor:
        return self.codec.decode(content)


class _Decodes(nn.Module):
    """What ends in encoded items, and in raw ones where the codec is a few sums."""

    def __init__(self, model: Model, codec: Codec) -> None:
        super().__init__()
        self.model, self.codec = model, codec
        self.names = ("content", "raw") if codec.traceable else ("content",)

    def ended(self, content: Tensor) -> tuple[Tensor, ...]:
        return (content, self.codec.decode(content)) if self.codec.traceable else (content,)


class _Decoder(_Decodes):
    """Latents, and classes, to items."""

    def forward(self, latent: Tensor, label: Tensor | None = None) -> tuple[Tensor, ...]:
        return self.ended(self.model.decode(latent, label))


class _Codes(_Decodes):
    """The codes of a tokenizer to what they stand for."""

    def __init__(self, model: Model, codec: Codec, turn: Callable[[Tensor], Tensor]) -> None:
        super().__init__(model, codec)
        self.turn = turn

    def forward(self, codes: Tensor) -> tuple[Tensor, ...]:
        return self.ended(self.model.decode(self.turn(codes)))


class _Latents(_Decodes):
    """Latents of an autoencoder, as another model draws them, to what they stand for."""

    def __init__(self, codec: LatentCodec) -> None:
        super().__init__(codec.model, codec.inner)
        self.outer = codec

    def forward(self, latents: Tensor) -> tuple[Tensor, ...]:
        return self.ended(self.model.decode(self.outer.unscaled(latents)))


class _Encoder(nn.Module):
    """Encoded items to latents, or codes."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, content: Tensor, label: Tensor | None = None) -> Tensor:
        return self.model.encode(Batch(content, label))


class _Velocity(nn.Module):
    """A flow's network: which way items move at a time."""

    def __init__(self, model: Flow) -> None:
        super().__init__()
        self.net = model.net

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        found: Tensor = self.net(x, time, label)
        return found
