"""The loop itself, on a model small enough to follow by hand, and on a small GAN."""

import os
import signal
from dataclasses import asdict
from typing import ClassVar

import pytest
import torch
from torch import nn

from aigc_cli.config.compose import compose
from aigc_cli.data.images import ImageDataset
from aigc_cli.data.loader import Loader
from aigc_cli.errors import ConfigError, DataError, Interrupted, NonFiniteError, Terminated
from aigc_cli.modalities.base import DataSpec
from aigc_cli.models.base import Model, Phase, build_model
from aigc_cli.runs import Run, read_rows
from aigc_cli.training.build import check_config
from aigc_cli.training.settings import Hooks
from aigc_cli.training.trainer import Trainer


class Two(Model):
    """Two networks: the second's loss runs through the first."""

    layouts = frozenset({"map"})
    seen: ClassVar[list] = []

    def __init__(self, spec):
        super().__init__(spec)
        self.generator = nn.Linear(1, 1)
        self.discriminator = nn.Linear(1, 1)

    def phases(self, step):
        return (Phase("discriminator"), Phase("discriminator"), Phase("generator", new_batch=False))

    def network(self, phase):
        return getattr(self, phase)

    def averaged(self):
        return self.generator

    def forward(self, phase, batch):
        graph = {name: p.requires_grad for name, p in self.named_parameters()}
        Two.seen.append((phase, batch.content.mean().item(), graph))
        x = batch.content.mean().reshape(1, 1) + torch.randn(1, 1)
        return {"loss": (self.discriminator(self.generator(x)) ** 2).mean()}


def images(n=40, size=8):
    pixels = torch.randint(0, 256, (n, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return ImageDataset(pixels, None)


def make(folder, *words, model=None, dataset=None, build=None):
    base = ["model=gan", "data=mnist", "model.network=mlp", "model.width=2", "trainer.batch_size=4", "trainer.steps=8"]
    base += ["trainer.log_every=1", "trainer.device=cpu"]
    config = compose("train", [*base, *words])
    checked = check_config(config)
    dataset = dataset or images()
    torch.manual_seed(0)
    model = build(dataset.spec) if build else build_model(config["model"], dataset.spec)
    run = Run(folder)
    run.path.mkdir(exist_ok=True)
    loader = Loader(dataset, batch_size=checked.trainer.batch_size, seed=0, device="cpu")
    return Trainer(
        model=model, loader=loader, optimizer=checked.optimizer, config=checked.trainer, seed=0, run=run,
        device=torch.device("cpu"),
    )  # fmt: skip


def final(trainer):
    return {file: dict(group) for file, group in trainer.checkpoints.load(trainer.config.steps).tensors.items()}


def weigh(trainer):
    """A look at a model: what its weights sum up to, and something drawn at random."""
    return lambda: {
        "weight": float(sum(p.sum() for p in trainer.model.parameters())), "noise": float(torch.rand(3)[0] * 0)
    }  # fmt: skip


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for file in left:
        assert left[file].keys() == right[file].keys()
        for name in left[file]:
            assert torch.equal(left[file][name], right[file][name]), (file, name)


def test_phases_take_new_data_or_see_again_what_was_seen(tmp_path):
    Two.seen.clear()
    make(tmp_path / "run", "trainer.steps=2", "optimizer.lr=1e-9", build=Two).fit(Hooks())
    phases = [phase for phase, _, _ in Two.seen]
    assert phases == ["discriminator", "discriminator", "generator"] * 2
    means = [mean for _, mean, _ in Two.seen]
    assert means[2] == means[1] != means[0]
    assert len(set(means)) == 4


def test_only_the_phase_that_trains_has_gradients(tmp_path):
    Two.seen.clear()
    make(tmp_path / "run", "trainer.steps=1", build=Two).fit(Hooks())
    for phase, _, graph in Two.seen:
        assert {name for name, on in graph.items() if on} == {f"{phase}.weight", f"{phase}.bias"}


def test_accumulation_equals_the_larger_batch(tmp_path):
    class Mean(Two):
        def phases(self, step):
            return (Phase("generator"), Phase("discriminator"))

        def forward(self, phase, batch):
            x = batch.content.mean(dim=(1, 2, 3))[:, None]
            return {"loss": (self.discriminator(self.generator(x)) - 1).pow(2).mean()}

    words = ["optimizer=sgd", "optimizer.lr=0.1", "trainer.steps=3"]
    whole = make(tmp_path / "a", *words, "trainer.batch_size=8", build=Mean)
    split = make(tmp_path / "b", *words, "trainer.batch_size=4", "trainer.accumulate=2", build=Mean)
    whole.fit(Hooks())
    split.fit(Hooks())
    for left, right in zip(whole.model.parameters(), split.model.parameters(), strict=True):
        torch.testing.assert_close(left, right)


def test_clipping_bounds_the_step(tmp_path):
    words = ["optimizer=sgd", "optimizer.momentum=0.0", "optimizer.lr=1.0", "trainer.steps=1"]
    trainer = make(tmp_path / "run", *words, "trainer.clip_grad_norm=0.001", build=Two)
    before = [p.detach().clone() for p in trainer.model.generator.parameters()]
    trainer.fit(Hooks())
    moved = torch.cat([(a - b).flatten() for a, b in zip(trainer.model.generator.parameters(), before, strict=True)])
    assert 0.0005 < moved.norm().item() <= 0.00101


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("trainer.accumulate=2",),
        ("model.discriminator_steps=3", "model.loss=wgan"),
        ("optimizer=rmsprop",),
        ("optimizer=muon", "optimizer.schedule=wsd", "trainer.clip_grad_norm=1"),
        ("optimizer=sgd", "optimizer.schedule=cosine", "optimizer.warmup_steps=3"),
        ("optimizer=adamw", "trainer.ema=null", "model.spectral_norm=true"),
        ("model.network=dcgan", "model.dropout=0.3", "model.augment=[translation]"),
        ("model.augment=[ada,cutout]", "model.ada_length=200", "model.lecam=0.3", "model.consistency=1.0"),
        ("model.loss=relativistic", "model.r1_every=3", "model.augment=[translation,color,flip]"),
        (
            "model=biggan",
            "model.conditional=false",
            "model.discriminator_steps=2",
            "model.discriminator_width=4",
            "model.network=biggan",
        ),
        ("trainer.precision=bf16",),
        ("trainer.ema_start=7", "trainer.examine_every=3"),
    ],
    ids=" ".join,
)
def test_a_run_in_two_parts_equals_the_whole_bit_for_bit(tmp_path, words):
    whole = make(tmp_path / "whole", *words)
    whole.fit(Hooks(examine=weigh(whole)))
    first = make(tmp_path / "parts", *words)
    hooks = Hooks(preview=lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 5 else None, examine=weigh(first))
    object.__setattr__(first.config, "sample_every", 5)
    with pytest.raises(Interrupted, match="stopped at step 6 of 8"):
        first.fit(hooks)  # the signal comes after the fifth step's work, and the sixth ends before it is answered
    second = make(tmp_path / "parts", *words)
    assert second.restore()
    assert second.state.step == 6
    second.fit(Hooks(examine=weigh(second)))
    assert_equal(final(whole), final(second))
    rows = [[{k: v for k, v in row.items() if "second" not in k} for row in read_rows(tmp_path / run / "metrics.jsonl")]
            for run in ("whole", "parts")]  # fmt: skip
    assert rows[0] == rows[1]


