import numpy as np
import pytest
import torch
from PIL import Image

from aigc_cli.modalities.image_writers import GridLayout, columns_of, fitting_columns, grid, layout_of, shown_of
from aigc_cli.modalities.samples import Arrangement


def test_tiny_images_are_enlarged_without_smoothing() -> None:
    raw = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    sheet = np.asarray(grid(raw).convert("L"))
    assert sheet.shape == (2 * 66 + 2, 2 * 66 + 2)
    tile = sheet[2 + 66 : 2 + 66 + 64, 2 : 2 + 64]  # second row, first column
    assert np.array_equal(tile[::8, ::8], raw[2, 0].numpy())
    assert np.array_equal(tile, np.kron(raw[2, 0].numpy(), np.ones((8, 8), np.uint8)))


def test_colour_stays_colour() -> None:
    raw = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    raw[:, 0] = 200
    assert grid(raw).getpixel((10, 10)) == (200, 0, 0)


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (6, 3), (7, 7 // 2 + 4), (10, 5), (64, 8)])
def test_columns(n: int, columns: int) -> None:
    found = columns_of(n)
    assert found <= max(columns, 2 * n**0.5 + 2)
    if n in (1, 4, 6, 10, 64):
        assert found == columns


def test_at_most_sixty_four_and_fewer_where_images_are_large() -> None:
    assert grid(torch.zeros(100, 1, 32, 32, dtype=torch.uint8)).size == (8 * 66 + 2, 8 * 66 + 2)
    width, height = grid(torch.zeros(64, 1, 512, 512, dtype=torch.uint8)).size
    assert max(width, height) <= 2048
    assert grid(torch.zeros(2, 1, 4096, 8, dtype=torch.uint8)).size == (12, 4100)


def test_alpha_and_stacks_can_be_looked_at() -> None:
    transparent = torch.zeros(1, 4, 64, 64, dtype=torch.uint8)
    assert grid(transparent).getpixel((10, 10)) == (255, 255, 255)
    assert grid(torch.full((1, 7, 64, 64), 9, dtype=torch.uint8)).getpixel((10, 10)) == (9, 9, 9)


def ink(sheet: Image.Image, box: tuple[int, int, int, int]) -> int:
    """Dark pixels in a part of a grid of white images."""
    return int((np.asarray(sheet.crop(box).convert("L")) < 128).sum())


def test_columns_rows_and_the_whole_have_titles_of_their_own() -> None:
    white = torch.full((6, 1, 64, 64), 255, dtype=torch.uint8)
    sheet = grid(
        white, GridLayout(columns=3, title="all", column_titles=("cat", "dog", ""), row_titles=("upper", "lower"))
    )
    left, top = sheet.width - (3 * 66 + 2), 44
    assert 20 < left < 60
    assert sheet.height == top + 2 * 66 + 2
    assert ink(sheet, (0, 0, sheet.width, 22))
    columns = [ink(sheet, (left + 2 + 66 * i, 22, left + 66 * (i + 1), 44)) for i in range(3)]
    assert columns[0] > 10
    assert columns[1] > 10
    assert columns[2] == 0
    for row in range(2):
        assert ink(sheet, (0, top + 2 + 66 * row, left, top + 66 * (row + 1))) > 10
    assert ink(sheet, (left, top, sheet.width, sheet.height)) == 0  # nothing is written over the images
    untitled = grid(white, GridLayout(columns=3))
    assert untitled.size == (3 * 66 + 2, 2 * 66 + 2)


def test_a_long_title_keeps_to_its_column() -> None:
    white = torch.full((2, 1, 64, 64), 255, dtype=torch.uint8)
    sheet = grid(white, GridLayout(columns=2, column_titles=("wwwwwwwwwwwwwwwwwwwwwwww", "")))
    assert ink(sheet, (2, 0, 66, 22)) > 50
    assert ink(sheet, (67, 0, sheet.width, 22)) == 0


def test_stacked_images_stand_above_one_another() -> None:
    raw = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 1, 64, 64) * 10
    sheet = grid(raw, GridLayout(columns=2, stack=2))
    shown = [[sheet.getpixel((2 + 66 * column, 2 + 66 * row))[0] // 10 for column in range(2)] for row in range(4)]
    assert shown == [[0, 2], [1, 3], [4, 6], [5, 7]]


def test_given_columns_are_not_cut() -> None:
    assert shown_of(100, (1, 8, 8), GridLayout(columns=10)) == 70  # the last row is full
    assert shown_of(100, (1, 8, 8), GridLayout(columns=10, limit=1000)) == 100
    assert shown_of(5, (1, 8, 8), GridLayout(columns=10)) == 5
    assert shown_of(64, (3, 2048, 2048), GridLayout(columns=8)) == 8
    assert grid(torch.zeros(8, 1, 512, 512, dtype=torch.uint8), GridLayout(columns=8)).width == 8 * 514 + 2
    assert fitting_columns((1, 8, 8)) == 31
    assert fitting_columns((3, 4096, 4096)) == 1


CLASSES = tuple("abc")


@pytest.mark.parametrize(
    ("arrangement", "columns", "titles"),
    [
        (Arrangement(n=9), None, ()),
        (Arrangement(n=8, turns=CLASSES), 3, CLASSES),
        (Arrangement(n=64, turns=CLASSES), 9, CLASSES * 3),
        (Arrangement(n=2, turns=CLASSES), 2, CLASSES[:2]),
        (Arrangement(n=64, turns=tuple(map(str, range(100)))), None, ()),  # too many to stand side by side
        (Arrangement(n=10, group=5, row=True, column_titles=tuple("01234")), 5, tuple("01234")),
        (Arrangement(n=6, group=2), 3, ()),
        (Arrangement(n=60, group=2), 8, ()),
    ],
)
def test_what_belongs_together_stands_together(
    arrangement: Arrangement, columns: int | None, titles: tuple[str, ...]
) -> None:
    layout = layout_of(arrangement, (1, 8, 8))
    assert (layout.columns, layout.column_titles) == (columns, titles)
    assert layout.stack == (1 if arrangement.row else arrangement.group)


def test_one_class_is_the_title() -> None:
    layout = layout_of(Arrangement(n=4, turns=("dog",)), (1, 8, 8))
    assert (layout.title, layout.columns) == ("dog", None)


def test_large_images_that_belong_together_stand_side_by_side() -> None:
    assert layout_of(Arrangement(n=8, group=4, row=True), (3, 2048, 2048)).columns == 4
    assert layout_of(Arrangement(n=8, group=2), (3, 2048, 2048)).columns == 1
