"""Augmentation of what a discriminator sees, so that a small data set is hard to learn by heart.

Real and generated images are changed alike, with gradients through the changes to the generator, so that these do not
leak into samples. Either all are changed (Zhao et al., Differentiable Augmentation for Data-Efficient GAN Training,
2020), or each with a probability, the strength, that follows how sure the discriminator is of the images it trains on
(Karras et al., Training Generative Adversarial Networks with Limited Data, 2020); below about 0.8 nothing leaks. Of the
latter's changes these are the pixel, geometric and colour ones, without sub-pixel translation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aigc_cli.nn.collective import draw, integers, summed

#: As the paper applies them (its appendix B): a stretch between two rotations may be along any axis.
GEOMETRY = ("flip", "quarter_turns", "translation", "scale", "rotation", "stretch", "rotation")
COLOR = ("brightness", "contrast", "luma_flip", "hue", "saturation")
ADJUST_EVERY = 4  # training steps between adjustments of the strength


def translation(x: Tensor, fraction: float = 0.125) -> Tensor:
    """Moves each image by up to `fraction` of its side, in whole pixels, independently down and across. What comes in
    from outside is the image's own edge, unlike the paper's zeros: 0 is grey in [-1, 1]."""
    rows, columns = (_shifted(len(x), side, fraction, x.device) for side in x.shape[2:])
    return _pixels(x, rows[:, :, None], columns[:, None, :])


def _shifted(n: int, side: int, fraction: float, device: torch.device) -> Tensor:
    reach = max(1, round(side * fraction))
    shift = draw(integers(2 * reach + 1), n, 1, device=device) - reach
    return (torch.arange(side, device=device) + shift).clamp(0, side - 1)


def _pixels(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels of x (n, c, h, w) at whole places, rows and columns (n, h, w) together, to its shape."""
    # Gathered, because the backward pass of grid_sample on a GPU does not repeat bit for bit.
    index = (rows * x.shape[3] + columns).view(len(x), 1, -1)
    return x.flatten(2).gather(2, index.expand(-1, x.shape[1], -1)).view_as(x)


def color(x: Tensor) -> Tensor:
    """Changes brightness by up to 0.5, saturation by 0 to 2 and contrast by 0.5 to 1.5, as in the paper."""
    draws = draw(torch.rand, 3, x.shape[0], 1, 1, 1, dim=1, device=x.device, dtype=x.dtype)
    x = x + draws[0] - 0.5
    mean = x.mean(dim=1, keepdim=True)
    x = (x - mean) * (2 * draws[1]) + mean
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (draws[2] + 0.5) + mean


def cutout(x: Tensor, fraction: float = 0.5) -> Tensor:
    """Blanks a square of `fraction` of the side, its centre anywhere in the image."""
    rows, columns = (_outside(len(x), side, fraction, x.device) for side in x.shape[2:])
    return x * (rows[:, None, :, None] | columns[:, None, None, :])


def _outside(n: int, side: int, fraction: float, device: torch.device) -> Tensor:
    hole = max(1, round(side * fraction))
    start = draw(integers(side + 1 - hole % 2), n, 1, device=device) - hole // 2
    position = torch.arange(side, device=device)
    return (position < start) | (position >= start + hole)


def flip(x: Tensor) -> Tensor:
    """Exchanges left and right in half of the images."""
    mirrored = draw(torch.rand, x.shape[0], 1, 1, 1, device=x.device) < 0.5
    return torch.where(mirrored, x.flip(-1), x)


#: name -> an augmentation of (n, c, h, w) in [-1, 1].
AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    function.__name__: function for function in (translation, color, cutout, flip)
}


def adaptive(x: Tensor, strength: Tensor, transforms: Sequence[str]) -> Tensor:
    """Images (n, c, h, w) in [-1, 1], each changed in its own way, float32; differentiable in x.

    `strength`, a scalar, is the probability of each of the `transforms`, of :data:`GEOMETRY` and :data:`COLOR`. Hue
    needs three channels; with one, a luma flip is a negative and saturation has no effect.
    """
    geometry = [name for name in GEOMETRY if name in transforms]
    color = [name for name in COLOR if name in transforms]
    with torch.autocast(x.device.type, enabled=False):
        x = x.float()
        if geometry:
            x = _resample(x, _geometry(x, strength, geometry))
        return _recolor(x, strength, color) if color else x


def adapt(strength: Tensor, signs: Tensor, margins: Tensor, *, target: float, length: int, due: bool) -> None:
    """Moves the strength up where the discriminator is surer than it should be, else down (the paper's section 3.1).

    Args:
        strength: A scalar in [0, 1], changed in place.
        signs: The sum of the signs since the last adjustment, and their number, (2,), changed in place.
        margins: How far the scores of this batch's reals are on the right side of the boundary, (n,).
        target: The mean sign to hold, the paper's r_t.
        length: Images in which the strength may go from 0 to 1.
        due: Whether to adjust now; otherwise this batch's signs are kept for later.
    """
    signs += summed(torch.stack([margins.detach().sign().sum(), torch.ones_like(margins).sum()]))
    if due:
        surer = (signs[0] / signs[1] - target).sign()
        strength.add_(surer * signs[1] / length).clamp_(0.0, 1.0)
        signs.zero_()


def _happens(n: int, strength: Tensor) -> Tensor:
    return draw(torch.rand, n, 1, 1, device=strength.device) < strength


