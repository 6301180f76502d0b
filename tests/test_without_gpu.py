"""What a GPU would make of a step, without one. On fake CUDA tensors every operator checks the devices of what it is
given, and makes no numbers: tensors of two devices in one place fail, and so does what waits for the device to say what
a number is. The backward pass needs the device itself, so that gradients here are zeros."""

import pytest
import torch
from draws import sampled
from kinds import KINDS, MODELS, small
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from aigc_cli.config.compose import compose
from aigc_cli.data.loader import Loader
from aigc_cli.errors import ConfigError
from aigc_cli.models.base import build_model
from aigc_cli.randomness import Noise
from aigc_cli.registry import find, names
from aigc_cli.runs import Run
from aigc_cli.training.build import check_config
from aigc_cli.training.trainer import Trainer

GPU = torch.device("cuda", 0)
#: Every model on all that it takes; presets differ from theirs in networks and losses, which are those of images.
CASES = [
    (name, kind) for name in names("model") for kind in KINDS if find("model", name).build.takes(KINDS[kind][2].spec)
]
CASES += [(name, "image") for name in MODELS if name not in names("model")]
#: What waits, by the model's component and the modality, and when; why stands beside it.
WAITS = {
    ("bert", "text"): ("step", "sample", "score"),  # the host has to know how many tokens are masked
    ("gan_text", "text"): ("step", "sample"),  # it writes from first tokens, which are numbers on the host
    ("transformer", "text"): ("sample",),  # the same
    ("vqvae", "audio"): ("step",),  # its codebook follows what is not silence, and has to know how much that is
}
#: Controls that leave little to draw.
SHORT = {"steps": 1, "passes": 1, "max_tokens": 2}
HOST = DataDependentOutputException, DynamicOutputShapeException


def built(name, modality):
    """The component of a model, small data that it takes, itself with fresh weights, and a batch."""
    dataset = KINDS[modality][2]
    config = compose("train", [*small(name, dataset, everything=True), "recipe=null"])
    torch.manual_seed(0)
    try:
        model = build_model(config["model"], dataset.spec)
    except ConfigError:
        pytest.skip("its network takes other data")
    batch = Loader(dataset, batch_size=6, seed=0, device="cpu").batch(0)
    return config["model"]["name"], dataset, model, batch


def fake(tensor):
    """One like it on a GPU."""
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=GPU)


def move(model):
    """Puts fakes in the place of all that a model has registered; what it has not stays where it is, and fails."""
    moved = {}
    for module in model.modules():
        for parts in (module._parameters, module._buffers):
            for name, part in parts.items():
                if part is not None and id(part) not in moved:
                    moved[id(part)] = fake(part)
                    if isinstance(part, torch.nn.Parameter):
                        moved[id(part)] = torch.nn.Parameter(moved[id(part)], part.requires_grad)
                parts[name] = None if part is None else moved[id(part)]


class OneBatch:
    """A loader whose batches are all the same."""

    def __init__(self, dataset, batch):
        self.dataset, self.batch = dataset, lambda k: batch

    def epoch(self, k):
        return 0.0


@pytest.fixture
def no_backward(monkeypatch):
    """Gradients of zeros in place of those that only a device could work out."""
    monkeypatch.setattr(torch.autograd, "grad", lambda outputs, *inputs, **_: tuple(part * 0 for part in inputs))

    def backward(loss):
        assert loss.device == GPU
        for part in backward.model.parameters():
            if part.requires_grad:
                part.grad = torch.zeros_like(part)

    monkeypatch.setattr(torch.autograd, "backward", backward)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)  # it cannot move fakes
    return backward


def waits(component, modality, what, act):
    """What `act` gives, where it must not wait for the device; where it is known to, that it does."""
    if what not in WAITS.get((component, modality), ()):
        return act()
    with pytest.raises(HOST):
        act()
    return None


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_no_model_mixes_devices_or_waits_for_one(name, modality, tmp_path, no_backward):
    component, dataset, model, batch = built(name, modality)
    checked = check_config(compose("train", ["trainer.device=cpu", "trainer.precision=fp32"]))
    with FakeTensorMode():
        move(model)
        batch = batch.each(fake)
        no_backward.model = model
        trainer = Trainer(
            model=model, loader=OneBatch(dataset, batch), optimizer=checked.optimizer, config=checked.trainer, seed=0,
            run=Run(tmp_path), device=GPU,
        )  # fmt: skip
        waits(component, modality, "step", lambda: trainer.train_step(0))
        model.eval()
        with torch.no_grad():
            if "sample" in model.can:
                short = {key: most for key, most in SHORT.items() if key in model.controls.__dataclass_fields__}
                drawn = waits(component, modality, "sample", lambda: sampled(model, Noise(0, range(2), GPU), **short))
                assert drawn is None or drawn.device == GPU
            if "score" in model.can:
                scores = waits(component, modality, "score", lambda: model.score(batch, Noise(0, range(6), GPU)))
                assert scores is None or all(score.device == GPU for score in scores.values())


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_losses_in_bfloat16_are_finite_and_near_those_in_float32(name, modality):
    _, _, model, batch = built(name, modality)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    found = []
    for autocast in (False, True):
        model.load_state_dict(state)
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            losses = {phase.name: model(phase.name, batch) for phase in model.phases(0)}
        for each in losses.values():
            torch.autograd.backward(each["loss"])
        assert all(part.grad is None or torch.isfinite(part.grad).all() for part in model.parameters())
        found.append({phase: float(each["loss"].detach()) for phase, each in losses.items()})
    assert found[1] == pytest.approx(found[0], rel=0.02, abs=0.02)
