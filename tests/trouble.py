"""Folders with all kinds of trouble that people's data has: each kind is written by a function, and named in a report.

``python tests/trouble.py FOLDER`` writes them, for a look at what ``aigc data show`` says.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

#: The codes of the findings that each folder is to lead to.
PICTURES = (
    "empty_file", "markup", "broken", "suffix", "animated", "turned", "transparent", "deep", "colours", "palette",
    "mixed", "small", "elongated", "blank", "faint", "duplicates", "label_conflict", "split_copies", "near_duplicates",
    "near_split_copies", "left_out", "empty_folder", "nested", "odd_name", "class_untrained", "class_small",
    "imbalance", "class_names_alike",
)  # fmt: skip
TEXTS = (
    "broken_file", "broken_bytes", "empty_file", "blank", "mixed_ends", "returns", "marks", "replacement", "nul",
    "controls", "invisible", "mojibake", "tags", "unnormalised", "long_line", "repeated_lines", "duplicates",
    "near_duplicates", "scripts_rare", "left_out",
)  # fmt: skip
PAIRS = (
    "empty_side", "equal_sides", "uneven", "duplicates", "split_copies", "several_targets", "split_sources",
)  # fmt: skip


def picture(seed: int, width: int = 80, height: int = 72) -> Image.Image:
    """A picture like no other, of smooth patches of colour."""
    random = np.random.default_rng(seed)
    patches = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return patches.resize((width, height), Image.Resampling.BICUBIC)


def pictures(root: Path) -> None:
    """Pictures in class folders, of three splits, with every trouble of :data:`PICTURES`."""
    for split, count in (("train", 30), ("val", 4), ("test", 4)):
        for number, name in enumerate(("cat", "dog")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count * (1 if name == "cat" else 5 if split == "train" else 1)):
                picture(10_000 * number + 1000 * len(split) + index).save(folder / f"{index:03d}.png")
    cat, dog, held_out = root / "train" / "cat", root / "train" / "dog", root / "test" / "cat"
    (cat / "empty.png").write_bytes(b"")
    (cat / "page.jpg").write_text("<!DOCTYPE html><html><title>404</title></html>")
    (cat / "noise.png").write_bytes(bytes(range(256)) * 4)
    (cat / "cut.png").write_bytes((cat / "000.png").read_bytes()[:900])
    picture(1).save(cat / "wrong.png", format="JPEG")
    picture(2).save(cat / "moving.webp", save_all=True, append_images=[picture(3)], lossless=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(4).save(cat / "turned.jpg", exif=exif)
    clear = picture(5).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(cat / "clear.png")
    grey = np.asarray(picture(6).convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(cat / "deep.png")
    picture(7).convert("CMYK").save(cat / "print.jpg")
    picture(8).quantize(16).save(cat / "palette.png")
    picture(9).convert("L").save(cat / "grey.png")
    picture(10, 16, 14).save(cat / "small.png")
    picture(11, 400, 80).save(cat / "wide.png")
    Image.new("RGB", (80, 72), "navy").save(cat / "blank.png")
    faint = np.asarray(picture(12)).astype(np.float32) / 64 + 100
    Image.fromarray(faint.astype(np.uint8)).save(cat / "faint.png")
    (cat / "copy.png").write_bytes((cat / "001.png").read_bytes())
    (dog / "torn.png").write_bytes((cat / "002.png").read_bytes())
    (held_out / "leak.png").write_bytes((cat / "003.png").read_bytes())
    for name, folder in (("004.png", cat), ("005.png", held_out)):
        with Image.open(cat / name) as image:
            image.filter(ImageFilter.GaussianBlur(0.5)).save(folder / "again.jpg", quality=80)
    (root / "notes.docx").write_bytes(b"PK")
    (root / "train" / "old.zip").write_bytes(b"PK")
    (root / "unfinished").mkdir()
    (cat / "2024" / "june").mkdir(parents=True)
    picture(13).save(cat / "2024" / "june" / "deep.png")
    picture(14).save(cat / "odd\nname.png")
    for split, name in (("val", "fox"), ("train", "Cat")):
        (root / split / name).mkdir()
        for index in range(3):
            picture(500 + index + len(name) * len(split)).save(root / split / name / f"{index}.png")


WORDS = ("river", "stone", "window", "garden", "letter", "winter", "morning", "candle", "silver", "harbour", "meadow")


def sentence(seed: int, count: int = 9) -> str:
    """A sentence like few others."""
    return " ".join(np.random.default_rng(seed).choice(WORDS, count)).capitalize() + "."


def story(seed: int, count: int = 12) -> str:
    """Some sentences, each on a line."""
    return "".join(f"{sentence(100 * seed + index)}\n" for index in range(count))


def texts(root: Path) -> None:
    """Files of text with every trouble of :data:`TEXTS`."""
    root.mkdir(parents=True)
    for index in range(40):
        (root / f"{index:02d}.txt").write_text(story(index))
    (root / "latin.txt").write_bytes(("\u00e9t\u00e9 " * 400).encode("latin-1"))
    (root / "wide.txt").write_text(story(90), encoding="utf-16")
    (root / "packed.txt.gz").write_bytes(gzip.compress(story(91).encode())[:60])
    (root / "rows.jsonl").write_text(json.dumps({"text": story(92)}) + "\n{not json\n")
    (root / "few.txt").write_bytes((story(93, 200)).encode() + b"caf\xe9\n")
    (root / "empty.txt").write_text("")
    (root / "blank.txt").write_text(" \n\n\t\n")
    (root / "mixed.txt").write_bytes(story(94).encode() + story(95).replace("\n", "\r\n").encode())
    (root / "windows.txt").write_bytes(story(96).replace("\n", "\r\n").encode())
    (root / "marks.txt").write_text(story(97) + "\ufeff" + story(98))
    odd = ("lost \ufffd\ufffd", "a\0b", "bell \x07 and \x1b[31m", "soft\u00adhyphen and zero\u200bwidth",
           "caf\u00c3\u00a9, it\u00e2\u20ac\u2122s", "<p class='x'>one</p> &amp; two", "cafe\u0301 and a\u0308pfel",
           "\u0393\u03bb\u03ce\u03c3\u03c3\u03b1")  # fmt: skip
    for index, text in enumerate(odd):
        (root / f"odd{index}.txt").write_text(f"{story(120 + index)}{text}\n")
    (root / "long.txt").write_text("word " * 6000 + "\n")
    (root / "again.txt").write_text((root / "03.txt").read_text())
    (root / "nearly.txt").write_text((root / "04.txt").read_text() + "One more.\n")
    (root / "00quotes.txt").write_text(f"{sentence(77)}\n" * 60)
    (root / "book.pdf").write_bytes(b"%PDF-1.4")


def pairs(root: Path) -> None:
    """Rows of two fields, of three splits, with every trouble of :data:`PAIRS`."""
    root.mkdir(parents=True)
    rows = [(sentence(seed), sentence(seed)[::-1]) for seed in range(300)]
    odd = [("", "left alone"), ("alone", " "), ("the same on both", "the same on both"), ("short words", "long " * 40)]
    odd += [rows[0], (rows[1][0], "something else entirely")]
    held_out = [(sentence(seed), sentence(seed)[::-1]) for seed in range(900, 930)]
    for split, some in (("train", rows + odd), ("val", held_out[:15]), ("test", held_out[15:])):
        extra = [rows[5], (rows[6][0], "another translation of it")] if split == "test" else []
        lines = (json.dumps({"a": one, "b": two}) for one, two in [*some, *extra])
        (root / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    pictures(Path(sys.argv[1], "pictures"))
    texts(Path(sys.argv[1], "texts"))
    pairs(Path(sys.argv[1], "pairs"))
