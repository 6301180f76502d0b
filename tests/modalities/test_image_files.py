"""Folders and files of images, and what is refused of them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from aigc_cli.errors import DataError
from aigc_cli.modalities.base import Items
from aigc_cli.modalities.image_files import open_images


def all_of(images: Items, batch_size: int = 3) -> torch.Tensor:
    batches = [batch.content for batch in images.batches(batch_size)]
    assert all(len(batch) <= batch_size for batch in batches)
    assert all(batch.dtype == torch.uint8 for batch in batches)
    return torch.cat(batches)


def save_npz(path: Path, array: np.ndarray) -> Path:
    np.savez(path, images=array)
    return path


@pytest.mark.parametrize(
    ("stored", "shape"), [((5, 6, 4), (1, 6, 4)), ((5, 6, 4, 3), (3, 6, 4)), ((5, 3, 6, 4), (3, 6, 4))]
)
def test_npz_layouts(tmp_path: Path, stored: tuple[int, ...], shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, stored, dtype=np.uint8)
    images = open_images(save_npz(tmp_path / "a.npz", array))
    assert images.spec.shape == shape
    assert len(images) == 5
    wanted = array[:, None] if array.ndim == 3 else array if stored[1] == 3 else array.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(all_of(images).numpy(), wanted)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 5, 5, 3), np.float32), "float32"),
        (np.zeros((4, 5), np.uint8), "shape"),
        (np.zeros((0, 5, 5, 3), np.uint8), "shape"),
        (np.array([{}], dtype=object), "cannot be read"),
    ],
)
def test_npz_that_holds_no_images_is_refused(tmp_path: Path, array: np.ndarray, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        open_images(save_npz(tmp_path / "a.npz", array))


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("hello")
    with pytest.raises(DataError, match="cannot be read"):
        open_images(tmp_path / "a.npz")


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (4, 6), value: int = 7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value,) * len(mode)).save(path)


def recorded(folder: Path, **known: object) -> None:
    (folder / "samples.json").write_text(json.dumps({"label": "AI-generated", "overview": ["grid.png"], **known}))


def test_a_folder_is_read_by_name_without_its_grid(tmp_path: Path) -> None:
    for i, name in enumerate(("b.png", "a.png", "sub/c.png", "sub/grid.png")):
        picture(tmp_path / name, value=i)
    picture(tmp_path / "grid.png", size=(40, 60))
    recorded(tmp_path)
    images = open_images(tmp_path)
    assert images.spec.shape == (3, 6, 4)
    assert all_of(images)[:, 0, 0, 0].tolist() == [1, 0, 2, 3]  # a grid that nobody recorded is a picture


def test_originals_beside_reconstructions_are_no_samples(tmp_path: Path) -> None:
    for i, name in enumerate(("0-original.png", "0-reconstruction.png")):
        picture(tmp_path / name, value=i)
    recorded(
        tmp_path, files=["0-original.png", "0-reconstruction.png"], samples={"role": ["original", "reconstruction"]}
    )
    assert all_of(open_images(tmp_path))[:, 0, 0, 0].tolist() == [1]


def test_a_folder_with_one_archive_and_its_grid_is_that_archive(tmp_path: Path) -> None:
    save_npz(tmp_path / "samples.npz", np.zeros((3, 6, 4), np.uint8))
    picture(tmp_path / "grid.png", size=(40, 60))
    recorded(tmp_path, files=["samples.npz"])
    assert len(open_images(tmp_path)) == 3


@pytest.mark.parametrize("known", [{"files": 3}, {"overview": [["x"], 5]}, {"samples": {"role": "original"}}])
def test_a_record_from_a_stranger_is_data(tmp_path: Path, known: dict[str, object]) -> None:
    picture(tmp_path / "a.png")
    recorded(tmp_path, **known)
    assert len(open_images(tmp_path)) == 1


def test_channels_are_those_of_the_reference(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", "L")
    assert open_images(tmp_path).spec.shape == (1, 6, 4)
    assert open_images(tmp_path, 3).spec.shape == (3, 6, 4)


def test_pictures_of_several_sizes_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", size=(5, 6))
    with pytest.raises(DataError, match=r"b\.png is 3x6x5, and a\.png is 3x6x4"):
        all_of(open_images(tmp_path))


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_a_file_that_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        open_images(tmp_path)


def test_other_formats_under_the_name_of_a_picture_are_refused(tmp_path: Path) -> None:
    """Pillow would hand PostScript to another program."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match="not a png, jpeg, webp, bmp, tiff or gif"):
        open_images(tmp_path)


