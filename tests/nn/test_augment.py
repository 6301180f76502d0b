"""Augmentation: what each change does, its gradients, and that the adaptive one follows the discriminator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aigc_cli.nn.augment import AUGMENTATIONS, COLOR, GEOMETRY, adapt, adaptive, cutout, translation

ALL = (*dict.fromkeys(GEOMETRY), *COLOR)
ALWAYS, NEVER = torch.ones(()), torch.zeros(())


def images(n: int = 6, shape: tuple[int, ...] = (3, 8, 8)) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def changed(x: Tensor, *names: str, strength: Tensor = ALWAYS, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return adaptive(x, strength, names)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 12), (2, 8, 8)])
def test_each_keeps_the_shape_and_passes_gradients(name: str, shape: tuple[int, ...]) -> None:
    x = images(12, shape).requires_grad_()
    out = changed(x, name)
    assert out.shape == x.shape
    idle = (name == "hue" and shape[0] != 3) or (name == "saturation" and shape[0] == 1)
    assert torch.allclose(out, x, atol=1e-6) == idle
    out.square().sum().backward()
    assert x.grad is not None
    assert x.grad.flatten(1).abs().sum(1).min() > 0


@pytest.mark.parametrize("shape", [(1, 5, 5), (3, 4, 6)])
def test_gradients_of_all_together_are_those_of_finite_differences(shape: tuple[int, ...]) -> None:
    x, direction = images(2, shape), torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))
    weight = torch.randn(2, *shape, generator=torch.Generator().manual_seed(3))
    leaf = x.clone().requires_grad_()
    (changed(leaf, *ALL) * weight).sum().backward()
    assert leaf.grad is not None
    ahead, behind = ((changed(x + sign * 0.5 * direction, *ALL) * weight).sum() for sign in (1, -1))
    torch.testing.assert_close((leaf.grad * direction).sum(), ahead - behind, rtol=1e-4, atol=1e-4)  # it is linear


def test_no_strength_changes_nothing() -> None:
    assert torch.equal(changed(images(), *ALL, strength=NEVER), images())


def test_the_seed_decides_what_adapts() -> None:
    first, again, other = (changed(images(), *ALL, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_strength_is_the_share_of_images_that_change() -> None:
    x = images(4000, (1, 2, 2))
    for strength in (0.2, 0.7):
        moved = changed(x, "contrast", strength=torch.tensor(strength))
        share = (moved != x).flatten(1).any(1).float().mean().item()
        assert share == pytest.approx(strength, abs=0.03)
        turned = changed(images(4000, (1, 4, 4)), "rotation", strength=torch.tensor(strength))
        share = (turned != images(4000, (1, 4, 4))).flatten(1).any(1).float().mean().item()
        assert share == pytest.approx(strength, abs=0.03)  # though rotation has two places


def test_geometry_moves_pixels_as_it_says() -> None:
    x = images(40, (1, 8, 8))
    flips = changed(x, "flip")
    assert {tuple(torch.isclose(image, other).all().item() for other in (x[i], x[i].flip(-1)))
            for i, image in enumerate(flips)} == {(True, False), (False, True)}  # fmt: skip
    turns = changed(x, "quarter_turns")
    for image, turned in zip(x, turns, strict=True):
        assert any(torch.allclose(turned, image.rot90(k, (1, 2)), atol=1e-5) for k in range(4))
    moved = changed(x, "translation")
    for image, other in zip(x, moved, strict=True):
        centre = other[0, 2:6, 2:6]
        shifts = [image[0, 2 + i : 6 + i, 2 + j : 6 + j] for i in (-1, 0, 1) for j in (-1, 0, 1)]
        assert any(torch.allclose(centre, shift, atol=1e-5) for shift in shifts)


def test_beyond_the_edge_the_image_is_mirrored() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    seen = {tuple(changed(ramp, "translation", seed=seed)[0, 0, 0].round().int().tolist()) for seed in range(30)}
    assert seen == {(0, 1, 2, 3, 4, 5, 6, 7), (1, 0, 1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 6, 7, 6)}


def test_scale_and_stretch_keep_the_centre() -> None:
    x = torch.zeros(20, 1, 9, 9)
    x[:, :, 4, 4] = 1.0
    for name in ("scale", "stretch", "rotation"):
        torch.testing.assert_close(changed(x, name)[:, 0, 4, 4], torch.ones(20), atol=1e-5, rtol=0)


def test_colour_changes_as_it_says() -> None:
    x = images(20)
    luma = x.mean(dim=1)
    for name in ("hue", "saturation"):
        torch.testing.assert_close(changed(x, name).mean(dim=1), luma, atol=1e-5, rtol=0)
    deviation = x - luma[:, None]
    turned = changed(x, "hue") - luma[:, None]
    torch.testing.assert_close(turned.square().sum(1), deviation.square().sum(1), atol=1e-5, rtol=1e-4)
    shift = changed(x, "brightness") - x
    torch.testing.assert_close(shift, shift.mean(dim=(1, 2, 3), keepdim=True).expand_as(x), atol=1e-5, rtol=0)
    flipped = changed(x, "luma_flip").mean(dim=1)
    for before, after in zip(luma, flipped, strict=True):
        assert torch.allclose(after, before, atol=1e-5) or torch.allclose(after, -before, atol=1e-5)


def test_grey_images_are_made_negative() -> None:
    x = images(20, (1, 4, 4))
    flipped = changed(x, "luma_flip")
    same = [torch.allclose(a, b, atol=1e-6) for a, b in zip(x, flipped, strict=True)]
    negative = [torch.allclose(a, -b, atol=1e-6) for a, b in zip(x, flipped, strict=True)]
    assert all(a != b for a, b in zip(same, negative, strict=True))
    assert any(negative)
    assert any(same)


def test_strength_rises_where_the_discriminator_is_sure_and_falls_where_not() -> None:
    strength, signs = torch.tensor(0.5), torch.zeros(2)
    sure, torn = torch.full((10,), 2.0), torch.tensor([1.0, -1.0] * 5)
    adapt(strength, signs, sure, target=0.6, length=100, due=False)
    assert (strength.item(), signs.tolist()) == (0.5, [10.0, 10.0])
    adapt(strength, signs, sure, target=0.6, length=100, due=True)
    assert strength.item() == pytest.approx(0.7)  # twenty images of a hundred
    assert signs.tolist() == [0.0, 0.0]
    adapt(strength, signs, torn, target=0.6, length=100, due=True)
    assert strength.item() == pytest.approx(0.6)
    for _ in range(20):
        adapt(strength, signs, torn, target=0.6, length=100, due=True)
    assert strength.item() == 0.0
    for _ in range(20):
        adapt(strength, signs, sure, target=0.6, length=100, due=True)
    assert strength.item() == 1.0


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 12)])
def test_keeps_the_shape_and_passes_gradients(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = (torch.rand(6, *shape) * 2 - 1).requires_grad_()
    out = AUGMENTATIONS[name](x)
    assert out.shape == x.shape
    assert not torch.equal(out, x)
    out.square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_the_seed_decides(name: str) -> None:
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(AUGMENTATIONS[name](x))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_translation_moves_whole_pixels_and_repeats_the_edge() -> None:
    torch.manual_seed(0)
    side = 16
    rows = torch.arange(side, dtype=torch.float32)[:, None].expand(side, side)
    x = torch.stack([rows, rows.T]).expand(50, 2, side, side)  # every pixel holds its own row and column
    moved = translation(x)
    shift = moved[:, :, 8, 8] - 8
    assert shift.abs().max() == 2
    assert len(shift.unique(dim=0)) > 10
    expected = (rows + shift[:, :1, None]).clamp(0, side - 1)
    assert torch.equal(moved[:, 0], expected)


def test_cutout_blanks_at_most_its_square() -> None:
    torch.manual_seed(0)
    blank = cutout(torch.ones(200, 1, 16, 16)) == 0
    counts = blank.flatten(1).sum(1)
    assert counts.max() == 64  # half the side, squared
    assert counts.min() >= 16  # a centre at the corner leaves a quarter
