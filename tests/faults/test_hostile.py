"""A stranger's run, and files that were made to harm: refused in words, with nothing run and little memory used.

Archives are attacked in tests/data/test_cache.py, and pictures in tests/modalities/test_image_decode.py and
tests/data/test_image_folder.py.
"""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from children import aigc, needs_proc, without_memory
from PIL import Image
from safetensors.torch import save

from aigc_cli.cli import main
from aigc_cli.errors import DataError
from aigc_cli.files import checksum
from aigc_cli.metrics.extractors.pretrained import load_weights
from aigc_cli.modalities.image_decode import decode_image, pillow_errors
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import CheckpointFolder

COMMANDS = ["sample run={run} n=1", "eval run={run} --metric likelihood", "train --resume {run} trainer.steps=9"]


def rewrite(run: Run, change: str, becomes: str) -> None:
    """Changes a run's configuration as a text."""
    path = run.path / "config.yaml"
    text = path.read_text()
    assert change in text
    path.write_text(text.replace(change, becomes, 1))


@pytest.mark.parametrize("line", COMMANDS)
@pytest.mark.parametrize(
    ("becomes", "says"),
    [
        ("network: ${oc.env:AIGC_SECRET}", "is not resolved"),
        ("network: auto\n  _target_: os.system", "names code to run"),
        ("network: !!python/object/apply:os.system [touch harmed]", "cannot be read"),
    ],
    ids=["environment", "target", "tag"],
)
def test_a_strangers_configuration_runs_and_reads_nothing(
    tiny_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Any, line: str, becomes: str, says: str
) -> None:
    monkeypatch.setenv("AIGC_SECRET", "hunter2")
    rewrite(tiny_run, f"network: {tiny_run.config['model']['network']}", becomes)
    assert main(line.format(run=tiny_run.path).split()) == 3
    err = capsys.readouterr().err
    assert says in err
    assert "hunter2" not in err
    assert not Path("harmed").exists()


class Payload:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harmed",)


def header(size: int, content: bytes = b"") -> bytes:
    return struct.pack("<Q", size) + content


