"""A report names what is wrong with data, before anything is trained on it."""

from pathlib import Path

import numpy as np
import pytest
import trouble
from PIL import Image, ImageFilter

from aigc_cli.config.compose import compose
from aigc_cli.data.alike import alike_pictures, alike_texts, sketch, thumbnail
from aigc_cli.data.report import look_at, members, report_on
from aigc_cli.errors import DataError

WORDS = {
    "pictures": (["data=image_folder", "data.size=32"], trouble.pictures, trouble.PICTURES),
    "texts": (["data=text"], trouble.texts, trouble.TEXTS),
    "pairs": (["data=pairs", "data.source=a", "data.target=b"], trouble.pairs, trouble.PAIRS),
}


def report_of(*words: str):
    return report_on(look_at(compose("data", words)["data"]))


@pytest.mark.parametrize("kind", WORDS)
def test_every_trouble_is_named(tmp_path: Path, kind: str) -> None:
    words, write, codes = WORDS[kind]
    root = tmp_path / kind
    write(root)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in root.rglob("*"))
    found = {finding.code for finding in report_of(*words, f"data.root={root}").findings}
    assert not set(codes) - found
    assert before == sorted((path.name, path.stat().st_mtime_ns) for path in root.rglob("*"))


def test_there_are_forty_kinds_of_trouble() -> None:
    assert len({*trouble.PICTURES, *trouble.TEXTS, *trouble.PAIRS}) >= 40


def test_sound_pictures_lead_to_no_finding(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for index in range(130):
        trouble.picture(index).save(folder / f"{index}.png")
    report = report_of("data=image_folder", "data.size=32", f"data.root={folder}")
    assert not report.findings
    assert sum(report.facts["items"].values()) == 130


def test_a_turned_tiff_is_said_to_be_so(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    trouble.picture(0).crop((0, 0, 60, 40)).save(tmp_path / "turned.tif", exif=exif)
    report = report_of("data=image_folder", f"data.root={tmp_path}", "data.test_fraction=0", "data.val_fraction=0")
    assert "turned" in [finding.code for finding in report.findings]


def test_pictures_beside_class_folders_are_reported_as_without_classes(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for index in range(6):
        trouble.picture(index).save(tmp_path / ("cat" if index % 2 else "") / f"{index}.png")
    report = report_of("data=image_folder", f"data.root={tmp_path}")
    assert "refused" in {finding.code for finding in report.findings}
    assert sum(report.facts["items"].values()) == 6
    assert "classes" not in report.facts


def test_data_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"none of 1 picture can be read: a\.png"):
        report_of("data=image_folder", f"data.root={tmp_path}")


def test_known_data_is_reported_on_by_its_items() -> None:
    report = report_of("data=digits", "data.size=8")
    assert report.facts["items"] == {"train": 1258, "val": 180, "test": 359}
    assert sum(report.facts["classes"].values()) == 1797


def test_copies_are_found_that_were_blurred_or_made_brighter() -> None:
    pictures = [trouble.picture(seed) for seed in range(60)]
    changed = [pictures[3].filter(ImageFilter.GaussianBlur(1)), Image.fromarray(np.asarray(pictures[9]) // 2 + 64)]
    thumbnails = np.stack([thumbnail(np.asarray(each).transpose(2, 0, 1)) for each in [*pictures, *changed]])
    assert [some.tolist() for some in members(alike_pictures(thumbnails))] == [[3, 60], [9, 61]]


def test_texts_are_nearly_the_same_if_a_few_words_differ() -> None:
    texts = [trouble.story(seed) for seed in range(30)]
    texts += [texts[4].upper() + "The end.", texts[7].replace("river", "brook", 1)]
    assert [some.tolist() for some in members(alike_texts([sketch(text) for text in texts]))] == [[4, 30], [7, 31]]
