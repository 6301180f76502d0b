import pytest
import torch

from aigc_cli.nn.augment import AUGMENTATIONS, augment, cutout, translation


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 12)])
def test_keeps_the_shape_and_passes_gradients(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = (torch.rand(6, *shape) * 2 - 1).requires_grad_()
    out = augment(x, [name])
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
        drawn.append(augment(x, [name]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_none_changes_nothing() -> None:
    x = torch.rand(2, 3, 8, 8)
    assert augment(x, ()) is x


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
