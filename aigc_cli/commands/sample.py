"""``aigc sample``: draws samples from a run and writes them with where they come from."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as typed

from aigc_cli.config.schema import STRICT, Options, check
from aigc_cli.errors import ConfigError, say_plainly
from aigc_cli.files import checksum, path_of, shown
from aigc_cli.progress import Progress

if TYPE_CHECKING:
    from aigc_cli.modalities.base import Writer
    from aigc_cli.modalities.prompts import Prompt
    from aigc_cli.modalities.samples import Provenance
    from aigc_cli.runs import Run
    from aigc_cli.sampling.generate import Plan
    from aigc_cli.training.restore import Restored

#: The folder within a run that samples land in where ``out`` names no other.
GENERATED = "generated"


@typed(config=STRICT, frozen=True, kw_only=True)
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


@dataclass(frozen=True)
class Written:
    """What a sampling left behind: the names of the files with samples, and of those that show some of them."""

    out: Path
    files: list[str]
    overview: list[str]
    #: What a terminal shows of the samples themselves.
    shown: str


def main(config: dict[str, Any], options: Options) -> int:
    """Samples as `config` says; the exit code."""
    from aigc_cli.modalities.arrays import find_writer
    from aigc_cli.runs import find_run
    from aigc_cli.sampling.controls import check_controls, named_values
    from aigc_cli.training.restore import restore_model

    settings: SampleConfig = check("", SampleConfig, config)
    run = find_run(settings.run)
    controls = check_controls(run, settings.controls)
    format, writer = find_writer(run.spec.modality, settings.format)
    restored = restore_model(run, step=settings.step, device=settings.device)
    print(f"sampling {run.name}, step {restored.step}, on {restored.device}", file=sys.stderr)
    plan = _plan(restored, settings, controls, writer.usual)
    provenance = _provenance(restored, settings, format, named_values(controls), plan)
    usual = format == find_writer(run.spec.modality)[0]
    out = path_of(settings.out) if settings.out else default_out(run, provenance, usual)
    written = _write(plan, settings, partial(writer, codec=restored.codec), provenance, out)
    if options.json:
        named = {"out": str(out), "files": written.files, "overview": written.overview}
        print(json.dumps({**named, **provenance.of_set(plan.arrangement)}))
    else:
        _report(written, plan, provenance, settings)
    return 0


def _plan(restored: Restored, settings: SampleConfig, controls: Any, usual: int) -> Plan:
    """What is drawn."""
    from aigc_cli.data.open import Splits
    from aigc_cli.sampling.generate import Request
    from aigc_cli.sampling.modes import plan

    splits = Splits.of_run(restored.run, settings.data)
    request = Request(
        model=restored.model, codec=restored.codec, controls=controls, seed=settings.seed, device=restored.device,
        n=1 if settings.prompt_file and settings.n is None else settings.n, usual=usual,
        prompts=_prompts(restored, settings, controls), train=lambda: splits["train"], held_out=splits.held_out,
    )  # fmt: skip
    return plan(request)


def _prompts(restored: Restored, settings: SampleConfig, controls: Any) -> list[Prompt]:
    """What samples are to begin from: the words of the command line, or the lines of a file."""
    from aigc_cli.modalities.prompts import Prompt, read_prompts

    typed = getattr(controls, "prompt", None)
    if settings.prompt_file is None:
        return [] if typed is None else [Prompt(typed, "prompt=")]
    if "prompt" not in restored.model.can:
        raise ConfigError(f"prompt_file={settings.prompt_file}: this model takes no prompts", "leave prompt_file= out")
    if typed is not None:
        raise ConfigError("prompt= and prompt_file= cannot be combined", "leave one of them out")
    return read_prompts(path_of(settings.prompt_file))


def _write(
    plan: Plan, settings: SampleConfig, writer: Callable[..., Writer], provenance: Provenance, out: Path
) -> Written:
    from aigc_cli.modalities.samples import write_record
    from aigc_cli.sampling.folder import check_replaceable, filling

    arrangement = plan.arrangement
    check_replaceable(out, provenance, arrangement.n, settings.overwrite)
    with filling(out) as folder:
        with writer(folder, arrangement, provenance) as files, Progress(arrangement.n, "sampling", "samples") as bar:
            for raw in plan.batches(settings.batch_size):
                files.write(raw)
                bar.advance(len(raw))
            names, overview = files.finish()
            said = files.shown()
        write_record(folder, provenance.record(arrangement, names, overview))
    return Written(out, names, overview, said)


def default_out(run: Run, provenance: Provenance, usual_format: bool) -> Path:
    """``<run>/generated/step-N-seed-S``, with the controls that are not at their defaults and an unusual format."""
    from aigc_cli.sampling.controls import check_controls, named_values

    usual = named_values(check_controls(run, {}))
    chosen = {word: value for word, value in provenance.controls.items() if value != usual[word]}
    parts = [f"step-{provenance.step}", f"seed-{provenance.seed}"]
    parts += [_slug(f"{word}-{value}") for word, value in sorted(chosen.items())]
    if "prompt_file" in provenance.source:
        parts.append(_slug(f"prompt_file-{provenance.source['prompt_file']}"))
    if not usual_format:
        parts.append(provenance.format)
    return run.path / GENERATED / "-".join(parts)


def _slug(text: str, longest: int = 40) -> str:
    """A name that a shell and Hydra take as it is, and that differs where the texts differ."""
    plain = re.sub(r"[^A-Za-z0-9.+_-]+", "_", text)
    if plain == text and len(plain) <= longest:
        return plain
    return f"{plain[:longest]}-{hashlib.blake2b(text.encode(), digest_size=3).hexdigest()}"


def _provenance(
    restored: Restored, settings: SampleConfig, format: str, controls: Mapping[str, Any], plan: Plan
) -> Provenance:
    from aigc_cli.modalities.samples import Provenance

    run = restored.run
    file = settings.prompt_file
    prompts = {} if file is None else {"prompt_file": file, "sha256": checksum(path_of(file))}
    return Provenance(
        modality=run.spec.modality,
        format=format,
        run=run.name,
        model=run.config["model"]["name"],
        data=run.config["data"]["name"],
        step=restored.step,
        model_checksum=restored.checksum,
        seed=settings.seed,
        controls=controls,
        source={**plan.source, **prompts},
    )


def _report(written: Written, plan: Plan, provenance: Provenance, settings: SampleConfig) -> None:
    from aigc_cli.modalities.samples import RECORD

    folder, files = shown(written.out), written.files
    if written.shown:
        say_plainly(written.shown)
    print(f"{plan.arrangement.described()}, {provenance.sentence()}")
    for name in written.overview:
        print(f"  {folder / name}")
    print(f"  {folder / files[0]}" + (f" ... {files[-1]}" if len(files) > 1 else ""))
    print(f"  {folder / RECORD}")
    words = ["aigc", "eval"]
    words += [f"run={settings.run}"] if settings.run != "latest" else []
    words += [f"step={settings.step}"] if settings.step is not None else []
    print(f"next: {shlex.join(words)}")
