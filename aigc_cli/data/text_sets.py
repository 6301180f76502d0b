"""Texts that come with the install, or download themselves: the language reference of Python, and Shakespeare."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.cache import cache_dir, find_root
from aigc_cli.data.corpus import Corpora
from aigc_cli.data.download import Published
from aigc_cli.data.splits import Cut, CutConfig, Fraction
from aigc_cli.data.text import Context
from aigc_cli.data.text_dataset import TokensConfig
from aigc_cli.data.text_sources import FileSource, TextSource
from aigc_cli.data.windows import open_windows
from aigc_cli.modalities.text_files import Reading, printable
from aigc_cli.registry import register

SHAKESPEARE = Published(
    "input.txt",
    ["https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"],
    {"sha256": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
)
LONG = 80  # characters of a paragraph that two topics do not share by chance


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
    the validation split.

    Raises:
        DataError: there is no such file at `root`, or it cannot be downloaded.
    """
    path = _shakespeare_file(config.root)
    source = FileSource(printable(path), [(path.name, path)], field="text", lines=False)

    part: Split = "val" if split == "test" else split
    cut = Cut(val=config.val_fraction)
    corpora = Corpora(source=lambda _: source, reading=Reading(), cut=cut, by="position", whole=False)
    original = SHAKESPEARE.is_at(path)
    notes = [] if original else [f"{printable(path)} is not the usual Tiny Shakespeare: scores on it do not compare"]
    windows = open_windows(part, corpora, config, context=config.context, notes=notes)
    windows.original = original
    return windows


def _shakespeare_file(root: str | None) -> Path:
    if root is None:
        return SHAKESPEARE.find(None, cache_dir() / "data" / "shakespeare")
    path = find_root(root)
    file = path / SHAKESPEARE.name if path.is_dir() else path
    if not file.is_file():
        raise SHAKESPEARE.missing(path)
    return file
