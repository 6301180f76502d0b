"""The page's interpreter of ONNX graphs (``run.js``) computes what torch does, operation by operation, and its loop
(``draw.js``) takes the steps of a flow's solvers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from aigc_cli.export.web import PAGE, packed
from aigc_cli.models.flow import _STEPS, _steps

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")
#: Runs each of some graphs, whose arguments are constants.
_SCRIPT = """
const fs = require("fs"), script = fs.readFileSync(process.argv[1], "utf8") + "; return {run, read}";
const {run, read} = new Function(script)(), given = JSON.parse(fs.readFileSync(0, "utf8"));
const bytes = Uint8Array.from(given.weights);
process.stdout.write(JSON.stringify(given.graphs.map(graph => {
  const found = run(read(graph, bytes.buffer), {});
  return graph.outputs.map(name => ({s: found[name].s, d: Array.from(found[name].d)}));
})));
"""
#: Follows a velocity that depends on where, when and of which class an item is.
_PATH = """
const fs = require("fs"), script = fs.readFileSync(process.argv[1], "utf8") + "; return followed", steps = 3;
const followed = new Function(script)(), velocity = (x, time, label) => x.map(v => v * time + label);
const path = solver => followed({classes: ["a", "b"]}, velocity, Float32Array.of(1, -2),
  {steps, solver, guidance: 1.5, label: 1}, () => {});
Promise.all(["heun", "euler"].map(path)).then(ends =>
  process.stdout.write(JSON.stringify(ends.map(end => Array.from(end)))));
