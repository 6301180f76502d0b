"""One folder with the small files and runs that all goldens share, and what is stored of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import materials
import pytest
from line import aigc

HERE = Path(__file__).parent

COMMON = [
    "trainer.batch_size=8", "trainer.device=cpu", "trainer.threads=1", "trainer.samples=4", "trainer.log_every=2",
]  # fmt: skip
SMALL = ["model.width=8", "model.layers=1", "model.heads=2"]
RUNS = {
    "gan": [
        "model=gan", "data.size=8", "model.network=mlp", "model.hidden=8", "model.latent=4", "model.conditional=true",
        "trainer.steps=2", "trainer.sample_every=2", "trainer.examine_every=2",
    ],
    "bert": [
        "model=bert", "data=text", "data.root=lines.txt", "data.context=16", "data.tokenizer.kind=char", *SMALL,
        "trainer.steps=2", "trainer.sample_every=2", "trainer.validate_every=2", "trainer.checkpoint_every=1",
        "recipe=null",
    ],
    "vae_text": [
        "model=vae_text", "data=text", "data.root=lines.txt", "data.lines=true", "data.items=documents",
        "data.context=48", "data.tokenizer.kind=char", *SMALL, "model.decoder_layers=1", "model.latent=4",
        "trainer.steps=40", "optimizer.lr=1e-2", "trainer.sample_every=null", "recipe=null",
    ],
}  # fmt: skip


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, aigc_cache: Path) -> Path:
    """A folder with the small files and, in its outputs, the stored runs of an earlier version."""
    folder = tmp_path_factory.mktemp("golden")
    materials.write_texts(folder)
    materials.write_arrays(folder)
    shutil.copytree(HERE / "old", folder / "outputs" / "old")
    return folder


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder as the current one."""
    monkeypatch.chdir(place)
    return place


@pytest.fixture(scope="session")
def trained(place: Path) -> dict[str, list[str]]:
    """Runs of a few steps, ``new/NAME``, with the files of each as training leaves them."""
    before = Path.cwd()
    os.chdir(place)
    files = {}
    for name, words in RUNS.items():
        assert aigc("train", *words, *COMMON, f"run_dir=outputs/new/{name}")[0] == 0
        folder = Path("outputs/new", name)
        files[name] = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    os.chdir(before)
    return files


@pytest.fixture(scope="session")
def stored() -> Callable[[str, Any], None]:
    """Compares a value with ``stored/NAME.json``; with AIGC_WRITE_GOLDENS=1 it writes that file instead."""

    def check(name: str, value: Any) -> None:
        path = HERE / "stored" / f"{name}.json"
        if os.environ.get("AIGC_WRITE_GOLDENS"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        assert value == json.loads(path.read_text(encoding="utf-8")), name

    return check
