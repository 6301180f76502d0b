"""The part of ``aigc eval`` that measures a run of text: its likelihood, latents and fillings, and what it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from aigc_cli.commands.drawing import facts_of
from aigc_cli.commands.eval_kinds import by_kind
from aigc_cli.commands.eval_model import held_out_items
from aigc_cli.commands.eval_words import check_no_other_side, check_number, records_folder
from aigc_cli.commands.evaluating import open_setting
from aigc_cli.config.compose import compose
from aigc_cli.config.schema import Options, check
from aigc_cli.errors import ConfigError, warn
from aigc_cli.metrics.infill import measure_infill
from aigc_cli.metrics.latents import measure_active_units
from aigc_cli.metrics.passages import Passages, check_readable, choose_rows
from aigc_cli.metrics.report import Items, Sides, write
from aigc_cli.metrics.result import Result, averaged
from aigc_cli.metrics.stamp import record
from aigc_cli.metrics.text_likelihood import measure_text_likelihood
from aigc_cli.metrics.written import (
    Author,
    Written,
    continuations,
    measure_written,
    own_texts,
    reconstructions,
    translations,
)
from aigc_cli.modalities.text import TextCodec
from aigc_cli.registry import find
from aigc_cli.runs import Run, find_run
from aigc_cli.sampling.controls import check_controls, model_class, named_values
from aigc_cli.sampling.modes import ignored, modes_of, warn_of_idle
from aigc_cli.training.restore import Restored, restore_model

if TYPE_CHECKING:
    from aigc_cli.commands.eval import EvalConfig
    from aigc_cli.commands.eval_kinds import Configs, Kinds
    from aigc_cli.commands.evaluating import Setting

Told = tuple[list[Result], Sides]
#: The metrics of a run of each modality of text, where nobody names any.
USUAL = {
    "text": ("likelihood", "distinct", "self_bleu", "repetition", "copied"),
    "text from text": ("likelihood", "bleu", "chrf"),
}
#: Those that come to them where the model has a latent for each text.
USUAL_OF_LATENTS = ("reconstruction_bleu", "active_units")
_TEXTS = 128  # of its own, where n= does not say
_PROMPTS = 256  # held-out passages that are continued, where n= does not say


def text_run(asked: EvalConfig) -> Run | None:
    """The run that is evaluated, if it is one of text."""
    if asked.fake is not None:
        return None
    try:
        run = find_run(asked.run)
    except ConfigError:  # told where a run is needed
        return None
    assert run.config  # one that cannot be read is told of before anything that follows from it
    return run if run.spec.kind in USUAL else None


def usual_metrics(run: Run) -> tuple[str, ...]:
    """The metrics of a run of text where nobody names any."""
    latent = "posterior" in model_class(run.config["model"]["name"]).can
    return (*USUAL[run.spec.kind], *(USUAL_OF_LATENTS if latent else ()))


def with_usual_metrics(runs: Sequence[Run], asked: EvalConfig, options: Options) -> EvalConfig:
    """What was asked for, with the usual metrics of such runs where none were named; of several, those of all."""
    if any(word.lstrip("+").startswith("metric=") for word in options.overrides):
        return asked
    usual = [name for name in usual_metrics(runs[0]) if all(name in usual_metrics(run) for run in runs)]
    return replace(asked, metric=compose("eval", options.overrides, usual=usual)["metric"])


def text_records(runs: Sequence[Run], asked: EvalConfig, options: Options) -> list[tuple[str, dict[str, Any]]]:
    """The records of several runs of text by metric, each beside its run's name; they are written as ever.

    Raises:
        ConfigError, DataError: as :func:`measure_text_run`.
    """
    named = []
    asked = with_usual_metrics(runs, asked, options)
    for run in runs:
        folder = records_folder(asked, run)
        assert folder is not None, "a run has one"
        setting = open_setting(asked, options, run)
        records: dict[str, Any] = {}
        for results, sides in measure_text_run(setting, by_kind(setting.asked.metric)):
            for result in results:
                records[result.metric] = record(result, sides, str(setting.device), dtype=asked.dtype)
                write(records[result.metric], folder)
        named.append((run.name, records))
    return named


def measure_text_run(setting: Setting, kinds: Kinds) -> list[Told]:
    """All metrics that were asked for of a run of text, apart by what they look at.

    Raises:
        ConfigError: a metric that does not fit, or controls that the model does not have.
        DataError: a checkpoint or data that cannot be trusted.
    """
    run = _open(setting, kinds)
    run.warn_of_idle(kinds)
    writers = {run.writer(name) for name in kinds.text}
    if kinds.scores or kinds.fills or kinds.latents or writers - {run.own}:
        there, what = len(run.held_out), f"items in the {run.held_out.split} split"
        check_number(setting.asked.n, there, what, drawn=run.own in writers)
    told = [run.likelihood(name, values) for name, values in kinds.scores.items()]
    told += [run.infill(values) for values in kinds.fills.values()]
    told += [run.active_units() for _ in kinds.latents]
    written: dict[Callable[[Configs], Told], Configs] = {}
    for name, values in kinds.text.items():
        written.setdefault(run.writer(name), {})[name] = values
    return told + [write(metrics) for write, metrics in written.items()]


def _reference(name: str) -> str:
    build: Any = find("metric", name).build
    return str(build.reference)


def _open(setting: Setting, kinds: Kinds) -> TextRun:
    asked, run = setting.asked, setting.run
    assert run is not None, "it was found to be one of text"
    fitting = f"ask for metrics of text, such as --metric {','.join(usual_metrics(run))}"
    if kinds.features or kinds.pairs:
        wrong = next(iter({**kinds.features, **kinds.pairs}))
        raise ConfigError(f"{wrong} measures images, and {run.name} writes text", fitting)
    alone = [*kinds.fills, *(name for name in kinds.text if name == "continuation" or _reference(name) == "itself")]
    if run.spec.source is not None and alone:
        raise ConfigError(f"{alone[0]} is for texts that stand alone, and {run.name} translates", fitting)
    check_no_other_side(
        asked, "leave it out, or name a file of text to measure with fake=" if kinds.text else "leave it out"
    )
    controls = _controls(run, asked, kinds)
    restored = restore_model(run, step=asked.step, device=asked.device)
    setting.split("train")  # says what is wrong with the words for the data, before another split is looked for
    split, dataset = held_out_items(setting)
    check_readable(dataset, restored.spec, run.name)
    for problem in dataset.problems():  # such as characters that the run has no tokens for
        warn(f"{problem}")
    held_out = Passages(dataset, range(len(dataset)), setting.data or "", split)
    return TextRun(setting, restored, held_out, controls)


def _controls(run: Run, asked: EvalConfig, kinds: Kinds) -> Any:
    """The controls of a run's model, of which not all can be measured with."""
    controls = check_controls(run, asked.controls, "eval")
    mode = getattr(controls, "mode", None)
    if mode == "interpolate":
        raise ConfigError(f"mode={mode} shows how samples change, and is no set of samples", "use mode=sample")
    if mode == "reconstruct" and "continuation" in kinds.text:
        raise ConfigError(f"continuation goes on from prompts, and mode={mode} does not", "leave one of them out")
    if asked.controls.get("prompt") is not None:
        raise ConfigError("prompt= is for aigc sample: what is measured here is held-out text", "leave it out")
    return controls


