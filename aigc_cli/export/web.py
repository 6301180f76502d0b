"""One HTML file with a model in it, that draws samples in a browser without a network: pictures, clips and sound from
noise, and text.

The page holds graphs of ONNX as JSON, their weights in base64, a small interpreter (``page/run.js``), and the loops
that draw (``page/draw.js``).
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
from aigc_cli.export.parts import Exported, parts_of
from aigc_cli.export.record import about, content_of, write_record
from aigc_cli.export.wrap import Part
from aigc_cli.files import write_atomically
from aigc_cli.training.onnx_model import Graph
from aigc_cli.training.restore import Restored

PAGE = Path(__file__).parent / "page"
#: By the kind of a loop that the page knows, the part that it runs, and what brings its results back to raw content.
_PARTS = {
    "latent": ("generator", "decoder", "latents_decoder"), "flow": ("velocity", "codec", "latents_decoder"),
    "writer": ("model",),
}  # fmt: skip


def web(restored: Restored, dtype: str, folder: Path) -> tuple[dict[str, Any], list[str], str]:
    """Writes ``index.html``.

    Raises:
        ConfigError: the model is of another kind, or computes what the page's interpreter does not know.
    """
    exported, content = parts_of(restored), content_of(restored)
    chosen, weights, worst = _chosen(restored, exported), bytearray(), dict[str, float]()
    saved = {"kind": exported.kind, "graphs": [], **content}
    for part in chosen:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "model.onnx"
            graphs.to_onnx(part, graphs.trace(part), path, dtype, {})
            made = Graph(path)
            for name, apart in graphs.check(part, made.run, dtype, made.shapes).items():
                worst[name] = max(apart, worst.get(name, 0.0))
            saved["graphs"].append(packed(path, weights))
    if exported.kind == "writer":
        saved |= _writing(restored, made.shapes)
    else:
        first = next(iter(chosen[0].inputs(1).values()))  # what a sample begins with
        saved |= {"noise": first[0].numel(), "turns": restored.model.turns(restored.model.controls())}
    saved.pop("controls")
    title = html.escape(f"{restored.run.config['model']['name']} on {restored.run.config['data']['name']}")
    page = (PAGE / "page.html").read_text(encoding="utf-8").replace("TITLE", title)
    script = "".join((PAGE / name).read_text(encoding="utf-8") for name in ("run.js", "draw.js", "tokens.js"))
    text = json.dumps(saved, ensure_ascii=False)  # so that nothing in it ends the script, or is a place to fill
    text = text.replace("<", "\\u003c").replace(">", "\\u003e")
    for word, value in (("ABOUT", text), ("WEIGHTS", base64.b64encode(weights).decode()), ("SCRIPT", script)):
        head, _, tail = page.partition(f">{word}")
        page = f"{head}>{value}{tail}"
    write_atomically(folder / "index.html", page)
    record = {**about(restored, "web", dtype), "kind": exported.kind, **content, "greatest_difference": worst}
    write_record(folder, record)
    return record, [f"index.html: {len(page) / 1e6:.1f} MB, with nothing to load"], "open {out}/index.html in a browser"


def _chosen(restored: Restored, exported: Exported) -> list[Part]:
    """The parts that the page runs, the last of which gives what is seen or heard; a ConfigError where none does."""
    wanted = _PARTS.get(exported.kind, ())
    parts = sorted((part for part in exported.parts if part.name in wanted), key=lambda part: wanted.index(part.name))
    shown = len(restored.spec.raw) in (2, 3, 4)  # sound, pictures and clips, by their axes
    if parts and (exported.kind == "writer" or (shown and "raw" in parts[-1].outputs)):
        return parts
    what = f"a page of model={restored.run.config['model']['name']} on {restored.spec.kind} is not known"
    hint = "export it with format=onnx, whose example.py runs it; a page can be of gan, vae, hvae or flow on "
    raise ConfigError(what, f"{hint}pictures, clips or waveforms, and of transformer or gan on text")


def _writing(restored: Restored, shapes: dict[str, Any]) -> dict[str, Any]:
    files = restored.codec.portable(1)
    model = json.loads(files["tokenizer.json"])
    specials = dict(restored.spec.specials)
    tokenizer = {
        "vocabulary": model["model"]["vocab"], "merges": model["model"]["merges"],
        "bytes": model["decoder"]["type"] == "ByteLevel", **specials,
    }  # fmt: skip
    past = [[name, shape] for name, shape in shapes.items() if name.startswith("past_key_values.")]
    return {"tokenizer": tokenizer, "past": past}


def packed(path: Path, weights: bytearray) -> dict[str, Any]:
    """A file of ONNX as JSON, whose floating-point numbers are added to `weights`.

    Raises:
        ConfigError: it has an operation that the page does not know.
    """
    import onnx

    model = onnx.load(str(path))
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
    given, found = ([each.name for each in side] for side in (model.graph.input, model.graph.output))
    return {"nodes": nodes, "constants": constants, "inputs": given, "outputs": found}
