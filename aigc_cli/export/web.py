"""One HTML file with a model in it, that draws samples in a browser without a network: pictures from latents, and text.

The page holds the graph of ONNX as JSON, its weights in base64, and a small interpreter (``page/run.js``).
"""

from __future__ import annotations

import base64
import html
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from aigc_cli.errors import ConfigError
from aigc_cli.export import graphs
from aigc_cli.export.parts import parts_of
from aigc_cli.export.record import about, content_of, write_record
from aigc_cli.files import write_atomically
from aigc_cli.training.onnx_model import Graph
from aigc_cli.training.restore import Restored

PAGE = Path(__file__).parent / "page"


def web(restored: Restored, dtype: str, folder: Path) -> tuple[dict[str, Any], list[str], str]:
    """Writes ``index.html``.

    Raises:
        ConfigError: the model is of another kind, or computes what the page's interpreter does not know.
    """
    exported, content = parts_of(restored), content_of(restored)
    parts = {part.name: part for part in exported.parts}
    part = parts.get("generator", parts.get("decoder")) if exported.kind == "latent" else parts.get("model")
    seen = exported.kind == "latent" and part is not None and "raw" in part.outputs and len(restored.spec.raw) == 3
    if part is None or not (seen or exported.kind == "writer"):
        what = f"a page of model={restored.run.config['model']['name']} on {restored.spec.kind} is not known"
        raise ConfigError(what, "it can be one of pictures from latents (gan, vae, hvae), or of a transformer on text")
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "model.onnx"
        graphs.to_onnx(part, graphs.trace(part), path, dtype, {})
        made = Graph(path)
        shapes = made.shapes
        worst = graphs.check(part, made.run, dtype, shapes)
        graph, weights = packed(path)
    saved = {"kind": exported.kind, "graph": graph, **content, **_more(restored, exported.kind, shapes)}
    saved.pop("controls")
    title = html.escape(f"{restored.run.config['model']['name']} on {restored.run.config['data']['name']}")
    page = (PAGE / "page.html").read_text(encoding="utf-8").replace("TITLE", title)
    script = "".join((PAGE / name).read_text(encoding="utf-8") for name in ("run.js", "tokens.js"))
    text = json.dumps(saved, ensure_ascii=False)  # so that nothing in it ends the script, or is a place to fill
    text = text.replace("<", "\\u003c").replace(">", "\\u003e")
    for word, value in (("ABOUT", text), ("WEIGHTS", base64.b64encode(weights).decode()), ("SCRIPT", script)):
        head, _, tail = page.partition(f">{word}")
        page = f"{head}>{value}{tail}"
    write_atomically(folder / "index.html", page)
    record = {**about(restored, "web", dtype), "kind": exported.kind, **content, "greatest_difference": worst}
    write_record(folder, record)
    return record, [f"index.html: {len(page) / 1e6:.1f} MB, with nothing to load"], "open {out}/index.html in a browser"


def _more(restored: Restored, kind: str, shapes: dict[str, Any]) -> dict[str, Any]:
    if kind == "latent":
        return {"latent": shapes["latent"][1]}
    files = restored.codec.portable(1)
    model = json.loads(files["tokenizer.json"])
    specials = dict(restored.spec.specials)
    tokenizer = {
        "vocabulary": model["model"]["vocab"], "merges": model["model"]["merges"],
        "bytes": model["decoder"]["type"] == "ByteLevel", **specials,
    }  # fmt: skip
    past = [[name, shape] for name, shape in shapes.items() if name.startswith("past_key_values.")]
    return {"tokenizer": tokenizer, "past": past}


def packed(path: Path) -> tuple[dict[str, Any], bytes]:
    """A file of ONNX as JSON, and its floating-point weights.

    Raises:
        ConfigError: it has an operation that the page does not know.
    """
    import onnx

    model, weights = onnx.load(str(path)), bytearray()
    known = set(re.findall(r"^  (\w+): |[,}] (\w+): ", (PAGE / "run.js").read_text(encoding="utf-8"), re.MULTILINE))
    names = {name for pair in known for name in pair if name}
    if unknown := sorted({node.op_type for node in model.graph.node} - names):
        hint = "export it with format=onnx, which other programs show in a browser"
        raise ConfigError(f"the page does not know {', '.join(unknown)}, of which this model is made", hint)

    def tensor(value: Any) -> dict[str, Any]:
        array = onnx.numpy_helper.to_array(value)
        if array.dtype == np.float32:
            at = len(weights)
            weights.extend(array.tobytes())
            return {"shape": list(array.shape), "at": at}
        return {"shape": list(array.shape), "values": [int(each) for each in array.reshape(-1)]}

    def attribute(value: Any) -> Any:
        found = onnx.helper.get_attribute_value(value)
        if isinstance(found, onnx.TensorProto):
            return tensor(found)
        if isinstance(found, bytes):
            return found.decode()
        return list(found) if isinstance(value.type, int) and value.type >= onnx.AttributeProto.FLOATS else found

    nodes, constants = [], {each.name: tensor(each) for each in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = attribute(node.attribute[0])
            continue
        attributes = {each.name: attribute(each) for each in node.attribute}
        nodes.append({"op": node.op_type, "i": list(node.input), "o": list(node.output), "a": attributes})
    return {"nodes": nodes, "constants": constants, "outputs": [each.name for each in model.graph.output]}, bytes(
        weights
    )