"""
Case = tuple[str, dict[str, Any], list[Tensor], Tensor | tuple[Tensor, ...]]
_draws = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_draws)


def ints(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def of_maps() -> Iterator[Case]:
    """Each operation on maps with its attributes, its arguments, and what torch makes of these."""
    x, none = normal(2, 8, 5, 6), torch.tensor([])
    yield "DepthToSpace", {"blocksize": 2, "mode": "CRD"}, [x], F.pixel_shuffle(x, 2)
    turned = x.view(2, 2, 2, 2, 5, 6).permute(0, 3, 4, 1, 5, 2).reshape(2, 2, 10, 12)
    yield "DepthToSpace", {"blocksize": 2, "mode": "DCR"}, [x], turned
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    twice = torch.tensor([1.0, 1.0, 2.0, 2.0])
    yield "Resize", nearest, [x, none, twice], F.interpolate(x, scale_factor=2.0)
    yield "Resize", nearest, [x, none, none, ints(2, 8, 7, 9)], F.interpolate(x, size=(7, 9))
    yield "Resize", linear, [x, none, twice], F.interpolate(x, scale_factor=2.0, mode="bilinear")
    pool = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}
    yield "MaxPool", pool, [x], F.max_pool2d(x, (3, 2), 2, (1, 0))
    for padded in (True, False):
        wanted = F.avg_pool2d(x, (3, 2), 2, (1, 0), count_include_pad=padded)
        yield "AveragePool", {**pool, "count_include_pad": int(padded)}, [x], wanted
    norm = [normal(8), normal(8), normal(8), normal(8).abs()]
    yield "BatchNormalization", {}, [x, *norm], F.batch_norm(x, norm[2], norm[3], norm[0], norm[1])
    kernel = normal(7, 8, 1, 1)
    yield "Conv", {}, [x, kernel], F.conv2d(x, kernel)
    ways: list[tuple[tuple[int, ...], int, Any, Any]] = [
        ((9,), 1, F.conv1d, F.conv_transpose1d), ((7, 6), 2, F.conv2d, F.conv_transpose2d),
        ((5, 4, 6), 4, F.conv3d, F.conv_transpose3d),
    ]  # fmt: skip
    for sides, groups, there, back in ways:
        rank, y, bias = len(sides), normal(2, 8, *sides), normal(12)
        shape = {"strides": [2] * rank, "pads": [1] * 2 * rank, "dilations": [2] * rank, "group": groups}
        kernel = normal(12, 8 // groups, *[3] * rank)
        yield "Conv", shape, [y, kernel, bias], there(y, kernel, bias, 2, 1, 2, groups)
        kernel, shape = normal(8, 12 // groups, *[3] * rank), {**shape, "output_padding": [1] * rank}
        yield "ConvTranspose", shape, [y, kernel, bias], back(y, kernel, bias, 2, 1, 1, groups, 2)


def of_rows() -> Iterator[Case]:
    """The same of all other operations that are more than a line."""
    x = normal(2, 8, 5, 6)
    yield "LogSoftmax", {"axis": 1}, [x], x.log_softmax(1)
    yield "Softmax", {"axis": -1}, [x], x.softmax(-1)
    yield "Softplus", {}, [30 * x], F.softplus(30 * x)
    yield "ReduceL2", {"keepdims": 0}, [x, ints(1, 2)], x.norm(dim=(1, 2))
    yield "TopK", {"axis": 1, "largest": 0}, [x, ints(8)], x.sort(1)
    yield "TopK", {"axis": -1}, [x, ints(2)], x.topk(2)
    yield "ArgMax", {"axis": 1, "keepdims": 0}, [x], x.argmax(1)
    yield "CumSum", {}, [x, ints(2)], x.cumsum(2)
    yield "Pad", {}, [x, ints(0, 1, 0, 2, 0, 0, 3, 0), torch.tensor([0.5])], F.pad(x, (2, 0, 0, 3, 1, 0), value=0.5)
    left, right = normal(2, 1, 5, 7), normal(3, 7, 6)
    yield "MatMul", {}, [left, right], left @ right
    yield "MatMul", {}, [left, right[0, :, 0]], left @ right[0, :, 0]
    yield "MatMul", {}, [left[0, 0, 0], right], left[0, 0, 0] @ right
    yield "MatMul", {}, [left[0, 0, 0], right[0, :, 0]], left[0, 0, 0] @ right[0, :, 0]
    left, right, bias = normal(7, 5), normal(6, 7), normal(6)
    turned = {"transA": 1, "transB": 1, "alpha": 2.0, "beta": 3.0}
    yield "Gemm", turned, [left, right, bias], 2 * left.T @ right.T + 3 * bias
    chosen, column = normal(8, 1, 6) > 0, normal(5, 1)
    yield "Where", {}, [chosen, x, column], torch.where(chosen, x, column)
    row = normal(8, 1, 1)
    yield "Sub", {}, [row, x], row - x
    yield "Transpose", {"perm": [2, 0, 3, 1]}, [x], x.permute(2, 0, 3, 1)
    yield "Expand", {}, [column, ints(2, 5, 3)], column.expand(2, 5, 3)
    ends = [ints(1, -1), ints(8, -99), ints(1, 3), ints(3, -2)]
    yield "Slice", {}, [x, *ends], x[:, 1::3].flip(3)[..., ::2]


def in_node(script: str, file: str, given: str = "") -> Any:
    words = [str(NODE), "-e", script, str(PAGE / file)]
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_operation_computes_what_torch_does(tmp_path: Path) -> None:
    cases, graphs, weights = [*of_maps(), *of_rows()], [], bytearray()
    for name, attributes, given, wanted in cases:
        outputs = [f"out{place}" for place in range(len(wanted) if isinstance(wanted, tuple) else 1)]
        inputs = [f"in{place}" if value.numel() else "" for place, value in enumerate(given)]
        node = onnx.helper.make_node(name, inputs, outputs, **attributes)
        constants = [
            onnx.numpy_helper.from_array(value.numpy(), each) for each, value in zip(inputs, given, strict=True)
        ]
        found = [onnx.helper.make_tensor_value_info(each, onnx.TensorProto.FLOAT, None) for each in outputs]
        graph = onnx.helper.make_graph([node], name, [], found, constants)
        onnx.save(onnx.helper.make_model(graph), str(tmp_path / "one.onnx"))
        graphs.append(packed(tmp_path / "one.onnx", weights))
    results = in_node(_SCRIPT, "run.js", json.dumps({"graphs": graphs, "weights": list(weights)}))
    for (name, attributes, _, wanted), found in zip(cases, results, strict=True):
        for one, other in zip(wanted if isinstance(wanted, tuple) else (wanted,), found, strict=True):
            assert list(one.shape) == other["s"], f"{name} {attributes}"
            assert np.allclose(one.flatten().numpy(), other["d"], rtol=1e-4, atol=1e-5), f"{name} {attributes}"


def test_a_path_is_followed_as_the_solvers_of_the_model_do() -> None:
    def guided(x: Tensor, time: float) -> Tensor:
        told, untold = x * time + 1, x * time + 2  # of class 1, and of any, which comes after the two classes
        return untold + 1.5 * (told - untold)

    for solver, found in zip(("heun", "euler"), in_node(_PATH, "draw.js"), strict=True):
        x = torch.tensor([1.0, -2.0])
        for time, after in _steps(3, back=False):
            x = _STEPS[solver](guided, x, time, after)
        assert np.allclose(x.numpy(), found, atol=1e-5), solver
