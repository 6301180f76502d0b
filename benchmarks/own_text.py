"""Stand-ins for a person's own text, in several scripts and sizes, made of what Debian packages and Python bring.

    apt download fortunes-zh fortunes-de fortunes-ru manpages-de manpages-ja manpages-zh
    for one in *.deb; do dpkg -x $one packages/${one%%_*}; done
    python benchmarks/own_text.py packages texts [multi30k]

writes texts/KIND-SIZE.txt, SIZE in kB, and of the folder of Multi30k, if it is given, pairs-COUNT.source and .target.
Each is drawn in whole pieces (quotations, poems, manual pages) from all over its source, in one fixed order.
"""

from __future__ import annotations

import gzip
import random
import re
import sys
from pathlib import Path
from pydoc_data.topics import topics

SIZES = (30, 200, 1000, 10000)  # kB
PAIRS = (1000, 5000, 29000)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
MACROS = re.compile(r"\\f[BIRP]|\\f\(..|\\&|\\,|\\/")


def fortunes(folder: Path, pattern: str) -> list[str]:
    """The quotations of the fortune files that match, without colours."""
    files = sorted(path for path in folder.glob(pattern) if path.is_file() and path.suffix not in (".dat", ".u8"))
    texts = [COLOURS.sub("", path.read_text("utf-8", "replace")) for path in files]
    return [piece.strip("\n") for text in texts for piece in text.split("\n%\n")]


def manuals(folder: Path, pattern: str) -> list[str]:
    """The paragraphs of manual pages that match, without macros, each once."""
    lines: dict[str, None] = {}
    for path in sorted(folder.glob(pattern)):
        if path.is_symlink():
            continue
        text = MACROS.sub("", gzip.decompress(path.read_bytes()).decode("utf-8", "replace")).replace("\\-", "-")
        block = [line for line in text.split("\n") if line and line[0] not in ".'"]
        lines["\n".join(block)] = None
    return list(lines)


def main() -> None:
    """Writes all files that there is enough text for."""
    packages, texts = map(Path, sys.argv[1:3])
    texts.mkdir(parents=True, exist_ok=True)
    sources = {
        "zh-poems": fortunes(packages / "fortunes-zh", "usr/share/games/fortunes/*ang300"),
        "zh-poems-song": fortunes(packages / "fortunes-zh", "usr/share/games/fortunes/song100"),
        "zh-manuals": manuals(packages / "manpages-zh", "usr/share/man/zh_CN/man*/*.gz"),
        "ja-manuals": manuals(packages / "manpages-ja", "usr/share/man/ja/man*/*.gz"),
        "de-manuals": manuals(packages / "manpages-de", "usr/share/man/de/man*/*.gz"),
        "de-quotes": fortunes(packages / "fortunes-de", "usr/share/games/fortunes/de/*"),
        "ru-quotes": fortunes(packages / "fortunes-ru", "usr/share/games/fortunes/ru/*"),
        "en-python": [topics[name] for name in sorted(topics)],
    }
    for kind, pieces in sources.items():
        random.Random(0).shuffle(pieces)
        whole = "\n\n".join(pieces).encode()
        for size in SIZES:
            if len(whole) >= 0.75 * size * 1000 or size == SIZES[0]:
                part = whole[: size * 1000].decode("utf-8", "ignore")
                (texts / f"{kind}-{size}.txt").write_text(part, "utf-8")
                print(kind, size, len(part), "characters,", len(set(part)), "different")
    for name in sys.argv[3:4]:
        both = []
        for language in ("en", "de"):
            lines = gzip.decompress((Path(name) / f"train.{language}.gz").read_bytes()).decode().splitlines()
            both.append(lines)
        order = random.Random(0).sample(range(len(both[0])), len(both[0]))
        for count in PAIRS:
            for end, side in zip(("source", "target"), both, strict=True):
                (texts / f"pairs-{count}.{end}").write_text("".join(side[i] + "\n" for i in order[:count]), "utf-8")
            (texts / f"captions-{count}.txt").write_text("".join(both[0][i] + "\n" for i in order[:count]), "utf-8")


if __name__ == "__main__":
    main()
