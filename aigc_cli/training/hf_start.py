"""Starts a run from the weights in a folder of Hugging Face's: ``model.init_from=hf:DIR``.

The folder's ``config.json`` says what the model is made of, and becomes keys of ours; its tokenizer becomes the data's.
Only safetensors are read, and no code that a folder may hold: what this does not know is refused by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from aigc_cli.errors import ConfigError, DataError, warn
from aigc_cli.files import checksum, path_of, read_json
from aigc_cli.modalities.base import Codec
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.tokenizer_files import HFTokenizer, hf_tokenizer
from aigc_cli.models.base import Model
from aigc_cli.nn.style import TransformerConfig
from aigc_cli.training.hugging_face import GPT2, LLAMA, to_ours

PREFIX = "hf:"
#: The kinds that are known, by what config.json calls them, with the model of ours that they become.
KINDS = {
    **dict.fromkeys(("gpt2", "llama", "mistral", "qwen2", "qwen3"), "transformer"), "eurobert": "bert",
}  # fmt: skip
#: What comes of JSON that holds something else than it should.
_BROKEN = (KeyError, TypeError, AttributeError, ZeroDivisionError)
_GELUS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
#: Keys of theirs that change what a model computes, with the values that leave it as it is.
_IDLE: dict[str, tuple[Any, ...]] = {
    "auto_map": (None,), "rope_scaling": (None,), "attn_logit_softcapping": (None,), "final_logit_softcapping": (None,),
    "num_experts": (None, 0), "num_local_experts": (None, 0), "scale_attn_by_inverse_layer_idx": (None, False),
    "scale_attn_weights": (None, True), "add_cross_attention": (None, False), "use_sliding_window": (None, False),
    "quantization_config": (None,), "partial_rotary_factor": (None, 1.0),
}  # fmt: skip


def folder_in(word: str | None) -> Path | None:
    """The folder that ``init_from=`` names, where it is one of Hugging Face's."""
    return path_of(word.removeprefix(PREFIX)).absolute() if word is not None and word.startswith(PREFIX) else None


def with_folder(config: dict[str, Any], folder: Path, given: Collection[str]) -> dict[str, Any]:
    """A configuration whose model is what a folder holds, with its sum, and whose text has the tokenizer there.

    Raises:
        ConfigError: it holds what is not known here, or a key that was `given` asks for something else.
        DataError: it is not whole.
    """
    model, data = config["model"], config["data"]
    found = keys_of_folder(folder, model["name"])
    for key, value in found.items():
        for name, each in value.items() if isinstance(value, dict) else [("", value)]:
            dotted = f"model.{key}.{name}".rstrip(".")
            asked = model[key].get(name) if isinstance(value, dict) else model.get(key)
            if dotted in given and asked != each:
                raise ConfigError(f"{dotted}={asked} beside model.init_from={PREFIX}{folder.name}, where it is {each}",
                                  "leave it out: the folder says it")  # fmt: skip
    sections = {key: {**model[key], **value} if isinstance(value, dict) else value for key, value in found.items()}
    sections |= {"init_from": f"{PREFIX}{folder}", "init_sha256": model.get("init_sha256") or sum_of(folder)}
    tokenizer = data.get("tokenizer")
    if tokenizer is not None and tokenizer.get("path") is None and model.get("init_tokenizer") != "new":
        if idle := [f"data.tokenizer.{key}=" for key in ("kind", "vocab_size") if f"data.tokenizer.{key}" in given]:
            raise ConfigError(f"{' and '.join(idle)} beside model.init_from={PREFIX}{folder.name}, whose tokenizer is "
                              "kept", "leave it out, or have a new one made with model.init_tokenizer=new")  # fmt: skip
        data = {**data, "tokenizer": {**tokenizer, "kind": "hf", "path": str(folder)}}
    return {**config, "model": {**model, **sections}, "data": data}


def keys_of_folder(folder: Path, name: str) -> dict[str, Any]:
    """What ``config.json`` says, as keys of the section `model` of ours."""
    try:
        return _keys(folder, _config(folder), name)
    except _BROKEN as error:
        raise DataError(f"{folder / 'config.json'} is not whole: {error!r}", "restore it from a copy") from None


