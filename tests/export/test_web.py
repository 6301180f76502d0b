"""The page of `aigc export format=web`: what its interpreter makes of a graph, and that it knows all that it needs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from untrained import EVERY, check_no_place, restored, text, untrained

from aigc_cli.cli import main
from aigc_cli.export.parts import parts_of
from aigc_cli.export.web import PAGE

pytest.importorskip("onnxscript", reason="onnxscript is not installed")
NODE = shutil.which("node")
DCGAN = ["model=dcgan", "data=digits", "data.size=8", "model.width=8", "model.max_width=16", "model.conditional=true"]
WRITER = ["model=transformer", "model.layers=1", "model.heads=2", "model.width=16"]
#: Reads the page as a browser would, and runs its graph on what the test gives.
_READ = """
const fs = require("fs"), page = fs.readFileSync("there/index.html", "utf8");
const about = JSON.parse(page.match(/id="about">([^]*?)<\\/script>/)[1]);
const packed = Buffer.from(page.match(/id="weights">([^]*?)<\\/script>/)[1], "base64");
const buffer = new Uint8Array(packed).buffer;
const script = page.match(/<script>([^]*?)const about/)[1] + "; return {run, tensors, T, encode, decode};";
const {run, tensors, T, encode, decode} = new Function(script)();
const value = v => v && v.shape ? tensors({v}, buffer).v : v;
const attributes = a => Object.fromEntries(Object.entries(a).map(([k, v]) => [k, value(v)]));
const nodes = about.graph.nodes.map(n => ({...n, a: attributes(n.a)}));
const graph = {nodes, outputs: about.graph.outputs, constants: tensors(about.graph.constants, buffer)};
const given = JSON.parse(fs.readFileSync("given.json", "utf8"));
const found = run(graph, Object.fromEntries(Object.entries(given.arrays).map(([name, t]) =>
  [name, T(t.s, t.float ? Float32Array.from(t.d) : Float64Array.from(t.d))])));
const ids = given.text === undefined ? [] : encode(about.tokenizer, given.text);
const arrays = Object.fromEntries(Object.entries(found).map(([k, t]) => [k, {s: t.s, d: Array.from(t.d)}]));
process.stdout.write(JSON.stringify({arrays, ids, text: ids.length ? decode(about.tokenizer, ids) : ""}));
"""


def in_node(given: dict[str, torch.Tensor], words: str | None = None) -> dict[str, Any]:
    arrays = {
        name: {"s": list(value.shape), "d": value.flatten().tolist(), "float": value.is_floating_point()}
        for name, value in given.items()
    }
    Path("given.json").write_text(json.dumps({"arrays": arrays} | ({} if words is None else {"text": words})))
    done = subprocess.run([str(NODE), "-e", _READ], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.skipif(NODE is None, reason="node is not installed")
@pytest.mark.parametrize("name", ["pictures", pytest.param("text", marks=EVERY)])
def test_the_page_computes_what_the_model_does(name: str, tmp_path: Path) -> None:
    words = DCGAN if name == "pictures" else [*WRITER, *text(tmp_path, "data.tokenizer.vocab_size=280")]
    mine = restored(words)
    assert main(["export", "run=run", "format=web", "out=there"]) == 0
    check_no_place(tmp_path / "there", tmp_path)
    part = parts_of(mine).parts[0]
    given = part.inputs(2) if name == "pictures" else part.inputs(2, 3, 4)
    told = in_node(given, None if name == "pictures" else "the red dog's  3 trees\n")
    for key, wanted in zip(part.outputs, part.run(given), strict=True):
        found = np.array(told["arrays"][key]["d"]).reshape(told["arrays"][key]["s"])
        assert np.abs(found - wanted.double().numpy()).max() <= (1 if key == "raw" else 1e-4)
    if name == "text":
        assert told["ids"] == mine.codec.tokens("the red dog's  3 trees\n")  # type: ignore[attr-defined]
        assert told["text"] == "the red dog's  3 trees\n"
    page = (tmp_path / "there" / "index.html").read_text()
    assert not re.findall(r"""(?:src|href)=["']?(?!data:)\w""", page), "it loads nothing"
    assert "AI-generated" in page


def test_what_the_page_does_not_know_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    untrained(["model=flow", "data=digits", "data.size=8", "model.width=8"])
    assert main(["export", "run=run", "format=web"]) == 2
    assert "a page of model=flow on image is not known" in capsys.readouterr().err
    assert (PAGE / "run.js").is_file()
