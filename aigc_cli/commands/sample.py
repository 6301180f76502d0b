"""``aigc sample``: draws samples from a run and writes them with where they come from."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.api import LoadedRun
from aigc_cli.config.schema import STRICT, Options, check
from aigc_cli.data.open import Splits
from aigc_cli.errors import ConfigError, say_plainly, tell, warn
from aigc_cli.exported_run import open_exported
from aigc_cli.files import LONGEST_NAME, checksum, path_of, shown, slug
from aigc_cli.modalities.arrays import find_writer
from aigc_cli.modalities.base import Writer, modality
from aigc_cli.modalities.credentials import Signer, check_signable
from aigc_cli.modalities.prompts import Prompt, read_prompts
from aigc_cli.modalities.samples import RECORD, Provenance, write_record
from aigc_cli.progress import Progress
from aigc_cli.registry import plugin_words
from aigc_cli.runs import Run, find_run
from aigc_cli.sampling.controls import check_controls, named_values, typed_again
from aigc_cli.sampling.filters import Filtered, Filters
from aigc_cli.sampling.folder import check_replaceable, filling
from aigc_cli.sampling.generate import Plan
from aigc_cli.sampling.marked import Watermark
from aigc_cli.training.restore import Restored, restore_model

#: The folder within a run that samples land in where ``out`` names no other.
GENERATED = "generated"


@dataclass(config=STRICT, frozen=True, kw_only=True)
class MemorizationGate:
    """The keys of ``memorization`` there."""

    max: Annotated[float, Field(ge=0, le=1)] | None = None


@dataclass(config=STRICT, frozen=True, kw_only=True)
class SampleConfig:
    """The keys of ``configs/sample.yaml``."""

    run: str
    n: Annotated[int, Field(ge=1)] | None
    seed: Annotated[int, Field(ge=0)]
    out: str | None
    batch_size: Annotated[int, Field(ge=1, le=2**16)] | None
    step: Annotated[int, Field(ge=0)] | Literal["best"] | None
    format: str
    device: str
    overwrite: bool
    data: dict[str, Any]
    controls: dict[str, Any]
    prompt_file: str | None
    label: bool = False
    watermark: str | None = None
    sign: str | None = None
    filter: str | None = None
    filtered: Filtered = "redraw"
    memorization: MemorizationGate = MemorizationGate()


def main(config: dict[str, Any], options: Options) -> int:
    """Samples as `config` says; the exit code."""
    settings: SampleConfig = check("", SampleConfig, config)
    run = find_run(settings.run, exported=open_exported)
    signer = None
    if settings.sign is not None:
        check_signable(find_writer(run.spec.modality, settings.format)[0])
        signer = Signer(path_of(settings.sign))
    drawing = drawing_of(settings, run)
    provenance, arrangement = drawing.provenance, drawing.plan.arrangement
    if settings.watermark is not None and "source" in arrangement.facts:
        warn("the mark of a translation by itself is seldom found; in many it is, more of them with lower temperature=")
    out = path_of(settings.out) if settings.out else default_out(run, provenance, drawing.usual)
    may = partial(check_replaceable, out, provenance, arrangement.n, settings.overwrite)
    with filling(out, may) as folder:
        files, overview, text = drawing.write(folder, settings.batch_size)
        if (most := settings.memorization.max) is not None:
            from aigc_cli.metrics.gate import hold_copies

            share = hold_copies(torch.cat(drawing.glances), Splits.of_run(run, settings.data), most)
            tell(f"{share:.1%} of the samples are copies of training items")
        if signer is not None:
            signer.sign_set(folder, provenance, arrangement, files, overview)
        dropped = {} if drawing.filters is None else {"dropped": dict(drawing.filters.counts)}
        sized = {} if settings.batch_size is None else {"batch_size": settings.batch_size}
        write_record(folder, {**provenance.record(arrangement, files, overview), **sized, **dropped})
    if options.json:
        named = {"out": str(out), "files": files, "overview": overview}
        print(json.dumps({**named, **provenance.of_set(arrangement)}))
        return 0
    if text:
        say_plainly(text)
    print(f"{arrangement.described()}, {provenance.sentence()}")
    if drawing.filters is not None and (said := drawing.filters.said()):
        print(said)
    for name in (*overview, files[0] + (f" ... {files[-1]}" if len(files) > 1 else ""), RECORD):
        print(f"  {shown(out) / name}")
    words = [f"run={settings.run}"] if settings.run != "latest" else []
    words += [f"step={settings.step}"] if settings.step is not None else []
    words += typed_again(run, settings.controls)
    print(f"next: {shlex.join(['aigc', 'eval', *words])}{plugin_words()}")
    return 0


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A set of samples that is about to be drawn and written."""

    plan: Plan
    provenance: Provenance
    writer: Callable[..., Writer]
    usual: bool  # whether the format is the modality's usual one
    filters: Filters | None = None
    glances: list[Tensor] = dataclasses.field(default_factory=list)  # at what the model made, where copies are sought

    def write(self, folder: Path, batch_size: int | None) -> tuple[list[str], list[str], str]:
        """The names of the files with samples, of those that show some of them, and what a terminal shows of them."""
        arrangement = self.plan.arrangement
        with self.writer(folder, arrangement) as files, Progress(arrangement.n, "sampling", "samples") as bar:
            for raw in self.plan.batches(batch_size):
                files.write(raw)
                bar.advance(len(raw))
            names, overview = files.finish()
            return names, overview, files.shown()


