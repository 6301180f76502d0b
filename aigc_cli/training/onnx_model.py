"""A model whose networks are files of ONNX: all else of it, its draws, loops and controls, is that of the run.

The parts are those of :mod:`aigc_cli.export.parts`, by their names there.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.exported_run import ExportedRun
from aigc_cli.modalities.base import Batch, Codec
from aigc_cli.modalities.token_codec import LearnedCodec, codec_of
from aigc_cli.models.base import Ability, Model, build_model
from aigc_cli.nn.attention import KVCache
from aigc_cli.nn.lora import merge_adapters
from aigc_cli.nn.transformer import TokenTransformer

#: The tensors of a model that no graph has, and those of all of it.
STATE, WEIGHTS = "state.safetensors", "model.safetensors"
_INSTALL, _HINT = "pip install 'aigc-cli[export]'", "export the run again, or restore the folder from a copy"
_TYPES = {"tensor(float)": torch.float32, "tensor(int64)": torch.int64}
_AT_ONCE = 256  # items that a codec's graph takes at a time
#: What is lost of :attr:`Model.can` with the networks, by the name of the part that stands for them.
_LOST: dict[str, frozenset[Ability]] = {
    "generator": frozenset({"score", "examine"}),
    "decoder": frozenset({"score", "examine", "posterior", "fill"}),
    "velocity": frozenset({"score"}),
    "model": frozenset({"examine"}),
}


def needs(*modules: str) -> None:
    """Raises ConfigError where a package that exported files need is missing."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigError(f"exported files of this format need {' and '.join(missing)}", _INSTALL)


