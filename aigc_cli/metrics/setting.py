"""The run, the data and the files that ``aigc eval`` names: what is measured, and what it is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from aigc_cli.config.schema import Options
from aigc_cli.data.open import Splits
from aigc_cli.errors import AigcError, ConfigError, DataError, too_many, warn
from aigc_cli.files import check_writable, path_of
from aigc_cli.metrics.asked import EvalConfig, run_of
from aigc_cli.metrics.base import kind_of
from aigc_cli.metrics.codec_subject import CodecSubject
from aigc_cli.metrics.evaluate import Sides, evaluate, sources_of
from aigc_cli.metrics.extractors.base import Sources
from aigc_cli.metrics.items import DatasetItems, has_text
from aigc_cli.metrics.passages import check_readable, items_of
from aigc_cli.metrics.record import Record
from aigc_cli.metrics.run_subject import RunSubject
from aigc_cli.metrics.speech_subject import SpeechSubject
from aigc_cli.metrics.statistics import Statistics, alike, is_statistics
from aigc_cli.metrics.subject import FilesSubject, Source, Subject, check_files_suit
from aigc_cli.metrics.text_subject import TextSubject
from aigc_cli.metrics.views import Views
from aigc_cli.modalities.base import Items, modality
from aigc_cli.registry import names
from aigc_cli.runs import Run, find_run
from aigc_cli.sampling.controls import check_controls
from aigc_cli.training.restore import restore_model
from aigc_cli.training.settings import resolve_device

if TYPE_CHECKING:
    from aigc_cli.modalities.base import DataSpec

#: The reference is cut to so many items, unless more are generated, and so is what is generated if n= is not given.
MOST = 10_000
_EXAMPLE = "for example --metric bleu fake=translations.txt real=references.txt"


def open_setting(asked: EvalConfig, options: Options, run: Run | None = None) -> Setting:
    """Finds the run and the data, or raises a :class:`ConfigError`."""
    if run is None and asked.task == "measure" and asked.of_text():
        return Setting(replace(asked, device="cpu"), None, None, named_split=False)
    named_data = isinstance(asked.data.get("name"), str)
    reference = None if asked.reference is None else find_run(asked.reference, exported=True)
    if named_data and _of_codec(asked, options, run):
        return Setting(asked, None, Splits.named(asked.data, None), "split" in options.given)
    if run is None:
        referred = asked.real is not None or reference is not None or named_data
        alone = referred and (asked.fake is not None or asked.task == "stats")
        alone = alone or (asked.fake is not None and not asked.compares_with_data())
        named = asked.run is not None and "run" in options.given  # run=null is none
        if named or (asked.fake is None and asked.task != "stats"):
            run = find_run(asked.run or "latest", exported=True)
        elif not alone:  # files may do without a run: what needs one says so
            run = run_of(asked)
    if run is None:
        asked.refuse_controls()
    owner, splits = run or reference, None
    if named_data:
        splits = Splits.named(asked.data, None if run is None else run.path)
    elif owner is not None:
        splits = Splits.of_run(owner, asked.data)
    return Setting(asked, run, splits, "split" in options.given)


def _of_codec(asked: EvalConfig, options: Options, run: Run | None) -> bool:
    """Whether what is measured is the codec of the data that is named, because no run is, or none of such data."""
    if asked.fake is not None or asked.task != "measure" or asked.of_text():
        return False
    if asked.run is None or "run" in options.given:
        return asked.run is None
    return run is None or run.spec.modality != Splits.named(asked.data, None)["train"].spec.modality


@dataclass(frozen=True)
class Setting:
    """What one evaluation is about."""

    asked: EvalConfig
    run: Run | None  # that is evaluated, or whose data is the reference; None where files alone are compared
    splits: Splits | None  # the data, where there is any
    named_split: bool  # by the user
    #: Items in the place of those that ``fake=``, ``real=`` or ``held_out=`` would read.
    given: Mapping[str, Items] = field(default_factory=dict)

    def records_folder(self) -> Path | None:
        """Where records are written: ``out=``, or else the run's own folder; None where there is neither."""
        own = None if self.run is None else self.run.path / "eval"
        folder = own if self.asked.out is None else path_of(self.asked.out)
        if folder is not None:
            check_writable(folder, "with out=")  # which is better known before anything is measured
        return folder

    def records(
        self, known: Callable[[Record], bool] | None = None, failed: list[DataError] | None = None
    ) -> list[Record]:
        """The records of all metrics that were asked for; the rest, and what is raised, as in :func:`evaluate`."""
        asked, sides = self.asked, self.sides()
        views = self.views(sides.reference)
        sources = sources_of(asked.metric, sides.subject)
        self._warn_of_idle(sides.subject, sources)
        own = [source for source in sources if source.stream == "fake" and not source.kind]
        if sides.items is not None and len(own) < len(sources):
            asked.check_number(sides.items, drawn=bool(own))
        how: dict[str, Any] = {"n": asked.n, "seed": asked.seed, "seeds": asked.seeds or 1}
        return evaluate(sides, asked.metrics(), views, **how, known=known, failed=failed)

    def _warn_of_idle(self, subject: Subject, sources: Mapping[Source, list[str]]) -> None:
        """Warns of keys and controls that have no effect on any of the metrics."""
        asked = self.asked
        idle = ["split"] if asked.real is not None or asked.reference is not None else []
        if isinstance(subject, RunSubject):
            subject.warn_of_idle(sources)
            fixed = [name for source, names in sources.items() if not source.drawn for name in names]
            if asked.task == "measure" and asked.seeds is not None and fixed:
                where = f"for {', '.join(fixed)}" if len(fixed) < len(asked.metric) else "here"
                warn(f"seeds= has no effect {where}")
            elif asked.seeds is not None and not getattr(subject.controls, "draws", True):
                warn("seeds= has no effect where nothing is drawn")
        elif asked.of_text():
            idle = ["run", "data", "step", "seed", "seeds", "split", "reference", "held_out"]
            idle += ["real"] if asked.comparing() is None else []
        else:
            idle += [] if asked.reference is not None else ["step", "seed"]
            idle += ["n"] if isinstance(subject, FilesSubject) and isinstance(subject.items, Statistics) else []
        asked.warn_of_idle(*idle)

    # what is measured, and what it is held against

    def sides(self) -> Sides:
        """What is measured, with its reference and the baseline.

        Raises:
            ConfigError: words that contradict each other, or name nothing.
            DataError: files that cannot be trusted.
        """
        asked, run = self.asked, self.run
        if run is None and asked.of_text():
            return self._texts()
        if asked.fake is None and run is not None and has_text(run.spec):
            return self._run_of_text(run)
        if asked.fake is not None:
            check_files_suit(asked.metric)
            if asked.seeds is not None and asked.seeds > 1:
                raise ConfigError(f"seeds={asked.seeds}: fake= is one set", "leave seeds= out, or evaluate a run")
        if not asked.takes("fake"):
            asked.refuse_other_side()
        fake, real, held_out = (self.read(key) for key in ("fake", "real", "held_out"))
        if isinstance(held_out, Statistics):
            raise ConfigError(f"held_out={asked.held_out} holds statistics", "name the items themselves")
        if real is not None and asked.reference is not None:
            raise ConfigError("real= and reference= are two references", "leave one of them out")
        if fake is not None:
            if asked.n is not None and not isinstance(fake, Statistics):
                fake = fake.take(asked.n)
            return self._compared(FilesSubject(fake), real, held_out)
        if run is None:
            return self._codec_alone(real, held_out)
        subject = self._model(run, asked.controls)
        items = self._measured_on() if any("fake" not in kind_of(name).takes for name in asked.metric) else None
        if not asked.takes("fake"):
            return Sides(subject, items=items)
        if subject.mode == "reconstruct":
            subject.items = self._held_out()
        return self._compared(subject, real, held_out)._replace(items=items)

    def _texts(self) -> Sides:
        """The lines of ``fake=``, against those of ``real=`` where a metric needs them."""
        asked = self.asked
        name = next(name for name in asked.metric if kind_of(name).of_text())
        check_files_suit(asked.metric)
        if asked.fake is None:
            raise ConfigError(f"{name} measures text: name a file of it with fake=", _EXAMPLE)
        if asked.real is None and (needing := asked.comparing()) is not None:
            raise ConfigError(f"{needing} needs a reference text: name one with real=", _EXAMPLE)
        asked.refuse_controls()
        text = modality("text")
        fake = self.given.get("fake") or text.read(path_of(asked.fake))
        real = self.given.get("real") or (None if asked.real is None else text.read(path_of(asked.real)))
        if asked.n is None:
            return Sides(FilesSubject(fake, real), real)
        if asked.n > len(fake):
            raise too_many(asked.n, len(fake), f"lines in {asked.fake}")
        return Sides(FilesSubject(fake.take(asked.n), None if real is None else real.take(asked.n)), real)

    def _run_of_text(self, run: Run) -> Sides:
        """A run of text, held against held-out text; copies are looked for in what it was trained on."""
        asked = self.asked
        asked.refuse_other_side()
        if asked.controls.get("prompt") is not None:
            raise ConfigError("prompt= is for aigc sample: what is measured here is held-out text", "leave it out")
        subject = self._model(run, asked.controls)
        self.data["train"]  # says what is wrong with the words for the data, before another split is looked for
        subject.items = items = self._measured_on()
        check_readable(items.dataset, run.spec, run.name)
        for problem in items.dataset.problems():  # such as characters that the run has no tokens for
            warn(problem)
        assert isinstance(subject, TextSubject), "it makes text"
        return Sides(subject, subject.corpus if asked.takes("real") else None, items=items, drawn=asked.n)

    def _model(self, run: Run, words: Mapping[str, Any]) -> RunSubject:
        """A run's model, ready to be measured."""
        asked = self.asked
        splits = self.data if run is self.run else Splits.of_run(run, asked.data)
        restored = restore_model(run, step=asked.step, device=asked.device)
        controls = check_controls(run, words, "eval")
        filling = check_controls(run, {**restored.model.filling, **words}, "eval")
        kind = TextSubject if has_text(run.spec) else SpeechSubject if run.spec.source is not None else RunSubject
        return kind(restored, controls, splits, filling, asked.batch_size)

    def _codec_alone(self, real: Items | None, held_out: Items | None) -> Sides:
        """What a codec loses of the data, where there is no model."""
        if self.splits is None:
            raise ConfigError("there is nothing to evaluate", "name a run with run=, files with fake=, or data=")
        items = self._measured_on()
        if has_text(items.spec):
            raise ConfigError(f"{self.data.name} is text, of which nothing is lost", "name a run with run=")
        if not self.asked.takes("fake"):
            return Sides(CodecSubject(items), items=items)
        return self._compared(CodecSubject(items), real, held_out)._replace(items=items)

    def _compared(
        self, subject: RunSubject | FilesSubject | CodecSubject, real: Items | None, held_out: Items | None
    ) -> Sides:
        """A subject with what its samples are compared with, and the baseline beside them."""
        asked, fake = self.asked, subject.items if isinstance(subject, FilesSubject) else None
        n = self._number(real, subject.items) if fake is None else len(fake)
        if real is None and self.splits is not None:  # else nothing is compared with it
            real = self._reference(n)
        # Nothing is held out from a reference that is not of the data.
        own = asked.real is None or (isinstance(real, Statistics) and real.are_of(self.splits, asked.split))
        if held_out is None and own and asked.reference is None and self.splits is not None:
            with suppress(ConfigError):
                held_out = self._held_out()
        few, more = (
            held_out if held_out is None or most >= len(held_out) else held_out.take(most)
            for most in (n or MOST, max(n, MOST))
        )
        fake, real, few, more = alike([fake, real, few, more], self._like())
        return Sides(subject if fake is None else FilesSubject(fake), real, few, more, drawn=n)

    def _number(self, real: Items | None, made_of: Items | None) -> int:
        """How many items are generated."""
        asked, size = self.asked, MOST
        if real is not None or asked.reference is None:
            size = len(self.data[asked.split] if real is None else real) or MOST
        most = asked.n or min(size, MOST)
        if not isinstance(made_of, DatasetItems):
            return most
        asked.check_number(made_of)
        return min(most, len(made_of))

    def _reference(self, n: int) -> Items:
        asked = self.asked
        if asked.reference is None:
            return self.items(max(n, MOST))
        run = find_run(asked.reference, exported=True)
        # Its noise follows that of the sample sets, so that a run against itself is not compared with the same samples.
        items = self._model(run, {}).fake(n, asked.seed + (asked.seeds or 1))
        items.facts["called"] = run.name
        return items

    # the data and files

    @property
    def data(self) -> Splits:
        """The data, without which it raises a :class:`ConfigError`."""
        if self.splits is None:
            hint = "name a run with run=, a dataset with data=, or real="
            raise ConfigError("there is no data to compare with", hint)
        return self.splits

    def items(self, n: int | None = None) -> DatasetItems:
        """The items of the split that is the reference where nothing else is, or `n` that stand for them."""
        return items_of(self.data[self.asked.split], self.asked.split, self.data.name, n)

    def _held_out(self) -> DatasetItems:
        """The items of the first split that is neither the reference's nor empty."""
        split, dataset = self.data.held_out(self.asked.split)
        return items_of(dataset, split, self.data.name)

    def _measured_on(self) -> DatasetItems:
        """Items of the split that the user names, or else held-out ones."""
        return self.items() if self.named_split else self._held_out()

    def views(self, reference: Items | None = None) -> Views:
        """What metrics see of items, through extractors that may learn from the data, or without any from the
        reference."""
        asked = self.asked
        weights = None if asked.weights is None else path_of(asked.weights)
        items = None if isinstance(reference, Statistics) else reference
        sources = Sources(resolve_device(asked.device), weights, self.splits, items, asked.resize, asked.backbone)
        return Views(sources, asked.batch_size, asked.dtype)

    def _like(self) -> DataSpec | None:
        """What items of files are brought to the form of: those of the run, or of the data that is the reference."""
        if self.run is not None:
            return self.run.spec
        if self.splits is not None and self.asked.real is None and self.asked.reference is None:
            return self.splits[self.asked.split].spec
        return None

    def read(self, key: Literal["fake", "real", "held_out"]) -> Items | None:
        """The items or statistics that a user named with a key; None where it is not given."""
        word = getattr(self.asked, key)
        if word is None or key in self.given:
            return self.given.get(key)
        path, like = path_of(word), self._like()
        if not path.exists():
            raise DataError(f"{key}={word}: there is nothing at {path}", "name a file or a folder of items")
        if is_statistics(path):
            return Statistics(path)
        return _by_its_files(path) if like is None else modality(like.modality).read(path, like)


def _by_its_files(path: Path) -> Items:
    """The items of a file or a folder where no data says what they are: pictures, or whatever else reads them."""
    refused: list[AigcError] = []
    for name in ("image", *sorted({*names("modality")} - {"image", "text"})):
        try:
            return modality(name).read(path)
        except (ConfigError, DataError) as error:
            refused.append(error)
    raise refused[0]
