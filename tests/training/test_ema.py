import torch
from torch import nn

from aigc_cli.training.ema import EMA


def test_follows_the_recurrence_with_its_warm_up():
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


def test_averages_statistics_and_copies_counters():
    module = nn.BatchNorm1d(2)
    ema = EMA(module, decay=0.9)
    module(torch.randn(8, 2) + 5)
    ema.update(1000)
    assert ema.shadow["num_batches_tracked"].item() == 1
    assert torch.allclose(ema.shadow["running_mean"], 0.1 * module.running_mean)


def test_in_place_shows_the_average_and_gives_the_weights_back():
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


def test_goes_on_following_after_loading():
    module = nn.Linear(2, 2)
    ema = EMA(module, decay=0.5)
    module.load_state_dict({name: tensor + 1 for name, tensor in module.state_dict().items()})
    ema.load(module.state_dict())
    ema.update(1000)
    assert torch.equal(ema.shadow["weight"], module.weight)


def test_copies_until_it_starts_and_then_has_its_full_decay():
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
