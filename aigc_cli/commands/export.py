"""``aigc export``: writes a trained model for other programs, and proves that it computes the same there."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass as plain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT, Options, check
from aigc_cli.errors import ConfigError, suggest, tell
from aigc_cli.exported_run import RECORD
from aigc_cli.files import new_folder, path_of, read_json, resource_errors, shown
from aigc_cli.runs import find_run
from aigc_cli.training.restore import restore_model


@plain(frozen=True)
class Format:
    """One of the formats: what it needs, and which numbers it can have."""

    dtypes: tuple[str, ...]
    packages: tuple[str, ...] = ()


FORMATS = {
    "onnx": Format(("fp32", "fp16", "int8"), ("onnx", "onnxscript", "onnxruntime")),
    "torch_export": Format(("fp32",)),
    "safetensors": Format(("fp32", "fp16")),
    "huggingface": Format(("fp32", "fp16")),
    "web": Format(("fp32",), ("onnx", "onnxscript", "onnxruntime")),
}


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ExportConfig:
    """The keys of ``configs/export.yaml``."""

    run: str
    format: str
    out: str | None
    dtype: Literal["fp32", "fp16", "int8"]
    step: Annotated[int, Field(ge=0)] | Literal["best"] | None
    overwrite: bool


def main(config: dict[str, Any], options: Options) -> int:
    """Exports as `config` says; the exit code."""
    from aigc_cli.export.write import WRITERS
    from aigc_cli.training.onnx_model import needs

    settings: ExportConfig = check("", ExportConfig, config)
    if settings.format not in FORMATS:
        raise ConfigError(f"format={settings.format}: there is no such format", suggest(settings.format, FORMATS))
    format = FORMATS[settings.format]
    if settings.dtype not in format.dtypes:
        what = f"dtype={settings.dtype}: format={settings.format} does not have it"
        raise ConfigError(what, f"choose dtype={' or '.join(format.dtypes)}")
    needs(*format.packages)
    restored = restore_model(find_run(settings.run), step=settings.step, device="cpu")
    name = f"{settings.format}-step-{restored.step}" + ("" if settings.dtype == "fp32" else f"-{settings.dtype}")
    out = path_of(settings.out) if settings.out else restored.run.path / "exported" / name
    _make_room(out, settings.overwrite, usual=settings.out is None)
    tell(f"exporting {restored.run.name}, step {restored.step}, as {settings.format}")
    with resource_errors(out, "with out="), new_folder(out) as folder:
        record, rows, following = WRITERS[settings.format](restored, settings.dtype, folder)
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        if out.is_dir():
            shutil.rmtree(out)
    if options.json:
        print(json.dumps({**record, "out": str(out), "written": files}))
        return 0
    for row in rows:
        print(row)
    print(f"{restored.run.name}, step {restored.step}, as {settings.format}")
    for file in files:
        print(f"  {shown(out / file)}")
    print(f"next: {following.format(out=shown(out))}")
    return 0


def _make_room(out: Path, overwrite: bool, usual: bool) -> None:
    """Refuses to replace what is in a folder, but for an earlier export where `overwrite` allows it, or in the `usual`
    place where nothing was made of it since."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / RECORD).is_file():
        raise ConfigError(f"out={out} holds something that aigc export did not write", "choose another with out=")
    made = _made_since(out)
    if not overwrite and (made or not usual):
        what = f"an earlier export, and what was made of it since, such as {made[0]}" if made else "an earlier export"
        raise ConfigError(f"out={out} holds {what}", "replace it with overwrite=true, or choose another with out=")


def _made_since(out: Path) -> list[str]:
    """The files in an exported folder that the export did not write, such as samples in its folder ``run``."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        written = {RECORD, *read_json(out / RECORD)["sha256"]}
        files = (path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
        return sorted({*files} - written)
    return []
