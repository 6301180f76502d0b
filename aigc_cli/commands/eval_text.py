"""The part of ``aigc eval`` that measures text: files with an item a line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_cli.config import check
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.files import checksum, path_of
from aigc_cli.metrics.report import Items, Sides
from aigc_cli.metrics.result import Result, Score, finite
from aigc_cli.metrics.text import TextMetric
from aigc_cli.registry import find

if TYPE_CHECKING:
    from aigc_cli.commands.eval import EvalConfig
    from aigc_cli.commands.eval_kinds import Configs

_EXAMPLE = "for example --metric bleu fake=translations.txt real=references.txt"


def measure_text(asked: EvalConfig, metrics: Configs) -> tuple[list[Result], Sides]:
    """The figures of the lines of ``fake=``, against those of ``real=`` where a metric needs them.

    Raises:
        ConfigError: a file is not named, or not there.
        DataError: a file is no UTF-8 text, is empty, or does not pair up with the other.
    """
    built: dict[str, TextMetric] = {}
    for name, values in metrics.items():
        component = find("metric", name)
        built[name] = component.build(check(f"metric.{name}", component.config, values))
        built[name].distributed_available_fn = lambda: False
    if asked.fake is None:
        raise ConfigError(f"{next(iter(metrics))} measures text, and fake= names none", _EXAMPLE)
    needing = next((name for name, metric in built.items() if metric.reference), None)
    if needing is not None and asked.real is None:
        raise ConfigError(f"{needing} needs a text to compare with, and real= names none", _EXAMPLE)
    fake, real = (None if word is None else read_lines(path_of(word)) for word in (asked.fake, asked.real))
    assert fake is not None
    fake = fake[: asked.n]
    results = [_measured(name, metric, fake, real or [], asked.n, metrics[name]) for name, metric in built.items()]
    return results, Sides(_side(asked.fake, fake), None if asked.real is None else _side(asked.real, real or []))


def _measured(name: str, metric: TextMetric, fake: list[str], real: list[str], n: int | None, values: Any) -> Result:
    references = {"aligned": real[:n], "corpus": real, "": []}[metric.reference]
    metric.update(fake, references)
    figures = finite(name, metric.compute())
    return Result(
        metric=name,
        extractor=None,
        plain=True,
        better=metric.figures,
        config=values,
        n_real=len(references),
        generated=Score(figures, len(fake)),
        facts=metric.facts(),
    )


def _side(word: str, lines: list[str]) -> Items:
    path = path_of(word)
    return Items(len(lines), {"lines_of": word, "sha256": checksum(path)})


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file; only a line feed ends one, with or without a carriage return before it.

    Raises:
        ConfigError: there is no such file.
        DataError: it is not UTF-8.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path}", _EXAMPLE)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}", "save it as UTF-8, an item a line") from None
    lines = text.split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
