"""What stands beside an exported model: ``export.json`` for programs, and a model card for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aigc_cli import __version__
from aigc_cli.config.schema import save_yaml
from aigc_cli.exported_run import KEPT, RECORD
from aigc_cli.files import checksum, write_atomically, write_json
from aigc_cli.modalities.audio_config import CODEC_FILE
from aigc_cli.run_index import records_of
from aigc_cli.training.checkpoint import write_tensors
from aigc_cli.training.onnx_model import STATE
from aigc_cli.training.restore import Restored

_TASKS = {"writer": "text-generation", "filler": "fill-mask", "translator": "translation"}


def about(restored: Restored, format: str, dtype: str) -> dict[str, Any]:
    """Which model this is: the first keys of ``export.json``, and what a file of ONNX says of itself."""
    run = restored.run
    return {
        "aigc": __version__, "format": format, "dtype": dtype, "run": run.name, "model": run.config["model"]["name"],
        "data": run.config["data"]["name"], "step": restored.step, "model_checksum": restored.checksum,
    }  # fmt: skip


def content_of(restored: Restored) -> dict[str, Any]:
    """What a model's items are, and how it is told what to make."""
    from pydantic import TypeAdapter

    spec, model = restored.spec, restored.model
    found: dict[str, Any] = {
        "modality": spec.modality, "shape": list(spec.shape), "layout": spec.layout, "raw_shape": list(spec.raw),
        "encoding": restored.codec.preprocessing, "classes": list(spec.classes) if model.conditional else [],
    }  # fmt: skip
    found |= {"source_specials": dict(spec.source.specials)} if spec.source else {}
    found |= {"rate": spec.rate} if spec.rate else {}
    found |= {"sound": _way_back(restored)}
    if spec.vocab_size is not None:
        found |= {"vocab_size": spec.vocab_size, "specials": dict(spec.specials)}
        found |= {"start": getattr(restored.codec, "start", None), "mask": model.mask}
        found |= {"window": getattr(getattr(model, "decoder", getattr(model, "encoder", None)), "length", None)}
        found |= {"any_class": getattr(model, "any", None), "codebooks": getattr(model, "codebooks", 1)}
        found |= {"delayed": getattr(model, "delayed", False)}
    return {**found, "controls": TypeAdapter(model.controls).json_schema(by_alias=True).get("properties", {})}


def _way_back(restored: Restored) -> dict[str, Any] | None:
    """What makes sound of spectrograms, which no graph does; None of anything else."""
    codec = getattr(restored.codec, "inner", restored.codec)
    if restored.spec.rate is None or restored.spec.modality != "audio" or codec.traceable:
        return None
    kept: dict[str, Any] = json.loads(codec.files()[CODEC_FILE])
    return kept


def keep_run(folder: Path, restored: Restored) -> None:
    """The folder ``run``: what samples and scores need of the run beside its networks, so that the exported folder can
    stand in its place. Where things lay on this machine is not in it."""
    model, inner = restored.model, folder / KEPT
    inner.mkdir()
    section = {key: value for key, value in restored.run.config["model"].items() if not key.startswith("init_")}
    if "lora" in section:  # adapters are merged
        section["lora"] = {**section["lora"], "rank": None}
    save_yaml(inner / "config.yaml", {"model": section, "data": _without_places(restored.run.config["data"])})
    write_json(inner / "data.json", asdict(restored.spec))
    for name, content in restored.codec.files().items():
        write_atomically(inner / name, content)
    restored.codec.keep(inner)
    if own := {name: model.get_buffer(name) for name in getattr(model, "own", ())}:
        write_tensors(inner / STATE, own)


def _without_places(value: Any) -> Any:
    """A value of a configuration in which paths from the root of this machine are names alone."""
    if isinstance(value, dict):
        return {key: _without_places(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_places(each) for each in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """``export.json``, with the sums of all other files in the folder."""
    sums = {path.relative_to(folder).as_posix(): checksum(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    write_json(folder / RECORD, {**record, "sha256": sums})


def write_card(folder: Path, restored: Restored, kind: str, record: Mapping[str, Any], use: str) -> None:
    """``README.md``: a model card with what the model is, what was measured, and how to use it."""
    spec, made = restored.spec, about(restored, record["format"], record["dtype"])
    task = _TASKS.get(kind, f"unconditional-{spec.modality}-generation")
    head = {"library_name": "transformers" if record["format"] == "huggingface" else "onnx", "pipeline_tag": task}
    lines = ["---", *(f"{key}: {value}" for key, value in head.items()), f"tags: [aigc, {made['model']}]", "---", ""]
    lines += [f"# {made['model']} on {made['data']}", ""]
    lines += [f"Trained with aigc {__version__} as `{made['run']}`, step {made['step']}.", ""]
    lines += [f"SHA-256 of its weights: `{made['model_checksum']}`. Label what it makes as AI-generated.", ""]
    rows = [
        f"| {measured['metric']}: {name} | {value:.4g} |"
        for measured in records_of(restored.run.path)
        if (measured.get("generated") or {}).get("step") == restored.step
        for name, value in measured["figures"].items()
    ]
    if rows:
        lines += ["| metric | score |", "|---|---|", *rows, ""]
    else:
        lines += ["Nothing was measured yet: `aigc eval` does, and the next export says what it found.", ""]
    lines += ["## Use", "", use, ""]
    write_atomically(folder / "README.md", "\n".join(lines))
