"""What can be told of data at a glance, before it is opened: the facts by which a recipe is chosen.

A survey lists files and reads the first kilobytes of text, and decodes nothing: it takes a moment where opening takes
minutes. Datasets that are always the same state their facts in their YAML file instead (``# facts: items=...``).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from aigc_cli.data.image_folder import ImageFolderConfig, folder_pictures
from aigc_cli.data.pairs import PairsConfig, pair_parts
from aigc_cli.data.parquet import ParquetConfig, parquet_pictures
from aigc_cli.data.splits import CutConfig
from aigc_cli.data.text import TextConfig, text_parts
from aigc_cli.modalities.text_files import blocks
from aigc_cli.registry import register

_SAMPLE = 1 << 16  # bytes of a file
_SAMPLED = 20  # files
#: The first and last code points of the blocks that tell a script, see the Unicode standard's Blocks.txt.
_SCRIPTS = {
    "latin": ((0x41, 0x24F), (0x1E00, 0x1EFF)), "greek": ((0x370, 0x3FF),), "cyrillic": ((0x400, 0x52F),),
    "hebrew": ((0x590, 0x5FF),), "arabic": ((0x600, 0x6FF), (0x750, 0x77F)), "devanagari": ((0x900, 0x97F),),
    "thai": ((0xE00, 0xE7F),), "hangul": ((0x1100, 0x11FF), (0xAC00, 0xD7AF)), "kana": ((0x3040, 0x30FF),),
    "han": ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0x20000, 0x323AF)),
}  # fmt: skip


@register("survey", "image_folder", ImageFolderConfig)
def image_folder(config: ImageFolderConfig) -> dict[str, Any]:
    """How many pictures there are to train on, about, and of how many classes."""
    parts = folder_pictures(config).parts
    return {"items": _trained(len(parts["train"]), config, parts), "classes": len(parts["train"].classes)}


@register("survey", "arrow", ParquetConfig)
@register("survey", "parquet", ParquetConfig)
def parquet(config: ParquetConfig) -> dict[str, Any]:
    """How many rows there are to train on, about, and of how many classes."""
    parts = parquet_pictures(config).parts
    return {"items": _trained(len(parts["train"]), config, parts), "classes": len(parts["train"].classes)}


@register("survey", "text", TextConfig)
def text(config: TextConfig) -> dict[str, Any]:
    """How much text there is to train on, about, in which script, and how long its lines are."""
    parts, own, _ = text_parts(config)
    facts = _of_text([path for _, path in parts["train"]])
    return {**facts, "characters": _trained(facts["characters"], config, own)}


@register("survey", "pairs", PairsConfig)
def pairs(config: PairsConfig) -> dict[str, Any]:
    """How many pairs there are, about, and what a text of the first side is like."""
    sources, _ = pair_parts(config)
    facts = _of_text([path for part in sources["train"].parts for path in part[:1]])
    return {**facts, "items": _trained(facts.pop("lines"), config, sources)}


def _trained(count: float, config: CutConfig, splits: Collection[Any]) -> int:
    """How much of `count` is trained on, where other splits are cut from it."""
    return round(count * (1 if len(splits) > 1 else 1 - config.val_fraction - config.test_fraction))


def _of_text(files: Sequence[Path]) -> dict[str, Any]:
    """The facts of text files: ``characters`` and ``lines``, extrapolated from what is read; ``line`` (the median
    length of a line that holds anything) and ``script`` (that of most letters)."""
    size = sum(path.stat().st_size * (4 if path.suffix == ".gz" else 1) for path in files)  # text packs about so well
    step = max(1, len(files) // _SAMPLED)
    samples = [_beginning(path) for path in files[::step]]
    read = sum(map(len, samples))
    decoded = "\n".join(sample.decode("utf-8", errors="ignore") for sample in samples)
    lengths = [len(line) for line in decoded.splitlines() if line.strip()]
    return {
        "characters": round(size * len(decoded) / max(read, 1)),
        "lines": round(size * len(lengths) / max(read, 1)),
        "line": median(lengths) if lengths else 0,
        "script": script_of(decoded),
    }


def _beginning(path: Path) -> bytes:
    return next(itertools.chain(blocks(path), [b""]))[:_SAMPLE]


def script_of(text: str) -> str | None:
    """The script of most letters, such as ``latin`` or ``han``; ``kana`` where Japanese mixes it with Han; None where
    no letter is of a script that is known here."""
    counts = Counter({name: _within(text, ranges) for name, ranges in _SCRIPTS.items()})
    if counts["kana"] * 5 > counts["han"]:
        counts["kana"] += counts["han"]
    name, count = counts.most_common(1)[0]
    return name if count else None


def _within(text: str, ranges: Iterable[tuple[int, int]]) -> int:
    return sum(any(first <= ord(letter) <= last for first, last in ranges) for letter in text if letter.isalpha())