def tensors_at(**places: tuple[int, int]) -> bytes:
    """A safetensors file of one float each, whose header says that they lie at `places`."""
    names = {
        name: {"dtype": "F32", "shape": [(stop - start) // 4], "data_offsets": [start, stop]}
        for name, (start, stop) in places.items()
    }
    text = json.dumps(names).encode()
    return header(len(text), text + bytes(64))


ATTACKS = {
    "pickle": lambda: pickle.dumps(Payload()),
    "torch pickle": lambda: torch_pickle(),
    "header of 2^63 bytes": lambda: header(1 << 63, b"{}"),
    "header of 100 GB": lambda: header(100_000_000_000, b"{}"),
    "header past the end": lambda: header(1000, b"{}"),
    "overlapping tensors": lambda: tensors_at(a=(0, 32), b=(16, 64)),
    "tensor past the end": lambda: tensors_at(a=(0, 1 << 40)),
    "shape of another size": lambda: save({"w": torch.ones(3)}).replace(b"[3]", b"[9]"),
    "no header": lambda: b"",
    "not JSON": lambda: header(4, b"{{{{"),
    "deep JSON": lambda: header(200_000, b"[" * 200_000),
}


def torch_pickle() -> bytes:
    buffer = io.BytesIO()
    torch.save(Payload(), buffer)
    return buffer.getvalue()


@needs_proc
@pytest.mark.parametrize("attack", ATTACKS)
def test_weights_that_attack_are_refused_with_little_memory(tiny_run: Run, attack: str) -> None:
    """The manifest agrees with the file: a stranger makes both. Who reads it has 256 MB more than it came with."""
    content = ATTACKS[attack]()
    for step in (3, 5):
        folder = tiny_run.checkpoints / f"step-{step}"
        (folder / "model.safetensors").write_bytes(content)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["model.safetensors"] = checksum(folder / "model.safetensors")
        (folder / "manifest.json").write_text(json.dumps(manifest))
    limited = functools.partial(without_memory, 1 << 28)
    code, said = aigc("sample", f"run={tiny_run.path}", "n=1", folder=Path.cwd(), before=limited)
    assert code == 3, said
    assert "model.safetensors" in said or "is broken" in said
    assert "Traceback" not in said
    assert not Path("harmed").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_metric_that_attack_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(torch_pickle())
    with pytest.raises(DataError, match="cannot be read as weights"):
        load_weights(path, "get it again")
    assert not Path("harmed").exists()


#: Keys of a state, and what none of them can be.
NONSENSE = [
    ("seconds", "NaN"), ("seconds", "1e999"), ("seconds", '"1"'), ("best", "-Infinity"), ("best_step", "-1"),
    ("batches", "1e3"), ("batches", "9" * 400), ("updates", "[]"), ("processes", "0"), ("fingerprint", "3"),
    ("scalers", '{"main": {"scale": Infinity}}'), ("scalers", '{"main": 3}'),
    ("tally", '[{"names": ["a"], "sums": [NaN], "count": 1}]'),
    ("tally", '[{"names": ["a"], "sums": [1], "count": 0}]'),
    ("tally", '[{"names": "a"}]'), ("unheard", "1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state.json", "[1, 2"),
        ("state.json", "[1]"),
        ("state.json", '{"step": "5"}'),
        ("state.json", "[" * 100_000),
        *(("state.json", f'{{"step": STEP, "{key}": {value}}}') for key, value in NONSENSE),
        ("manifest.json", "[" * 100_000),
        ("manifest.json", '{"state.json": 3, "model.safetensors": null}'),
        ("manifest.json", '{"/etc/passwd": "0", "state.json": "0"}'),
        (
            "../../data.json",
            '{"modality": "image", "shape": [1, 1000000000, 1000000000], "classes": [], "vocab_size": null}',
        ),
        (
            "../../data.json",
            '{"modality": "image", "shape": [1, 1e999, 8], "classes": [], "vocab_size": null, "fingerprint": ""}',
        ),
        ("../../data.json", "[" * 100_000),
    ],
)
def test_a_strangers_json_is_refused(
    tiny_run: Run, capsys: pytest.CaptureFixture[str], file: str, content: str
) -> None:
    for step in (3, 5):
        folder = tiny_run.checkpoints / f"step-{step}"
        (folder / file).write_text(content.replace("STEP", str(step)))
        if file == "state.json":
            manifest = json.loads((folder / "manifest.json").read_text())
            (folder / "manifest.json").write_text(json.dumps({**manifest, file: checksum(folder / file)}))
    for line in COMMANDS:
        assert main(line.format(run=tiny_run.path).split()) in ((3,) if file == "state.json" else (2, 3, 5))
    assert "Traceback" not in capsys.readouterr().err


def test_all_checkpoints_broken_is_an_error_with_their_list(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for path in tiny_run.checkpoints.glob("*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    assert main(["sample", f"run={tiny_run.path}", "n=1"]) == 3
    err = capsys.readouterr().err
    assert "all 2 checkpoints" in err
    assert "step-3" in err
    assert "step-5" in err


def test_keep_never_deletes_the_last_valid_one(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    tensors = {"model": {"w": torch.ones(3)}}
    for step in (1, 2, 3, 4):
        folder.save(step, tensors, {"step": step})
        for later in folder.steps():
            if later > 1:
                (folder.folder(later) / "manifest.json").unlink(missing_ok=True)
    folder.save(2, tensors, {"step": 2})  # having gone back to step 1, whose successors are all broken
    folder.prune(2, 2, best=None)
    newest = folder.load_newest()
    assert newest is not None
    assert newest.step == 2
    assert 1 in folder.steps()


FEW = ["data=image_folder", "data.root=pictures", "data.size=8", "trainer.steps=1", "trainer.device=cpu"]


def test_a_folder_of_many_files_that_cannot_be_read_is_answered_in_two_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(20_000):
        os.close(os.open(pictures / f"{number}.png", os.O_CREAT))
    assert main(["train", *FEW, "data.max_bad=5"]) == 3
    err = capsys.readouterr().err
    assert re.search(r"none of \d{5} images can be read", err)  # all of them, or those that are not held out
    assert ".png" in err
    assert len(err.splitlines()) <= 2


def test_animations_give_their_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("PNG", "WEBP"):
        path = tmp_path / f"moves.{kind.lower()}"
        frames[0].save(path, kind, save_all=True, append_images=frames[1:], lossless=True)
        with pillow_errors():
            pixels = decode_image(path, 8, 3)
        assert pixels[:, 0, 0].tolist() == [255, 0, 0]


def test_a_bomb_in_a_zip_of_pictures_is_a_bad_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("pictures.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("bomb.png", bytes(1 << 29))
    assert main(["train", *FEW, "data.root=pictures.zip", "data.val_fraction=0.0", "data.test_fraction=0.0"]) == 3
    assert "bomb.png" in capsys.readouterr().err
