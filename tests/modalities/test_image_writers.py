import errno
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aigc_cli.errors import ConfigError
from aigc_cli.modalities.image import ImageCodec
from aigc_cli.modalities.image_writers import (
    GridLayout,
    NPZWriter,
    PNGWriter,
    columns_of,
    fitting_columns,
    grid,
    layout_of,
    shown_of,
)
from aigc_cli.modalities.samples import LABEL, Arrangement, Provenance

MakeProvenance = Callable[..., Provenance]


def images(n: int, channels: int = 3, size: int = 8) -> torch.Tensor:
    return torch.randint(0, 256, (n, channels, size, size), generator=torch.Generator().manual_seed(n)).byte()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_each_png_holds_its_own_pixels(tmp_path: Path, channels: int, provenance: MakeProvenance) -> None:
    raw = images(5, channels)
    writer = PNGWriter(tmp_path, Arrangement(n=5), provenance(), ImageCodec())
    writer.write(raw[:2])
    writer.write(raw[2:])
    files, overview = writer.finish()
    assert files == [f"{i:06d}.png" for i in range(5)]
    assert overview == ["grid.png"]
    for i, name in enumerate(files):
        pixels = np.asarray(Image.open(tmp_path / name)).reshape(8, 8, channels)
        assert np.array_equal(pixels, raw[i].permute(1, 2, 0).numpy())


def test_names_have_as_many_digits_as_the_last_needs(tmp_path: Path, provenance: MakeProvenance) -> None:
    writer = PNGWriter(tmp_path, Arrangement(n=1_000_001), provenance(), ImageCodec())
    assert writer._name(0) == "0000000.png"
    assert writer._name(1_000_000) == "1000000.png"


def test_each_png_says_where_it_comes_from(tmp_path: Path, provenance: MakeProvenance) -> None:
    writer = PNGWriter(tmp_path, Arrangement(n=2), provenance(), ImageCodec())
    writer.write(images(2))
    writer.finish()
    for name in ("000001.png", "grid.png"):
        text = Image.open(tmp_path / name).text
        assert text["Description"].startswith(LABEL)
        about = json.loads(text["aigc"])
        assert about["label"] == "AI-generated"
        assert (about["run"], about["step"], about["seed"]) == ("gan-digits/a", 7, 3)
        assert about["model_checksum"] == "ab" * 32
        assert about["controls"] == {"truncation": 0.5}
        assert text["XML:com.adobe.xmp"].count("trainedAlgorithmicMedia") == 1
    assert json.loads(Image.open(tmp_path / "000001.png").text["aigc"])["index"] == 1
    assert json.loads(Image.open(tmp_path / "grid.png").text["aigc"])["indices"] == [0, 1]


CLASSES = ("cat", "sea horse/..", "dog")


@pytest.fixture
def labelled() -> Arrangement:
    """Five samples of two classes of three."""
    labels = [0, 1, 0, 1, 0]
    names = [CLASSES[label] for label in labels]
    return Arrangement(n=5, facts={"class": names}, named=("class",), labels=labels, classes=CLASSES)


def test_files_and_metadata_tell_the_class(tmp_path: Path, labelled: Arrangement, provenance: MakeProvenance) -> None:
    writer = PNGWriter(tmp_path, labelled, provenance(), ImageCodec())
    writer.write(images(5))
    files, _ = writer.finish()
    assert files[:3] == ["000000-cat.png", "000001-sea_horse_...png", "000002-cat.png"]
    assert {path.name for path in tmp_path.iterdir()} == {*files, "grid.png"}
    about = json.loads(Image.open(tmp_path / files[1]).text["aigc"])
    assert (about["index"], about["class"]) == (1, "sea horse/..")
    record = provenance().record(labelled, files, ["grid.png"])
    assert record["samples"] == {"class": ["cat", "sea horse/..", "cat", "sea horse/..", "cat"]}
    assert "samples" not in provenance().record(Arrangement(n=1), ["a"], [])


def test_npz_has_the_labels(tmp_path: Path, labelled: Arrangement, provenance: MakeProvenance) -> None:
    with NPZWriter(tmp_path, labelled, provenance(format="npz"), ImageCodec()) as writer:
        writer.write(images(5))
        writer.finish()
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as archive:
        assert archive["images"].shape == (5, 8, 8, 3)
        assert archive["labels"].dtype == np.int64
        assert archive["labels"].tolist() == [0, 1, 0, 1, 0]
        assert archive["classes"].tolist() == list(CLASSES)


def test_what_no_model_made_is_not_said_to_be(tmp_path: Path, provenance: MakeProvenance) -> None:
    roles = ["original", "reconstruction"]
    pair = Arrangement(n=2, facts={"role": roles}, named=("role",), group=2)
    with PNGWriter(tmp_path, pair, provenance(source={"split": "test"}), ImageCodec()) as writer:
        writer.write(images(2))
        files, _ = writer.finish()
    assert files == ["000000-original.png", "000000-reconstruction.png"]
    original, made, both = (Image.open(tmp_path / name).text for name in (*files, "grid.png"))
    assert "AI-generated" not in original["Description"]
    assert "label" not in json.loads(original["aigc"])
    assert "XML:com.adobe.xmp" not in original
    assert "/trainedAlgorithmicMedia" in made["XML:com.adobe.xmp"]
    assert json.loads(made["aigc"])["source"] == {"split": "test"}
    assert "/compositeWithTrainedAlgorithmicMedia" in both["XML:com.adobe.xmp"]
    assert provenance().record(pair, files, [])["digital_source_type"].endswith("compositeWithTrainedAlgorithmicMedia")
    assert provenance().record(Arrangement(n=2), files, [])["digital_source_type"].endswith("/trainedAlgorithmicMedia")


