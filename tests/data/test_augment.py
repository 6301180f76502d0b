import numpy as np
import pytest
import torch

from aigc_cli.data.augment import BRIGHTNESS, SHIFT, augmented
from aigc_cli.data.images import ImageDataset
from aigc_cli.data.loader import Loader

NAMES = ("crop", "shift", "rotation", "colour", "flip")


def noise(n: int = 64, channels: int = 3, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, channels, height, width), dtype=np.uint8))


def draws(n: int = 64, value: float | None = None) -> torch.Tensor:
    if value is not None:
        return torch.full((n, 8), value)
    return torch.from_numpy(np.random.default_rng(1).random((n, 8), dtype=np.float32))


def test_none_is_what_there_was() -> None:
    images = noise()
    assert augmented(images, draws(), ()) is images


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 9, 14)])
def test_each_changes_images_and_keeps_their_form(name: str, shape: tuple[int, int, int]) -> None:
    images = noise(32, *shape)
    changed = augmented(images, draws(32), (name,))
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, images)


@pytest.mark.parametrize("name", NAMES)
def test_a_view_depends_on_an_images_own_draws_alone(name: str) -> None:
    images, uniform = noise(), draws()
    whole, part = augmented(images, uniform, (name,)), augmented(images[10:20], uniform[10:20], (name,))
    assert (whole[10:20].int() - part.int()).abs().max() <= 1  # a sum may be rounded otherwise in another batch


def test_a_flip_alone_is_exact_and_of_half_of_them() -> None:
    images, uniform = noise(1000), draws(1000)
    mirrored = uniform[:, 0] < 0.5
    changed = augmented(images, uniform, ("flip",))
    assert torch.equal(changed[mirrored], images[mirrored].flip(-1))
    assert torch.equal(changed[~mirrored], images[~mirrored])
    assert 400 < int(mirrored.sum()) < 600


@pytest.mark.parametrize("names", [("flip", "shift"), ("crop", "shift", "rotation")])
def test_draws_in_the_middle_change_next_to_nothing(names: tuple[str, ...]) -> None:
    ramp = torch.arange(16, dtype=torch.uint8).mul(15).view(1, 1, 1, 16).expand(1, 1, 16, 16).contiguous()
    uniform = draws(1, 0.5)
    uniform[:, 1] = 0.9999  # a crop of everything
    uniform[:, 3] = 0.5 + 0.5 / 4096  # the middle of both of two draws
    assert (augmented(ramp, uniform, names).int() - ramp.int()).abs().max() <= 2


def test_a_shift_is_of_whole_pixels_and_bounded() -> None:
    images = torch.zeros(500, 1, 16, 16, dtype=torch.uint8)
    images[:, :, 8, 8] = 255
    changed = augmented(images, draws(500), ("shift",)).flatten(1)
    assert (changed.max(dim=1).values == 255).all()
    places = changed.argmax(dim=1)
    rows, columns = places // 16 - 8, places % 16 - 8
    reach = round(16 * SHIFT)
    for moved in (rows, columns):
        assert sorted(set(moved.tolist())) == list(range(-reach, reach + 1))
        assert abs(float(moved.float().mean())) < 0.3


def test_a_turn_keeps_the_middle_and_a_crop_enlarges() -> None:
    images = torch.zeros(200, 1, 33, 33, dtype=torch.uint8)
    images[:, :, 12:21, 12:21] = 255
    turned = augmented(images, draws(200), ("rotation",)).float().div(255).sum(dim=(1, 2, 3))
    assert (turned - 81).abs().max() < 4
    cropped = augmented(images, draws(200), ("crop",)).float().div(255).sum(dim=(1, 2, 3))
    assert cropped.min() > 77
    assert cropped.mean() > 88


def test_colour_keeps_the_mean_on_average_and_is_bounded() -> None:
    images = noise(2000, 3, 4, 4)
    images = images // 4 + 96  # away from 0 and 255, where values are clamped
    change = augmented(images, draws(2000), ("colour",)).float().mean(dim=(1, 2, 3)) - images.float().mean(
        dim=(1, 2, 3)
    )
    assert abs(float(change.mean())) < 2
    assert float(change.abs().max()) < 255 * BRIGHTNESS + 2
    assert float(change.std()) > 10


def test_batches_are_a_function_of_seed_and_number_and_each_epoch_has_its_own() -> None:
    data = ImageDataset(noise(16), None, views=NAMES)
    one, other = (Loader(data, batch_size=16, seed=3, device="cpu") for _ in range(2))
    for k in (5, 0, 3):  # in any order, as a run that is resumed asks for them
        assert torch.equal(one.batch(k).content, other.batch(k).content)
    views = [one.batch(k).content.sort(dim=0).values for k in range(2)]
    assert not torch.equal(*views)
