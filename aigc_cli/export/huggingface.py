"""A folder that ``transformers`` loads: config.json, model.safetensors, a tokenizer, and generation_config.json."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aigc_cli.errors import ConfigError, warn
from aigc_cli.export.graphs import NotTheSame, quiet
from aigc_cli.export.record import about, content_of, write_card, write_record
from aigc_cli.files import write_atomically, write_json
from aigc_cli.models.base import Model
from aigc_cli.models.bert import MaskedLanguageModel
from aigc_cli.models.transformer import DecoderLanguageModel, Seq2SeqModel
from aigc_cli.nn.style import TransformerConfig
from aigc_cli.nn.transformer import TokenTransformer
from aigc_cli.training.checkpoint import write_tensors
from aigc_cli.training.hugging_face import GPT2, LLAMA, Tensors, blenderbot, config_of, to_theirs
from aigc_cli.training.restore import Restored

_TOLERANCE = 1e-4  # of logits, as a share of the greatest
_LENGTHS = (1, 7, 128)
CODE = "modeling_aigc.py"
#: The classes that a style is: norm, positions, feed-forward layer, and what queries and keys are scaled by.
_MODERN, _CLASSIC = ("rms", "rotary", "swiglu"), ("layer", "learned")
_PER_HEAD = '''\
"""Qwen3 with a scale of queries for each head, which no class of transformers has. It was written by aigc export."""

import torch
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm


class AigcConfig(Qwen3Config):
    model_type = "aigc_qwen3"


class _NormOfHeads(Qwen3RMSNorm):
    def __init__(self, heads, size, eps):
        super().__init__(size, eps)
        self.weight = nn.Parameter(torch.ones(heads, size))


class AigcForCausalLM(Qwen3ForCausalLM):
    config_class = AigcConfig

    def __init__(self, config):
        super().__init__(config)
        for layer in self.model.layers:
            norm = _NormOfHeads(config.num_attention_heads, config.head_dim, config.rms_norm_eps)
            layer.self_attn.q_norm = norm
        self.post_init()
'''


class Folder(NamedTuple):
    """What a folder is made of."""

    kind: str  # model_type
    architecture: str
    config: dict[str, Any]
    tensors: Tensors
    code: str = ""  # that loads it, where no class of transformers does

    @property
    def loader(self) -> str:
        """The class of theirs that finds the right one."""
        return {"eurobert": "AutoModelForMaskedLM", "blenderbot": "AutoModelForSeq2SeqLM"}.get(
            self.kind, "AutoModelForCausalLM"
        )


def folder_of(model: Model) -> Folder:
    """The class of theirs that a model is, its config and its tensors by their names there.

    Raises:
        ConfigError: no class of theirs computes what the model does.
    """
    if isinstance(model, Seq2SeqModel):
        return _translator(model)
    if isinstance(model, MaskedLanguageModel):
        return _filler(model)
    if not isinstance(model, DecoderLanguageModel):
        raise ConfigError(
            f"transformers has no class for {type(model).__name__}", "export it with format=onnx or format=safetensors"
        )
    network, config = model.decoder, model.decoder.stack.config
    kind, architecture, code = _decoder(network, config)
    stack = GPT2 if kind == "gpt2" else LLAMA
    tensors = to_theirs(network.stack.state_dict(), stack, config, config.layers)
    tensors["transformer.wte.weight" if kind == "gpt2" else "model.embed_tokens.weight"] = network.embedding.weight
    if network.head is not None:
        tensors["lm_head.weight"] = network.head.weight
    found = config_of(kind, config, network.length, model.vocab_size)
    found |= {"tie_word_embeddings": network.head is None, "use_cache": True}
    return Folder(kind, architecture, found, tensors, code)


def _style(config: TransformerConfig) -> tuple[str, ...]:
    style = config.style
    return (style.norm, style.positions, style.mlp)


def _decoder(network: TokenTransformer, config: TransformerConfig) -> tuple[str, str, str]:
    normed, bias = config.style.qk_norm, config.style.bias
    if _style(config) == _MODERN and not normed:
        return ("qwen2", "Qwen2ForCausalLM", "") if bias == "qkv" else ("llama", "LlamaForCausalLM", "")
    if _style(config) == _MODERN and not bias:
        if normed is not True or config.heads == 1:
            return "qwen3", "Qwen3ForCausalLM", ""
        warn(
            "no class of transformers has a scale of queries per head (model.style.qk_norm=true): the folder holds "
            "code for that, which from_pretrained runs only with trust_remote_code=True; train with "
            "model.style.qk_norm=layer for a folder that needs none"
        )
        return "aigc_qwen3", "AigcForCausalLM", _PER_HEAD
    if _style(config)[:2] == _CLASSIC and config.style.mlp != "swiglu" and not normed and bias is True:
        return "gpt2", "GPT2LMHeadModel", ""
    raise _no_class("norm=rms positions=rotary mlp=swiglu bias=false, or norm=layer positions=learned mlp=gelu "
                    "qk_norm=false bias=true")  # fmt: skip


def _no_class(styles: str) -> ConfigError:
    hint = f"format=onnx takes it; what transformers loads is trained with the keys model.style. {styles}"
    return ConfigError("no class of transformers has the style of this model's blocks", hint)


def _filler(model: MaskedLanguageModel) -> Folder:
    network, config = model.encoder, model.encoder.stack.config
    if _style(config) != _MODERN or config.style.qk_norm or config.style.bias:
        raise _no_class("norm=rms positions=rotary mlp=swiglu qk_norm=false bias=false")
    tensors = to_theirs(network.stack.state_dict(), LLAMA, config, config.layers)
    tensors["model.embed_tokens.weight"] = network.embedding.weight
    if network.head is not None:  # theirs scores the mask too, which nobody asks for
        tensors["lm_head.weight"] = torch.cat([network.head.weight, torch.zeros_like(network.head.weight[:1])])
    found = config_of("eurobert", config, network.length, model.vocab_size + 1)
    found |= {"tie_word_embeddings": network.head is None, "mask_token_id": model.mask}
    return Folder("eurobert", "EuroBertForMaskedLM", found, tensors)


def _translator(model: Seq2SeqModel) -> Folder:
    network, config = model.decoder, model.decoder.stack.config
    style = config.style
    if _style(config)[:2] != _CLASSIC or style.mlp == "swiglu" or style.qk_norm or style.bias is not True:
        raise _no_class("norm=layer positions=learned mlp=gelu qk_norm=false bias=true")
    encoder = to_theirs(model.encoder.state_dict(), blenderbot("encoder"), config, config.layers)
    decoder = to_theirs(network.stack.state_dict(), blenderbot("decoder"), config, config.layers)
    table = decoder["model.decoder.embed_positions.weight"]  # theirs has as many rows for both
    decoder["model.decoder.embed_positions.weight"] = torch.cat([table, torch.zeros_like(table[:1])])
    tensors = {**encoder, **decoder, "model.shared.weight": network.embedding.weight}
    tensors["final_logits_bias"] = torch.zeros(1, model.vocab_size)
    if network.head is not None:
        tensors["lm_head.weight"] = network.head.weight
    sizes = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in
             (("layers", config.layers), ("attention_heads", config.heads), ("ffn_dim", config.hidden))}  # fmt: skip
    found = {
        "vocab_size": model.vocab_size, "d_model": config.width, "max_position_embeddings": model.longest, **sizes,
        "activation_function": "gelu_new" if style.mlp == "gelu_tanh" else "gelu", "scale_embedding": False,
        "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "is_encoder_decoder": True,
        "decoder_start_token_id": model.bos, "forced_eos_token_id": None, "tie_word_embeddings": network.head is None,
    }  # fmt: skip
    return Folder("blenderbot", "BlenderbotForConditionalGeneration", found, tensors)


def huggingface(restored: Restored, dtype: str, folder: Path) -> tuple[dict[str, Any], list[str], str]:
    """Writes the folder, and where transformers is installed loads it and compares its logits with the model's."""
    model, ours = restored.model, _foreign(restored)
    found = _reordered(folder_of(model), ours, restored)
    tensors = {name: (part.half() if dtype == "fp16" else part).contiguous() for name, part in found.tensors.items()}
    write_tensors(folder / "model.safetensors", tensors)
    specials = restored.spec.specials if ours is None else zip(
        (name for name, _ in restored.spec.specials), restored.codec.tokenizer.specials, strict=True)  # type: ignore[attr-defined] # fmt: skip
    ids = {f"{name}_token_id": token for name, token in specials if name != "unk"}
    config = {"architectures": [found.architecture], "model_type": found.kind, **found.config, **ids}
    config |= {"dtype": "float16" if dtype == "fp16" else "float32"}
    if found.code:
        write_atomically(folder / CODE, found.code)
        module = CODE.removesuffix(".py")
        config["auto_map"] = {"AutoConfig": f"{module}.AigcConfig", "AutoModelForCausalLM": f"{module}.AigcForCausalLM"}
    write_json(folder / "config.json", config)
    content = content_of(restored)
    window = int(content["window"])
    write_json(folder / "generation_config.json", {**ids, "max_length": window, **(
        {"decoder_start_token_id": ids["bos_token_id"]} if found.kind == "blenderbot" else {})})  # fmt: skip
    for name, text in restored.codec.portable(window, masks=model.mask is not None).items():
        write_atomically(folder / name, text)
    use, following = _use(found)
    record = {**about(restored, "huggingface", dtype), "class": found.architecture, **content}
    rows = []
    if importlib.util.find_spec("transformers") is None:
        warn("transformers is not installed, so that the folder was written and not loaded: pip install transformers")
    else:
        record["greatest_difference"] = worst = compare(restored, found, folder, dtype)
        rows.append(f"{found.architecture} loads it; greatest difference of its logits from the model's: {worst:.1e}")
    kind = {"eurobert": "filler", "blenderbot": "translator"}.get(found.kind, "writer")
    write_card(folder, restored, kind, record, f"```python\n{use}\n```")
    write_record(folder, record)
    return record, rows, following