def test_names_may_be_any_bytes(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xfe")
    folder.mkdir()
    picture(folder / "a.png")
    (folder / "a.png").rename(folder / os.fsdecode(b"\xff.png"))
    images = open_images(folder)
    assert len(all_of(images)) == 1
    assert str(images.facts["folder"]).endswith("\\xfe")
    assert (images.key or "").encode()


def test_empty_and_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures"):
        open_images(tmp_path)
    with pytest.raises(DataError, match="nothing at"):
        open_images(tmp_path / "no")


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 128 * 257, dtype=np.uint16)).save(tmp_path / "a.png")
    assert all_of(open_images(tmp_path)).unique().tolist() == [128]


def test_one_picture_with_colour_makes_all_of_a_folder_rgb(tmp_path: Path) -> None:
    """Whichever comes first by name."""
    for name, modes in {"first": "L RGB", "last": "RGB L", "palette": "L P", "alpha": "1 LA", "grey": "L 1"}.items():
        for i, mode in enumerate(modes.split()):
            place = tmp_path / name / f"{i}.png"
            place.parent.mkdir(exist_ok=True)
            Image.new("RGB" if mode == "P" else mode, (4, 6), (9, 8, 7) if mode in ("RGB", "P") else 0).convert(
                mode
            ).save(place)
    found = {path.name: open_images(path) for path in sorted(tmp_path.iterdir())}
    channels = {name: images.spec.shape[0] for name, images in found.items()}
    assert channels == {"first": 3, "last": 3, "palette": 3, "alpha": 3, "grey": 1}
    first, last = (all_of(found[name])[:, :, 0, 0].tolist() for name in ("first", "last"))
    assert first == [[0, 0, 0], [9, 8, 7]] == last[::-1]


def test_channels_are_decided_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(20):
        picture(tmp_path / f"{i:02}.png", "L")
    decoded = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self.filename) or load(self))
    assert open_images(tmp_path).spec.shape == (1, 6, 4)
    assert set(decoded) == {str(tmp_path / "00.png")}


def test_grey_images_are_repeated_beside_images_with_colour(tmp_path: Path) -> None:
    grey = open_images(
        save_npz(tmp_path / "a.npz", np.arange(3, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2))
    )
    colour = open_images(save_npz(tmp_path / "b.npz", np.zeros((2, 2, 2, 3), np.uint8)))
    assert grey.like(grey.spec) is grey
    assert colour.like(grey.spec) is colour
    repeated = grey.like(colour.spec)
    assert repeated.spec.shape == (3, 2, 2)
    assert repeated.take(2).spec.shape == (3, 2, 2)
    assert all_of(repeated, 2)[:, :, 1, 1].tolist() == [[i] * 3 for i in range(3)]
    assert repeated.key != grey.key


def test_a_part_of_a_folder_is_of_every_class_and_always_the_same(tmp_path: Path) -> None:
    for label in range(4):
        for i in range(25):
            picture(tmp_path / str(label) / f"{i}.png", "L", value=label)
    images = open_images(tmp_path)
    drawn = images.take(40)
    shares = all_of(drawn, 7)[:, 0, 0, 0].bincount()
    assert shares.shape == (4,)
    assert shares.min() >= 5
    assert torch.equal(all_of(drawn), all_of(open_images(tmp_path).take(40)))
    assert len({images.key, drawn.key, images.take(41).key}) == 3
    with pytest.raises(DataError, match="n=101"):
        images.take(101)


def test_a_folder_is_walked_as_for_training(tmp_path: Path) -> None:
    for folder in ("real/a", "real/.ipynb_checkpoints", "b"):
        (tmp_path / folder).mkdir(parents=True)
        picture(tmp_path / folder / "0.png")
    (tmp_path / "real/a/._0.png").write_bytes(b"junk")
    (tmp_path / "real/a/note.pdf").write_bytes(b"")
    os.symlink("../b", tmp_path / "real/b")
    os.symlink("..", tmp_path / "real/up")
    images = open_images(tmp_path / "real")
    assert [path.relative_to(tmp_path / "real").as_posix() for path in images.held] == ["a/0.png", "b/0.png"]
    assert images.notes == ("passed over: 1 x .pdf",)


def test_pictures_are_turned_as_their_exif_says(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 32).astype(np.uint8)[:, None, None].repeat(32, 1).repeat(3, 2)
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, image, options in (
        ("up", Image.fromarray(ramp), {}),
        ("rot", Image.fromarray(ramp).rotate(90), {"exif": turned}),
    ):
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "0.jpg", quality=98, **options)
    up, rot = open_images(tmp_path / "up"), open_images(tmp_path / "rot")
    assert (all_of(up).float() - all_of(rot).float()).abs().max() < 8
    assert up.notes == ()
    assert rot.notes[0].startswith("1 pictures are turned as their EXIF says")
