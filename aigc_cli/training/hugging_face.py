"""How the tensors of a transformer of ours go with those of Hugging Face's classes: the same numbers by other names.

Theirs keep queries, keys and values apart, and turn the first half of a head's features with the second, where ours
turns neighbours. GPT-2 has its matrices the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aigc_cli.nn.style import TransformerConfig

Tensors = dict[str, Tensor]


def halves(part: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys, (heads * d, ...), with the first of each pair of features before the second of any."""
    return part.reshape(heads, -1, 2, *part.shape[1:]).transpose(1, 2).reshape(part.shape)


def neighbours(part: Tensor, heads: int) -> Tensor:
    """The inverse of :func:`halves`."""
    return part.reshape(heads, 2, -1, *part.shape[1:]).transpose(1, 2).reshape(part.shape)


@dataclass(frozen=True)
class Stack:
    """The names of a stack of blocks in a class of theirs; {} is the number of a layer."""

    layer: str
    norm: str  # at the end
    attention_norm: str
    feed_forward_norm: str
    attention: tuple[str, ...]  # queries, keys, values, and out; or all three in one, and out
    up: tuple[str, ...]  # one, or the gate and the other
    down: str
    cross_norm: str = ""
    cross: tuple[str, ...] = ()
    positions: str = ""
    transposed: bool = False