def test_the_label_is_plain_text_in_the_file(tmp_path: Path, provenance: MakeProvenance) -> None:
    writer = PNGWriter(tmp_path, Arrangement(n=1), provenance(), ImageCodec())
    writer.write(images(1))
    writer.finish()
    content = (tmp_path / "000000.png").read_bytes()
    assert b"tEXtDescription\0AI-generated" in content
    assert b"iTXtXML:com.adobe.xmp" in content


@pytest.mark.parametrize("channels", [1, 3])
def test_npz_is_one_array(tmp_path: Path, channels: int, provenance: MakeProvenance) -> None:
    raw = images(7, channels)
    with NPZWriter(tmp_path, Arrangement(n=7), provenance(format="npz"), ImageCodec()) as writer:
        for start in range(0, 7, 3):
            writer.write(raw[start : start + 3])
        assert writer.finish() == (["samples.npz"], ["grid.png"])
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as archive:
        assert archive.files == ["images"]
        assert archive["images"].dtype == np.uint8
        assert np.array_equal(archive["images"], raw.permute(0, 2, 3, 1).numpy())
    with zipfile.ZipFile(tmp_path / "samples.npz") as archive:
        assert archive.testzip() is None
        assert LABEL in archive.comment.decode()


def test_the_same_samples_are_the_same_bytes(tmp_path: Path, provenance: MakeProvenance) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for kind in (NPZWriter, PNGWriter):
            with kind(tmp_path / folder, Arrangement(n=3), provenance(), ImageCodec()) as writer:
                writer.write(images(3))
                writer.finish()
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("kind", [PNGWriter, NPZWriter])
def test_memory_does_not_grow_with_n(
    tmp_path: Path, kind: type[PNGWriter] | type[NPZWriter], provenance: MakeProvenance
) -> None:
    peaks = []
    for n in (200, 1000):
        (tmp_path / str(n)).mkdir()
        batch = images(100, 3, 16)
        tracemalloc.start()
        with kind(tmp_path / str(n), Arrangement(n=n), provenance(), ImageCodec()) as writer:
            for _ in range(n // 100):
                writer.write(batch)
            peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 64 * 1024  # 800 images of 16x16 are 600 KiB


def test_a_set_that_is_not_complete_is_not_finished(tmp_path: Path, provenance: MakeProvenance) -> None:
    with NPZWriter(tmp_path, Arrangement(n=3), provenance(), ImageCodec()) as writer:
        writer.write(images(2))
        with pytest.raises(RuntimeError, match="2 samples were written, not 3"):
            writer.finish()


def test_channels_that_no_png_holds(tmp_path: Path, provenance: MakeProvenance) -> None:
    with pytest.raises(ConfigError, match="5 channels") as caught:
        PNGWriter(tmp_path, Arrangement(n=1), provenance(), ImageCodec()).write(images(1, 5))
    assert "format=npz" in caught.value.hint
    with NPZWriter(tmp_path, Arrangement(n=1), provenance(), ImageCodec()) as writer:
        writer.write(images(1, 5))
        writer.finish()
    assert np.load(tmp_path / "samples.npz")["images"].shape == (1, 8, 8, 5)


def preview(path: Path, raw: torch.Tensor, title: str) -> None:
    PNGWriter.preview(path, iter([raw]), Arrangement(n=len(raw)), ImageCodec(), title)


def test_preview_with_a_title(tmp_path: Path) -> None:
    path = tmp_path / "samples" / "step-100.png"
    raw = torch.full((16, 1, 8, 8), 128, dtype=torch.uint8)
    preview(path, raw, "gan on digits, step 100 ☃")
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
        preview(path, torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-1.png"]


def test_tiny_images_are_enlarged_without_smoothing() -> None:
    raw = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    sheet = np.asarray(grid(raw).convert("L"))
    assert sheet.shape == (2 * 66 + 2, 2 * 66 + 2)
    tile = sheet[2 + 66 : 2 + 66 + 64, 2 : 2 + 64]  # second row, first column
    assert np.array_equal(tile[::8, ::8], raw[2, 0].numpy())
    assert np.array_equal(tile, np.kron(raw[2, 0].numpy(), np.ones((8, 8), np.uint8)))


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


def test_colour_stays_colour_and_alpha_and_stacks_can_be_looked_at() -> None:
    raw = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    raw[:, 0] = 200
    assert grid(raw).getpixel((10, 10)) == (200, 0, 0)
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
    assert grid(white, GridLayout(columns=3)).size == (3 * 66 + 2, 2 * 66 + 2)


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


@pytest.mark.parametrize(
    ("arrangement", "columns", "titles"),
    [
        (Arrangement(n=9), None, ()),
        (Arrangement(n=8, turns=tuple("abc")), 3, tuple("abc")),
        (Arrangement(n=64, turns=tuple("abc")), 9, tuple("abc") * 3),
        (Arrangement(n=2, turns=tuple("abc")), 2, tuple("ab")),
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
    # Large images that belong together stand side by side.
    assert layout_of(Arrangement(n=8, group=4, row=True), (3, 2048, 2048)).columns == 4
    assert layout_of(Arrangement(n=8, group=2), (3, 2048, 2048)).columns == 1