def test_watching_changes_nothing(tmp_path):
    batch_norm = ("model.network=dcgan", "model.generator_norm=batch", "model.discriminator_norm=batch")
    every = ("trainer.sample_every=1", "trainer.validate_every=1", "trainer.examine_every=1")
    plain, watched = make(tmp_path / "a", *batch_norm), make(tmp_path / "b", *batch_norm, *every)

    def examine():
        drawn = watched.model.generator(torch.randn(5, watched.model.config.latent))
        return {"score": float(watched.model.discriminator(drawn).mean())}

    plain.fit(Hooks())
    watched.fit(
        Hooks(preview=lambda step: torch.randn(5), validate=lambda: {"fd": float(torch.rand(()))}, examine=examine)
    )
    assert_equal(final(plain), final(watched))


def test_the_model_is_examined_as_it_is_in_evaluation_mode(tmp_path):
    trainer = make(tmp_path / "run", "trainer.examine_every=3", "trainer.ema=0.9999", build=Two)
    seen = []

    def examine():
        weight = trainer.model.generator.weight
        assert not trainer.model.training
        assert not torch.is_grad_enabled()
        assert not torch.equal(weight, trainer.ema.shadow["weight"])
        seen.append(trainer.state.step)
        return {"weight": weight.item()}

    figures = trainer.fit(Hooks(examine=examine))
    assert seen == [3, 6, 8]
    rows = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "examine/weight" in row]
    assert [row["step"] for row in rows] == seen
    assert figures["examine/weight"] == trainer.model.generator.weight.item()


def test_nothing_is_shown_or_examined_where_nobody_asks(tmp_path):
    words = [f"trainer.{key}_every=null" for key in ("sample", "validate", "examine")]
    make(tmp_path / "run", *words).fit(Hooks(pytest.fail, pytest.fail, pytest.fail))


