"""What ``import aigc_cli`` gives: runs that sample, encode and score as the commands do, and scores of tensors."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fresh_runs import fresh

import aigc_cli
from aigc_cli.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text()
SMALL = {
    "vae": ["data=digits", "data.size=8", "model.network=mlp", "model.hidden=8", "model.latent=4"],
    "transformer": [
        "data=text",
        "data.root=text.txt",
        "data.tokenizer.kind=char",
        "data.context=64",
        "model.layers=1",
        "model.heads=2",
        "model.width=16",
    ],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder with the runs that the page trains, small ones with fresh weights."""
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("text.txt").write_text(PAGE)
        for line in re.findall(r"^aigc train (.*)$", PAGE, flags=re.MULTILINE):
            words = line.split()
            small = SMALL[words[0].partition("=")[2]]
            words = [word for word in words if not word.startswith("data=")]
            fresh([*words, *small])
        yield folder


@pytest.fixture(autouse=True)
def here(trained, monkeypatch):
    monkeypatch.chdir(trained)


def test_import_is_cheap_and_dir_names_what_there_is():
    script = "import sys, aigc_cli; print(dir(aigc_cli)); assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "open_run" in done.stdout
    assert set(aigc_cli.__all__) == set(dir(aigc_cli))
    with pytest.raises(AttributeError, match="no attribute 'opne_run'"):
        aigc_cli.opne_run  # noqa: B018


def test_the_page_runs_from_top_to_bottom(small_classifier, capsys):
    scope = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(block, scope)
    said = capsys.readouterr().out
    assert "truncation" in said
    assert "distinct1" in said
    assert len(scope["texts"]) == 4
    assert scope["rows"].shape == (10, 1, 8, 8)


def test_samples_are_those_of_the_command(capsys):
    run = aigc_cli.open_run("transformer-pydocs/first", device="cpu")
    assert main(["sample", f"run={run.name}", "n=2", "prompt=The ", "max_tokens=8", "out=texts", "seed=4"]) == 0
    written = [json.loads(line)["text"] for line in Path("texts/samples.jsonl").read_text().splitlines()]
    assert run.sample(2, seed=4, prompt="The ", max_tokens=8) == written


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda run: run.encode(torch.rand(2, 1, 8, 8), labels=[0, 1]), "integers"),
        (lambda run: run.encode(torch.zeros(2, 1, 9, 8, dtype=torch.uint8), labels=[0, 1]), "1x8x8"),
        (lambda run: run.encode(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)), "told the class"),
        (lambda run: run.score(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), labels=["3", "cat"]), "no class cat"),
        (lambda run: run.encode(["a text"]), "these are texts"),
        (lambda run: run.sample(1, class_="../../etc/passwd"), "no such class"),
        (lambda run: aigc_cli.evaluate(torch.rand(8, 1, 8, 8), run.sample(8), "kd"), "raw content"),
        (lambda run: aigc_cli.evaluate([], metrics="distinct"), "not items"),
        (lambda run: aigc_cli.open_run("transformer-pydocs/first").score("a string"), "list of strings"),
        (lambda run: aigc_cli.open_run("transformer-pydocs/first").score(["x" * 99]), "this model reads"),
        (lambda run: aigc_cli.open_run("transformer-pydocs/first").decode(torch.zeros(1, 16)), "no decoder"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(call, said):
    run = aigc_cli.open_run("vae-digits/first", device="cpu")
    with pytest.raises(aigc_cli.ConfigError, match=said):
        call(run)


def test_a_score_depends_neither_on_its_batch_nor_on_what_fills_it_up():
    run = aigc_cli.open_run("transformer-pydocs/first", device="cpu")
    texts = ["a", "some words", "more words than that"]
    together, apart = run.score(texts)["nll"], torch.cat([run.score([text])["nll"] for text in texts])
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)
