"""The run, the data and the files that ``aigc eval`` names: what is measured, and what it is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from aigc_cli.commands.eval_config import (
    EvalConfig,
    check_no_other_side,
    check_number,
    warn_of_idle,
)
from aigc_cli.commands.eval_setting import Setting
from aigc_cli.data.open import Splits
from aigc_cli.errors import ConfigError, warn
from aigc_cli.files import path_of
from aigc_cli.metrics.base import kind_of
from aigc_cli.metrics.evaluate import evaluate, sources_of
from aigc_cli.metrics.items import DatasetItems, has_text
from aigc_cli.metrics.passages import check_readable
from aigc_cli.metrics.record import Record
from aigc_cli.metrics.run_subject import RunSubject
from aigc_cli.metrics.statistics import Statistics, is_statistics
from aigc_cli.metrics.subject import FilesSubject, Source, Subject
from aigc_cli.modalities.base import Items
from aigc_cli.runs import Run, find_run
from aigc_cli.sampling.controls import check_controls
from aigc_cli.training.restore import restore_model

if TYPE_CHECKING:
    from aigc_cli.modalities.base import DataSpec

#: The reference is cut to so many items, unless more are generated, and so is what is generated if n= is not given.
MOST = 10_000


class Sides(NamedTuple):
    """What is measured, and all that it is held against."""

    subject: Subject
    #: What samples are compared with; of text, where copies are looked for.
    reference: Items | None = None
    #: Real items for the baseline, as many as are generated; and more of them, for metrics whose scores depend on them.
    held_out: Items | None = None
    judges: Items | None = None
    #: What a model is asked about, and makes others of.
    items: DatasetItems | None = None
    #: How many samples there are; None is as many as suit the subject.
    drawn: int | None = None


def open_run(setting: Setting, run: Run, words: Mapping[str, Any]) -> RunSubject:
    """A run's model, ready to be measured.

    Raises:
        ConfigError: controls that the model does not have.
        DataError: the checkpoint cannot be trusted.
    """
    asked = setting.asked
    splits = setting.splits if run is setting.run and setting.splits is not None else Splits.of_run(run, asked.data)
    restored = restore_model(run, step=asked.step, device=asked.device)
    controls = check_controls(run, words, "eval")
    filling = check_controls(run, {**restored.model.filling, **words}, "eval")
    return RunSubject(restored, controls, splits, filling=filling, batch_size=asked.batch_size)


def text_sides(setting: Setting, run: Run) -> Sides:
    """A run of text, held against held-out text; copies are looked for in what it was trained on.

    Raises:
        ConfigError: words that have no effect on it, or data that it cannot read.
        DataError: a checkpoint or data that cannot be trusted.
    """
    asked = setting.asked
    check_no_other_side(asked)
    if asked.controls.get("prompt") is not None:
        raise ConfigError("prompt= is for aigc sample: what is measured here is held-out text", "leave it out")
    subject = open_run(setting, run, asked.controls)
    setting.split("train")  # says what is wrong with the words for the data, before another split is looked for
    items = setting.measured_on()
    check_readable(items.dataset, run.spec, run.name)
    for problem in items.dataset.problems():  # such as characters that the run has no tokens for
        warn(problem)
    subject.items = items
    copies = any("real" in kind_of(name).takes for name in asked.metric)
    return Sides(subject, subject.corpus if copies else None, items=items, drawn=asked.n)


def open_sides(setting: Setting) -> Sides:
    """What is measured, with its reference and the baseline.

    Raises:
        ConfigError: words that contradict each other, or name nothing.
        DataError: files that cannot be trusted.
    """
    asked, run = setting.asked, setting.run
    if run is not None and asked.fake is None and has_text(run.spec):
        return text_sides(setting, run)
    if asked.fake is not None:
        _check_files_serve(asked)
    kinds = [kind_of(name) for name in asked.metric]
    compares = any("fake" in kind.takes for kind in kinds)
    if not compares:
        check_no_other_side(asked)
    fake, real, held_out = _named_sides(setting)
    if fake is not None:
        return _with_reference(setting, FilesSubject(fake), fake, real, held_out)
    if run is None:
        raise ConfigError("there is nothing to evaluate", "name a run with run=, or files with fake=")
    subject = open_run(setting, run, asked.controls)
    items = setting.measured_on() if any("fake" not in kind.takes for kind in kinds) else None
    if not compares:
        return Sides(subject, items=items)
    if subject.mode == "reconstruct":
        subject.items = setting.held_out()
    return _with_reference(setting, subject, None, real, held_out)._replace(items=items)


def _named_sides(setting: Setting) -> tuple[Items | None, Items | None, Items | None]:
    """What ``fake=``, ``real=`` and ``held_out=`` name.

    Raises:
        ConfigError: they contradict each other.
    """
    asked = setting.asked
    fake, real, held_out = (setting.read(word) for word in (asked.fake, asked.real, asked.held_out))
    if isinstance(held_out, Statistics):
        raise ConfigError(f"held_out={asked.held_out} holds statistics", "name the items themselves")
    if real is not None and asked.reference is not None:
        raise ConfigError("real= and reference= are two references", "leave one of them out")
    if fake is not None and not isinstance(fake, Statistics) and asked.n is not None:
        fake = fake.take(asked.n)
    return fake, real, held_out


def _with_reference(
    setting: Setting, subject: Subject, fake: Items | None, real: Items | None, held_out: Items | None
) -> Sides:
    """A subject with what its samples are compared with, and the baseline beside them."""
    made_of = subject.items if isinstance(subject, RunSubject) else None
    n = len(fake) if fake is not None else _number(setting, real, made_of)
    if real is None and setting.splits is not None:  # else nothing is compared with it
        real = _reference(setting, n)
    own = setting.asked.real is None or (isinstance(real, Statistics) and _of_own_data(setting, real))
    few, more = (_held_out(setting, held_out, most, own) for most in (n or MOST, max(n, MOST)))
    fake, real, few, more = _alike([fake, real, few, more], setting.like())
    return Sides(subject if fake is None else FilesSubject(fake), real, few, more, drawn=n)


def _check_files_serve(asked: EvalConfig) -> None:
    """Refuses what needs a model, before files are read.

    Raises:
        ConfigError: a metric, or several seeds.
    """
    for name in asked.metric:
        if "fake" not in kind_of(name).takes:
            raise ConfigError(f"{name} needs a model, and fake= gives only files", "name a run with run=")
    if asked.seeds is not None and asked.seeds > 1:
        raise ConfigError(f"seeds={asked.seeds}: fake= is one set", "leave seeds= out, or evaluate a run")


def _alike(sides: list[Items | None], like: DataSpec | None) -> list[Items | None]:
    """Several sides, each brought to the form of the others where that loses nothing."""
    specs = [side.spec for side in sides if side is not None and not isinstance(side, Statistics)]
    for spec in [*specs, *([] if like is None else [like])]:
        sides = [side if side is None or isinstance(side, Statistics) else side.like(spec) for side in sides]
    return sides


def _number(setting: Setting, real: Items | None, made_of: DatasetItems | None) -> int:
    """How many items are generated."""
    asked = setting.asked
    if real is not None or asked.reference is None:
        size = len(real) if real is not None else len(setting.split(asked.split))
    else:
        size = MOST
    most = asked.n or min(size or MOST, MOST)
    if made_of is None:
        return most
    check_number(asked.n, made_of)
    return min(most, len(made_of))


def _reference(setting: Setting, n: int) -> Items:
    asked = setting.asked
    if asked.reference is None:
        return setting.items(asked.split, max(n, MOST))
    run = find_run(asked.reference)
    # Its noise follows that of the sample sets, so that a run against itself is not compared with the same samples.
    items = open_run(setting, run, {}).fake(n, asked.seed + (asked.seeds or 1))
    items.facts["called"] = run.name
    return items


def _of_own_data(setting: Setting, statistics: Statistics) -> bool:
    """Whether a stamp says that statistics are of the very split that is the reference without them."""
    images = statistics.stamp.get("images")
    if not isinstance(images, dict) or images.get("fingerprint") is None or setting.splits is None:
        return False
    if images.get("split") != setting.asked.split:
        return False
    return bool(setting.split(setting.asked.split).spec.fingerprint == images["fingerprint"])


def _held_out(setting: Setting, named: Items | None, most: int, own: bool) -> Items | None:
    """At most so many of the items that the user named, or of the first split that is neither reference nor empty;
    None where the reference is not of the setting's own data, so that nothing is held out from it."""
    if named is not None:
        return named.take(most) if most < len(named) else named
    if not own or setting.asked.reference is not None or setting.splits is None:
        return None
    try:
        return setting.held_out(most)
    except ConfigError:
        return None


