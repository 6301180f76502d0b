"""Long texts: a person's own files, the language reference that comes with Python, and Shakespeare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.cache import Published, cache_dir, find_root
from aigc_cli.data.corpus import By, Corpora, FileSource, TextFilesConfig, TextSource
from aigc_cli.data.splits import Cut, CutConfig, Fraction, left_out, parts_named
from aigc_cli.data.text_dataset import TokensConfig, open_sequences, open_windows
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.text_files import KINDS, Reading, printable, text_files
from aigc_cli.registry import register

Context = Annotated[int, Field(ge=1, le=1 << 20)]
SHAKESPEARE = Published(
    "input.txt",
    ["https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"],
    {"sha256": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
)
LONG = 80  # characters of a paragraph that two topics do not share by chance


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

    Where files or folders in `root` are named after train, val and test, they are the splits, and a part that is
    missing is cut from the training part. Raises ConfigError without a `root`, or where the fractions leave the
    split empty, and DataError where there is no text, broken text, or a row without the field.
    """
    parts, own, lines = text_parts(config)

    def source_of(part: Split) -> FileSource:
        return FileSource(printable(find_root(config.root)), parts[part], field=config.field, lines=config.lines)

    corpora = Corpora(
        source=source_of, reading=config.reading, parts=own, cut=config.cut, by=config.split_by,
        whole=config.items == "documents", left_out=lines,
    )  # fmt: skip
    try:
        if config.items == "windows":
            return open_windows(split, corpora, config, context=config.context)
        return open_sequences(split, corpora, config, sides=1, longest=config.context + 1)
    except ConfigError as error:
        raise ConfigError(error.message, "; ".join([error.hint, *_other_documents(config)])) from None


def text_parts(config: TextConfig) -> tuple[dict[Split, list[tuple[str, Path]]], list[Split], list[str]]:
    """The files of each part, by name, where "train" has all of them if none is named after a split; which splits have
    files of their own; and lines about what was passed over."""
    root = find_root(config.root, f"name a file, or a folder, of {KINDS}")
    files, lines = text_files(root)
    names = [name for name, _ in files]
    own = parts_named(names) if root.is_dir() else {}
    parts = {split: [files[place] for place in places] for split, places in own.items()} or {"train": files}
    return parts, list(own), [*lines, *left_out(names, own)]


def _other_documents(config: TextConfig) -> list[str]:
    """What else helps where whole documents are too few to hold some out, such as the one of a single file."""
    if config.items == "windows" and config.split_by == "position":
        return []
    return [
        *([] if config.lines else ["data.lines=true makes each line of a .txt a document"]),
        *(["data.items=windows cuts all text into windows"] if config.items == "documents" else []),
        *(["data.split_by=position holds out the end of all text"] if config.split_by == "document" else []),
    ]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class PydocsConfig(CutConfig, TokensConfig):
    """See ``configs/data/pydocs.yaml``."""

    name: Literal["pydocs"]
    context: Context


@register("data", "pydocs", PydocsConfig)
def pydocs(config: PydocsConfig, split: Split) -> Dataset:
    """The text of the language reference that ships inside Python, for ``help()``: a document for each topic.

    Every version of Python has its own, so scores compare within one version only. Topics that mostly repeat others
    are left out, since they would show in training what is held out.
    """
    from pydoc_data.topics import topics

    source = TextSource("pydoc_data.topics", unrepeated(topics))
    corpora = Corpora(source=lambda _: source, reading=Reading(), cut=config.cut, by="position", whole=False)
    return open_windows(split, corpora, config, context=config.context)


def unrepeated(topics: dict[str, str]) -> list[str]:
    """The texts, in order of their names, without those that share half of their long paragraphs with longer texts."""
    seen: set[str] = set()
    kept = {}
    for name in sorted(topics, key=lambda name: (-len(topics[name]), name)):
        paragraphs = [paragraph for paragraph in topics[name].split("\n\n") if len(paragraph) >= LONG]
        repeated = sum(len(paragraph) for paragraph in paragraphs if paragraph in seen)
        if 2 * repeated < sum(map(len, paragraphs)) or not paragraphs:
            kept[name] = topics[name]
        seen.update(paragraphs)
    return [kept[name] for name in sorted(kept)]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ShakespeareConfig(TokensConfig):
    """See ``configs/data/shakespeare.yaml``."""

    name: Literal["shakespeare"]
    root: str | None
    context: Context
    val_fraction: Fraction


@register("data", "shakespeare", ShakespeareConfig)
def shakespeare(config: ShakespeareConfig, split: Split) -> Dataset:
    """Tiny Shakespeare (Karpathy 2015), 1,115,394 characters.

    By convention the first 90 % are trained on and the last 10 % held out; there is no third part, so the test split is
    the validation split. Raises DataError where there is no such file at `root`, or it cannot be downloaded.
    """
    if config.root is None:
        path = SHAKESPEARE.find(None, cache_dir() / "data" / "shakespeare")
    else:
        root = find_root(config.root)
        path = root / SHAKESPEARE.name if root.is_dir() else root  # another text may stand in its place
        if not path.is_file():
            raise SHAKESPEARE.missing(root)
    source = FileSource(printable(path), [(path.name, path)], field="text", lines=False)
    part: Split = "val" if split == "test" else split
    cut = Cut(val=config.val_fraction)
    corpora = Corpora(source=lambda _: source, reading=Reading(), cut=cut, by="position", whole=False)
    original = SHAKESPEARE.is_at(path)
    notes = [] if original else [f"{printable(path)} is not the usual Tiny Shakespeare: scores on it do not compare"]
    windows = open_windows(part, corpora, config, context=config.context, notes=notes)
    windows.original = original
    return windows
