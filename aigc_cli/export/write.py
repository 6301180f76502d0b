"""Writes a model into a folder in each of the formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from aigc_cli.errors import tell
from aigc_cli.export import graphs
from aigc_cli.export.examples import example
from aigc_cli.export.huggingface import huggingface
from aigc_cli.export.parts import Exported, parts_of
from aigc_cli.export.record import about, content_of, keep_run, write_card, write_record
from aigc_cli.export.web import web
from aigc_cli.export.wrap import Part
from aigc_cli.files import write_atomically
from aigc_cli.training.checkpoint import write_tensors
from aigc_cli.training.onnx_model import Graph, abilities
from aigc_cli.training.restore import Restored

#: What a writer returns: the record, lines for a person, and the command to type next, with {out} for the folder.
Written = tuple[dict[str, Any], list[str], str]
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def onnx(restored: Restored, dtype: str, folder: Path) -> Written:
    """A file for each part, checked in onnxruntime at all its sizes."""

    def save(part: Part, traced: torch.export.ExportedProgram) -> tuple[Path, dict[str, float]]:
        path = folder / f"{part.name}.onnx"
        graphs.to_onnx(part, traced, path, dtype, {**about(restored, "onnx", dtype), **_metadata(restored)})
        graph = Graph(path)
        return path, graphs.check(part, graph.run, dtype, graph.shapes)

    exported, files, rows = _each(restored, save)
    return _finish(restored, "onnx", dtype, folder, exported, files, rows)


def torch_export(restored: Restored, dtype: str, folder: Path) -> Written:
    """A ``.pt2`` for each part, loaded again and checked at all its sizes."""

    def save(part: Part, traced: torch.export.ExportedProgram) -> tuple[Path, dict[str, float]]:
        path = folder / f"{part.name}.pt2"
        with graphs.quiet():
            torch.export.save(traced, path)
            loaded = torch.export.load(path).module()

        def call(given: Mapping[str, torch.Tensor]) -> Sequence[Any]:
            with torch.no_grad():
                found = loaded(*part.packed(given))
            return found if isinstance(found, tuple) else (found,)

        return path, graphs.check(part, call, dtype)

    exported, files, rows = _each(restored, save)
    record, rows, _ = _finish(restored, "torch_export", dtype, folder, exported, files, rows)
    first = next(iter(files))
    return record, rows, f"python -c \"import torch; print(torch.export.load('{{out}}/{first}').graph_signature)\""


def safetensors(restored: Restored, dtype: str, folder: Path) -> Written:
    """The weights as they are sampled, averaged and with adapters merged, and what makes the model they are of."""
    tensors = {
        name: tensor.to(_DTYPES[dtype]) if tensor.is_floating_point() else tensor
        for name, tensor in restored.model.state_dict().items()
    }
    write_tensors(folder / "model.safetensors", tensors)
    keep_run(folder, restored)
    record = {**about(restored, "safetensors", dtype), **content_of(restored), "can": sorted(restored.model.can)}
    write_card(folder, restored, "", record, "The tensors are those of the model that `run/config.yaml` describes.")
    write_record(folder, record)
    count = sum(tensor.numel() for tensor in tensors.values())
    rows = [f"model.safetensors: {len(tensors)} tensors, {count:,} numbers"]
    return record, rows, "python -c \"from safetensors.torch import load_file; load_file('{out}/model.safetensors')\""


def _each(
    restored: Restored, save: Callable[[Part, torch.export.ExportedProgram], tuple[Path, dict[str, float]]]
) -> tuple[Exported, dict[str, Any], list[str]]:
    exported, files, rows = parts_of(restored), {}, []
    for part in exported.parts:
        tell(f"tracing {part.name}")
        path, worst = save(part, graphs.trace(part))
        files[path.name] = {
            **_described(part),
            "greatest_difference": worst,
            "tried": [list(size) for size in part.sizes],
        }
        greatest = ", ".join(f"{name} {value:.1e}" for name, value in list(worst.items())[:2])
        sizes = ", ".join("x".join(map(str, size)) for size in part.sizes)
        rows.append(f"{path.name}: runs with {sizes}; greatest difference from the model: {greatest}")
    return exported, files, rows


def _described(part: Part) -> dict[str, Any]:
    """The arguments and results of a part, each with its type and shape, in which a word stands for what varies."""
    given, varying = part.inputs(*part.sizes[0]), part.varying()
    inputs = {
        name: {"dtype": str(value.dtype)[6:],
               "shape": [varying.get(name, {}).get(axis, size) for axis, size in enumerate(value.shape)]}
        for name, value in given.items()
    }  # fmt: skip
    with torch.no_grad():
        found = part.run(given)
    outputs = {
        name: {"dtype": str(value.dtype)[6:], "shape": ["batch", *value.shape[1:]]}
        for name, value in zip(part.outputs, found, strict=True)
    }
    return {"inputs": inputs, "outputs": outputs}


def _metadata(restored: Restored) -> dict[str, Any]:
    content = content_of(restored)
    return {key: content[key] for key in ("modality", "shape", "encoding", "classes")}


def _finish(
    restored: Restored, format: str, dtype: str, folder: Path, exported: Exported, files: dict[str, Any],
    rows: list[str],
) -> Written:  # fmt: skip
    record = {**about(restored, format, dtype), "kind": exported.kind, **content_of(restored), "files": files}
    if format == "onnx":
        record["can"] = abilities(restored.model, [part.name for part in exported.parts])
        keep_run(folder, restored)
    window = record.get("window") or 0
    spoken = restored.codec if restored.codec.readable else restored.codec.source or restored.codec
    for name, content in spoken.portable(window, masks=restored.model.mask is not None).items():
        write_atomically(folder / name, content)
    use, following = "`export.json` says what each file takes and gives.", "cat {out}/export.json"
    if format == "onnx" and (script := example(exported.kind, sound=bool(record["sound"]))):
        write_atomically(folder / "example.py", script)
        use, following = "```\npip install numpy onnxruntime\npython example.py\n```", "python {out}/example.py"
    write_card(folder, restored, exported.kind, record, use)
    write_record(folder, record)
    return record, rows, following


WRITERS: dict[str, Callable[[Restored, str, Path], Written]] = {
    "onnx": onnx, "torch_export": torch_export, "safetensors": safetensors, "huggingface": huggingface, "web": web
}  # fmt: skip
