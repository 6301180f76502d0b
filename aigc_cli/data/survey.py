"""What can be told of data at a glance, before it is opened: the facts by which a recipe is chosen.

A survey lists files and reads the first kilobytes of text, and decodes nothing: it takes a moment where opening takes
minutes. Datasets that are always the same state their facts in their YAML file instead (``# facts: items=...``).
"""

from __future__ import annotations

import itertools
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from aigc_cli.data.audio_folder import AudioFolderConfig, folder_sounds
from aigc_cli.data.image_folder import ImageFolderConfig, folder_pictures
from aigc_cli.data.pairs import PairsConfig, pair_parts
from aigc_cli.data.parquet import ParquetConfig, holds_images, parquet_pictures
from aigc_cli.data.splits import CutConfig
from aigc_cli.data.text import TextConfig, text_parts
from aigc_cli.errors import DataError
from aigc_cli.files import about_folder, walk_files
from aigc_cli.modalities import audio_decode, columns, image_decode, video_decode
from aigc_cli.modalities.scripts import main_script
from aigc_cli.modalities.text_files import SUFFIXES, blocks, kind_of
from aigc_cli.registry import register

_SAMPLE = 1 << 16  # bytes of a file
_ROWS = 500  # of a file with columns
_SAMPLED = 20  # files
_LISTED = 20_000  # files of a folder of which nobody has said what they are
#: What is read of files by their suffixes, the first that has one, and of as many files the first counts too.
_READ = {
    "image_folder": (*image_decode.SUFFIXES, *(suffix for suffix, _, _ in image_decode.OTHERS)),
    "video_folder": video_decode.OTHERS,
    "audio_folder": (*audio_decode.SUFFIXES, *audio_decode.OTHERS),
    "parquet": columns.SUFFIXES[:1],
    "arrow": columns.SUFFIXES[1:],
    "text": SUFFIXES,
}


@register("survey", "path")
def data_of(path: Path) -> str:
    """Which ``data=`` reads most of what a folder, a zip or a file holds, by the suffixes in it; "" where none does."""
    try:
        if not (path.is_dir() or path.is_file()):
            return ""  # to look into a pipe is to wait for who writes to it
        whole = path.is_dir() or zipfile.is_zipfile(path)
        if not whole:
            files = {path.name: path}
        elif path.is_dir():
            files = dict(itertools.islice(walk_files(path), _LISTED))
        else:
            with zipfile.ZipFile(path) as packed:
                files = dict.fromkeys(packed.namelist()[:_LISTED], path)
        found: dict[str, list[Path]] = {name: [] for name in _READ}
        for name in filter(lambda name: not about_folder(name), files):
            kind = kind_of(Path(name))
            for reads in (data for data, suffixes in _READ.items() if kind in suffixes):
                found[reads].append(files[name])
                break
        most = max(found, key=lambda name: len(found[name]))
        if most in ("parquet", "arrow") and not any(map(holds_images, columns.schema_of(found[most][0]).types)):
            most = "text"
        alone = most in ("parquet", "arrow", "text")  # a file that is not a zip may be these
        return most if found[most] and (whole or alone) else ""
    except (OSError, DataError, zipfile.BadZipFile):
        return ""


@register("survey", "image_folder", ImageFolderConfig)
def image_folder(config: ImageFolderConfig) -> dict[str, Any]:
    """How many pictures there are to train on, about, and of how many classes."""
    parts = folder_pictures(config).parts
    return {"items": _trained(len(parts["train"]), config, parts), "classes": len(parts["train"].classes)}


@register("survey", "audio_folder", AudioFolderConfig)
def audio_folder(config: AudioFolderConfig) -> dict[str, Any]:
    """How many files there are to train on, about, of how many classes, and how long clips are made, at which rate."""
    parts = folder_sounds(config).parts
    items, seconds = _trained(len(parts["train"]), config, parts), config.samples / config.sample_rate
    return {"items": items, "classes": len(parts["train"].classes), "seconds": seconds, "rate": config.sample_rate}


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
    facts = _of_text([path for _, path in parts["train"]], config.field, config.encoding)
    return {**facts, "characters": _trained(facts["characters"], config, own)}


@register("survey", "pairs", PairsConfig)
def pairs(config: PairsConfig) -> dict[str, Any]:
    """How many pairs there are, about, and what a text of the first side is like."""
    sources, _ = pair_parts(config)
    first = [path for part in sources["train"].parts for path in part[:1]]
    facts = _of_text(first, str(config.source), config.encoding)
    return {**facts, "items": _trained(facts.pop("lines"), config, sources)}


def _trained(count: float, config: CutConfig, splits: Collection[Any]) -> int:
    """How much of `count` is trained on, where other splits are cut from it."""
    return round(count * (1 if len(splits) > 1 else 1 - config.val_fraction - config.test_fraction))


def _of_text(files: Sequence[Path], column: str, encoding: str) -> dict[str, Any]:
    """The facts of files of text, or with text in a `column`: ``characters`` and ``lines``, extrapolated from what is
    read; ``line`` (the median length of a line that holds anything) and ``script`` (that of most letters)."""
    size = sum(path.stat().st_size * (4 if path.suffix == ".gz" else 1) for path in files)  # text packs about so well
    step = max(1, len(files) // _SAMPLED)
    samples = [_beginning(path, column, encoding) for path in files[::step]]
    read = sum(count for _, count in samples)
    decoded = "\n".join(text for text, _ in samples)
    lengths = [len(line) for line in decoded.splitlines() if line.strip()]
    return {
        "characters": round(size * len(decoded) / max(read, 1)),
        "lines": round(size * len(lengths) / max(read, 1)),
        "line": median(lengths) if lengths else 0,
        "script": _script_of(decoded),
    }


def _beginning(path: Path, column: str, encoding: str) -> tuple[str, float]:
    """The first text of a file, and how many of its bytes that stands for."""
    kind = kind_of(path)
    if kind in columns.SUFFIXES:
        values = [str(value) for value in itertools.islice(columns.values_of(path, column), _ROWS)]
        return "\n".join(values), path.stat().st_size * len(values) / max(columns.rows_in(path), 1)
    raw = next(itertools.chain(blocks(path), [b""]))[:_SAMPLE]
    text = raw.decode(encoding, errors="ignore")
    if kind in (".jsonl", ".json"):  # where each letter may be spelt out
        text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
    return text, len(raw)


def _script_of(text: str) -> str | None:
    """The script of most letters, in lower case, where kana stands for all that is Japanese; None without letters."""
    name, _ = main_script(Counter(text))
    return {"Japanese": "kana"}.get(name, name.lower()) or None