def _foreign(restored: Restored) -> Tensor | None:
    """Of a run with a tokenizer of Hugging Face's, our ids by theirs (rows,); else None, as the ids are ours."""
    ours = getattr(getattr(restored.codec, "tokenizer", None), "ours", None)
    return None if ours is None else torch.from_numpy(ours.astype("int64"))


def _reordered(found: Folder, ours: Tensor | None, restored: Restored) -> Folder:
    """The folder with the rows of its embedding and its head in the order of a tokenizer of Hugging Face's."""
    if ours is None:
        return found
    size, tensors = restored.spec.vocab_size or 0, dict(found.tensors)
    for name in {"model.embed_tokens.weight", "transformer.wte.weight", "lm_head.weight"} & tensors.keys():
        tensors[name] = torch.cat([tensors[name][ours], tensors[name][size:]])  # a mask lies beyond
    config = {**found.config, "vocab_size": len(ours) + found.config["vocab_size"] - size}
    if "mask_token_id" in config:
        config["mask_token_id"] = len(ours)
    return found._replace(config=config, tensors=tensors)


def _use(found: Folder) -> tuple[str, str]:
    name = found.loader
    more = ", trust_remote_code=True" if found.code else ""
    lines = [f"from transformers import AutoTokenizer, {name}", 'tokenizer = AutoTokenizer.from_pretrained(".")',
             f'model = {name}.from_pretrained("."{more})']  # fmt: skip
    return "\n".join(lines), f"python -c \"from transformers import {name}; {name}.from_pretrained('{{out}}'{more})\""