def test_a_models_warnings_reach_the_person(tmp_path, capsys):
    class Worried(Two):
        def warnings(self, figures):
            if figures.get("examine/score", 0.0) > 0.5:
                yield "worry", f"the score is {figures['examine/score']}"

    scores = iter([0.0, 1.0, 2.0, 3.0])
    trainer = make(tmp_path / "run", "trainer.examine_every=2", build=Worried)
    trainer.fit(Hooks(examine=lambda: {"score": next(scores)}))
    assert [line for line in capsys.readouterr().err.splitlines() if "worry" in line or "score" in line] == [
        "aigc: warning: step 4: the score is 1.0"
    ]
    assert (tmp_path / "run" / "warnings.txt").read_text() == "step 4: worry: the score is 1.0\n"


def test_of_a_handful_of_items_no_warning_is_given(tmp_path, capsys):
    class Worried(Two):
        def warnings(self, figures):
            yield "worry", "it is of too few"

    for count in (7, 8):
        make(tmp_path / str(count), dataset=images(count), build=Worried).fit(Hooks())
        assert ("of too few" in capsys.readouterr().err) == (count == 8)
        assert (tmp_path / str(count) / "warnings.txt").exists() == (count == 8)


def test_the_average_is_a_copy_until_it_starts(tmp_path):
    trainer = make(tmp_path / "run", "trainer.ema=0.9", "trainer.ema_start=4", "trainer.checkpoint_every=1",
                   "trainer.keep=9", build=Two)  # fmt: skip
    trainer.fit(Hooks())
    for step in range(1, 9):
        tensors = trainer.checkpoints.load(step).tensors
        copied = torch.equal(tensors["ema"]["weight"], tensors["model"]["generator.weight"])
        assert copied == (step <= 4)


def test_sigterm_saves_and_says_how_to_go_on(tmp_path):
    trainer = make(tmp_path / "run", "trainer.sample_every=1")
    with pytest.raises(Terminated, match="stopped at step") as caught:
        trainer.fit(Hooks(preview=lambda step: os.kill(os.getpid(), signal.SIGTERM)))
    assert "aigc train --resume" in caught.value.hint
    assert trainer.run.status() == "stopped"
    assert trainer.checkpoints.steps()


def test_sigusr1_saves_and_goes_on(tmp_path):
    trainer = make(tmp_path / "run", "trainer.sample_every=2", "trainer.keep=9")
    trainer.fit(Hooks(preview=lambda step: os.kill(os.getpid(), signal.SIGUSR1) if step == 2 else None))
    assert trainer.checkpoints.steps() in ([2, 8], [3, 8])
    assert trainer.run.status() == "complete"


