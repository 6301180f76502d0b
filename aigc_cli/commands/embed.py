"""``aigc embed``: vectors for lines of text, and which lines are near each other."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT, Options, check
from aigc_cli.errors import ConfigError, say_plainly, tell, warn
from aigc_cli.files import LONGEST_NAME, check_writable, path_of, replacing, resource_errors, shown, slug
from aigc_cli.locks import writing_alone
from aigc_cli.modalities.prompts import Lines
from aigc_cli.runs import find_run
from aigc_cli.sampling.readings import embed
from aigc_cli.training.restore import restore_model

#: The folder within a run that vectors land in where ``out`` names no other place.
EMBEDDINGS = "embeddings"
_WIDTH = 72  # characters of a line that are shown
_AT_ONCE = 1024  # rows whose similarities to all others are held at once

#: By the number of a line the others next to it, each with the cosine of the angle between the two, the nearest first.
Neighbours = dict[int, list[tuple[int, float]]]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class EmbedConfig:
    """The keys of ``configs/embed.yaml``."""

    run: str
    input: str | None
    text: str | None
    out: str | None
    neighbours: Annotated[int, Field(ge=1)] | None
    batch_size: Annotated[int, Field(ge=1, le=2**16)]
    step: Annotated[int, Field(ge=0)] | Literal["best"] | None
    device: str
    overwrite: bool


def main(config: dict[str, Any], options: Options) -> int:
    """Embeds as `config` says; the exit code."""
    settings: EmbedConfig = check("", EmbedConfig, config)
    run = find_run(settings.run, exported=True)
    if run.spec.layout != "tokens":  # before a file is taken for text
        hint = "name a run on text; from Python, open_run(RUN).encode(items) gives vectors of other content"
        raise ConfigError(f"aigc embed reads text, and {run.name} is of {run.spec.kind}", hint)
    lines = _lines(settings)
    if settings.neighbours is not None and len(lines.texts) == 1:
        raise ConfigError(f"neighbours={settings.neighbours} compares lines, and there is only one", "give it a file")
    out = None if settings.out is None else path_of(settings.out)
    if out is not None and out.suffix != ".npz":
        raise ConfigError(f"out={out} does not end in .npz", f"write out={out}.npz")
    _check_free(out, settings.overwrite)
    restored = restore_model(run, step=settings.step, device=settings.device)
    tell(f"embedding by {restored.run.name}, step {restored.step}, on {restored.device}")
    if out is None:
        name = "text" if settings.input is None else Path(settings.input).stem
        name = name if len(os.fsencode(name)) < LONGEST_NAME else slug(name, LONGEST_NAME)
        said = hashlib.sha256(json.dumps(list(lines.texts.items())).encode()).hexdigest()[:8]  # others, another file
        out = restored.run.path / EMBEDDINGS / f"step-{restored.step}-{name}-{said}.npz"
    check_writable(out.parent, "with out=")
    vectors = embed(restored, lines, settings.batch_size)
    for warning in lines.warnings(restored.spec.shape[0] - 1):
        warn(warning)
    record = {
        "run": restored.run.name, "step": restored.step, "model_checksum": restored.checksum,
        "n": len(vectors), "width": vectors.shape[1],
    }  # fmt: skip
    near = None if settings.neighbours is None else nearest(vectors, list(lines.texts), settings.neighbours)
    if not options.json:
        _show(near or {}, lines.texts)  # before it is kept, which may fail
    with resource_errors(out, "with out="), writing_alone(out, "with out="):
        _check_free(None if settings.out is None else out, settings.overwrite)
        write_vectors(out, vectors, lines.texts, json.dumps(record))
    if not options.json:
        count = "1 vector" if len(vectors) == 1 else f"{len(vectors)} vectors"
        print(f"{count} of {vectors.shape[1]} numbers, by {restored.run.name}, step {restored.step}\n  {shown(out)}")
        return 0
    told: dict[str, Any] = {"out": str(out), **record}
    for number, row in (near or {}).items():
        told.setdefault("neighbours", {})[number] = [{"line": other, "cosine": cosine} for other, cosine in row]
    print(json.dumps(told))
    return 0


def _check_free(out: Path | None, overwrite: bool) -> None:
    """Refuses to replace what a user's ``out=`` holds, which ``overwrite=true`` allows of a file."""
    if out is not None and (out.is_dir() or (out.exists() and not overwrite)):
        raise ConfigError(f"out={out} exists", "choose another, or replace a file with overwrite=true")


def _lines(settings: EmbedConfig) -> Lines:
    if (settings.input is None) == (settings.text is None):
        what = "neither a file nor a text" if settings.input is None else "both a file and a text"
        raise ConfigError(f"aigc embed was given {what}", 'write aigc embed FILE, or aigc embed text="..."')
    if settings.text is None:
        return Lines.of_file(path_of(settings.input or ""))
    if not settings.text.strip():
        raise ConfigError("text= is empty", 'write for example text="a few words"')
    return Lines({1: settings.text})


def nearest(vectors: Tensor, numbers: Sequence[int], count: int) -> Neighbours:
    """For each of the lines, by the vectors (n, width), the `count` others at the smallest angle to it."""
    directions = torch.nn.functional.normalize(vectors.double(), dim=1)
    found = []
    for first in range(0, len(directions), _AT_ONCE):
        cosines = directions[first : first + _AT_ONCE] @ directions.T
        own = torch.arange(len(cosines))
        cosines[own, first + own] = -torch.inf
        values, places = cosines.topk(min(count, len(directions) - 1), dim=1)
        found += [list(zip(*row, strict=True)) for row in zip(places.tolist(), values.tolist(), strict=True)]
    return {numbers[row]: [(numbers[place], cosine) for place, cosine in near] for row, near in enumerate(found)}


def write_vectors(path: Path, vectors: Tensor, texts: Mapping[int, str], provenance: str) -> None:
    """An .npz that needs no pickle: ``vectors`` (n, width) float32, the number ``lines`` (n,) int64 and the ``sha256``
    (n,) of each line, and as JSON text the ``provenance``."""
    sums = np.array([hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() for text in texts.values()])
    numbers = np.array(list(texts), dtype=np.int64)
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, vectors=vectors.numpy(), lines=numbers, sha256=sums, provenance=np.array(provenance))


def _show(near: Neighbours, texts: Mapping[int, str]) -> None:
    short = {line: text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..." for line, text in texts.items()}
    for number, row in near.items():
        say_plainly(f"{number:>6}         {short[number]}")
        for other, cosine in row:
            say_plainly(f"        {cosine:6.3f}  {other:>6}  {short[other]}")
