"""What datasets of text share: their tokens, and what a person should know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass as typed

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.cache import digest_of
from aigc_cli.data.corpus import Corpus
from aigc_cli.data.token_files import Extent, Tokens
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.tokenizers import SPECIALS, Tokenizer, TokenizerConfig

Gigabytes = Annotated[float, Field(gt=0)]


@typed(config=STRICT, frozen=True, kw_only=True)
class TokensConfig:
    """The keys that all datasets of text have."""

    tokenizer: TokenizerConfig
    memory_gb: Gigabytes


class TextDataset(Dataset):
    """Text in the tokens of a tokenizer; its items are made of them by a gatherer.

    Args:
        tokens: of the split.
        codec: its tokenizer.
        length: the most tokens of an item.
        kind: what items are, for the fingerprint.
        lines: what was wrong with the text, and what else a person should know of it.
    """

    codec: TextCodec
    extent: Extent

    def __init__(self, tokens: Tokens, codec: TextCodec, length: int, kind: Sequence[Any], lines: Lines) -> None:
        self.codec, self.extent, self._lines = codec, tokens.extent, lines
        spec = DataSpec("text", (length,), (), codec.tokenizer.vocab_size, SPECIALS)
        source = spec if tokens.sides == 2 else None
        self.spec = replace(spec, fingerprint=digest_of([*kind, tokens.key]), source=source)

    def resident(self) -> Batch | None:
        """None: items are not held, but made of the tokens."""
        return None

    def problems(self) -> list[str]:
        """What was wrong with the text, and what was cut or left out."""
        return self._lines.problems

    def describe(self) -> list[str]:
        """How much text there is, in what tokens."""
        return self._lines.notes


@dataclass(frozen=True)
class Lines:
    """What a person should know of some text."""

    problems: list[str]
    notes: list[str]


def lines_about(split: Split, corpus: Corpus, tokens: Tokens, tokenizer: Tokenizer, config: TokensConfig) -> Lines:
    """What was wrong with a split's text, and how much of it there is."""
    problems, extent = list(corpus.stock.problems), tokens.extent
    if tokens.unknown:
        some = ", ".join(f"{character!r}" for character in tokens.lacking)
        problems.append(
            f"{tokens.unknown} of {extent.characters} characters of the {split} split are not in the vocabulary, "
            f"and are read as unk: {some}"
        )
    if tokens.left_out:
        problems.append(
            f"{tokens.left_out} pairs of the {split} split are left out: too long (data.max_length), or empty"
        )
    if tokens.cut:
        problems.append(f"{tokens.cut} texts of the {split} split are cut: too long")
    side, what = (" of targets", "pair") if tokens.sides == 2 else ("", "document")
    count = max(1, extent.documents)
    notes = [
        f"{tokenizer.kind} vocabulary of {tokenizer.vocab_size:,} tokens; the {split} split has {extent.tokens:,} of "
        f"them for {extent.characters:,} characters{side} in {count:,} {what}{'' if count == 1 else 's'}"
    ]
    wanted = config.tokenizer
    if tokenizer.kind == "bpe" and wanted.path is None and tokenizer.vocab_size < wanted.vocab_size:
        notes.append(
            f"data.tokenizer.vocab_size={wanted.vocab_size} is more than the text can fill: "
            f"no two tokens come together twice beyond {tokenizer.vocab_size}"
        )
    if not tokens.fit(config.memory_gb):
        size = tokens.nbytes() / 1e9
        notes.append(f"the tokens stay on disk: {size:.1f} GB, above data.memory_gb={config.memory_gb:g}")
    return Lines(problems, notes)


def too_little(split: Split, corpus: Corpus, what: str) -> ConfigError:
    """The error of a split that has too little in it to be used."""
    return ConfigError(
        f"the {split} split of {corpus.source.where} has {what}",
        "use more text, or other fractions: data.val_fraction=, data.test_fraction=",
    )