@pytest.mark.parametrize("term", ["loss", "curve"])
def test_what_is_not_finite_stops_the_run_without_a_trace(tmp_path, term):
    class Bad(Two):
        steps = 0

        def forward(self, phase, batch):
            Bad.steps += phase == "generator"
            losses = super().forward(phase, batch) | {"curve": torch.tensor(1.0)}
            return losses | {term: losses[term] * float("nan")} if Bad.steps == 6 else losses

    trainer = make(tmp_path / "run", "trainer.checkpoint_every=2", build=Bad)
    seen = []
    with pytest.raises(NonFiniteError, match=f"step 5: generator/{term}"):
        trainer.fit(Hooks(preview=seen.append))
    assert seen == [5]  # what it had come to
    assert trainer.checkpoints.steps() == [2, 4]
    assert max(row["step"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")) == 5
    assert trainer.run.status() == "failed"


def test_the_best_checkpoint_is_kept(tmp_path):
    values = iter([3.0, 1.0, 2.0, 5.0])
    trainer = make(tmp_path / "run", "trainer.validate_every=2", "trainer.keep=1")
    figures = trainer.fit(Hooks(validate=lambda: {"fd": next(values)}))
    assert trainer.checkpoints.steps() == [4, 8]
    assert (trainer.state.best, trainer.state.best_step) == (1.0, 4)
    assert figures["val/fd"] == 5.0


def test_fp16_on_a_cpu_trains_and_counts_skips(tmp_path):
    class Once(Two):
        calls = 0

        def forward(self, phase, batch):
            Once.calls += 1
            scale = 1e30 if Once.calls == 5 else 1.0  # in the second step
            return {name: value.float() * scale for name, value in super().forward(phase, batch).items()}

    trainer = make(tmp_path / "run", "trainer.precision=fp16", "trainer.steps=4", build=Once)
    trainer.fit(Hooks())
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert trainer.state.step == len(rows) == 4
    overflows = [any(value for name, value in row.items() if name.endswith("/overflow")) for row in rows]
    assert overflows[1]
    assert trainer.state.updates == overflows.count(False) > 0
    assert trainer.checkpoints.load(4).state.scalers["generator"]["scale"] > 0


def test_an_fp16_overflow_moves_neither_average_nor_schedule(tmp_path):
    class Huge(Two):
        def forward(self, phase, batch):
            return {name: value.float() * 1e30 for name, value in super().forward(phase, batch).items()}

    trainer = make(tmp_path / "run", "trainer.precision=fp16", "trainer.steps=2", "trainer.log_every=2", build=Huge)
    before = {name: tensor.clone() for name, tensor in trainer.ema.shadow.items()}
    trainer.fit(Hooks())
    assert trainer.state.updates == 0
    assert all(torch.equal(trainer.ema.shadow[name], tensor) for name, tensor in before.items())


def test_other_data_is_refused(tmp_path):
    make(tmp_path / "run").fit(Hooks())
    with pytest.raises(ConfigError, match="has changed since its checkpoint"):
        make(tmp_path / "run", dataset=images(n=41)).restore()


def test_another_network_is_refused(tmp_path):
    make(tmp_path / "run").fit(Hooks())
    with pytest.raises(ConfigError, match=r"the model .* has changed .*body\.1\.weight: \[512, 64\] -> \[3, 64\]"):
        make(tmp_path / "run", "model.hidden=3").restore()


def test_a_state_that_is_none_is_refused(tmp_path):
    trainer = make(tmp_path / "run")
    trainer.fit(Hooks())
    last = trainer.checkpoints.load(8)
    trainer.checkpoints.save(
        8, last.tensors, {**asdict(last.state), "tally": [{"names": ["a"], "sums": [], "count": 1}]}
    )
    with pytest.raises(DataError, match="does not fit this configuration"):
        make(tmp_path / "run").restore()


def test_memory_that_runs_out_on_resuming_is_no_broken_checkpoint(tmp_path, monkeypatch):
    make(tmp_path / "run").fit(Hooks())

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("aigc_cli.training.trainer.load_tensors", full)
    with pytest.raises(torch.OutOfMemoryError):
        make(tmp_path / "run").restore()


def test_a_row_that_a_stop_fell_into_is_as_if_there_had_been_none(tmp_path):
    words = ("trainer.log_every=4", "trainer.precision=fp16")
    make(tmp_path / "whole", *words).fit(Hooks())
    stop = Hooks(preview=lambda step: os.kill(os.getpid(), signal.SIGINT) if step == 5 else None)
    with pytest.raises(Interrupted):
        make(tmp_path / "parts", *words, "trainer.sample_every=5").fit(stop)
    second = make(tmp_path / "parts", *words)
    assert second.restore()
    second.fit(Hooks())
    rows = [[{k: v for k, v in row.items() if "second" not in k} for row in read_rows(tmp_path / run / "metrics.jsonl")]
            for run in ("whole", "parts")]  # fmt: skip
    assert [row["step"] for row in rows[0]] == [4, 8]
    assert "generator/overflow" in rows[0][0]
    assert rows[0] == rows[1]


def test_a_smaller_batch_goes_on_with_the_same_items(tmp_path):
    class Seen(Two):
        items: ClassVar[list] = []

        def forward(self, phase, batch):
            Seen.items.append(batch.content.flatten(1).double().sum(1).tolist())
            return super().forward(phase, batch)

    def seen(folder, *words, restore=False):
        Seen.items.clear()
        trainer = make(folder, *words, build=Seen)
        if restore:
            assert trainer.restore()
        trainer.fit(Hooks())
        return [item for batch in Seen.items for item in batch]

    whole = seen(tmp_path / "whole", "trainer.steps=6")
    first = seen(tmp_path / "parts", "trainer.steps=3")
    smaller = ("trainer.batch_size=2", "trainer.accumulate=2")
    assert first + seen(tmp_path / "parts", "trainer.steps=6", *smaller, restore=True) == whole


def test_a_model_refuses_what_it_cannot_serve():
    with pytest.raises(ConfigError, match=r"model=Two cannot model text data\n.*takes items laid out as map"):
        Two(DataSpec("text", (16,), vocab_size=65))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor", "ignore:Guards may run slower")  # dynamo's own
@pytest.mark.parametrize("loss", ["non_saturating", "wgan"])
def test_compiled_networks_train_with_a_double_backward(tmp_path, monkeypatch, loss):
    compiled = []

    def compile_lightly(module, **_):
        compiled.append(module)
        module._compiled_call_impl = torch.compile(module._call_impl, backend="aot_eager")  # needs no C++ compiler

    monkeypatch.setattr(nn.Module, "compile", compile_lightly)
    trainer = make(tmp_path / "run", f"model.loss={loss}", "trainer.compile=true", "trainer.steps=2")
    trainer.fit(Hooks())
    assert compiled == [trainer.model.generator, trainer.model.discriminator]
