"""When a run is compiled: by a clock that a test turns, and with nothing that compiles."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from aigc_cli.errors import ConfigError
from aigc_cli.runs import Run
from aigc_cli.training import compiling
from aigc_cli.training.compiling import TIMED, TRIED, Compiler
from aigc_cli.training.distributed import Processes
from aigc_cli.training.pace import WARM_UP

#: The step at which plain steps have been measured.
MEASURED = WARM_UP + TIMED


class Net(nn.Module):
    """A layer in which it is noted how it is called."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls, self.options = nn.Linear(1, 1), [], []

    def compile_networks(self, **options):
        self.options.append(options)
        plain = self.layer._call_impl
        self.layer._compiled_call_impl = lambda *args: self.calls.append("compiled") or plain(*args)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Trains a model for some steps, of which each takes so many seconds plain, or compiled."""
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setattr(compiling, "can_compile", lambda device: True)
    clock = [0.0]
    monkeypatch.setattr(compiling.time, "monotonic", lambda: clock[0])

    def train(run, plain, compiled, until, *, steps=10**6, start=0, compile="auto", cost=20.0, **settings):
        config = SimpleNamespace(
            compile=compile, sharding="none", steps=steps, minutes=None, batch_size=4, accumulate=1, precision="fp32",
            compile_mode="default",
        )  # fmt: skip
        vars(config).update(settings)
        (tmp_path / run).mkdir(exist_ok=True)
        pace, folder = SimpleNamespace(trained=clock[0]), Run(tmp_path / run)
        net = Net()
        compiler = Compiler(net, config, torch.device("cpu"), folder, Processes(), pace)
        how = []
        for step in range(start, until):
            before = compiler.compiled
            compiler.before(step)
            net.calls.clear()
            net.layer(torch.ones(1))
            assert bool(net.calls) == compiler.compiled
            clock[0] += compiled if compiler.compiled else plain
            clock[0] += cost if compiler.compiled and not before else 0.0
            how.append(compiler.compiled)
        return how, net

    return train


def test_what_is_faster_compiled_stays_so_and_the_next_run_knows(machine, capsys, tmp_path):
    how, _ = machine("a", 1.0, 0.5, 40)
    assert how == [False] * MEASURED + [True] * (40 - MEASURED)
    said = capsys.readouterr().err
    assert said == "compiled: a step takes 500 ms so, and 1e+03 ms plain; compiling took 20 s\n"
    assert machine("b", 1.0, 0.5, 3)[0] == [True] * 3
    assert "as in a run before" in capsys.readouterr().err
    assert machine("c", 1.0, 0.5, 3, steps=30)[0] == [False] * 3  # spares 15 s for 20
    assert machine("d", 1.0, 0.5, 3, batch_size=8)[0] == [False] * 3  # another shape, of which nothing is known


def test_what_is_not_faster_is_put_back(machine, capsys):
    how, _ = machine("a", 1.0, 1.0, 40)
    tried = MEASURED + MEASURED
    assert how == [False] * MEASURED + [True] * MEASURED + [False] * (40 - tried)
    assert "not compiled: a step takes 1e+03 ms so" in capsys.readouterr().err
    assert not any(machine("b", 1.0, 1.0, 40)[0])


def test_a_short_run_tries_nothing(machine, capsys):
    assert not any(machine("a", 1.0, 0.5, 40, steps=int(TRIED))[0])
    assert capsys.readouterr().err == "not compiled: it is not tried where 9 min 47 s of steps are left\n"


def test_a_run_of_minutes_counts_those_that_are_left(machine):
    assert not any(machine("a", 1.0, 0.5, 40, minutes=TRIED / 60 - 1)[0])
    assert any(machine("b", 1.0, 0.5, 40, minutes=TRIED / 60 + 1)[0])


@pytest.mark.parametrize("start", [0, MEASURED - 3, MEASURED, MEASURED + 5, 2 * MEASURED, 35])
@pytest.mark.parametrize("compiled", [0.5, 1.0])
def test_a_resumed_run_is_compiled_at_the_same_steps(machine, start, compiled):
    how, _ = machine("a", 1.0, compiled, 40)
    assert machine("a", 1.0, 1.5 - compiled, 40, start=start)[0] == how[start:]


def test_a_run_that_ended_while_it_tried_tries_again_and_goes_on(machine):
    how, _ = machine("a", 1.0, 0.5, MEASURED + 4)
    again, _ = machine("a", 1.0, 0.5, 60, start=MEASURED - 2)
    assert again[:6] == how[-6:]
    assert all(again[2:])


def test_false_and_true_do_as_they_say(machine, tmp_path):
    assert not any(machine("a", 1.0, 0.1, 40, compile=False)[0])
    assert all(machine("b", 1.0, 2.0, 40, compile=True)[0])
    assert not (tmp_path / "b" / "compile.json").exists()
    assert machine("c", 1.0, 2.0, 1, compile=True, compile_mode="reduce-overhead")[1].options == [
        {"mode": "reduce-overhead"}
    ]


def test_what_spreads_its_weights_is_not_compiled_by_itself(machine):
    assert not any(machine("a", 1.0, 0.1, 40, sharding="full")[0])


def test_compiled_code_is_for_training_alone(machine):
    _, net = machine("a", 1.0, 0.5, 1, compile=True)
    net.calls.clear()
    net.eval()
    net.layer(torch.ones(1))
    assert not net.calls


def test_without_a_compiler_auto_leaves_it_and_true_says_so(machine, monkeypatch):
    monkeypatch.setattr(compiling, "can_compile", lambda device: False)
    assert not any(machine("a", 1.0, 0.1, 40)[0])
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler on a CPU, and .*\n.*install g\+\+"):
        machine("b", 1.0, 0.1, 1, compile=True)


def test_a_broken_record_is_made_anew(machine, tmp_path):
    machine("a", 1.0, 0.5, 40)
    (tmp_path / "a" / "compile.json").write_text("{")
    for file in (tmp_path / "cache" / "compile").iterdir():
        file.write_text("[]")
    assert machine("a", 1.0, 0.5, 40)[0] == [False] * MEASURED + [True] * (40 - MEASURED)
    assert json.loads((tmp_path / "a" / "compile.json").read_text()) == {"turns": [[MEASURED, True]], "decided": True}