# geometry: matrices (n, 3, 3) from a place in the changed image to its place in the original, in pixels from the centre


def _geometry(x: Tensor, strength: Tensor, names: Sequence[str]) -> Tensor:
    n, once_of_two = len(x), 1 - (1 - strength).sqrt()  # two rotations together happen as often as one change
    matrix = same = torch.eye(3, device=x.device).expand(n, 3, 3)
    for name in names:
        happens = _happens(n, once_of_two if name == "rotation" else strength)
        matrix = matrix @ torch.where(happens, _place(name, n, x.shape[2:], x.device), same)
    return matrix


def _affine(*entries: Tensor) -> Tensor:
    """The matrices (n, 3, 3) whose first two rows are `entries`, (n,) each."""
    rows = torch.stack(entries, dim=1).view(-1, 2, 3)
    last = torch.tensor([0.0, 0.0, 1.0], device=rows.device).expand(len(rows), 1, 3)
    return torch.cat([rows, last], dim=1)


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    zero = torch.zeros_like(x)
    return _affine(x, zero, zero, zero, y, zero)


def _turning(angle: Tensor) -> Tensor:
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _affine(cos, -sin, zero, sin, cos, zero)


def _place(name: str, n: int, size: Sequence[int], device: torch.device) -> Tensor:
    """The matrices (n, 3, 3) of one of :data:`GEOMETRY`."""
    match name:
        case "flip":
            sides = 1.0 - 2.0 * draw(integers(2), n, device=device)
            return _scaling(sides, torch.ones_like(sides))
        case "quarter_turns":
            return _turning(draw(integers(4), n, device=device) * (math.pi / 2)).round()
        case "translation":
            x, y = ((draw(torch.rand, 2, n, dim=1, device=device) * 2 - 1) * 0.125).unbind()
            one, zero = torch.ones_like(x), torch.zeros_like(x)
            return _affine(one, zero, (x * size[1]).round(), zero, one, (y * size[0]).round())
        case "scale":
            scale = torch.exp2(0.2 * draw(torch.randn, n, device=device))
            return _scaling(scale, scale)
        case "rotation":
            return _turning((draw(torch.rand, n, device=device) * 2 - 1) * math.pi)
    assert name == "stretch"
    stretch = torch.exp2(0.2 * draw(torch.randn, n, device=device))
    return _scaling(stretch, 1 / stretch)


def _resample(x: Tensor, matrix: Tensor) -> Tensor:
    """Bilinear samples of x (n, c, h, w) at the places that `matrix` gives; beyond its edges it is mirrored."""
    height, width = x.shape[2:]
    columns = torch.arange(width, device=x.device) - (width - 1) / 2
    rows = torch.arange(height, device=x.device) - (height - 1) / 2
    entries = matrix[:, :2, :, None, None]
    places = entries[:, :, 0] * columns + entries[:, :, 1] * rows[:, None] + entries[:, :, 2]
    left, right, across = _neighbours(places[:, 0], width)
    top, bottom, down = _neighbours(places[:, 1], height)
    upper = torch.lerp(_pixels(x, top, left), _pixels(x, top, right), across)
    lower = torch.lerp(_pixels(x, bottom, left), _pixels(x, bottom, right), across)
    return torch.lerp(upper, lower, down)


def _neighbours(place: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels before and after a place (n, h, w) from the centre, and its share of the way between, (n, 1, h, w)."""
    far = max(1, side - 1)
    place = far - ((place + (side - 1) / 2) % (2 * far) - far).abs()
    before = place.floor()
    share = (place - before)[:, None]
    first = before.long().clamp(0, side - 1)
    return first, (first + 1).clamp_max(side - 1), share


# colour: matrices (n, c, c) and offsets (n, c, 1) on the channels of every pixel


def _recolor(x: Tensor, strength: Tensor, names: Sequence[str]) -> Tensor:
    n, channels = x.shape[:2]
    same = torch.eye(channels, device=x.device)
    matrix, offset = same.expand(n, channels, channels), torch.zeros(n, channels, 1, device=x.device)
    for name in names:
        if name == "hue" and channels != 3:
            continue
        happens = _happens(n, strength)
        if name == "brightness":
            offset = offset + torch.where(happens, 0.2 * draw(torch.randn, n, 1, 1, device=x.device), 0.0)
            continue
        change = torch.where(happens, _mix(name, n, same), same)
        matrix, offset = change @ matrix, change @ offset
    return torch.baddbmm(offset, matrix, x.flatten(2)).view_as(x)


def _mix(name: str, n: int, same: Tensor) -> Tensor:
    """The matrices (n, c, c) of one of :data:`COLOR`, of which brightness alone has none."""
    luma = torch.full_like(same, 1 / len(same))  # the projection on grey
    match name:
        case "contrast":
            return same * torch.exp2(0.5 * draw(torch.randn, n, 1, 1, device=same.device))
        case "luma_flip":
            return same - 2 * luma * draw(integers(2), n, 1, 1, device=same.device)
        case "hue":  # a rotation about the axis of greys (Rodrigues' formula)
            angle = (draw(torch.rand, n, 1, 1, device=same.device) * 2 - 1) * math.pi
            third = 1 / math.sqrt(3)
            cross = third * torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=same.device)
            return same * angle.cos() + cross * angle.sin() + luma * (1 - angle.cos())
    assert name == "saturation"
    return luma + (same - luma) * torch.exp2(draw(torch.randn, n, 1, 1, device=same.device))
