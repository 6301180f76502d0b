"""``aigc embed``: vectors for lines of text, and which lines are near each other."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT, Options, check
from aigc_cli.errors import ConfigError, say, say_plainly
from aigc_cli.files import path_of, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aigc_cli.commands.embedding import Line, Read
    from aigc_cli.training.restore import Restored

#: The folder within a run that vectors land in where ``out`` names no other place.
EMBEDDINGS = "embeddings"
_WIDTH = 72  # characters of a line that are shown

Neighbours = list[list[tuple[int, float]]]


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
    from aigc_cli.commands.embedding import Read, embed, nearest, write_vectors
    from aigc_cli.files import check_writable, resource_errors
    from aigc_cli.runs import find_run
    from aigc_cli.training.restore import restore_model

    settings: EmbedConfig = check("", EmbedConfig, config)
    read = Read()
    lines = _lines(settings, read)
    if settings.neighbours is not None and len(lines) == 1:
        raise ConfigError(f"neighbours={settings.neighbours} needs other lines, and there is one", "give it a file")
    if settings.out is not None:
        _check_out(path_of(settings.out), settings.overwrite)
    restored = restore_model(find_run(settings.run), step=settings.step, device=settings.device)
    print(f"embedding by {restored.run.name}, step {restored.step}, on {restored.device}", file=sys.stderr)
    out = _out(settings, restored)
    check_writable(out.parent, "with out=")
    vectors = embed(restored, lines, read, settings.batch_size)
    for warning in read.warnings(restored.spec.shape[0] - 1):
        say(f"warning: {warning}")
    record = {
        "run": restored.run.name, "step": restored.step, "model_checksum": restored.checksum,
        "n": len(lines), "width": vectors.shape[1],
    }  # fmt: skip
    with resource_errors(out, "with out="):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_vectors(out, vectors, lines, json.dumps(record))
    near = nearest(vectors, settings.neighbours) if settings.neighbours is not None else None
    if options.json:
        print(json.dumps({"out": str(out), **record, **_as_json(near, lines)}))
    else:
        _report(out, restored, vectors.shape, lines, near)
    return 0


def _lines(settings: EmbedConfig, read: Read) -> list[Line]:
    from aigc_cli.commands.embedding import Line, lines_of_file

    if (settings.input is None) == (settings.text is None):
        what = "neither a file nor a text" if settings.input is None else "both a file and a text"
        raise ConfigError(f"aigc embed was given {what}", 'write aigc embed FILE, or aigc embed text="..."')
    if settings.input is not None:
        return lines_of_file(path_of(settings.input), read)
    assert settings.text is not None
    if not settings.text.strip():
        raise ConfigError("text= is empty", 'write for example text="a few words"')
    return [Line(1, settings.text)]


def _check_out(out: Path, overwrite: bool) -> None:
    if out.suffix != ".npz":
        raise ConfigError(f"out={out} is no .npz, which is what is written", f"write out={out}.npz")
    if out.is_dir() or (out.exists() and not overwrite):
        raise ConfigError(f"out={out} exists", "choose another, or replace a file with overwrite=true")


def _out(settings: EmbedConfig, restored: Restored) -> Path:
    """Where the vectors go."""
    if settings.out is not None:
        return path_of(settings.out)
    name = "text" if settings.input is None else Path(settings.input).stem
    return restored.run.path / EMBEDDINGS / f"step-{restored.step}-{name}.npz"


def _as_json(near: Neighbours | None, lines: Sequence[Line]) -> dict[str, Any]:
    if near is None:
        return {}
    named = [[{"line": lines[place].number, "cosine": cosine} for place, cosine in row] for row in near]
    return {"neighbours": {lines[place].number: row for place, row in enumerate(named)}}


def _report(
    out: Path, restored: Restored, size: Sequence[int], lines: Sequence[Line], near: Neighbours | None
) -> None:  # fmt: skip
    for line, row in zip(lines, near or [], strict=False):
        say_plainly(f"{line.number:>6}         {_short(line)}")
        for place, cosine in row:
            say_plainly(f"        {cosine:6.3f}  {lines[place].number:>6}  {_short(lines[place])}")
    vectors = "1 vector" if size[0] == 1 else f"{size[0]} vectors"
    print(f"{vectors} of {size[1]} numbers, by {restored.run.name}, step {restored.step}")
    print(f"  {shown(out)}")


def _short(line: Line) -> str:
    return line.text if len(line.text) <= _WIDTH else line.text[: _WIDTH - 3] + "..."
