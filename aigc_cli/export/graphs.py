"""A part of a model as a file that runs elsewhere, ONNX or torch's own, and the proof that it computes the same."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aigc_cli.errors import AigcError
from aigc_cli.export.wrap import Part

#: The greatest difference that a file may have from the model, as a share of the greatest value; of whole numbers, such
#: as pixels, one level. What int8 costs is measured and said, since it depends on the model.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "int8": float("inf")}
_SHARE = 0.01  # of codes that may be others, where two are nearly as near
OPSET = 20


class NotTheSame(AigcError):
    """A file that was written, and computes something else than the model: a bug of ours, or of a library."""


def trace(part: Part) -> torch.export.ExportedProgram:
    """The part as a graph of torch's operations in which every axis that varies is free."""
    given, varying = part.inputs(*part.sizes[0]), part.varying()
    free = {name: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for name, axes in varying.items()}
    shapes = part.packed({name: free.get(name, {}) for name in given})
    with torch.no_grad(), quiet():
        # Strict tracing follows len(x), of which the other way makes a number; some of Python only the other follows.
        for strict in (False,) if "attention_mask" in given else (True, False):
            try:
                traced = torch.export.export(part.module, part.packed(given), dynamic_shapes=shapes, strict=strict)
                for node in traced.graph.nodes:  # which says where Python's files lie on this machine
                    node.meta.pop("stack_trace", None)
                return traced
            except Exception as error:
                failure = error
    raise NotTheSame(f"{part.name} cannot be traced: {str(failure).splitlines()[0]}") from failure


def to_onnx(part: Part, traced: torch.export.ExportedProgram, path: Path, dtype: str, about: Mapping[str, Any]) -> None:
    """Writes the traced part as ONNX, of float32 arguments and results whatever `dtype` it has within."""
    import onnx

    with quiet():
        program = torch.onnx.export(traced, opset_version=OPSET, dynamo=True, verbose=False, optimize=True)
    assert program is not None, "a file is written from what is returned"
    graph = program.model_proto
    _rename(graph, part)
    if dtype == "fp16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        with quiet():
            graph = convert_float_to_float16(graph, keep_io_types=True, disable_shape_infer=True)
        _in_order(graph.graph)
    _without_traces(graph)
    for key, value in about.items():
        graph.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    onnx.save(graph, str(path))
    if dtype == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with quiet():
            quantize_dynamic(str(path), str(path), weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
    onnx.checker.check_model(str(path))


def _in_order(graph: Any) -> None:
    """Puts each node after those whose results it takes: the casts that halving adds stand at the end."""
    known = {each.name for each in (*graph.input, *graph.initializer)} | {""}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = []
        for node in waiting:
            if known.issuperset(node.input):
                ready.append(node)
                known.update(node.output)
        assert ready, "a graph has no circles"
        ordered += ready
        taken = set(map(id, ready))
        waiting = [node for node in waiting if id(node) not in taken]
    nodes = [type(node).FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(nodes)


def _rename(graph: Any, part: Part) -> None:
    """Gives arguments, results and axes their names, in place of those of the tracer."""
    given, varying = list(part.inputs(*part.sizes[0])), part.varying()
    names = {old.name: new for old, new in zip(graph.graph.input, given, strict=True)}
    names |= {old.name: new for old, new in zip(graph.graph.output, part.outputs, strict=True)}
    axes: dict[str, str] = {}
    for value in graph.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param:
                axes.setdefault(dim.dim_param, varying[names[value.name]].get(axis, dim.dim_param))
    for value in (*graph.graph.input, *graph.graph.output):
        value.name = names[value.name]
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\w+", lambda word: axes.get(word[0], word[0]), dim.dim_param)
    for node in graph.graph.node:
        for values in (node.input, node.output):
            for place, name in enumerate(values):
                values[place] = names.get(name, name)
        # Some programs give an empty past of no rows; how many rows there are is to be read from the tokens.
        first = {each.name: each.i for each in node.attribute}
        if node.op_type == "Shape" and node.input[0].startswith("past_key_values.") and first.get("end") == 1:
            node.input[0] = given[0]
    del graph.graph.value_info[:]


def _without_traces(model: Any) -> None:
    """Takes away what the tracer says of each node: the lines of Python that it came from, with the paths of this
    machine."""
    for holder in (model.graph, *model.functions):
        for each in (*holder.node, *getattr(holder, "initializer", ()), *holder.value_info):
            del each.metadata_props[:]
            each.doc_string = ""
            for inner in getattr(each, "attribute", ()):
                for graph in (inner.g, *inner.graphs):
                    for node in graph.node:
                        del node.metadata_props[:]
        del holder.metadata_props[:]
    for each in (*model.graph.input, *model.graph.output):
        del each.metadata_props[:]


def check(part: Part, call: Any, dtype: str, shapes: Mapping[str, Sequence[Any]] | None = None) -> dict[str, float]:
    """Runs a file with all the sizes of its part; the greatest difference of each result from the model's.

    Raises:
        NotTheSame: an axis that may vary does not, a size does not run, or a difference is above :data:`TOLERANCE`.
    """
    if shapes is not None:
        for name, axes in part.varying().items():
            if fixed := [axis for axis in axes if isinstance(shapes[name][axis], int)]:
                raise NotTheSame(f"{part.name}: axis {fixed[0]} of {name} is fixed at {shapes[name][fixed[0]]}")
    worst = dict.fromkeys(part.outputs, 0.0)
    for size in part.sizes:
        given = part.inputs(*size)
        with torch.no_grad():
            wanted = part.run(given)
        try:
            results = call(given)
        except Exception as error:
            what = f"{part.name} does not run with {size[0]} items"
            raise NotTheSame(f"{what}: {str(error).splitlines()[0][:300]}") from error
        for name, one, other in zip(part.outputs, wanted, results, strict=True):
            worst[name] = max(worst[name], _difference(part, name, one, torch.as_tensor(other), dtype))
    return worst


def _difference(part: Part, name: str, one: Tensor, other: Tensor, dtype: str) -> float:
    if one.shape != other.shape:
        raise NotTheSame(f"{part.name}: {name} is {tuple(other.shape)}, and the model's is {tuple(one.shape)}")
    if name == "codes":
        share = float((one != other).float().mean())
        if share > _SHARE and dtype == "fp32":
            raise NotTheSame(f"{part.name}: {share:.1%} of {name} are others than the model's")
        return share
    apart = float((one.double() - other.double()).abs().max())
    scale = max(1.0, float(one.double().abs().max()))
    limit = TOLERANCE[dtype] * scale
    if not one.is_floating_point():  # a level is rounded up here and down there
        limit = max(1.0, limit)
    if not apart <= limit and dtype != "int8":
        raise NotTheSame(f"{part.name}: {name} differs from the model's by {apart:.2g}, above {limit:.2g}")
    return apart


@contextmanager
def quiet() -> Iterator[None]:
    """Without what libraries say of their own work while they trace."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
