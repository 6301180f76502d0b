"""The transformer block: its two styles, what it may see, its hand-written gradients, and its cache."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from aigc_cli.nn import attention
from aigc_cli.nn.attention import KVCache, attention_heads, rms_norm, rotate
from aigc_cli.nn.style import Style, TransformerConfig
from aigc_cli.nn.transformer import FRESH_STD, Transformer

MODERN: dict[str, Any] = {"norm": "rms", "positions": "rotary", "mlp": "swiglu", "qk_norm": True, "bias": False}
CLASSIC: dict[str, Any] = {"norm": "layer", "positions": "learned", "mlp": "gelu", "qk_norm": False, "bias": True}
#: Both styles, and the mixtures that take another way through the attention.
STYLES = {
    "modern": MODERN,
    "classic": CLASSIC,
    "rotary": {**MODERN, "qk_norm": False},
    "normed": {**CLASSIC, "qk_norm": True},
}
LENGTH = 12


def config(style: str = "modern", **changes: Any) -> TransformerConfig:
    values: dict[str, Any] = {"layers": 2, "heads": 2, "width": 16, "feed_forward": 4.0, "dropout": 0.0, **changes}
    return TransformerConfig(style=Style(**STYLES[style]), **values)


def stack(style: str = "modern", *, causal: bool = True, cross: bool = False, **changes: Any) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(config(style, **changes), LENGTH, causal=causal, cross=cross)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)  # fresh weights hardly look at anything
    return model.eval()


def inputs(n: int = 3, t: int = LENGTH, seed: int = 1) -> Tensor:
    return torch.randn(n, t, 16, generator=torch.Generator().manual_seed(seed))


def seen_by(output: Tensor, x: Tensor, place: int) -> list[bool]:
    """Which places of x the output at `place` depends on."""
    (gradient,) = torch.autograd.grad(output[0, place].square().sum(), x, retain_graph=True)
    found: list[bool] = (gradient[0].abs().sum(-1) > 0).tolist()
    return found


@pytest.mark.parametrize("style", STYLES)
def test_a_causal_stack_sees_nothing_that_comes_later(style: str) -> None:
    x = inputs(1).requires_grad_()
    output = stack(style)(x)
    for place in range(LENGTH):
        assert seen_by(output, x, place) == [other <= place for other in range(LENGTH)]


@pytest.mark.parametrize("style", STYLES)
def test_a_stack_that_is_not_causal_sees_all_but_what_is_masked(style: str) -> None:
    x = inputs(1).requires_grad_()
    model = stack(style, causal=False)
    assert seen_by(model(x), x, 4) == [True] * LENGTH
    there = torch.arange(LENGTH)[None] != 7
    assert seen_by(model(x, mask=there), x, 4) == [place != 7 for place in range(LENGTH)]


@pytest.mark.parametrize("style", STYLES)
def test_cross_attention_sees_the_memory_that_is_there(style: str) -> None:
    memory = inputs(1, 5).requires_grad_()
    model = stack(style, cross=True)
    x = inputs(1, 4)
    assert seen_by(model(x, memory=memory), memory, 0) == [True] * 5
    there = torch.tensor([[True, True, False, True, False]])
    assert seen_by(model(x, memory=memory, memory_mask=there), memory, 0) == there[0].tolist()


@pytest.mark.parametrize("style", ["rotary", "modern"])
def test_rotary_attention_depends_on_distance_alone(style: str) -> None:
    """Scores of the same features further along are the same."""
    model = stack(style)
    attention = model.blocks[0].attention
    x = inputs(1, 1).expand(1, LENGTH, 16)
    joint = attention.qkv(x).unflatten(2, (3, 2, -1))
    query, key, _ = attention_heads(joint, attention.log_scale, model.rotation[None])
    scores = query @ key.transpose(2, 3)
    torch.testing.assert_close(scores[:, :, 5, 3], scores[:, :, 9, 7])
    assert not torch.allclose(scores[:, :, 5, 3], scores[:, :, 5, 1])


@pytest.mark.parametrize("style", ["classic", "modern"])
def test_positions_matter(style: str) -> None:
    x = inputs(1, 3)
    turned = x[:, [1, 0, 2]]
    model = stack(style, causal=False)
    assert not torch.allclose(model(x)[:, 2], model(turned)[:, 2], atol=1e-4)


def test_normed_queries_do_not_mind_the_size_of_their_projection() -> None:
    model = stack()
    attention = model.blocks[0].attention
    x = inputs()
    before = attention(x, model.rotation[None, :], None, None, 0)
    attention.qkv.weight.data[:32] *= 3  # of queries and keys
    torch.testing.assert_close(attention(x, model.rotation[None, :], None, None, 0), before)
    attention.log_scale.data += 1
    assert not torch.allclose(attention(x, model.rotation[None, :], None, None, 0), before, atol=1e-3)


def test_swiglu_has_about_as_many_weights_as_the_plain_layer() -> None:
    sizes = {}
    for style in ("classic", "modern"):
        layer = stack(style, width=96, heads=2).blocks[0].feed_forward
        sizes[style] = layer.up.weight.numel() + layer.down.weight.numel()
    assert sizes["modern"] == sizes["classic"] == 8 * 96 * 96


def test_weights_start_as_in_gpt2() -> None:
    torch.manual_seed(0)
    model = Transformer(config(width=64, heads=2, layers=4), LENGTH, causal=True)
    block = model.blocks[0]
    assert block.attention.qkv.weight.std().item() == pytest.approx(FRESH_STD, rel=0.1)
    assert block.feed_forward.up.weight.std().item() == pytest.approx(FRESH_STD, rel=0.1)
    for end in (block.attention.out, block.feed_forward.down):
        assert end.weight.std().item() == pytest.approx(FRESH_STD / math.sqrt(8), rel=0.1)


def test_dropout_drops_in_training_alone() -> None:
    model = stack(dropout=0.5)
    x = inputs()
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.allclose(model(x), model(x))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"heads": 3}, "is not a multiple of heads=3"),
        ({"width": 6, "heads": 2}, "odd number"),
        ({"layers": 0}, "layers"),
    ],
)
def test_sizes_that_do_not_fit(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        config(**changes)


# gradients by hand


def gradients(monkeypatch: pytest.MonkeyPatch, function: Any, *arguments: Tensor) -> list[list[Tensor]]:
    """Outputs and gradients by hand, then as composed."""
    found = []
    for by_hand in (True, False):
        monkeypatch.setattr(attention, "by_hand", lambda x, by_hand=by_hand: by_hand)
        leaves = [argument.clone().requires_grad_() for argument in arguments]
        outputs = function(*leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        ends = [torch.randn(o.shape, generator=torch.Generator().manual_seed(2), dtype=o.dtype) for o in outputs]
        found.append([*outputs, *torch.autograd.grad(outputs, leaves, ends)])
    return found


def doubles(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def test_gradients_by_hand_are_those_of_the_composed_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    angles = torch.rand(1, 5, 1, 2, 3, dtype=torch.float64)
    rotation = torch.stack([angles.cos(), angles.sin()], -1)
    cases = {
        "norm": gradients(monkeypatch, rms_norm, doubles(4, 5, 6), doubles(6)),
        "rotation": gradients(monkeypatch, lambda x: rotate(x, rotation), doubles(4, 5, 2, 2, 6)),
        "heads": gradients(
            monkeypatch, lambda x, scale: attention_heads(x, scale, rotation), doubles(4, 5, 3, 2, 6), doubles(2)
        ),
    }
    for name, (by_hand, composed) in cases.items():
        for ours, theirs in zip(by_hand, composed, strict=True):
            torch.testing.assert_close(ours, theirs, msg=lambda text, name=name: f"{name}: {text}")


def test_gradients_by_hand_take_gradients_of_any_layout() -> None:
    x, gain = torch.randn(3, 4, 6, requires_grad=True), torch.ones(6, requires_grad=True)
    rms_norm(x, gain).sum().backward()  # an expanded gradient
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


# the cache


def grown(model: Transformer, x: Tensor, first: list[int], memory: Tensor | None = None) -> list[list[Tensor]]:
    """The features of each row's tokens, from a first pass over so many of each, then one by one."""
    cache = model.cache(len(x), LENGTH)
    hidden = model(x[:, : max(first)], cache=cache, memory=memory)
    cache.read(first)
    found = [[hidden[row, length - 1]] for row, length in enumerate(first)]
    lengths = list(first)
    while max(lengths) < LENGTH:
        new = torch.stack([x[row, length] for row, length in enumerate(lengths)])[:, None]
        hidden = model(new, cache=cache, memory=memory)
        lengths = [length + 1 for length in lengths]
        cache.read(lengths)
        for row in range(len(x)):
            found[row].append(hidden[row, -1])
    return found


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("first", [[4, 4, 4], [2, 5, 3], [1, 1, 6]])
def test_token_by_token_is_as_all_at_once(style: str, first: list[int]) -> None:
    model = stack(style)
    x = inputs()
    whole = model(x)
    for row, features in enumerate(grown(model, x, first)):
        expected = whole[row, first[row] - 1 :][: len(features)]
        torch.testing.assert_close(torch.stack(features), expected, atol=1e-5, rtol=1e-5)


