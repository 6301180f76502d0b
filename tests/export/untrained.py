"""Runs of small models with fresh weights that were shaken, so that nothing in them is 0 or 1 any more."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest
import torch

import aigc_cli
from aigc_cli.config.compose import compose
from aigc_cli.data import open_dataset
from aigc_cli.models.base import build_model
from aigc_cli.new_run import create_run
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import CheckpointFolder
from aigc_cli.training.restore import Restored, restore_model
from aigc_cli.training.tokenizer import with_tokenizer

#: Of tests that trace every family, which takes minutes.
EVERY = pytest.mark.skipif("AIGC_TEST_EXPORT" not in os.environ, reason="set AIGC_TEST_EXPORT=1 to export every family")


def untrained(words: list[str], name: str = "run") -> Run:
    """A run whose checkpoint of step 3 holds such weights, in the folder `name`."""
    config = with_tokenizer(compose("train", [*words, "recipe=null", f"run_dir={name}"]))
    dataset = open_dataset(config["data"], "train")
    run = create_run(config)
    run.save_config(config, dataset.spec, dataset.codec.files())
    dataset.codec.keep(run.path)
    torch.manual_seed(0)
    model = build_model(config["model"], dataset.spec)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    CheckpointFolder(run.checkpoints).save(3, {"model": model.state_dict()}, {"step": 3})
    run.set_status("complete", 3)
    return run


def restored(words: list[str], name: str = "run") -> Restored:
    """The same, read back."""
    return restore_model(untrained(words, name), device="cpu")


def text(folder: Path, *words: str) -> list[str]:
    """The words of a text of 64-token windows that is written into `folder`."""
    lines = [f"the {colour} {animal} sees {n} trees" for colour in ("red", "old") for animal in ("dog", "cat")
             for n in range(40)]  # fmt: skip
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    return ["data=text", f"data.root={folder / 'text.txt'}", "data.context=64", *words]


def check_no_place(folder: Path, here: Path) -> None:
    """Asserts that no exported file of a folder holds a path of this machine, within archives too."""
    places = [str(here), str(Path(aigc_cli.__file__).parent), str(Path(torch.__file__).parent)]
    for path in map(folder.joinpath, json.loads((folder / "export.json").read_text())["sha256"]):
        contents = {path.name: path.read_bytes()}
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                contents |= {name: archive.read(name) for name in archive.namelist()}
        for name, content in contents.items():
            assert not (found := [place for place in places if place.encode() in content]), f"{name} holds {found[0]}"