@dataclass(frozen=True)
class TextRun:
    """A run of text that is measured, the held-out text that it is measured on, and the controls of its model."""

    setting: Setting
    restored: Restored
    held_out: Passages
    controls: Any

    @property
    def pairs(self) -> bool:
        """Whether it writes one text from another."""
        return self.restored.spec.source is not None

    def warn_of_idle(self, kinds: Kinds) -> None:
        """Warns of controls that change nothing in any of the ways in which the model is looked at."""
        model, controls = self.restored.model, self.controls
        usual = getattr(controls, "mode", None) or "sample"
        ways = ["reconstruct" if self.writer(name) == self.reconstructed else usual for name in kinds.text]
        ways += ["infill"] if kinds.fills and "infill" in modes_of(model) else []
        if self.setting.asked.seeds is not None and not kinds.text:
            warn("seeds= changes nothing here")
        deaf = [ignored(model, controls, way) for way in ways]
        names = [field.name for field in fields(controls)]
        warn_of_idle(model, controls, [name for name in names if all(name in some for some in deaf)], "here")

    def writer(self, metric: str) -> Callable[[Configs], Told]:
        """What measures a metric of text on texts that suit it."""
        if self.pairs:
            return self.translated
        if getattr(self.controls, "mode", None) == "reconstruct":
            return self.reconstructed
        return {"aligned": self.continued, "itself": self.reconstructed}.get(_reference(metric), self.own)

    def likelihood(self, name: str, values: Mapping[str, Any]) -> Told:
        """How well it predicts the held-out text."""
        asked, passages = self.setting.asked, self._some(self.setting.asked.n)
        checked = vars(check(f"metric.{name}", find("metric", name).config, values))
        result = measure_text_likelihood(
            self.restored.model, passages, checked, seed=asked.seed, device=self.restored.device,
            batch_size=asked.batch_size,
        )  # fmt: skip
        what = "characters" if passages.running else "targets" if self.pairs else "texts"
        return [result], self._sides(passages, f"{what} of {_of(passages)} as predicted by", passages.units, told=False)

    def active_units(self) -> Told:
        """How many dimensions of its latent tell held-out texts apart."""
        passages = self._some(self.setting.asked.n)
        result = measure_active_units(
            self.restored.model, passages.dataset, passages.rows, device=self.restored.device,
            batch_size=self.setting.asked.batch_size,
        )  # fmt: skip
        made = f"texts of {_of(passages)} as encoded by"
        return [result], self._sides(passages, made, len(passages), told=False)

    def infill(self, values: Mapping[str, Any]) -> Told:
        """How many masked tokens of the held-out text it finds."""
        asked, passages = self.setting.asked, self._some(self.setting.asked.n)
        controls = check_controls(self.restored.run, {**self.restored.model.filling, **asked.controls}, "eval")
        result = measure_infill(
            self.restored.model, passages, self.setting.split("train"), values, controls=controls,
            seed=asked.seed, device=self.restored.device, batch_size=asked.batch_size,
        )  # fmt: skip
        made = f"passages of {_of(passages)} with gaps filled by"
        return [result], self._sides(passages, made, len(passages), controls, told=False)

    def translated(self, metrics: Configs) -> Told:
        """What it makes of the held-out sources."""
        passages = self._some(self.setting.asked.n)
        results = self._sets(metrics, lambda author, seed: translations(author, passages, seed))
        return results, self._sides(passages, "translations by", len(passages), self.controls)

    def reconstructed(self, metrics: Configs) -> Told:
        """What it makes of the latents of held-out texts."""
        passages = self._some(self.setting.asked.n)
        if self.setting.asked.seeds is not None:
            warn("seeds= changes nothing for reconstructions")
        written = reconstructions(self.author, passages)
        results = [measure_written(name, values, written) for name, values in metrics.items()]
        sides = self._sides(passages, "reconstructions by", len(passages))
        sides.fake.facts["reconstructed"] = passages.split
        return results, sides

    def continued(self, metrics: Configs) -> Told:
        """How it goes on from held-out prompts."""
        passages = self._some(self.setting.asked.n or _PROMPTS)
        values = metrics.get("continuation") or compose("eval", ["metric=continuation"])["metric"]["continuation"]
        share = float(values["prompt"])
        results = self._sets(metrics, lambda author, seed: continuations(author, passages, seed, share))
        n = results[0].generated.n
        assert n is not None, "texts are counted"
        sides = self._sides(passages, "continuations by", n, self.controls)
        sides.fake.facts["prompt"] = share
        return results, sides

    def own(self, metrics: Configs) -> Told:
        """What it writes of its own."""
        n = self.setting.asked.n or _TEXTS
        results = self._sets(metrics, lambda author, seed: own_texts(author, self.held_out, seed, n))
        return results, self._sides(self.held_out, "texts written by", n, self.controls)

    @property
    def author(self) -> Author:
        """Its model, ready to write."""
        model, codec = self.restored.model, self.restored.codec
        assert isinstance(codec, TextCodec), "text has a codec of its own"
        return Author(
            model, codec, self.controls, self.restored.device, lambda: self.setting.split("train"),
            self.setting.asked.batch_size,
        )  # fmt: skip

    def _sets(self, metrics: Configs, write: Callable[[Author, int], Written]) -> list[Result]:
        """The figures of one set of texts, or of several seeds'."""
        asked = self.setting.asked
        seeds = asked.seeds or 1
        if seeds > 1 and not getattr(self.controls, "draws", True):
            warn("seeds= changes nothing where nothing is drawn")
        author, sets = self.author, []
        for k in range(seeds):
            written = write(author, asked.seed + k)
            sets.append([measure_written(name, values, written) for name, values in metrics.items()])
        return averaged(sets)

    def _some(self, n: int | None) -> Passages:
        held = self.held_out
        return replace(held, rows=choose_rows(held.dataset, held.split, n))

    def _sides(self, passages: Passages, made: str, n: int, controls: Any = None, *, told: bool = True) -> Sides:
        """Both sides, as a stamp tells of them; a headline does of the passages if they are to be `told`."""
        asked, run = self.setting.asked, self.restored.run
        named = {} if controls is None else named_values(controls)
        facts = {
            **facts_of(self.restored),
            "seed": asked.seed,
            "controls": {word: value for word, value in named.items() if value is not None},
            **({"seeds": asked.seeds} if asked.seeds and told and controls is not None else {}),
        }
        fake = Items(n, facts, f"{made} {run.name} at step {self.restored.step}")
        return Sides(fake, Items(0, passages.facts, _of(passages) if told else ""))


def _of(passages: Passages) -> str:
    return f"the {passages.split} split of {passages.name}"
