"""Which weights Muon trains, and how far it moves them."""

import math

import pytest
import torch
from torch import nn
from toy_text import ToyText, documents

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import DataSpec
from aigc_cli.models.base import build_model
from aigc_cli.nn.lora import train_adapters_only
from aigc_cli.registry import find
from aigc_cli.training.muon import Muon, hidden_matrices, orthogonal
from aigc_cli.training.optimizers import build_optimizers

WORDS = ["model=transformer", "data=text", "data.root=.", "model.layers=1", "model.heads=4", "model.width=16"]
IMAGES = DataSpec("image", (1, 8, 8))


def config_of(*words):
    values = compose("train", ["model=gan", "data=mnist", "optimizer=muon", *words])["optimizer"]
    return check("optimizer", find("optimizer", values["name"]).config, values)


def decoder(*words):
    torch.manual_seed(0)
    return build_model(compose("train", [*WORDS, *words, "recipe=null"])["model"], ToyText(documents(4, 9)).spec)


def chosen(network):
    names = {parameter: name for name, parameter in network.named_parameters()}
    return {names[weight]: rows for weight, rows in hidden_matrices(network)}


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 40), (2, 40, 8), (1, 1, 7)])
def test_singular_values_are_about_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape) * 1e-3))
    assert values.max() < 1.25
    assert values[:, : min(shape[1:]) // 2 + 1].min() > 0.6  # the least of a square matrix is far from 1 to begin with


def test_the_way_by_the_gram_matrix_is_the_same():
    torch.manual_seed(0)
    long = torch.randn(2, 8, 40)
    square = torch.cat([long, torch.zeros(2, 32, 40)], 1)  # too many rows for it, of which most add nothing
    torch.testing.assert_close(orthogonal(long), orthogonal(square)[:, :8], atol=1e-5, rtol=1e-4)


def test_a_matrix_of_zeros_stays_as_it_is():
    assert not orthogonal(torch.zeros(1, 4, 6)).any()


def test_of_a_transformer_the_layers_of_blocks_and_no_more():
    stack = "decoder.stack.blocks.0"
    assert chosen(decoder("model.tie_embeddings=false", "model.kv_heads=2", "model.style.positions=learned")) == {
        f"{stack}.attention.qkv.weight": (16, 8, 8), f"{stack}.attention.out.weight": (16,),
        f"{stack}.feed_forward.up.weight": (48, 48), f"{stack}.feed_forward.down.weight": (16,),
    }  # fmt: skip


def test_of_other_networks_all_but_the_first_and_the_last_layer():
    def layers(*words):
        model = build_model(compose("train", ["recipe=null", "model.width=4", *words])["model"], IMAGES)
        return {phase.name: [*chosen(model.network(phase.name))] for phase in model.phases(0)}

    ends = ["encoder.head.2.weight", "encoder.head.4.weight", "decoder.stem.0.weight", "decoder.trunk.1.weight"]
    assert layers("model=vae", "model.network=conv", "model.hidden=8") == {"main": ends}
    gan = {"discriminator": ["body.3.weight"], "generator": ["body.4.weight"]}
    assert layers("model=gan", "model.network=dcgan") == gan


def test_weights_that_are_made_of_others_are_left_to_adamw():
    words = ["model=gan", "model.network=mlp", "model.width=4", "model.spectral_norm=true", "recipe=null"]
    model = build_model(compose("train", words)["model"], IMAGES)
    assert not chosen(model.network("discriminator"))


def test_adapters_are_left_to_adamw():
    model = decoder("model.lora.rank=2", "model.init_from=latest")
    train_adapters_only(model)
    (group,) = build_optimizers(config_of(), model, ("main",))["main"].param_groups
    assert "rows" not in group


def test_each_joined_matrix_takes_a_step_of_the_size_of_adamws():
    model = decoder()
    qkv = model.decoder.stack.blocks[0].attention.qkv.weight
    before = qkv.detach().clone()
    optimizer = build_optimizers(config_of("optimizer.lr=0.01", "optimizer.weight_decay=0"), model, ("main",))["main"]
    assert isinstance(optimizer, Muon)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    for moved in (before - qkv.detach()).split(16):
        assert moved.square().mean().sqrt().item() == pytest.approx(0.01 * 0.2, rel=0.2)
        assert torch.linalg.svdvals(moved / (0.01 * 0.2 * math.sqrt(16))).max() < 1.25


def test_adamw_has_a_rate_of_its_own_and_each_network_its_share():
    words = ["optimizer.lr=0.01", "optimizer.adamw_lr=0.03", "optimizer.generator.lr=0.02"]
    model = build_model(compose("train", ["model=gan", "model.network=mlp", "recipe=null"])["model"], IMAGES)
    built = build_optimizers(config_of(*words), model, ("generator", "discriminator"))
    rates = {phase: {"rows" in group: group["lr"] for group in each.param_groups} for phase, each in built.items()}
    assert rates["discriminator"] == pytest.approx({True: 0.01, False: 0.03})
    assert rates["generator"] == pytest.approx({True: 0.02, False: 0.06})


def test_kernels_are_moved_as_matrices():
    kernel = nn.Parameter(torch.randn(4, 3, 3, 3).contiguous(memory_format=torch.channels_last))
    before = kernel.detach().clone()
    kernel.grad = torch.randn_like(kernel)
    Muon([{"params": [kernel], "rows": [(4,)], "weight_decay": 0.0}], config_of("optimizer.lr=1")).step()
    values = torch.linalg.svdvals((before - kernel.detach()).flatten(1)) / (0.2 * math.sqrt(27))
    assert 0.6 < values.min() <= values.max() < 1.25


def test_an_overflow_leaves_out_the_whole_step():
    model = decoder()
    optimizer = build_optimizers(config_of(), model, ("main",))["main"]
    scaler = torch.amp.GradScaler("cpu")
    loss = sum(parameter.sum() for parameter in model.parameters())
    scaler.scale(loss).backward()
    next(model.parameters()).grad[0, 0] = math.inf
    before = [parameter.detach().clone() for parameter in model.parameters()]
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("optimizer.momentum=1", "less than 1"),
        ("optimizer.adamw_lr=0", "greater than 0"),
        ("optimizer.nesterov=2", "optimizer.nesterov"),
        ("optimizer.alpha=0.9", "optimizer.alpha"),
    ],
)
def test_wrong_values(word, said):
    with pytest.raises(ConfigError) as caught:
        config_of(word)
    assert said in str(caught.value)
