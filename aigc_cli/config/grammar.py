"""A user's key=value words, in the grammar that Hydra reads.

People type prompts and paths as they are. Hydra's grammar gives a meaning to commas, parentheses, ``=`` and more, so
what is meant as text is quoted before it gets there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from aigc_cli.config.folders import top_level_keys
from aigc_cli.config.words import split_key
from aigc_cli.errors import ConfigError

#: Keys whose value is text, whatever it looks like.
TEXT_KEYS = {
    "run", "reference", "out", "fake", "real", "held_out", "weights", "run_dir", "outputs", "prompt", "input", "text",
}  # fmt: skip
#: The same for the last part of a dotted key.
TEXT_TAILS = {"root", "path", "file", "dir", "folder", "weights", "prompt", "prompt_file", "init_from"}
#: The same for a model's controls: a class may be called 7, and cat,dog are two that are drawn together.
TEXT_CONTROLS = {"controls.class", "controls.to"}
#: Figures that people ask for by name, with the metric that gives each among others.
FIGURES = {
    **dict.fromkeys(("precision", "recall", "density", "coverage"), "prdc"),
    **dict.fromkeys(("mse", "psnr", "ssim"), "reconstruction"),
    **dict.fromkeys(("elbo", "nelbo", "kl", "bits_per_dim", "iw_bound"), "likelihood"),
    **dict.fromkeys(("nll_per_token", "nll_per_character", "perplexity", "bits_per_byte"), "likelihood"),
    **dict.fromkeys(("authenticity", "copies"), "memorization"),
    **dict.fromkeys(("rouge1", "rouge2", "rougeL"), "rouge"),
    **dict.fromkeys(("distinct1", "distinct2", "distinct3"), "distinct"),
    "longest_copied_run": "copied",
    "tokenised_bleu": "bleu",
}
#: The commands that draw samples: keys that are none of their own are controls of the model.
SAMPLING = ("sample", "eval")


def prepare(command: str, overrides: Sequence[str], *, multirun: bool = False) -> list[str]:
    """The words in Hydra's grammar, each quoted where it must be.

    For ``sample`` and ``eval``, keys that are none of their own become ``controls.<key>``; ``metric=a,b`` is a list.

    Raises:
        ConfigError: a word that is not key=value, or a value that is broken.
    """
    return [_prepare(command, word, multirun) for word in overrides]


def parse(word: str) -> Override | None:
    """The word as Hydra's parser sees it; None where it sees nothing in it."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def refuse_sweeps(words: Sequence[str]) -> None:
    """Refuses words that give several values where there is one job.

    Raises:
        ConfigError: the first such word.
    """
    for word in words:
        parsed = parse(word)
        if parsed is not None and parsed.is_sweep_override():
            raise ConfigError(*several_values(word, parsed))


def several_values(word: str, parsed: Override) -> tuple[str, str]:
    """The message and the hint for a word that sweeps where nothing can."""
    key = parsed.key_or_group
    return f"{word} gives several values", f"add -m to sweep over them, or write {key}=[a,b] for a list"


def quote(text: str) -> str:
    """Text that Hydra's grammar reads back as it is."""
    return QuotedString(text, Quote.single).with_quotes()


def _prepare(command: str, word: str, multirun: bool) -> str:
    sign, key, value = split_key(word)
    if value is None or key.startswith("hydra/"):
        return word
    root = key.split(".")[0].split("@")[0].split("/")[0]
    literal = False
    if command == "eval" and key == "model":  # the network of extractor=torchvision; a run has its own model
        root = key = "backbone"
    if command in SAMPLING and root != "hydra" and (root == "controls" or root not in top_level_keys(command)):
        sign, key, literal = "++", f"controls.{key.removeprefix('controls.')}", True
    elif command == "eval" and root == "data" and "." in key:  # the dataset itself says which keys it has
        sign = sign or "++"
    elif command == "eval" and key == "metric":
        names = (name.strip() for name in value.removeprefix("[").removesuffix("]").split(","))
        value = f"[{','.join(dict.fromkeys(FIGURES.get(name, name) for name in names))}]"
    return f"{sign}{key}={_value(key, value, literal=literal, multirun=multirun)}"


def _value(key: str, value: str, *, literal: bool, multirun: bool) -> str:
    if not value or value.lower() == "null":
        return value
    parsed = parse(f"key={value}")
    if parsed is not None and (_is_quoted(value, parsed) or (multirun and parsed.is_sweep_override())):
        return value
    if _is_text(key):
        if value.startswith("~/"):
            value = os.path.expanduser(value)
        return quote(value.replace("${", "\\${") if literal else value)
    if parsed is None:
        if value[0] in "[{'\"":
            raise ConfigError(f"{key}={value} cannot be read", "close every bracket and quote; quote odd characters")
        return quote(value.replace("${", "\\${") if literal else value)
    if literal and (parsed.is_sweep_override() or isinstance(parsed.value(), str)):
        return quote(value.replace("${", "\\${"))
    return value


def _is_quoted(value: str, parsed: Override) -> bool:
    return value[0] in "'\"" and value[-1] == value[0] and not parsed.is_sweep_override()


def _is_text(key: str) -> bool:
    return key in TEXT_KEYS or key in TEXT_CONTROLS or key.rsplit(".", 1)[-1] in TEXT_TAILS
