"""Words of ``aigc eval`` that say where its results go, that change nothing, or that fit nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_cli.config.folders import top_level_keys
from aigc_cli.errors import ConfigError, suggest, warn
from aigc_cli.files import check_writable, path_of
from aigc_cli.metrics.statistics_file import is_statistics

if TYPE_CHECKING:
    from aigc_cli.commands.eval import EvalConfig
    from aigc_cli.runs import Run

#: What a key is where nobody gave it; the others are null, or hold nulls alone.
_USUAL = {"run": "latest", "seed": 0, "split": "train", "dtype": "float32"}


def records_folder(asked: EvalConfig, run: Run | None = None) -> Path | None:
    """Where results are written: ``out=``, or else the run's own folder; None where there is neither.

    Raises:
        ResourceError: nothing can be written there, which is better known before anything is measured.
    """
    own = None if run is None else run.path / "eval"
    folder = own if asked.out is None else path_of(asked.out)
    if folder is not None:
        check_writable(folder, "with out=")
    return folder


def warn_of_ignored(asked: EvalConfig, metrics: Mapping[str, Mapping[str, Any]], *others: str) -> None:
    """Warns of keys that change nothing for metrics on features, and of `others`, which nothing looks at."""
    extractors = {values.get("extractor") for values in metrics.values()}
    of_files = asked.fake is not None and asked.reference is None
    ignored = {
        "extractor": not extractors,
        "dtype": not extractors,
        "weights": extractors <= {"classifier"},
        "resize": "inception" not in extractors,
        "backbone": "torchvision" not in extractors,
        "step": of_files,
        "seed": of_files,
        "n": asked.fake is not None and is_statistics(path_of(asked.fake)),
        "split": asked.real is not None or asked.reference is not None,
        **dict.fromkeys(others, True),
    }
    for key in (key for key, is_so in ignored.items() if is_so and _given(asked, key)):
        warn(f"{key}= changes nothing here")


def _given(asked: EvalConfig, key: str) -> bool:
    value = getattr(asked, key)
    return any(part is not None for part in value.values()) if isinstance(value, dict) else value != _USUAL.get(key)


def check_number(n: int | None, there: int, what: str, *, drawn: bool = False) -> None:
    """Refuses an ``n=`` of more than is there; only warns where it is of what is `drawn`, too.

    Raises:
        ConfigError: so many of `what` are not there.
    """
    if n is None or n <= there:
        return
    found = f"n={n}: there are {there:,} {what}"
    if not drawn:
        raise ConfigError(found, f"use n={there}, or no n=")
    warn(f"{found}, all of which are measured")


def check_no_other_side(asked: EvalConfig, hint: str) -> None:
    """Refuses what a run would be compared with where all is asked of its model; warns of other idle keys.

    Raises:
        ConfigError: ``real=``, ``reference=`` or ``held_out=``.
    """
    for key in ("real", "reference", "held_out"):
        if getattr(asked, key) is not None:
            what = "a run is measured here on held-out items of its data"
            raise ConfigError(f"{key}={getattr(asked, key)} changes nothing: {what}", hint)
    warn_of_ignored(asked, {})


def check_no_controls(asked: EvalConfig) -> None:
    """Refuses words for a model where there is none.

    Raises:
        ConfigError: there is such a word.
    """
    if asked.controls:
        word = next(iter(asked.controls))
        raise ConfigError(f"there is no key {word}", suggest(word, top_level_keys("eval") - {"controls"}))
