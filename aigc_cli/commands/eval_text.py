"""The part of ``aigc eval`` that measures text: files with an item a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aigc_cli.commands.eval_words import check_no_controls, check_number, warn_of_ignored
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError
from aigc_cli.files import checksum, path_of
from aigc_cli.metrics.report import Items, Sides
from aigc_cli.metrics.result import Result, Score, finite
from aigc_cli.metrics.text import TextMetric
from aigc_cli.modalities.text_files import printable, read_lines
from aigc_cli.registry import find

if TYPE_CHECKING:
    from aigc_cli.commands.eval import EvalConfig
    from aigc_cli.commands.eval_kinds import Configs

_EXAMPLE = "for example --metric bleu fake=translations.txt real=references.txt"


def measure_text(asked: EvalConfig, metrics: Configs) -> tuple[list[Result], Sides]:
    """The figures of the lines of ``fake=``, against those of ``real=`` where a metric needs them.

    Raises:
        ConfigError: a file is not named, or not there, or has fewer lines than ``n=``.
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
    check_no_controls(asked)
    idle = ("run", "data", "step", "seed", "seeds", "split", "reference", "held_out", *([] if needing else ["real"]))
    warn_of_ignored(asked, {}, *idle)
    fake, real = _lines(asked.fake), [] if asked.real is None else _lines(asked.real)
    check_number(asked.n, len(fake), f"lines in {asked.fake}")
    fake = fake[: asked.n]
    results = [_measured(name, metric, fake, real, asked.n, metrics[name]) for name, metric in built.items()]
    return results, Sides(_side(asked.fake, fake), None if asked.real is None else _side(asked.real, real))


def _measured(name: str, metric: TextMetric, fake: list[str], real: list[str], n: int | None, values: Any) -> Result:
    references = {"aligned": real[:n], "itself": real[:n], "corpus": real, "": []}[metric.reference]
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


def _lines(word: str) -> list[str]:
    path = path_of(word)
    if not path.is_file():
        raise ConfigError(f"there is no file {printable(path)}", _EXAMPLE)
    if path.suffix.lower() in (".json", ".jsonl"):
        raise ConfigError(
            f"{printable(path)} is of JSON, and lines of plain text are measured", "save its texts as a .txt"
        )
    return read_lines(path, "save it as UTF-8, an item a line")