def test_the_cache_keeps_the_memory() -> None:
    model = stack(cross=True)
    x, memory = inputs(), inputs(3, 5, seed=3)
    whole = model(x, memory=memory)
    cache = model.cache(3, LENGTH)
    model(x[:, :4], cache=cache, memory=memory)
    cache.read([4, 4, 4])
    last = model(x[:, 4:5], cache=cache, memory=torch.full_like(memory, torch.nan))
    torch.testing.assert_close(last[:, 0], whole[:, 4], atol=1e-5, rtol=1e-5)


def test_rows_of_a_cache_are_reordered_repeated_and_replaced() -> None:
    model = stack()
    x = inputs()
    cache = model.cache(3, LENGTH)
    model(x[:, :4], cache=cache)
    cache.read([4, 4, 4])
    cache.reorder(torch.tensor([2, 0, 0]))
    torch.testing.assert_close(
        model(x[[2, 0, 0], 4:5], cache=cache)[:, 0], model(x[[2, 0, 0], :5])[:, 4], atol=1e-5, rtol=1e-5
    )
    cache.read([5, 5, 5])
    cache.repeat(2)
    assert cache.lengths == [5] * 6
    other = model.cache(2, 3)
    model(x[:2, :3], cache=other)
    other.read([3, 3])
    cache.replace([1, 4], other)
    assert cache.lengths == [5, 3, 5, 5, 3, 5]
    new = torch.stack([x[2, 5], x[0, 3], x[0, 5], x[0, 5], x[1, 3], x[0, 5]])[:, None]
    last = model(new, cache=cache)[:, 0]
    torch.testing.assert_close(last[[1, 4]], model(x[:2, :4])[:, 3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last[[0, 2]], model(x[[2, 0], :6])[:, 5], atol=1e-5, rtol=1e-5)


def test_a_cache_is_never_overrun() -> None:
    cache = KVCache(1, 2, 1, 4, 2, like=torch.zeros(()))
    assert cache.empty
    with pytest.raises(AssertionError, match="more than the cache was made for"):
        cache.read([3, 5])
