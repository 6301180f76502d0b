import pytest
import torch
from torch import nn

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import DataSpec
from aigc_cli.models.base import build_model
from aigc_cli.registry import find, names
from aigc_cli.training.optimizers import EMA, build_optimizers, check_networks, lr_factor, set_lr

SPEC = DataSpec("image", (1, 8, 8))


def config_of(*words):
    values = compose("train", ["model=gan", "data=mnist", *words])["optimizer"]
    return check("optimizer", find("optimizer", values["name"]).config, values)


@pytest.fixture
def gan():
    torch.manual_seed(0)
    return build_model(compose("train", ["model.network=mlp", "model.width=4"])["model"], SPEC)


@pytest.mark.parametrize("name", names("optimizer"))
def test_each_lowers_a_quadratic(name):
    config = config_of(f"optimizer={name}", "optimizer.lr=0.05", "optimizer.weight_decay=0")
    weight = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = find("optimizer", name).build([{"params": [weight], "lr": 0.05, "weight_decay": 0.0}], config)
    before = float((weight.detach() ** 2).sum())
    for _ in range(20):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
    assert float((weight.detach() ** 2).sum()) < 0.8 * before


def test_a_network_has_its_own_rate_and_decay(gan):
    config = config_of("optimizer.lr=1e-3", "optimizer.discriminator.lr=4e-3", "optimizer.generator.weight_decay=0.1")
    built = build_optimizers(config, gan, ("generator", "discriminator"))
    generator, discriminator = built["generator"].param_groups[0], built["discriminator"].param_groups[0]
    assert (generator["lr"], discriminator["lr"]) == (1e-3, 4e-3)
    assert (generator["weight_decay"], discriminator["weight_decay"]) == (0.1, 0.0)
    set_lr(built["discriminator"], 0.5)
    assert discriminator["lr"] == pytest.approx(2e-3)


def test_each_optimizer_owns_its_network_alone(gan):
    built = build_optimizers(config_of(), gan, ("generator", "discriminator"))
    owned = {name: {id(p) for group in o.param_groups for p in group["params"]} for name, o in built.items()}
    assert owned["generator"] == {id(p) for p in gan.generator.parameters()}
    assert not owned["generator"] & owned["discriminator"]


def test_decoupled_decay_spares_vectors(gan):
    built = build_optimizers(config_of("optimizer=adamw"), gan, ("generator", "discriminator"))
    for group in built["generator"].param_groups:
        assert {p.ndim >= 2 for p in group["params"]} == {group["weight_decay"] > 0}


def test_a_setting_for_a_network_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer\.generator is set"):
        check_networks(config_of("optimizer.generator.lr=1e-3"), ("main",))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("optimizer.lr=-1", "greater than 0"),
        ("optimizer.lr=0", "greater than 0"),
        ("optimizer.betas=[0.9,1.0]", "less than 1"),
        ("optimizer.betas=[0.9]", "optimizer.betas"),
        ("optimizer.schedule=linaer", "linear"),
        ("optimizer.decay_fraction=0", "greater than 0"),
        ("optimizer.warmup_steps=1.5", "whole number"),
    ],
)
def test_values_out_of_range(word, said):
    with pytest.raises(ConfigError) as caught:
        config_of(word)
    assert said in str(caught.value)


def test_nesterov_needs_momentum():
    with pytest.raises(ConfigError, match="nesterov"):
        config_of("optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0.0")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 0.55, 0.1]),
        ("cosine", [0.5, 1.0, 0.55, 0.1]),
        ("wsd", [0.5, 1.0, 1.0, 0.1]),
    ],
)
def test_schedules(schedule, expected):
    config = config_of(f"optimizer.schedule={schedule}", "optimizer.warmup_steps=2", "optimizer.final_lr_fraction=0.1")
    factors = [lr_factor(config, step, 12) for step in (0, 1, 7, 12)]
    assert factors == pytest.approx(expected)


def test_a_longer_run_only_lengthens_the_stable_part_of_wsd():
    config = config_of("optimizer.schedule=wsd", "optimizer.decay_fraction=0.25")
    short, long = ([lr_factor(config, step, steps) for step in range(steps + 1)] for steps in (16, 32))
    assert short[:13] == long[:13] == [1.0] * 13
    assert short[12:] == pytest.approx([1.0, 0.5, 1 - 0.5**0.5, 1 - 0.75**0.5, 0.0])
    assert long[24:] == pytest.approx([1 - (k / 8) ** 0.5 for k in range(9)])


def test_the_average_follows_the_recurrence_with_its_warm_up():
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 0.0)
    ema = EMA(module, decay=0.5)
    expected = 0.0
    for t in range(20):
        nn.init.constant_(module.weight, float(t))
        ema.update(t)
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * t
    assert ema.shadow["weight"].item() == torch.tensor(expected).item()


def test_the_average_has_statistics_and_copies_counters():
    module = nn.BatchNorm1d(2)
    ema = EMA(module, decay=0.9)
    module(torch.randn(8, 2) + 5)
    ema.update(1000)
    assert ema.shadow["num_batches_tracked"].item() == 1
    assert torch.allclose(ema.shadow["running_mean"], 0.1 * module.running_mean)


def test_the_average_in_place_shows_the_average_and_gives_the_weights_back():
    module = nn.Linear(3, 3)
    ema = EMA(module, decay=0.99)
    average = {name: tensor.clone() for name, tensor in ema.shadow.items()}
    with torch.no_grad():
        module.weight.add_(1)
    own = module.weight.detach().clone()
    with ema.in_place():
        assert torch.equal(module.weight, average["weight"])
    assert torch.equal(module.weight, own)
    assert torch.equal(ema.shadow["weight"], average["weight"])


def test_the_average_follows_after_loading():
    module = nn.Linear(2, 2)
    ema = EMA(module, decay=0.5)
    module.load_state_dict({name: tensor + 1 for name, tensor in module.state_dict().items()})
    ema.load(module.state_dict())
    ema.update(1000)
    assert torch.equal(ema.shadow["weight"], module.weight)


def test_the_average_copies_until_it_starts_and_then_has_its_full_decay():
    module = nn.Linear(1, 1, bias=False)
    ema = EMA(module, decay=0.9, start=3)
    for t in range(3):
        nn.init.constant_(module.weight, t + 0.1)
        ema.update(t)
        assert torch.equal(ema.shadow["weight"], module.weight)
    before = ema.shadow["weight"].clone()
    nn.init.constant_(module.weight, 9.0)
    ema.update(3)
    torch.testing.assert_close(ema.shadow["weight"], 0.9 * before + 0.1 * module.weight.detach())