class Graph:
    """A file of ONNX as a function of named tensors.

    Raises:
        DataError: onnxruntime cannot read it.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of classes that only its binary part has
            raise DataError(f"{path} cannot be read: {_brief(error)}", _HINT) from None
        arguments = self._session.get_inputs()
        #: The shape of each argument, in which an axis that varies has a name; and what the results are called.
        self.shapes: dict[str, Sequence[Any]] = {each.name: each.shape for each in arguments}
        self.outputs: list[str] = [each.name for each in self._session.get_outputs()]
        self._types = {each.name: _TYPES[each.type] for each in arguments}

    def run(self, given: Mapping[str, Tensor]) -> list[np.ndarray]:
        """All results, of the arguments that it has among those given."""
        fed = {name: given[name].detach().to(dtype).numpy() for name, dtype in self._types.items() if name in given}
        return list(self._session.run(None, fed))

    def __call__(self, **given: Tensor) -> dict[str, Tensor]:
        """All results by name."""
        found = self.run(given)
        return {name: torch.from_numpy(value) for name, value in zip(self.outputs, found, strict=True)}


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


#: What a graph keeps of codes that were read, beside keys and values: what is looked up around the next ones.
CODES = "past_key_values.codes"


class GraphOfTokens(TokenTransformer):
    """A graph in the place of a transformer of tokens. What stands for its features are scores of the vocabulary, with
    the features behind them where the graph gives those."""

    def __init__(self, graph: Graph, like: TokenTransformer) -> None:
        nn.Module.__init__(self)
        self.graph, self.vocab_size, self.length = graph, like.vocab_size, like.length
        config = like.stack.config
        layers = [name for name in graph.shapes if name.startswith("past_key_values.") and name != CODES]
        self.kept = [name for name in layers if ".encoder." not in name]
        self.across = [name for name in layers if ".encoder." in name]
        self.neighbours = None  # which the graph looks up by itself
        self.groups, self.dim = config.groups, config.dim
        self.nothing = nn.Parameter(torch.empty(0), requires_grad=False)  # which says where the model is

        def cache(rows: int, columns: int) -> KVCache:
            return KVCache(config.layers, rows, config.groups, columns, config.dim, like=self.nothing)

        vars(self)["stack"] = SimpleNamespace(cache=cache, config=config)
        vars(self)["embedding"] = SimpleNamespace(weight=self.nothing)

    def hidden(self, tokens: Tensor, *, offset: Tensor | None = None, **seen: Any) -> Tensor:
        """See :meth:`TokenTransformer.hidden`, and the class."""
        cache: KVCache | None = seen.pop("cache", None)
        n, t = tokens.shape[:2]
        given: dict[str, Tensor] = {"input_ids": tokens}
        if "position_ids" not in self.graph.shapes:
            mask = seen.get("mask")
            given["attention_mask"] = torch.ones(n, t) if mask is None else mask
            found = self.graph(**given)
            return torch.cat([found["logits"], found["last_hidden_state"]], -1)
        given |= self._past(n, t, cache) | self._memory(**seen)
        if CODES in self.graph.shapes:
            given[CODES] = getattr(cache, "codes", torch.zeros(n, 1, 0, self.graph.shapes[CODES][3]))
        found = self.graph(**given)
        if cache is not None:
            if CODES in self.graph.shapes:
                vars(cache)["codes"] = found[CODES.replace("past_key_values", "present")]
            for layer in range(len(self.kept) // 2):
                names = (self.kept[2 * layer + part].replace("past_key_values", "present") for part in (0, 1))
                cache.extend(layer, *(found[name][:, :, -t:] for name in names))
        return found["logits"]

    def _past(self, n: int, t: int, cache: KVCache | None) -> dict[str, Tensor]:
        """What was read before: rows lie from column 0 on, and the new tokens come behind the longest of them."""
        longest = 0 if cache is None else cache.longest
        places = torch.arange(longest, longest + t).expand(n, t)
        there = torch.ones(n, longest + t)
        past = [torch.zeros(n, self.groups, 0, self.dim)] * len(self.kept)
        if cache is not None and longest:
            lengths = torch.tensor(cache.lengths)[:, None]
            places = lengths + torch.arange(t)
            there[:, :longest] = (torch.arange(longest) < lengths).float()
            past = [part[layer, :, :, :longest] for layer in range(len(self.kept) // 2)
                    for part in (cache.keys, cache.values)]  # fmt: skip
        return {"position_ids": places, "attention_mask": there, **dict(zip(self.kept, past, strict=True))}

    def _memory(
        self, memory: Tensor | None = None, memory_mask: Tensor | None = None, latent: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What rows are read with: a memory has keys and values side by side, as :func:`_read` puts them."""
        if latent is not None:
            return {"latent": latent}
        if memory is None:
            return {}
        n, s = memory.shape[:2]
        heads = self.graph.shapes[self.across[0]][1]
        parts = memory.view(n, s, len(self.across), heads, self.dim).permute(2, 0, 3, 1, 4)
        mask = torch.ones(n, s) if memory_mask is None else memory_mask
        return {"encoder_attention_mask": mask, **dict(zip(self.across, parts, strict=True))}

    def logits(self, hidden: Tensor) -> Tensor:
        """The scores among what stands for features."""
        return hidden[..., : self.vocab_size]


def opened(run: ExportedRun) -> tuple[Model, Codec]:
    """The model and the codec of an exported folder.

    Raises:
        ConfigError: onnxruntime is not installed; the model is of a plugin that is not named here.
        DataError: a file does not fit the others.
    """
    from safetensors.torch import load_file

    model = build_model(run.config["model"], run.spec)
    codec = codec_of(run.spec, run.path, run.path)
    try:
        if run.record["format"] == "safetensors":
            merge_adapters(model)
            model.load_state_dict(load_file(run.folder / WEIGHTS))
        else:
            needs("onnxruntime")
            if (run.path / STATE).is_file():
                model.load_state_dict(load_file(run.path / STATE), strict=False)
            place(model, codec, {name: Graph(path) for name, path in run.files.items()})
    except (RuntimeError, KeyError, OSError, ValueError) as error:
        raise DataError(f"{run.folder} does not fit its configuration: {_brief(error)}", _HINT) from None
    vars(model)["can"] = run.can
    return model, codec


