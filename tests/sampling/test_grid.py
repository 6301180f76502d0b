import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aigc_cli.sampling.grid import columns_of, grid
from aigc_cli.sampling.preview import write_preview


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


def test_preview_with_a_title(tmp_path: Path) -> None:
    path = tmp_path / "samples" / "step-100.png"
    raw = torch.full((16, 1, 8, 8), 128, dtype=torch.uint8)
    write_preview(path, raw, "gan on digits, step 100 ☃")
    titled = Image.open(path)
    assert titled.text["Source"] == "AI-generated"
    plain = grid(raw)
    assert titled.height > plain.height
    assert np.asarray(titled)[: titled.height - plain.height].min() < 100  # there is ink in the title
    assert [entry.name for entry in path.parent.iterdir()] == ["step-100.png"]


def test_a_failed_preview_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "step-1.png"
    path.write_bytes(b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        write_preview(path, torch.zeros(1, 1, 8, 8, dtype=torch.uint8), None)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-1.png"]