def evaluated(
    setting: Setting, sides: Sides | None = None, *, known: Callable[[Record], bool] | None = None
) -> list[Record]:
    """The records of all metrics that were asked for; `known` as in :func:`evaluate`.

    Raises:
        ConfigError, DataError: as :func:`open_sides` and :func:`evaluate`.
    """
    asked = setting.asked
    sides = open_sides(setting) if sides is None else sides
    sources = sources_of(asked.metric, sides.subject)
    _warn_of_idle(setting, sides, sources)
    own = [source for source in sources if source.stream == "fake" and not source.kind]
    if sides.items is not None and len(own) < len(sources):
        check_number(asked.n, sides.items, drawn=bool(own))
    return evaluate(
        sides.subject, asked.metrics(), setting.views(), reference=sides.reference, held_out=sides.held_out,
        judges=sides.judges, items=sides.items, n=asked.n, drawn=sides.drawn, seed=asked.seed,
        seeds=asked.seeds or 1, known=known,
    )  # fmt: skip


def _warn_of_idle(setting: Setting, sides: Sides, sources: Mapping[Source, list[str]]) -> None:
    """Warns of keys and controls that have no effect on any of the metrics."""
    asked, subject = setting.asked, sides.subject
    idle = ["split"] if asked.real is not None or asked.reference is not None else []
    if isinstance(subject, RunSubject):
        subject.warn_of_idle(sources)
        fixed = [name for source, names in sources.items() if not source.drawn for name in names]
        if asked.task == "measure" and asked.seeds is not None and fixed:
            where = f"for {', '.join(fixed)}" if len(fixed) < len(asked.metric) else "here"
            warn(f"seeds= has no effect {where}")
        elif asked.seeds is not None and not getattr(subject.controls, "draws", True):
            warn("seeds= has no effect where nothing is drawn")
    elif not any(kind_of(name).of_text() for name in asked.metric):  # of text it is known before files are read
        idle += [] if asked.reference is not None else ["step", "seed"]
        idle += ["n"] if asked.fake is not None and is_statistics(path_of(asked.fake)) else []
    warn_of_idle(asked, *idle)
