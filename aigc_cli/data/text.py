"""A person's own text: files of it, or a folder of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.cache import find_root
from aigc_cli.data.corpus import Corpora
from aigc_cli.data.sequences import open_sequences
from aigc_cli.data.splits import parts_named
from aigc_cli.data.text_dataset import TokensConfig
from aigc_cli.data.text_sources import By, FileSource, TextFilesConfig
from aigc_cli.data.windows import open_windows
from aigc_cli.errors import warn
from aigc_cli.modalities.text_files import KINDS, printable, text_files
from aigc_cli.registry import register

Context = Annotated[int, Field(ge=1, le=1 << 20)]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class TextConfig(TextFilesConfig, TokensConfig):
    """See ``configs/data/text.yaml``."""

    name: Literal["text"]
    field: str
    lines: bool
    items: Literal["windows", "documents"]
    context: Context
    split_by: By


@register("data", "text", TextConfig)
def text(config: TextConfig, split: Split) -> Dataset:
    """A person's own text: files, or a folder of them.

    Where the names of files or folders in `root` begin with train, val and test, they are the splits, and a part that
    is missing is cut from the training part.

    Raises:
        ConfigError: no `root`, or fractions that leave the split empty.
        DataError: no text, text that is broken, or rows without the field.
    """
    root = find_root(config.root, f"name a file, or a folder, of {KINDS}")
    files = text_files(root)
    own = parts_named([name for name, _ in files]) if root.is_dir() else {}
    if split == "train":
        _warn_of_left_out([name for name, _ in files], own)

    def source_of(part: Split) -> FileSource:
        chosen = [files[place] for place in own[part]] if own else files
        return FileSource(printable(root), chosen, field=config.field, lines=config.lines)

    corpora = Corpora(
        source=source_of, reading=config.reading, parts=own, cut=config.cut, by=config.split_by,
        whole=config.items == "documents",
    )  # fmt: skip
    if config.items == "windows":
        return open_windows(split, corpora, config, context=config.context)
    return open_sequences(split, corpora, config, sides=1, longest=config.context + 1)


def _warn_of_left_out(names: Sequence[str], own: Mapping[Split, Sequence[int]]) -> None:
    taken = {place for part in own.values() for place in part}
    left = [name for place, name in enumerate(names) if place not in taken] if own else []
    if left:
        some = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
        warn(f"the splits are the files whose names begin with {' and '.join(own)}; left out: {some}")
