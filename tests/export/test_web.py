"""The page of `aigc export format=web`: that it draws what the model does, in node and in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_families import EVERYTHING, WAVES, words_of
from untrained import EVERY, check_no_place, restored, text, untrained

from aigc_cli.cli import main
from aigc_cli.export.parts import parts_of

pytest.importorskip("onnxscript", reason="onnxscript is not installed")
NODE = shutil.which("node")
DCGAN = ["model=dcgan", "data=digits", "data.size=8", "model.width=8", "model.max_width=16", "model.conditional=true"]
WRITER = ["model=transformer", "model.layers=1", "model.heads=2", "model.width=16"]
DIGITS = ["data=digits", "data.size=8", "model.conditional=true"]
HEUN, EULER = {"steps": 2, "solver": "heun"}, {"steps": 2, "solver": "euler"}
#: A model of each kind that a page draws, and how it is asked to; those after the first two only where all are tried.
KINDS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "gan (dcgan)": (DCGAN, {}),
    "vae": ([*EVERYTHING["vae"][0], "model.prior_layers=2"], {}),
    "flow": (["model=flow", *DIGITS, "model.width=8"], {**HEUN, "guidance": 2.0}),
    "biggan": (
        ["model=biggan", *DIGITS, "data.size=16", "model.width=16", "model.max_width=64", "model.attention=8"],
        {},
    ),
    "gan (r3gan_small)": (EVERYTHING["gan (r3gan_small)"][0], {}),
    "vae of a map": (["model=vae", *DIGITS, "model.width=4", "model.latent=2", "model.latent_side=4"], {}),
    "hvae": (EVERYTHING["hvae"][0], {}),
    "hvae of means": (["model=hvae", *DIGITS, "model.width=8", "model.whole_map=false"], {}),
    "flow (dit)": (EVERYTHING["flow (dit)"][0], EULER),
    "flow on latents": (EVERYTHING["flow on latents"][0], HEUN),
    "gan on clips": (EVERYTHING["gan on clips"][0], {}),
    "vae on clips": (EVERYTHING["vae on clips"][0], {}),
    "wavegan": (EVERYTHING["wavegan"][0], {}),
    "vae of waves": (["model=vae", *WAVES, "model.network=mlp", "model.hidden=16"], {}),
}
#: Reads the page as a browser would, and runs its graph on what the test gives.
_READ = """
const fs = require("fs"), page = fs.readFileSync("there/index.html", "utf8");
const about = JSON.parse(page.match(/id="about">([^]*?)<\\/script>/)[1]);
const packed = Buffer.from(page.match(/id="weights">([^]*?)<\\/script>/)[1], "base64");
const script = page.match(/<script>([^]*?)const about/)[1] + "; return {run, read, T, drawn, encode, decode};";
const {run, read, T, drawn, encode, decode} = new Function(script)();
const graphs = about.graphs.map(graph => read(graph, new Uint8Array(packed).buffer));
const given = JSON.parse(fs.readFileSync("given.json", "utf8"));
const tell = found => process.stdout.write(JSON.stringify(found));
if (given.noise) {
  const noise = Float32Array.from(given.noise);
  drawn(about, graphs, noise, given.asked, () => {}).then(raw => tell(Array.from(raw)));
} else {
  const found = run(graphs[0], Object.fromEntries(Object.entries(given.arrays).map(([name, t]) =>
    [name, T(t.s, t.float ? Float32Array.from(t.d) : Float64Array.from(t.d))])));
  const ids = encode(about.tokenizer, given.text), text = decode(about.tokenizer, ids);
  const arrays = Object.fromEntries(Object.entries(found).map(([k, t]) => [k, {s: t.s, d: Array.from(t.d)}]));
  tell({arrays, ids, text});
}
"""


def in_node(given: dict[str, Any]) -> Any:
    Path("given.json").write_text(json.dumps(given))
    done = subprocess.run([str(NODE), "-e", _READ], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.skipif(NODE is None, reason="node is not installed")
@pytest.mark.parametrize("name", [pytest.param(name, marks=[EVERY] * (at > 1)) for at, name in enumerate(KINDS)])
def test_the_page_draws_what_the_model_does(name: str, tmp_path: Path) -> None:
    words, asked = KINDS[name]
    mine = restored(words_of(name, tmp_path) if "latents" in name else words)
    assert main(["export", "run=run", "format=web", "out=there"]) == 0
    model, codec = mine.model, mine.codec
    model.heed(replace(model.controls(), **asked))
    noise = next(iter(parts_of(mine).parts[-1 if "latents" in name else 0].inputs(1).values()))
    label = 3 if model.conditional else None
    with torch.no_grad():
        wanted = codec.decode(model.decode(noise.flatten(1), None if label is None else torch.tensor([label])))
    raw = in_node({"noise": noise.flatten().tolist(), "asked": {"guidance": 1, **asked, "label": label}})
    assert len(wanted.unique()) > 2, "there is something to see"
    assert np.abs(wanted.double().numpy().reshape(-1) - raw).max() <= 1
    check_no_place(tmp_path / "there", tmp_path)
    page = (tmp_path / "there" / "index.html").read_text()
    assert not re.findall(r"""(?:src|href)=["']?(?!data:)\w""", page), "it loads nothing"
    assert "AI-generated" in page


@EVERY
@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_the_page_scores_text_as_the_model_does(tmp_path: Path) -> None:
    mine, said = restored([*WRITER, *text(tmp_path, "data.tokenizer.vocab_size=280")]), "the red dog's  3 trees\n"
    assert main(["export", "run=run", "format=web", "out=there"]) == 0
    part = parts_of(mine).parts[0]
    given = part.inputs(2, 3, 4)
    arrays = {name: {"s": list(value.shape), "d": value.flatten().tolist(), "float": value.is_floating_point()}
              for name, value in given.items()}  # fmt: skip
    told = in_node({"arrays": arrays, "text": said})
    for key, wanted in zip(part.outputs, part.run(given), strict=True):
        found = np.array(told["arrays"][key]["d"]).reshape(told["arrays"][key]["s"])
        assert np.abs(found - wanted.double().numpy()).max() <= 1e-4
    assert told["ids"] == mine.codec.tokens(said)  # type: ignore[attr-defined]
    assert told["text"] == said


@EVERY
def test_a_browser_draws_sixteen_samples_from_a_file(tmp_path: Path) -> None:
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.support.ui import WebDriverWait

    driver, browser = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or browser is None:
        pytest.skip("no chromium and chromedriver here")
    untrained(EVERYTHING["vae"][0])
    assert main(["export", "run=run", "format=web", "out=there"]) == 0
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=500,800"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        page.get((tmp_path / "there" / "index.html").as_uri())
        page.find_element("css selector", "button").click()
        WebDriverWait(page, 60, 0.05).until(lambda page: "✓" in page.title)
        assert len(page.find_elements("tag name", "canvas")) == 16
        assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
        assert page.get_log("browser") == []
    finally:
        page.quit()


def test_what_a_page_cannot_draw_is_refused_with_the_format_that_can(capsys: pytest.CaptureFixture[str]) -> None:
    untrained(EVERYTHING["vqvae"][0])
    assert main(["export", "run=run", "format=web"]) == 2
    refused = capsys.readouterr().err
    assert "a page of model=vqvae on image is not known" in refused
    assert "format=onnx" in refused