def drawing_of(settings: SampleConfig, run: Run) -> Drawing:
    """What `settings` ask of a run.

    Raises:
        ConfigError: the run cannot be sampled so.
        DataError: a checkpoint, or data that it takes, cannot be trusted.
    """
    controls = check_controls(run, settings.controls)
    format, writer = find_writer(run.spec.modality, settings.format)
    loaded = LoadedRun(restore_model(run, step=settings.step, device=settings.device), settings.watermark)
    restored = loaded.restored
    _check_mark(settings, loaded.watermark)
    tell(f"sampling {run.name}, step {restored.step}, on {restored.device}")
    filters = None if settings.filter is None else Filters.of(settings.filter, settings.filtered, loaded.spec)
    looks, glances = settings.memorization.max is not None, list[Tensor]()
    if looks and restored.codec.readable:
        raise ConfigError("memorization.max= looks at pictures, sound and video", "leave it out for text")

    def look(made: Tensor) -> None:
        glances.append(modality(loaded.spec.modality).glance(made))

    drawn = loaded.plan(
        controls, 1 if settings.prompt_file and settings.n is None else settings.n, seed=settings.seed,
        prompts=_prompts(restored, settings, controls), usual=writer.usual, splits=Splits.of_run(run, settings.data),
        filters=filters, look=look if looks else None,
    )  # fmt: skip
    source = {**drawn.source, **_files_of(restored, settings, named_values(controls))}
    provenance = loaded.provenance(controls, seed=settings.seed, format=format, source=source)
    provenance = replace(provenance, explicit=settings.label, filters={} if filters is None else filters.facts)
    usual = format == find_writer(run.spec.modality)[0]
    written = partial(writer, provenance=provenance, codec=restored.codec)
    return Drawing(drawn, provenance, written, usual, filters, glances)


def _check_mark(settings: SampleConfig, mark: Watermark | None) -> None:
    """Refuses words on pictures that are to have a mark, as these hide it."""
    if settings.label and mark is not None and mark.hidden_by_words:
        what = "label=true puts words on pictures, and the mark of watermark= is not found below them"
        raise ConfigError(what, "leave one of them out")


def _prompts(restored: Restored, settings: SampleConfig, controls: Any) -> list[Prompt]:
    """What samples are to begin from: the words of the command line, or the lines of a file."""
    typed = getattr(controls, "prompt", None)
    if settings.prompt_file is None:
        return [] if typed is None else [Prompt(typed, "prompt=")]
    if "prompt" not in restored.model.can:
        raise ConfigError(f"prompt_file={settings.prompt_file}: this model takes no prompts", "leave prompt_file= out")
    if typed is not None:
        raise ConfigError("prompt= and prompt_file= cannot be combined", "leave one of them out")
    aligned = restored.spec.source is not None  # a translation for each line
    return read_prompts(path_of(settings.prompt_file), blank=aligned)


def default_out(run: Run, provenance: Provenance, usual_format: bool) -> Path:
    """``<run>/generated/step-N-seed-S``, with the controls that are not at their defaults and an unusual format."""
    usual = named_values(check_controls(run, {}))
    chosen = {word: value for word, value in provenance.controls.items() if value != usual[word]}
    parts = [f"step-{provenance.step}", f"seed-{provenance.seed}"]
    parts += [slug(f"{word}-{value}") for word, value in sorted(chosen.items())]
    if "prompt_file" in provenance.source:
        parts.append(slug(f"prompt_file-{provenance.source['prompt_file']}"))
    parts += [] if usual_format else [provenance.format]
    parts += ["label"] if provenance.explicit else []
    parts += [f"filter-{name}" for name in provenance.filters]
    parts += [f"watermark-{provenance.watermark[:6]}"] if provenance.watermark else []
    return run.path / GENERATED / slug("-".join(parts), LONGEST_NAME)


def _files_of(restored: Restored, settings: SampleConfig, controls: Mapping[str, Any]) -> dict[str, Any]:
    """The files that prompts come from, which may come to hold others, with their sums."""
    file = settings.prompt_file
    found = {} if file is None else {"prompt_file": file, "sha256": checksum(path_of(file))}
    for word in () if restored.codec.readable else ("prompt", "to"):
        if controls.get(word) is not None and (path := path_of(controls[word])).is_file():
            found[f"{word}_sha256"] = checksum(path)
    return found
