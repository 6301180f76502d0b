"""A person's own text: files of it, or a folder of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.cache import find_root
from aigc_cli.data.parquet import SPLIT_WORDS
from aigc_cli.data.sequences import open_sequences
from aigc_cli.data.text_cache import Corpus, share_of, take_stock
from aigc_cli.data.text_sources import FileSource, SplitConfig
from aigc_cli.data.windows import open_windows
from aigc_cli.errors import ConfigError, warn
from aigc_cli.modalities.text_files import KINDS, Reading, known_encoding, printable, text_files
from aigc_cli.modalities.tokenizers import TokenizerConfig
from aigc_cli.registry import register

Context = Annotated[int, Field(ge=1, le=1 << 20)]
Gigabytes = Annotated[float, Field(gt=0)]
Broken = Annotated[float, Field(ge=0, le=1)]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class TextConfig(SplitConfig):
    """See ``configs/data/text.yaml``."""

    name: Literal["text"]
    root: str | None
    field: str
    encoding: str
    max_broken: Broken
    lines: bool
    items: Literal["windows", "documents"]
    context: Context
    tokenizer: TokenizerConfig
    memory_gb: Gigabytes

    @field_validator("encoding")
    @classmethod
    def _known(cls, name: str) -> str:
        return known_encoding(name)


@register("data", "text", TextConfig)
def text(config: TextConfig, split: Split) -> Dataset:
    """A person's own text: files, or a folder of them.

    Where the names of files or folders in `root` begin with train, val and test, they are the splits, and a part that
    is missing is cut from the training part.

    Raises:
        ConfigError: no `root`, or fractions that leave the split empty.
        DataError: no text, text that is broken, or rows without the field.
    """
    if config.root is None:
        raise ConfigError("data=text needs data.root=", f"name a file, or a folder, of {KINDS}")
    root = find_root(config.root)
    files = text_files(root)
    own = own_splits([name for name, _ in files]) if root.is_dir() else {}
    if split == "train":
        _warn_of_left_out([name for name, _ in files], own)
    reading = Reading(config.encoding, config.max_broken)

    def corpus_of(wanted: Split) -> Corpus:
        part = own.get(wanted, own.get("train"))
        chosen = files if part is None else [files[place] for place in part]
        source = FileSource(printable(root), chosen, field=config.field, lines=config.lines)
        val_fraction = 0.0 if "val" in own else config.val_fraction
        test_fraction = 0.0 if "test" in own else config.test_fraction
        if wanted in own and (wanted != "train" or not val_fraction + test_fraction):
            return Corpus(source, take_stock(source, reading), reading)
        return share_of(
            wanted, source, reading, by=config.split_by, whole=config.items == "documents",
            val_fraction=val_fraction, test_fraction=test_fraction,
        )  # fmt: skip

    if config.items == "windows":
        return open_windows(split, corpus_of, config.tokenizer, context=config.context, memory_gb=config.memory_gb)
    return open_sequences(
        split, corpus_of, config.tokenizer, sides=1, longest=config.context + 1, memory_gb=config.memory_gb
    )


def _warn_of_left_out(names: Sequence[str], own: Mapping[Split, Sequence[int]]) -> None:
    taken = {place for part in own.values() for place in part}
    left = [name for place, name in enumerate(names) if place not in taken] if own else []
    if left:
        some = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
        warn(f"names of files begin with {' and '.join(own)}, which are the splits; left out: {some}")


def own_splits(names: Sequence[str]) -> dict[Split, list[int]]:
    """Where each split's files lie among `names`, as their first words say; empty where none begins with train, or
    where that is the only one, and others begin otherwise: a log of somebody's training is no split."""
    words = [SPLIT_WORDS.get(re.split(r"[^a-z]", name.lower(), maxsplit=1)[0]) for name in names]
    found: dict[Split, list[int]] = {}
    for place, word in enumerate(words):
        if word is not None:
            found.setdefault(word, []).append(place)
    alone = len(found) == 1 and None in words
    return found if "train" in found and not alone else {}
