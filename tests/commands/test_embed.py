"""``aigc embed``: what it writes, what it says of near lines, and its answers to lines that it cannot read whole."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aigc_cli.cli import main
from aigc_cli.config.compose import compose
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.tokenizers import BOS, SPECIALS, CharTokenizer
from aigc_cli.models.base import build_model
from aigc_cli.new_run import create_run
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import CheckpointFolder
from aigc_cli.training.restore import restore_model

CONTEXT = 12
TEXTS = "abc\nabd\n\nhgfe\n"


def text_run(name: str = "bert", start: int = BOS + 4) -> Run:
    """A run with random weights on letters from a to h, the newest in the current folder."""
    config = compose("train", [f"model={name}", "data=text", "model.width=8", "model.layers=1", "model.heads=2"])
    codec = TextCodec(CharTokenizer("abcdefgh "), start)
    spec = DataSpec("text", (CONTEXT + 1,), vocab_size=codec.tokenizer.vocab_size, specials=SPECIALS)
    run = create_run(config)
    run.save_config(config, spec, codec.files())
    torch.manual_seed(0)
    model = build_model(config["model"], spec)
    CheckpointFolder(run.checkpoints).save(2, {"model": model.state_dict()}, {"step": 2}, codec.files())
    return run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text(TEXTS)


@pytest.fixture
def run(here: None) -> Run:
    return text_run()


def vectors(path: str) -> Any:
    return np.load(path, allow_pickle=False)


def test_each_line_with_text_has_its_vector(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "texts.txt", "out=v.npz"]) == 0
    found = vectors("v.npz")
    assert found["vectors"].dtype == np.float32
    assert found["vectors"].shape == (3, 8)
    assert found["lines"].tolist() == [1, 2, 4]
    assert len(set(found["sha256"].tolist())) == 3
    assert json.loads(str(found["provenance"]))["step"] == 2
    restored = restore_model(run, device="cpu")
    tokens = torch.tensor([restored.codec.tokens("abd")])
    wanted = restored.model.encode(Batch(tokens))[0]
    torch.testing.assert_close(torch.from_numpy(found["vectors"][1]), wanted)
    said = capsys.readouterr()
    assert "line 3 is without text" in said.err
    assert "3 vectors of 8 numbers" in said.out


@pytest.mark.parametrize("name", ["bert", "transformer", "vae_text"])
def test_vectors_do_not_depend_on_the_batch(name: str) -> None:
    text_run(name)
    for size in (1, 3):
        assert main(["embed", "texts.txt", f"out=v{size}.npz", f"batch_size={size}"]) == 0
    alone, together = (vectors(f"v{size}.npz")["vectors"] for size in (1, 3))
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert not np.allclose(together[0], together[2])


@pytest.mark.parametrize(("name", "start"), [("bert", BOS), ("vae_text", BOS), ("vae_text", BOS + 4)])
def test_items_with_ends_give_lines_with_ends(name: str, start: int) -> None:
    """A VAE takes a text with its ends, also if it was trained on windows."""
    run = text_run(name, start)
    assert main(["embed", "text=abc", "out=v.npz"]) == 0
    restored = restore_model(run, device="cpu")
    wanted = restored.model.encode(Batch(torch.tensor([[1, *restored.codec.tokens("abc"), 2]])))
    torch.testing.assert_close(torch.from_numpy(vectors("v.npz")["vectors"]), wanted)


def test_without_out_it_lands_in_the_run(run: Run) -> None:
    folder = run.path / "embeddings"
    for words in (["text=abc"], ["text=abc"], ["text=abd"], ["input=texts.txt"]):
        assert main(["embed", *words]) == 0
    names = sorted(path.name[:-13] for path in folder.iterdir())  # without what tells other lines apart
    assert names == ["step-2-text", "step-2-text", "step-2-texts"]


def test_a_place_that_cannot_be_written_is_told_of_first(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (run.path / "embeddings").touch()
    assert main(["embed", "text=abc"]) == 5
    assert "choose another folder with out=" in capsys.readouterr().err


def test_neighbours_are_by_angle(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "texts.txt", "neighbours=2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    rows = vectors(said["out"])["vectors"].astype(float)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T
    first = said["neighbours"]["1"]
    assert [near["line"] for near in first] == ([2, 4] if cosines[0, 1] > cosines[0, 2] else [4, 2])
    assert first[0]["cosine"] == pytest.approx(max(cosines[0, 1:]), abs=1e-6)
    assert main(["embed", "texts.txt", "neighbours=9"]) == 0
    assert "hgfe" in capsys.readouterr().out


def test_what_cannot_be_read_whole_is_said(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("odd.txt").write_text(f"abc\n{'abcd' * 4}\ncaféé\n")
    assert main(["embed", "odd.txt", "out=v.npz"]) == 0
    said = capsys.readouterr().err
    assert f"line 2 is cut to the {CONTEXT} tokens" in said
    assert "2 characters are not in the vocabulary, and are read as unk: 'é'" in said
    assert main(["embed", f"text={'abcd' * 3}", "out=cut.npz"]) == 0
    np.testing.assert_allclose(vectors("v.npz")["vectors"][1], vectors("cut.npz")["vectors"][0], atol=1e-5)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "neither a file nor a text"),
        (["texts.txt", "text=a"], 2, "both a file and a text"),
        (["nowhere.txt"], 3, "input=nowhere.txt: there is no such file"),
        (["empty.txt"], 2, "no text in empty.txt"),
        (["blank.txt"], 2, "no text in blank.txt"),
        (["latin.txt"], 3, "latin.txt is not UTF-8"),
        (["text= "], 2, "text= is empty"),
        (["text=abc", "neighbours=1"], 2, "neighbours=1 compares lines"),
        (["text=abc", "neighbours=0"], 2, "neighbours"),
        (["text=abc", "out=v.txt"], 2, "out=v.txt"),
        (["text=abc", "out=old.npz"], 2, "out=old.npz exists"),
        (["texts.txt", "more.txt"], 2, "'more.txt' is not a key=value"),
        (["texts.txt", "neighbors=1"], 2, "did you mean neighbours?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words(run: Run, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str) -> None:
    Path("empty.txt").touch()
    Path("blank.txt").write_text("\n  \n\n")
    Path("latin.txt").write_bytes(b"caf\xe9\n")
    Path("old.npz").touch()
    assert main(["embed", *words]) == code
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) <= 2


def test_a_run_of_images_has_no_text(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "text=abc"]) == 2
    assert "is of image" in capsys.readouterr().err