def _keys(folder: Path, config: dict[str, Any], name: str) -> dict[str, Any]:
    kind = str(config.get("model_type"))
    if kind not in KINDS:
        raise ConfigError(f"{folder} holds a {kind} model, which is not known here", f"known are {', '.join(KINDS)}")
    if KINDS[kind] != name:
        raise ConfigError(f"{folder} holds a {kind} model, which is not a model={name}", f"choose model={KINDS[kind]}")
    problems = [f"{key}={config[key]}" for key, idle in _IDLE.items() if config.get(key) not in idle]
    rope = config.get("rope_parameters") or {}
    problems += [f"rope_type={rope['rope_type']}"] if rope.get("rope_type", "default") != "default" else []
    layers = set(config.get("layer_types") or ()) - {"full_attention"}
    windows = config.get("sliding_window") if kind == "mistral" else None
    problems += [f"sliding_window={windows or ', '.join(layers)}"] if windows or layers else []
    if problems:
        raise ConfigError(f"{folder} is a {kind} with {', '.join(problems)}, which is not known here", "choose another")
    return _gpt2(config, folder) if kind == "gpt2" else _modern(config, kind, rope, folder)


def _gpt2(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    width = config["n_embd"]
    mlp = _GELUS.get(config.get("activation_function", "gelu_new"))
    if mlp is None:
        raise _activation(config["activation_function"], folder)
    style = {"norm": "layer", "positions": "learned", "mlp": mlp, "qk_norm": False, "bias": True,
             "norm_eps": config.get("layer_norm_epsilon", 1e-5)}  # fmt: skip
    return {"layers": config["n_layer"], "heads": config["n_head"], "width": width,
            "feed_forward": (config.get("n_inner") or 4 * width) / width, "style": style,
            "tie_embeddings": config.get("tie_word_embeddings", True)}  # fmt: skip


def _modern(config: Mapping[str, Any], kind: str, rope: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    width, heads, hidden = config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]
    if config.get("hidden_act", "silu") != "silu":
        raise _activation(config["hidden_act"], folder)
    if hidden % 8:
        raise ConfigError(f"{folder}: intermediate_size={hidden} is not a multiple of 8", "choose another")
    ours: bool | str = "qkv" if kind == "qwen2" else False
    if kind != "qwen2" and config.get("attention_bias"):
        ours = True
    if kind != "qwen2" and bool(config.get("mlp_bias", False)) != (ours is True):
        raise ConfigError(f"{folder} has biases in attention or in feed-forward layers alone", "choose another")
    size = config.get("head_dim") or width // heads
    style = {"norm": "rms", "positions": "rotary", "mlp": "swiglu", "qk_norm": "dim" if kind == "qwen3" else False,
             "bias": ours, "rope_base": float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
             "norm_eps": config.get("rms_norm_eps", 1e-6)}  # fmt: skip
    groups = config.get("num_key_value_heads") or heads
    return {"layers": config["num_hidden_layers"], "heads": heads, "width": width, "feed_forward": 1.5 * hidden / width,
            "kv_heads": None if groups == heads else groups, "head_size": None if size * heads == width else size,
            "style": style, "tie_embeddings": bool(config.get("tie_word_embeddings", False))}  # fmt: skip


def _activation(name: str, folder: Path) -> ConfigError:
    return ConfigError(f"{folder} has the activation {name}, which is not known here", "choose another")


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = read_json(folder / "config.json")
        if not isinstance(config, dict):
            raise ValueError("it is not an object")
    except (OSError, ValueError) as error:
        hint = "name a folder with config.json, model.safetensors and tokenizer.json"
        raise DataError(f"{folder / 'config.json'} cannot be read: {error}", hint) from None
    return config


def _files(folder: Path) -> list[Path]:
    """The files of weights, which are safetensors and nothing else."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if index.is_file():
        try:
            names = sorted(set(map(str, read_json(index)["weight_map"].values())))
        except (*_BROKEN, ValueError) as error:
            raise DataError(f"{index} is not whole: {error!r}", "restore it from a copy") from None
        if all(Path(name).name == name for name in names):
            return [folder / name for name in names]
    pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
    why = ", but pickles, which may run any code and are not read" if pickled else ""
    raise DataError(f"{folder} has no model.safetensors{why}", "save the model again with safe_serialization=True")


def sum_of(folder: Path) -> str:
    """The SHA-256 of the sums of the files that a model starts from."""
    sums = [checksum(path) for path in (folder / "config.json", *_files(folder))]
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()


def weights_of(folder: Path, model: Model, codec: Codec) -> dict[str, Tensor]:
    """The tensors of a folder by the names that a fresh `model` of ours has for them; rows of an embedding are those of
    the model's own `codec`.

    Raises:
        ConfigError: a tensor is missing or has another shape, or the model looks at more tokens than the folder's.
        DataError: a file is broken.
    """
    part = str(model.tokens)
    network: Any = getattr(model, part)
    config: TransformerConfig = network.stack.config
    gpt2 = config.style.norm == "layer"
    try:
        opened: Any = safe_open  # which has no types
        files = [opened(str(path), framework="pt") for path in _files(folder)]
    except (OSError, SafetensorError) as error:
        raise DataError(f"the weights of {folder} cannot be read: {error}", "restore them from a copy") from None
    places = {name: file for file in files for name in file.keys()}  # noqa: SIM118, it is no mapping
    bare = gpt2 and "wte.weight" in places  # as a model without a head is saved

    def named(name: str) -> str:
        return name.removeprefix("transformer.") if bare else name

    def has(name: str) -> bool:
        return named(name) in places

    def take(name: str) -> Tensor:
        if not has(name):
            raise ConfigError(f"{folder} has no tensor {name}", "it is not the model that its config.json says")
        tensor: Tensor = places[named(name)].get_tensor(named(name))
        return tensor.float()

    found = {f"{part}.stack.{name}": each for name, each in to_ours(take, has, GPT2 if gpt2 else LLAMA, config).items()}
    if gpt2:
        table = found[f"{part}.stack.positions"]
        if network.length > len(table):
            what = f"data.context={network.length}: {folder} has {len(table)} positions"
            raise ConfigError(what, f"choose data.context={len(table)} or less")
        found[f"{part}.stack.positions"] = table[: network.length]
    elif network.length > _config(folder).get("max_position_embeddings", network.length):
        warn(f"data.context={network.length} is more than {folder} was trained for")
    theirs = hf_tokenizer(folder)
    embedding = take("transformer.wte.weight" if gpt2 else "model.embed_tokens.weight")
    found[f"{part}.embedding.weight"] = _rows(network.embedding.weight, embedding, theirs, codec, _config(folder))
    if network.head is not None:
        found[f"{part}.head.weight"] = _rows(network.head.weight, take("lm_head.weight"), theirs, codec, {})
    return found


def _rows(fresh: Tensor, theirs: Tensor, tokenizer: HFTokenizer, codec: Codec, config: Mapping[str, Any]) -> Tensor:
    """Rows for our tokens: of those that theirs spells too, theirs; beyond the vocabulary that of the mask."""
    own: Any = getattr(codec, "tokenizer", None)
    out = fresh.detach().clone()
    if theirs.shape[1] != out.shape[1] or len(theirs) < tokenizer.rows:
        raise ConfigError(f"an embedding there is {tuple(theirs.shape)}", "it is not what its config.json says")
    ordered = theirs[torch.tensor(tokenizer.theirs)]
    if isinstance(own, HFTokenizer) and own.state() == tokenizer.state():
        out[: len(ordered)] = ordered
    else:
        here, there = torch.tensor(codec.transfer(TextCodec(tokenizer)) or []).T
        out[here] = ordered[there]
    mask = config.get("mask_token_id")
    if isinstance(mask, int) and 0 <= mask < len(theirs) and len(out) > own.vocab_size:
        out[-1] = theirs[mask]
    return out
