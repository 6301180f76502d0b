from dataclasses import dataclass

import pytest
import torch
from draws import sampled
from torch import Tensor, nn

from aigc_cli.errors import ConfigError, NonFiniteError, ResourceError
from aigc_cli.modalities.base import DataSpec
from aigc_cli.modalities.image import ImageCodec
from aigc_cli.models.base import Model, Prompts
from aigc_cli.randomness import Noise
from aigc_cli.runs import Run
from aigc_cli.sampling.generate import auto_batch_size, generate
from aigc_cli.training.restore import restore_model

SPEC = DataSpec("image", (1, 2, 2))


@dataclass
class Gain:
    gain: float = 1.0


class Tiny(Model):
    """Passes its noise on; `fits` is the largest batch that its memory holds."""

    can = frozenset({"sample"})
    layouts = frozenset({"map"})
    controls = Gain

    def __init__(self, fits: int = 1000, error: type[Exception] = MemoryError) -> None:
        super().__init__(SPEC)
        self.fits, self.error = fits, error
        self.sizes: list[int] = []
        self.scale = nn.Parameter(torch.ones(()))

    def sample(self, noise: Noise, controls: Gain, prompts: Prompts | None = None) -> Tensor:
        self.sizes.append(len(noise))
        if len(noise) > self.fits:
            raise self.error("DefaultCPUAllocator: can't allocate memory")
        return self.scale * controls.gain * noise.normal(1, 2, 2)


def drawn(model: Model, indices: range, batch_size: int | None, **controls: float) -> Tensor:
    batches = generate(
        model, ImageCodec(), indices, seed=5, device="cpu", batch_size=batch_size, controls=model.controls(**controls)
    )
    return torch.cat(list(batches))


def test_samples_of_a_real_model_do_not_depend_on_their_batch(tiny_run: Run) -> None:
    restored = restore_model(tiny_run, device="cpu")
    with torch.inference_mode():
        whole = sampled(restored.model, Noise(5, range(24), "cpu"))
        assert whole.std() > 0.01
        for size in (1, 7, 16):
            parts = [sampled(restored.model, Noise(5, range(24)[at : at + size], "cpu")) for at in range(0, 24, size)]
            assert (torch.cat(parts) - whole).abs().max() <= 1e-5
    raw = drawn(restored.model, range(24), 24)
    assert raw.dtype == torch.uint8
    assert raw.shape == (24, 1, 8, 8)
    for size in (1, 7, None):
        assert (drawn(restored.model, range(24), size).int() - raw.int()).abs().max() <= 1
    assert (drawn(restored.model, range(20, 24), 2).int() - raw[20:].int()).abs().max() <= 1


def test_batches_are_of_the_size_asked_for() -> None:
    model = Tiny()
    assert len(drawn(model, range(10), 4)) == 10
    assert model.sizes == [4, 4, 2]


def test_controls_reach_the_model() -> None:
    assert drawn(Tiny(), range(4), None, gain=0.0).eq(128).all()


@pytest.mark.parametrize("error", [MemoryError, RuntimeError, torch.OutOfMemoryError])
def test_a_batch_that_does_not_fit_is_halved(error: type[Exception]) -> None:
    model = Tiny(fits=3, error=error)
    assert torch.equal(drawn(model, range(10), None), drawn(Tiny(), range(10), None))
    assert model.sizes[-1] <= 3
    with pytest.raises(ResourceError, match="batch of 8 samples") as caught:
        drawn(model, range(10), 8)
    assert "batch_size=" in caught.value.hint
    with pytest.raises(ResourceError, match="batch of 1 samples") as caught:
        drawn(Tiny(fits=0, error=error), range(10), None)
    assert "device=" in caught.value.hint


def test_other_errors_of_a_model_are_not_taken_for_memory() -> None:
    class Broken(Tiny):
        def sample(self, noise: Noise, controls: Gain, prompts: Prompts | None = None) -> Tensor:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        drawn(Broken(), range(2), None)


def test_values_that_are_not_finite() -> None:
    model = Tiny()
    nn.init.constant_(model.scale, float("nan"))
    with pytest.raises(NonFiniteError, match=r"samples 0 to 3 \(seed 5\)") as caught:
        drawn(model, range(10), 4)
    assert caught.value.exit_code == 4


def test_a_model_that_cannot_be_sampled() -> None:
    class Scorer(Model):
        layouts = frozenset({"map"})

    with pytest.raises(ConfigError, match="Scorer"):
        drawn(Scorer(SPEC), range(2), None)


def test_auto_batch_size_suits_items_and_device() -> None:
    assert auto_batch_size(128 * 64, "cpu") == 1024
    assert auto_batch_size(128 * 3 * 32 * 32, "cpu") == 128
    assert auto_batch_size(128 * 3 * 32 * 32, "cuda") == 1024
    assert auto_batch_size(128 * 3 * 4096 * 4096, "cpu") == 1
    assert Tiny().held() == 128 * 4
