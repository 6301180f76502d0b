import json
import math

import pytest
import torch

from aigc_cli.errors import ConfigError, DataError, NonFiniteError
from aigc_cli.modalities.base import DataSpec
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import CheckpointFolder, NewerCheckpoint, State
from aigc_cli.training.restore import refuse_changes


def tensors(value=1.0):
    model = {"w": torch.full((3,), value), "n": torch.tensor(4)}
    return {"model": model, "optimizer": {"main/w/step": torch.tensor(1.0)}}


@pytest.fixture
def folder(tmp_path):
    made = CheckpointFolder(tmp_path / "checkpoints")
    for step in (10, 20, 30):
        made.save(step, tensors(step), {"step": step})
    return made


def test_round_trip(folder):
    loaded = folder.load(20)
    assert torch.equal(loaded.tensors["model"]["w"], torch.full((3,), 20.0))
    assert loaded.tensors["model"]["n"].dtype == torch.int64
    assert loaded.state == State(step=20)
    assert sorted(path.name for path in loaded.path.iterdir()) == [
        "manifest.json", "model.safetensors", "optimizer.safetensors", "state.json",
    ]  # fmt: skip


def test_tied_weights_are_saved(tmp_path):
    made = CheckpointFolder(tmp_path)
    tied = torch.arange(4.0)
    made.save(1, {"model": {"a": tied, "b": tied}}, {"step": 1})
    assert torch.equal(made.load(1).tensors["model"]["b"], tied)


def test_saving_again_replaces(folder):
    folder.save(30, tensors(5.0), {"step": 30})
    assert folder.load(30).tensors["model"]["w"][0] == 5
    assert folder.steps() == [10, 20, 30]


def test_prune_keeps_the_newest_and_the_best(folder):
    folder.prune(30, 1, best=10)
    assert folder.steps() == [10, 30]


def test_prune_does_not_count_a_broken_one_that_the_run_went_back_from(folder):
    truncate(folder.folder(30) / "model.safetensors")
    folder.prune(20, 1, best=None)
    assert folder.load_newest().step == 20


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", [truncate, flip, lambda path: path.unlink()], ids=["truncated", "flipped", "gone"])
def test_a_broken_newest_is_named_and_skipped(folder, capsys, file, damage):
    damage(folder.folder(30) / file)
    assert folder.load_newest().step == 20
    said = capsys.readouterr().err
    assert "step-30 is broken" in said
    assert "trying an earlier one" in said


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"format": 2, "step": 30}, "it has format 2, and this one reads 1"),
        ({"step": 30, "mood": "good"}, "it has mood"),
    ],
)
def test_a_newer_one_is_not_passed_over(folder, state, told):
    """A run that went on from the one before would replace it."""
    folder.save(30, tensors(), state)
    with pytest.raises(NewerCheckpoint, match=f"step-30 was written by a newer version of aigc: {told}") as caught:
        folder.load_newest()
    assert "update aigc" in caught.value.hint
    assert folder.load(20).state.step == 20


def test_all_broken_is_an_error_that_lists_them(folder):
    for step in folder.steps():
        flip(folder.folder(step) / "model.safetensors")
    with pytest.raises(DataError, match=r"all 3 checkpoints.*step-30.*step-20.*step-10"):
        folder.load_newest()


def test_none_at_all_is_no_error(tmp_path):
    assert CheckpointFolder(tmp_path / "nowhere").load_newest() is None


def test_a_manifest_may_not_reach_outside(folder):
    manifest = folder.folder(30) / "manifest.json"
    named = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(named | {"../../secret": "0"}))
    with pytest.raises(DataError, match="outside the checkpoint"):
        folder.load(30)


def test_not_finite_is_never_written(folder):
    with pytest.raises(NonFiniteError, match="model tensor w"):
        folder.save(40, tensors(math.nan), {"step": 40})
    assert folder.steps() == [10, 20, 30]
    assert not list(folder.path.glob(".tmp*"))


def test_clean_removes_what_a_kill_left(folder):
    (folder.path / ".tmp-step-40").mkdir()
    (folder.path / ".tmp-step-40" / "model.safetensors").write_bytes(b"half")
    folder.clean()
    assert folder.steps() == [10, 20, 30]
    assert not list(folder.path.glob(".tmp*"))


def test_further_files_are_kept_and_verified(folder, capsys):
    folder.save(40, tensors(), {"step": 40}, {"tokenizer.json": "é\n"})
    loaded = folder.load(40)
    assert (loaded.path / "tokenizer.json").read_text() == "é\n"
    assert "tokenizer.json" in loaded.sums
    (loaded.path / "tokenizer.json").write_text("other")
    assert folder.load_newest().step == 30
    assert "tokenizer.json does not match its sum" in capsys.readouterr().err


def test_another_model_is_refused_with_the_tensors_that_differ(folder, tmp_path):
    class Other(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("w", torch.zeros(2))
            self.register_buffer("n", torch.tensor(4))

    with pytest.raises(ConfigError, match=r"the model of .* has changed since its checkpoint: w: \[3\] -> \[2\]"):
        refuse_changes(Run(tmp_path), folder.load(10), DataSpec("image", (1, 8, 8)), Other())