def load(found: Folder, folder: Path) -> Any:
    """The folder in transformers, in float32; its own code, if it has any, is what we have just written."""
    import transformers

    with quiet():
        said: Any = transformers.utils.logging
        said.set_verbosity_error()
        said.disable_progress_bar()
        return (
            getattr(transformers, found.loader)
            .from_pretrained(folder, trust_remote_code=bool(found.code), dtype=torch.float32, local_files_only=True)
            .eval()
        )


def compare(restored: Restored, found: Folder, folder: Path, dtype: str) -> float:
    """The greatest difference between the logits of the folder and of the model, at several lengths.

    Raises:
        NotTheSame: it is above what rounding explains.
    """
    other, model, worst = load(found, folder), restored.model, 0.0
    ours, window = _foreign(restored), int(content_of(restored)["window"])
    ours = torch.arange(restored.spec.vocab_size or 0) if ours is None else ours
    for length in sorted({min(length, window) for length in _LENGTHS}):
        ids = torch.randint(4, len(ours), (2, length), generator=torch.Generator().manual_seed(length))
        with torch.no_grad():
            mine = logits_of(model, ours[ids])[..., ours]
            inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if isinstance(model, Seq2SeqModel) else {})
            theirs = other(**inputs).logits[..., : len(ours)]
        worst = max(worst, float((mine - theirs).abs().max()))
        limit = (_TOLERANCE if dtype == "fp32" else 2e-2) * max(1.0, float(mine.abs().max()))
        if not worst <= limit:
            raise NotTheSame(f"logits of {found.architecture} differ from the model's by {worst:.2g}")
    return worst


def logits_of(model: Model, ids: Tensor) -> Tensor:
    """Scores (n, t, vocab) of tokens (n, t), which of a translator are source and target."""
    if isinstance(model, Seq2SeqModel):
        return model.decoder.logits(model.decoder.hidden(ids, **model.read(ids)))
    network = model.encoder if isinstance(model, MaskedLanguageModel) else model.decoder
    assert isinstance(network, TokenTransformer)
    return network.logits(network.hidden(ids))