LLAMA = Stack(
    "model.layers.{}.", "model.norm", "input_layernorm", "post_attention_layernorm",
    tuple(f"self_attn.{name}_proj" for name in "qkvo"), ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj",
)  # fmt: skip
GPT2 = Stack(
    "transformer.h.{}.", "transformer.ln_f", "ln_1", "ln_2", ("attn.c_attn", "attn.c_proj"), ("mlp.c_fc",),
    "mlp.c_proj", positions="transformer.wpe.weight", transposed=True,
)  # fmt: skip
_OWN = tuple(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out"))


def blenderbot(side: str) -> Stack:
    """The encoder or the decoder of Blenderbot, whose blocks norm first."""
    cross = tuple(f"encoder_attn.{name}_proj" for name in ("q", "k", "v", "out")) if side == "decoder" else ()
    return Stack(
        f"model.{side}.layers.{{}}.", f"model.{side}.layer_norm", "self_attn_layer_norm", "final_layer_norm", _OWN,
        ("fc1",), "fc2", "encoder_attn_layer_norm" if cross else "", cross, f"model.{side}.embed_positions.weight",
    )  # fmt: skip


def pairs(stack: Stack, config: TransformerConfig, layers: int) -> list[tuple[str, tuple[str, ...], list[int], str]]:
    """Our tensors of a stack, without "weight" or "bias", each with theirs, the rows of each of those, and how rows are
    ordered: "qk" of queries and keys, else ""."""
    queries, keys, hidden = config.heads * config.dim, config.groups * config.dim, config.hidden
    found: list[tuple[str, tuple[str, ...], list[int], str]] = [("norm", (stack.norm,), [], "")]
    turned = "qk" if config.style.positions == "rotary" else ""
    for place in range(layers):
        ours, theirs = f"blocks.{place}.", stack.layer.format(place)

        def named(names: tuple[str, ...], theirs: str = theirs) -> tuple[str, ...]:
            return tuple(theirs + name for name in names)

        found += [(f"{ours}attention_norm", named((stack.attention_norm,)), [], ""),
                  (f"{ours}feed_forward_norm", named((stack.feed_forward_norm,)), [], ""),
                  (f"{ours}attention.qkv", named(stack.attention[:-1]), [queries, keys, keys], turned),
                  (f"{ours}attention.out", named(stack.attention[-1:]), [], ""),
                  (f"{ours}feed_forward.up", named(stack.up), [hidden] * len(stack.up), ""),
                  (f"{ours}feed_forward.down", named((stack.down,)), [], "")]  # fmt: skip
        if stack.cross:
            found += [(f"{ours}cross_norm", named((stack.cross_norm,)), [], ""),
                      (f"{ours}cross.query", named(stack.cross[:1]), [], ""),
                      (f"{ours}cross.key_value", named(stack.cross[1:3]), [queries, queries], ""),
                      (f"{ours}cross.out", named(stack.cross[3:]), [], "")]  # fmt: skip
    return found


def to_theirs(own: Mapping[str, Tensor], stack: Stack, config: TransformerConfig, layers: int) -> Tensors:
    """Tensors of a stack of ours by their names there; without scales of queries and keys."""
    found: Tensors = {}
    for ours, theirs, rows, order in pairs(stack, config, layers):
        for what in ("weight", "bias"):
            if f"{ours}.{what}" not in own:
                continue
            whole = own[f"{ours}.{what}"]
            parts = list(torch.split(whole, rows)) if len(theirs) > 1 else [whole]
            if order:
                parts[:2] = [halves(parts[0], config.heads), halves(parts[1], config.groups)]
            for name, part in zip(theirs, parts, strict=True):
                turn = stack.transposed and part.ndim == 2
                found[f"{name}.{what}"] = (part.T if turn else part).contiguous().clone()
    if stack.positions:
        found[stack.positions] = own["positions"].clone()
    for place in range(layers):  # Qwen3's
        ours, head = f"blocks.{place}.attention.", stack.layer.format(place) + "self_attn."
        if f"{ours}gains" in own:
            query, key = own[f"{ours}gains"]
            found |= {f"{head}q_norm.weight": halves(query, 1), f"{head}k_norm.weight": halves(key, 1)}
        elif f"{ours}log_scale" in own:
            scale = own[f"{ours}log_scale"].exp()
            query = scale.expand(config.dim) if len(scale) == 1 else scale[:, None].expand(-1, config.dim)
            found |= {f"{head}q_norm.weight": query.clone(), f"{head}k_norm.weight": torch.ones(config.dim)}
    return found


def to_ours(
    take: Callable[[str], Tensor], has: Callable[[str], bool], stack: Stack, config: TransformerConfig
) -> Tensors:
    """The inverse of :func:`to_theirs`, of tensors that `take` gives by their names there."""
    found: Tensors = {}
    for ours, theirs, _, order in pairs(stack, config, config.layers):
        for what in ("weight", "bias"):
            if not has(f"{theirs[0]}.{what}"):
                continue
            parts = [take(f"{name}.{what}") for name in theirs]
            if stack.transposed and parts[0].ndim == 2:
                parts = [part.T for part in parts]
            if order:
                parts[:2] = [neighbours(parts[0], config.heads), neighbours(parts[1], config.groups)]
            found[f"{ours}.{what}"] = torch.cat(parts)
    if stack.positions:
        found["positions"] = take(stack.positions)
    if config.style.qk_norm == "dim":
        for place in range(config.layers):
            theirs_ = stack.layer.format(place) + "self_attn."
            gains = [neighbours(take(f"{theirs_}{name}_norm.weight"), 1) for name in "qk"]
            found[f"blocks.{place}.attention.gains"] = torch.stack(gains)
    return found


def config_of(kind: str, config: TransformerConfig, length: int, vocab: int) -> dict[str, Any]:
    """The fields of a ``config.json`` that say the sizes of a decoder or a bidirectional encoder of ours."""
    style = config.style
    if kind == "gpt2":
        activation = "gelu_new" if style.mlp == "gelu_tanh" else "gelu"
        return {
            "n_embd": config.width, "n_layer": config.layers, "n_head": config.heads, "n_inner": config.hidden,
            "n_positions": length, "vocab_size": vocab, "activation_function": activation,
            "layer_norm_epsilon": style.eps, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
        }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": style.rope_base}
    return {
        "hidden_size": config.width, "intermediate_size": config.hidden, "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads, "num_key_value_heads": config.groups, "head_dim": config.dim,
        "hidden_act": "silu", "rms_norm_eps": style.eps, "max_position_embeddings": length, "vocab_size": vocab,
        "attention_bias": style.bias is True, "mlp_bias": style.bias is True, "attention_dropout": 0.0,
        "rope_parameters": rope, "rope_theta": style.rope_base, "use_sliding_window": False,
    }  # fmt: skip
