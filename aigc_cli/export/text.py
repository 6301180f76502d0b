"""Models of tokens as plain functions, with the names that Hugging Face's programs have for what goes in and out.

A writer is one graph, for a prompt and for each token after it: what was read before goes in as keys and values, of
which there may be none yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aigc_cli.errors import ConfigError
from aigc_cli.export.wrap import Part
from aigc_cli.models.base import Model
from aigc_cli.models.bert import MaskedLanguageModel
from aigc_cli.models.codes.bert import CodeBert
from aigc_cli.models.codes.speech import SpeechModel
from aigc_cli.models.codes.transformer import CodeTransformer
from aigc_cli.models.transformer import DecoderLanguageModel, Seq2SeqModel
from aigc_cli.models.vae.text import TextVAE
from aigc_cli.nn.transformer import CrossAttention, TokenTransformer, Transformer
from aigc_cli.training.onnx_model import CODES

_LENGTHS = (7, 1, 128, 12)  # of texts; no more than a model reads
_BATCHES = (3, 1, 5, 64)


def text_parts(model: Model) -> tuple[str, list[Part]]:
    """The kind of loop that a model of tokens is used in, and its parts."""
    if isinstance(model, CodeTransformer):
        return "writer", [writer("model", model.decoder, codebooks=model.codebooks if model.delayed else None)]
    if isinstance(model, DecoderLanguageModel):
        return "writer", [writer("model", model.decoder)]
    if isinstance(model, MaskedLanguageModel | CodeBert):
        network = model.encoder
        length = None if isinstance(model, MaskedLanguageModel) else model.length + 1
        return "filler", [_reader("model", _Filler(network), network, ("logits", "last_hidden_state"), length)]
    if isinstance(model, Seq2SeqModel):
        encoder = _SourceEncoder(model)
        names = ("last_hidden_state", *encoder.names)
        parts = [_reader("encoder_model", encoder, model.decoder, names), writer("decoder_model", model.decoder)]
        return "translator", parts
    if isinstance(model, SpeechModel):
        return "speaker", [_listener(model), writer("decoder_model", model.decoder)]
    if isinstance(model, TextVAE):
        reader = _reader("encoder", _TextEncoder(model), model.decoder, ("latent",))
        return "text_latent", [reader, writer("decoder", model.decoder, model)]
    raise ConfigError(f"{type(model).__name__} has no part that can be exported", "export it with format=safetensors")


def _ids(vocabulary: int, n: int, t: int) -> Tensor:
    return torch.randint(0, vocabulary, (n, t), generator=torch.Generator().manual_seed(n + t))


def _mask(n: int, t: int) -> Tensor:
    """Rows that are all there, but for the last, whose end is not."""
    mask = torch.ones(n, t, dtype=torch.int64)
    mask[-1, max(1, t - 2) :] = 0
    return mask


def _reader(
    name: str, module: nn.Module, network: TokenTransformer, outputs: Sequence[str], length: int | None = None
) -> Part:
    """A part that reads whole texts (n, t)."""

    def inputs(n: int, t: int) -> dict[str, Tensor]:
        return {"input_ids": _ids(network.vocab_size, n, t), "attention_mask": _mask(n, t)}

    lengths = [min(t, network.length) if length is None else length for t in _LENGTHS]
    both = {0: "batch", 1: "sequence"}
    sizes = list(zip(_BATCHES, lengths, strict=True))
    return Part(name, module, inputs, sizes, outputs, {"input_ids": both, "attention_mask": both})


def _listener(model: SpeechModel) -> Part:
    """A part that reads what is to be said (n, t), and by whom (n,)."""
    source = model.spec.source
    assert source is not None and source.vocab_size is not None, "speech says a text"  # noqa: PT018
    vocabulary, voices = source.vocab_size, model.any + 1 - model.vocab_size

    def inputs(n: int, t: int) -> dict[str, Tensor]:
        ids = _ids(vocabulary - 4, n, t) + 4  # its last letters may not be there
        return {"input_ids": ids * _mask(n, t) + model.pad * (1 - _mask(n, t)),
                "voice": model.vocab_size + torch.arange(n) % voices}  # fmt: skip

    encoder = _SpeechEncoder(model)
    sizes = [(n, min(t, model.longest)) for n, t in zip(_BATCHES, _LENGTHS, strict=True)]
    axes = {"input_ids": {0: "batch", 1: "sequence"}, "voice": {0: "batch"}}
    return Part("encoder_model", encoder, inputs, sizes, ("last_hidden_state", *encoder.names), axes)


def writer(name: str, network: TokenTransformer, model: TextVAE | None = None, codebooks: int | None = None) -> Part:
    """A part that reads (n, t) tokens, or (n, t, k) of so many `codebooks` at a time, after `past` others, whose keys
    and values it is given."""
    config = network.stack.config
    shape = config.groups, config.dim
    cross = any(block.cross is not None for block in network.stack.blocks)
    heads = config.heads  # of what is read across, each with keys and values of its own
    kept = _names(config.layers, ".decoder" if cross and model is None else "")
    memory = _names(config.layers, ".encoder") if cross and model is None else []
    latent = 0 if model is None else model.dimensions
    codes = [] if network.neighbours is None else ["codes"]

    def inputs(n: int, t: int, past: int) -> dict[str, Any]:
        places = torch.arange(past, past + t).expand(n, t)
        ids = _ids(network.vocab_size, n, t * (codebooks or 1))
        found: dict[str, Any] = {"input_ids": ids if codebooks is None else ids.view(n, t, codebooks)}
        found |= {"attention_mask": _left(n, past + t), "position_ids": places.contiguous()}
        draws = torch.Generator().manual_seed(n)

        def some(length: int, groups: int = shape[0]) -> Tensor:
            return torch.randn(n, groups, length, shape[1], generator=draws)

        found |= {f"past_key_values.{name}": some(past) for name in kept}
        if network.neighbours is not None:
            found |= {CODES: torch.randn(n, 1, past, network.neighbours.embedding.embedding_dim, generator=draws)}
        if memory:
            found |= {"encoder_attention_mask": _mask(n, 6 + n)}
            found |= {f"past_key_values.{name}": some(6 + n, heads) for name in memory}
        if latent:
            found |= {"latent": torch.randn(n, latent, generator=draws)}
        return found

    axes = {"input_ids": {0: "batch", 1: "sequence"}, "attention_mask": {0: "batch", 1: "total"}}
    axes |= {"position_ids": {0: "batch", 1: "sequence"}}
    axes |= {f"past_key_values.{name}": {0: "batch", 2: "past"} for name in kept + codes}
    axes |= {f"past_key_values.{name}": {0: "batch", 2: "source"} for name in memory}
    axes |= {"encoder_attention_mask": {0: "batch", 1: "source"}} if memory else {}
    axes |= {"latent": {0: "batch"}} if latent else {}
    longest = network.length
    sizes = [(3, 4, 5), (1, 1, longest - 1), (5, min(7, longest), 0), (64, 1, min(9, longest - 1)),
             (2, min(128, longest), 0)]  # fmt: skip
    outputs = ["logits", *(f"present.{name}" for name in kept + codes)]
    return Part(name, _Writer(network, kept, memory, model), inputs, sizes, outputs, axes)


def _left(n: int, t: int) -> Tensor:
    """Rows of which the first begins later than the others, as shorter prompts do in a batch."""
    mask = torch.ones(n, t, dtype=torch.int64)
    if n > 1:
        mask[0, : t // 3] = 0
    return mask


def _names(layers: int, side: str) -> list[str]:
    return [f"{layer}{side}.{what}" for layer in range(layers) for what in ("key", "value")]


class _Past:
    """What a stack takes for its cache: keys and values that went in, to which a pass adds its own."""

    empty = False

    def __init__(self, past: Sequence[Tensor], memory: Sequence[Tensor], places: Tensor, mask: Tensor) -> None:
        self.past, self.places, self.mask = past, places, mask
        self.memory = {layer: (memory[2 * layer], memory[2 * layer + 1]) for layer in range(len(memory) // 2)}
        self.present: list[Tensor] = []

    def positions(self, count: int) -> Tensor:
        return self.places

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        key, value = torch.cat([self.past[2 * layer], key], 2), torch.cat([self.past[2 * layer + 1], value], 2)
        self.present += [key, value]
        return key, value, self.mask


class _Writer(nn.Module):
    """Tokens, and what was read before them, to scores of the next ones, and what has been read now."""

    def __init__(
        self, network: TokenTransformer, kept: Sequence[str], memory: Sequence[str], model: TextVAE | None
    ) -> None:
        super().__init__()
        self.network, self.model = network, model
        self.kept, self.across = len(kept), len(memory)

    def forward(self, ids: Tensor, there: Tensor, places: Tensor, others: list[Tensor]) -> tuple[Tensor, ...]:
        past, rest = others[: self.kept], others[self.kept :]
        t, total = ids.shape[1], there.shape[1]
        columns = torch.arange(total, device=ids.device)
        rows = columns[total - t :, None]
        seen = (columns <= rows)[None] & (there[:, None] != 0)
        # What is not there sees itself, since a row that sees nothing has no softmax.
        mask = (seen | (columns == rows)[None])[:, None]
        cache = _Past(past, rest[1:] if self.across else (), places, mask)
        more: dict[str, Any] = {}
        if self.model is not None:
            more = self.model._drawn(rest[0])
        elif self.across:
            more = {"memory": ids, "memory_mask": rest[0] != 0}  # its keys and values are given
        present: list[Tensor] = []
        if (neighbours := self.network.neighbours) is not None:
            read = torch.cat([rest[0][:, 0], neighbours.embedding(ids)], 1)
            more["near"] = neighbours.around(read, neighbours.near.index_select(0, places[0]))
            present = [read[:, None]]
        hidden = self.network.hidden(ids, cache=cache, **more)
        return self.network.logits(hidden), *cache.present, *present


class _Filler(nn.Module):
    """Tokens with masks among them to scores of each, and features."""

    def __init__(self, network: TokenTransformer) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.network.hidden(input_ids, mask=attention_mask != 0)
        return self.network.logits(hidden), hidden


class _SourceEncoder(nn.Module):
    """A source to its features, and to the keys and values that each layer of the decoder looks at."""

    def __init__(self, model: Seq2SeqModel) -> None:
        super().__init__()
        self.embedding, self.encoder = model.decoder.embedding, model.encoder
        self.stack = model.decoder.stack
        self.names = [f"present.{name}" for name in _names(self.stack.config.layers, ".encoder")]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        memory = self.encoder(self.embedding(input_ids), mask=attention_mask != 0)
        return memory, *(part for cross in _crosses(self.stack) for part in cross.read(memory))


class _SpeechEncoder(nn.Module):
    """The same of what is to be said and by whom, which stands before it."""

    def __init__(self, model: SpeechModel) -> None:
        super().__init__()
        self.model = model
        self.names = [f"present.{name}" for name in _names(model.decoder.stack.config.layers, ".encoder")]

    def forward(self, input_ids: Tensor, voice: Tensor) -> tuple[Tensor, ...]:
        memory = self.model.read(input_ids, voice)["memory"]
        assert memory is not None, "there is something to say"
        return memory, *(part for cross in _crosses(self.model.decoder.stack) for part in cross.read(memory))


def _crosses(stack: Transformer) -> list[CrossAttention]:
    return [block.cross for block in stack.blocks if isinstance(block.cross, CrossAttention)]


class _TextEncoder(nn.Module):
    """Texts, without ``bos``, to the means of their latents."""

    def __init__(self, model: TextVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        there = attention_mask != 0
        features = self.model.encoder(self.model.decoder.embedding(input_ids), mask=there)
        summed: Tensor = (features * there[..., None]).sum(1) / there.sum(1, keepdim=True)
        mean: Tensor = self.model.to_posterior(summed).chunk(2, 1)[0]
        return mean
