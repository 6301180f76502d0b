"""What a person should know of some text: what was wrong with it, and how much of it there is."""

from __future__ import annotations

from dataclasses import dataclass

from aigc_cli.data.base import Split
from aigc_cli.data.corpus import Corpus
from aigc_cli.data.token_files import Tokens
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.tokenizers import Tokenizer, TokenizerConfig


@dataclass(frozen=True)
class Lines:
    """What a person should know of some text."""

    problems: list[str]
    notes: list[str]


def lines_about(split: Split, corpus: Corpus, tokens: Tokens, tokenizer: Tokenizer, wanted: TokenizerConfig) -> Lines:
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
    notes = [
        f"{tokenizer.kind} vocabulary of {tokenizer.vocab_size:,} tokens; the {split} split has {extent.tokens:,} of "
        f"them for {extent.characters:,} characters{side} in {_count(max(1, extent.documents), what)}"
    ]
    if tokenizer.kind == "bpe" and wanted.path is None and tokenizer.vocab_size < wanted.vocab_size:
        notes.append(
            f"data.tokenizer.vocab_size={wanted.vocab_size} is more than the text can fill: "
            f"no two tokens come together twice beyond {tokenizer.vocab_size}"
        )
    return Lines(problems, notes)


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def too_little(split: Split, corpus: Corpus, what: str) -> ConfigError:
    """That a split has too little in it to be used."""
    return ConfigError(
        f"the {split} split of {corpus.source.where} has {what}",
        "use more text, or other fractions: data.val_fraction=, data.test_fraction=",
    )