def abilities(model: Model, parts: Sequence[str]) -> list[str]:
    """What a model can still do where only its parts of these names are there."""
    lost = set().union(*(_LOST.get(name, ()) for name in parts))
    if "model" in parts and not hasattr(model, "encoder"):  # a writer's graph gives no features
        lost.add("encode")
    return sorted(set(model.can) - lost)


def place(model: Model, codec: Codec, graphs: Mapping[str, Graph]) -> None:
    """Puts graphs, by the names of their parts, in the place of what they were taken from."""
    for name, graph in graphs.items():
        if name in ("model", "decoder_model") or "input_ids" in graph.shapes:
            _of_tokens(model, name, graph)
        elif name in ("codes_decoder", "latents_decoder"):
            assert isinstance(codec, LearnedCodec), "codes, and latents, are those of another model"
            _of_codec(codec, graph)
        elif name == "velocity":
            model.net = _Velocity(graph)
        elif name == "encoder":
            vars(model)["encode"] = _encoding(model, graph)
        elif name in ("decoder", "generator"):
            vars(model)["decode"] = _decoding(model, graph)


def _of_tokens(model: Any, name: str, graph: Graph) -> None:
    if name == "encoder_model":
        vars(model)["read"] = lambda source, *voice: _read(graph, source, source != model.pad, *voice)
    elif name == "encoder":
        vars(model)["encode"] = lambda batch: graph(
            input_ids=batch.content[:, 1:], attention_mask=batch.content[:, 1:] != model.pad
        )["latent"]
    else:
        network = GraphOfTokens(graph, getattr(model, model.tokens))
        setattr(model, model.tokens, network)
        if "latent" in graph.shapes:
            vars(model)["_drawn"] = lambda latents: {"latent": latents}
        if "last_hidden_state" in graph.outputs and "encode" in model.can:
            encode = model.encode
            vars(model)["encode"] = lambda batch: encode(batch)[:, network.vocab_size :]


def _read(graph: Graph, source: Tensor, there: Tensor, *voice: Tensor) -> dict[str, Tensor]:
    """What a decoder attends to of sources (n, s), before which a voice (n,) may stand: the keys and values of all
    layers side by side, (n, s, ...)."""
    found = graph(input_ids=source, attention_mask=there, **dict(zip(("voice",), voice, strict=False)))
    parts = [part.transpose(1, 2).flatten(2) for name, part in found.items() if name.startswith("present.")]
    there = torch.cat([torch.ones_like(there[:, : len(voice)]), there], 1)
    return {"memory": torch.cat(parts, 2), "memory_mask": there}


class _Velocity(nn.Module):
    """The network of a flow."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        return self.graph(x=x, time=time, **({} if label is None else {"label": label}))["velocity"]


def _label(model: Model, label: Tensor | None) -> dict[str, Tensor]:
    return {"label": label} if model.conditional and label is not None else {}


def _decoding(model: Model, graph: Graph) -> Callable[..., Tensor]:
    argument = "codes" if "codes" in graph.shapes else "latent"
    return lambda latents, labels=None: graph(**{argument: latents}, **_label(model, labels))["content"]


def _encoding(model: Model, graph: Graph) -> Callable[[Batch], Tensor]:
    def encode(batch: Batch) -> Tensor:
        found = graph(content=batch.content, **_label(model, batch.labels))
        return found[graph.outputs[0]]

    return encode


def _of_codec(codec: LearnedCodec, graph: Graph) -> None:
    """The way from codes, or latents, by a graph, with the tokenizer's own codec behind it; the way there is the
    tokenizer's, which the folder keeps."""
    [argument] = graph.shapes

    def decode(encoded: Tensor) -> Tensor:
        parts = (graph(**{argument: part})["content"] for part in torch.split(encoded, _AT_ONCE))
        return torch.cat([codec.inner.decode(part) for part in parts])

    vars(codec)["decode"] = decode
