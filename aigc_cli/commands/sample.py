"""``aigc sample``: draws samples from a run and writes them with where they come from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config import STRICT, Options, check
from aigc_cli.errors import ConfigError, suggest
from aigc_cli.progress import progress
from aigc_cli.reporting import shown

if TYPE_CHECKING:
    from aigc_cli.runs import Run
    from aigc_cli.sampling.provenance import Provenance
    from aigc_cli.sampling.writers import Writer
    from aigc_cli.training.checkpoint import Restored

#: The folder within a run that samples land in where ``out`` names no other.
GENERATED = "generated"


@dataclass(config=STRICT, frozen=True, kw_only=True)
class SampleConfig:
    """The keys of ``configs/sample.yaml``."""

    run: str
    n: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)]
    out: str | None
    batch_size: Annotated[int, Field(ge=1, le=2**16)] | None
    step: Annotated[int, Field(ge=0)] | Literal["best"] | None
    format: str
    device: str
    overwrite: bool
    controls: dict[str, Any]


def main(config: dict[str, Any], options: Options) -> int:
    """Samples as `config` says; the exit code."""
    from aigc_cli.runs import find_run
    from aigc_cli.sampling.writers import find_writer
    from aigc_cli.training.checkpoint import restore_model

    settings: SampleConfig = check("", SampleConfig, _as_words(config))
    run = find_run(settings.run)
    controls = check_controls(run, settings.controls)
    format, writer = find_writer(run.spec.modality, settings.format)
    restored = restore_model(run, step=settings.step, device=settings.device)
    provenance = _provenance(run, restored, settings, format, named_values(controls))
    usual = format == find_writer(run.spec.modality)[0]
    out = Path(settings.out).expanduser() if settings.out else default_out(run, provenance, controls, usual)
    print(f"sampling {run.name}, step {restored.step}, on {restored.device}", file=sys.stderr)
    files, overview = write_samples(restored, settings, writer, provenance, field_values(controls), out)
    if options.json:
        print(json.dumps({"out": str(out), "files": files, "overview": overview, **provenance.of_set(settings.n)}))
    else:
        _report(out, files, overview, provenance, settings)
    return 0


def write_samples(
    restored: Restored,
    settings: SampleConfig,
    writer: type[Writer],
    provenance: Provenance,
    controls: Mapping[str, Any],
    out: Path,
) -> tuple[list[str], list[str]]:
    """Draws and writes; the names of the files that hold the samples, and of those that show some of them."""
    from aigc_cli.sampling.folder import check_replaceable, filling
    from aigc_cli.sampling.generate import generate
    from aigc_cli.sampling.provenance import write_record

    check_replaceable(out, provenance, settings.n, settings.overwrite)
    batches = generate(
        restored.model,
        restored.codec,
        range(settings.n),
        seed=settings.seed,
        device=restored.device,
        batch_size=settings.batch_size,
        controls=controls,
    )
    with filling(out) as folder:
        with writer(folder, settings.n, provenance) as files, progress(settings.n, "sampling", "samples") as bar:
            for raw in batches:
                files.write(raw)
                bar.advance(len(raw))
            names, overview = files.finish()
        write_record(folder, provenance.record(settings.n, names, overview))
    return names, overview


def check_controls(run: Run, values: Mapping[str, Any]) -> Any:
    """The controls of a run's model, typed and complete, from the words the user gave.

    Raises:
        ConfigError: a word is neither a control of the model nor a key of sample; a control has a wrong value.
    """
    from aigc_cli.models.base import NoControls
    from aigc_cli.registry import find

    name = run.config["model"]["name"]
    schema: type = getattr(find("model", name).build, "controls", NoControls)
    known = list(_names(schema).values())
    unknown = [word for word in values if word not in known]
    if unknown:
        keys = [key for key in SampleConfig.__dataclass_fields__ if key != "controls"]
        what = f"{' and '.join(unknown)}: neither a key of sample nor a control of model={name}"
        raise ConfigError(what, "; ".join(dict.fromkeys(suggest(word, [*known, *keys], limit=20) for word in unknown)))
    return check("", schema, values)


def _names(schema: type) -> dict[str, str]:
    """The words of a controls dataclass by field: the same, but where an alias stands for a keyword such as class."""
    fields = getattr(schema, "__pydantic_fields__", {})
    return {field.name: getattr(fields.get(field.name), "alias", None) or field.name for field in _fields(schema)}


def _fields(schema: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(schema)


def field_values(controls: Any) -> dict[str, Any]:
    """Controls by field, as :meth:`Model.sample` takes them."""
    return {field.name: getattr(controls, field.name) for field in _fields(controls)}


def named_values(controls: Any) -> dict[str, Any]:
    """Controls by the words that users know them by."""
    return {word: getattr(controls, name) for name, word in _names(type(controls)).items()}


def default_out(run: Run, provenance: Provenance, controls: Any, usual_format: bool) -> Path:
    """``<run>/generated/step-N-seed-S``, with the controls that are not at their defaults and an unusual format."""
    defaults = {_names(type(controls))[field.name]: field.default for field in _fields(controls)}
    chosen = {word: value for word, value in provenance.controls.items() if value != _plain_default(defaults[word])}
    parts = [f"step-{provenance.step}", f"seed-{provenance.seed}"]
    parts += [_slug(f"{word}-{value}") for word, value in sorted(chosen.items())]
    if not usual_format:
        parts.append(provenance.format)
    return run.path / GENERATED / "-".join(parts)


def _plain_default(default: Any) -> Any:
    return getattr(default, "default", default)  # a default given through pydantic's Field arrives wrapped


def _slug(text: str, longest: int = 40) -> str:
    """A name that a shell and Hydra take as it is, and that differs where the texts differ."""
    plain = re.sub(r"[^A-Za-z0-9.+_-]+", "_", text)
    if plain == text and len(plain) <= longest:
        return plain
    return f"{plain[:longest]}-{hashlib.blake2b(text.encode(), digest_size=3).hexdigest()}"


def _as_words(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with names as text: a run may be called 7, which the command line reads as a number."""
    named = {key: config[key] for key in ("run", "out", "format", "device") if isinstance(config.get(key), int | float)}
    return {**config, **{key: str(value) for key, value in named.items()}}


def _provenance(
    run: Run, restored: Restored, settings: SampleConfig, format: str, controls: Mapping[str, Any]
) -> Provenance:
    from aigc_cli.sampling.provenance import Provenance

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
    )


def _report(out: Path, files: list[str], overview: list[str], provenance: Provenance, settings: SampleConfig) -> None:
    from aigc_cli.sampling.provenance import RECORD

    folder = shown(out)
    print(f"{settings.n} {'sample' if settings.n == 1 else 'samples'}, {provenance.sentence()}")
    for name in overview:
        print(f"  {folder / name}")
    print(f"  {folder / files[0]}" + (f" ... {files[-1]}" if len(files) > 1 else ""))
    print(f"  {folder / RECORD}")
    words = ["aigc", "eval"]
    words += [f"run={settings.run}"] if settings.run != "latest" else []
    words += [f"step={settings.step}"] if settings.step is not None else []
    print(f"next: {shlex.join(words)}")
