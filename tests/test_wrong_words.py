"""Wrong command lines end with the right code and at most two lines that name the hint, and leave nothing behind."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aigc_cli.cli import main

#: What was typed, its exit code, and what the message must say.
WRONG = [
    # misspelt words
    ("trian", 2, ["trian", "did you mean train?"]),
    ("train --multirn", 2, ["--multirn", "--multirun"]),
    ("train --model gan", 2, ["write model=gan"]),
    ("train modell=gan", 2, ["modell", "did you mean model?"]),
    ("train model=gann", 2, ["gann", "did you mean gan"]),
    ("train optimizer.lrr=1 trainer.stepz=3", 2, ["lrr", "optimizer.lr", "stepz", "trainer.steps"]),
    ("train lr=1e-4", 2, ["did you mean optimizer.lr?"]),
    ("train optimiser.lr=1e-4", 2, ["did you mean optimizer.lr?"]),
    ("train model.los=hinge", 2, ["did you mean model.loss?"]),
    ("train steps=100", 2, ["did you mean trainer.steps?"]),
    ("train --steps 100", 2, ["there is no flag --steps", "write trainer.steps=100"]),
    ("train --batch-size=8", 2, ["write trainer.batch_size=8"]),
    ("train data.root=there", 2, ["no key data.root in the data that is chosen", "data=image_folder", "data=text"]),
    ("train model=vae model.loss=hinge", 2, ["no key model.loss in the model that is chosen", "model=gan"]),
    ("train epochs=3", 2, ["no key epochs", "counted in steps", "write trainer.steps="]),
    ("train --epochs 3", 2, ["no flag --epochs", "write trainer.steps="]),
    ("train --num-epochs=3", 2, ["no flag --num-epochs", "write trainer.steps="]),
    ("train max_epochs=3", 2, ["write trainer.steps="]),
    ("train learning_rate=1e-4", 2, ["write optimizer.lr="]),
    ("train --learning-rate 1e-4", 2, ["write optimizer.lr="]),
    ("train model=GAN", 2, ["did you mean gan?"]),
    ("train Trainer.Steps=3", 2, ["did you mean trainer.steps?"]),
    ("train gan", 2, ["did you mean model=gan?"]),
    ("train gan digits", 2, ["did you mean model=gan?"]),
    ("sample gan-digits/2026-01-01", 2, ["write run=gan-digits/2026-01-01"]),
    ("eval latest", 2, ["write run=latest"]),
    ("--train", 2, ["no flag --train", "write aigc train"]),
    ("--sample run=gan", 2, ["write aigc sample"]),
    ("train name=gan", 2, ["write model=, data= or optimizer=, which choose one by its name"]),
    ("train optimizer.generator.lrr=1", 2, ["did you mean optimizer.generator.lr?"]),
    ("train experiment=nothing", 2, ["nothing"]),
    ("train metric=fd", 2, ["there is no key metric"]),
    ("eval metric=[]", 2, ["metric="]),
    ("eval --metric fidd", 2, ["fidd", "fid"]),
    ("ls modles", 2, ["modles", "models"]),
    ("train --cfg jobb", 2, ["did you mean job?"]),
    ("completion bsh", 2, ["bash"]),
    # malformed words
    ("train optimizer.lr 1e-4", 2, ["write optimizer.lr=1e-4"]),
    ("train optimizer.lr=[1", 2, ["optimizer.lr=[1"]),
    ("train optimizer.lr=1e-4,2e-4", 2, ["add -m"]),
    ("train --plugin", 2, ["--plugin MODULE"]),
    ("train --plugin ,", 2, ["--plugin names no plugin", "--plugin my_models"]),
    ("eval --metric ,", 2, ["--metric names no metric", "`aigc ls metrics` lists them"]),
    ("sample -m", 2, ["train"]),
    # values of the wrong type, or out of range
    ("train optimizer.lr=abc", 2, ["optimizer.lr=abc", "a number"]),
    ("train optimizer.lr=-1", 2, ["optimizer.lr=-1", "greater than 0"]),
    ("train optimizer.lr=nan", 2, ["optimizer.lr", "finite"]),
    ("train trainer.batch_size=0", 2, ["trainer.batch_size=0", "greater than or equal to 1"]),
    ("train trainer.steps=1.5", 2, ["trainer.steps=1.5", "whole number"]),
    ("train model.dropout=1.5", 2, ["model.dropout=1.5", "less than"]),
    ("train model.loss=hing", 2, ["model.loss=hing", "did you mean hinge?"]),
    ("train seed=-1 trainer.steps=0", 2, ["seed=-1"]),
    ("train model=null", 2, ["model"]),
    ("sample n=0", 2, ["n=0"]),
    ("train trainer.ema_start=-1", 2, ["trainer.ema_start=-1", "greater than or equal to 0"]),
    # controls of a model
    ("sample run=vae mode=foo", 2, ["mode=foo", "model=vae", "interpolate, reconstruct, sample, traverse"]),
    ("sample run=gan mode=reconstrct", 2, ["mode=reconstrct", "model=gan", "choose from: interpolate, sample"]),
    ("sample run=vae mod=sample", 2, ["mod: neither a key of sample nor a control of model=vae", "mode"]),
    ("sample run=vae prior=gm", 2, ["prior=gm", "did you mean gmm?"]),
    ("sample run=vae temperature=hot", 2, ["temperature=hot", "a number"]),
    ("sample run=vae frames=0", 2, ["frames=0", "greater than or equal to 2"]),
    ("sample run=vae clas=cat", 2, ["clas: neither", "class"]),
    ("sample run=vae data.rot=there", 2, ["data.rot", "did you mean data.root?"]),
    # what a run has chosen already
    (
        "sample run=vae data=cifar10",
        2,
        ["data=cifar10: aigc sample does not choose the data", "data.root=", "aigc eval"],
    ),
    ("sample run=vae data.test=2017", 2, ["no key data.test", "data.root=", "prompt_file=FILE", "aigc eval"]),
    ("embed file run=vae model=bert", 2, ["model=bert: aigc embed does not choose the model", "leave it out"]),
    ("embed file run=vae data.root=there", 2, ["no key data.root", "leave it out"]),
    ("train data.val_fraction=0.0 trainer.validate_every=1", 2, ["val split", "data.val_fraction"]),
    # code in a configuration
    ("train +model._target_=os.system", 2, ["model._target_=os.system"]),
    ("train +hydra.callbacks.mine._target_=os.system", 2, ["hydra.callbacks"]),
    ("train -m seed=0,1 hydra.launcher._target_=os.system", 2, ["hydra.launcher._target_"]),
    # things that are not there, or are not what they say
    ("train model=dcgan data=pydocs", 2, ["model=dcgan cannot model text data"]),
    ("sample", 2, ["aigc train"]),
    ("sample run=nothing", 2, ["nothing"]),
    ("train --resume nothing", 2, ["nothing"]),
    ("sample run=empty", 2, ["empty", "config.yaml"]),
    ("sample run=broken", 3, ["broken", "config.yaml"]),
    ("sample run=torn", 3, ["torn", "names no data"]),
    ("eval run=torn", 3, ["torn", "names no data"]),
    ("sample run=evil", 3, ["evil", "_target_"]),
    ("train data=image_folder data.root=", 2, ["data.root= has no value", "shell variable"]),
    ("train model=bert data=text data.root=", 2, ["data.root= has no value"]),
    ("train data=image_folder data.root=absent", 3, ["absent"]),
    ("train data=image_folder data.root=empty", 3, ["empty"]),
    ("train data=image_folder data.root=fakes", 3, ["not_a_picture.png"]),
]


@pytest.fixture
def workplace(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder but for things that are wrong in one way each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))  # else it makes one there
    for name in ("empty", "broken", "torn", "evil", "fakes", "gan", "vae"):
        (tmp_path / name).mkdir()
    for name in ("gan", "vae"):
        (tmp_path / name / "config.yaml").write_text(f"model: {{name: {name}}}\ndata: {{name: digits}}\n")
    (tmp_path / "broken" / "config.yaml").write_text("model: [gan\n  - :")
    (tmp_path / "torn" / "config.yaml").write_text("model:\n  name: gan\n")
    (tmp_path / "evil" / "config.yaml").write_text("model:\n  name: gan\n  _target_: os.system\n")
    for number in range(3):
        (tmp_path / "fakes" / f"not_a_picture.png{'' if not number else f'.{number}.png'}").write_text("only text")
    return tmp_path


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize(("line", "code", "says"), WRONG, ids=[line for line, _, _ in WRONG])
def test_a_wrong_line_gets_a_hint(
    line: str, code: int, says: list[str], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(workplace)
    assert main(line.split()) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("aigc: ")
    assert len(err.splitlines()) <= 2, err
    for words in says:
        assert words in err
    assert everything(workplace) == before


#: What was typed, and the hint: all of it.
HINTS = [
    ("train steps=100", "did you mean trainer.steps?"),
    ("train step=100", "write trainer.steps=100"),
    ("train trainer.step=100", "write trainer.steps=100"),
    ("train max_steps=100", "write trainer.steps=100"),
    ("train epochs=3", "training is counted in steps, not in epochs: write trainer.steps="),
    ("train trainer.max_epochs=3", "training is counted in steps, not in epochs: write trainer.steps="),
    ("train --lr 1e-4", "keys take no dashes: write optimizer.lr=1e-4"),
    ("train --lr", "keys take no dashes: write optimizer.lr=VALUE"),
    ("train learning_rate=1e-4", "write optimizer.lr=1e-4"),
    ("train batch=8", "write trainer.batch_size=8"),
    ("train gpu=0", "write trainer.device=cuda"),
    ("train optimizer.name=sgd", "write optimizer=sgd"),
    ("train model.name=vea", "did you mean vae or wavegan?"),
    ("train channels=1", "did you mean data.channels? It is a key of data=arrow, data=audio_folder, data=fsdd, "
     "data=image_folder, data=parquet, data=speech, data=tones, data=video_folder"),
    ("train momentum=0.5", "did you mean optimizer.momentum? It is a key of optimizer=muon, optimizer=rmsprop, "
     "optimizer=sgd"),
    ("train class=cat", "class is a key of aigc sample"),
    ("train n=10", "n is a key of aigc sample and aigc eval"),
    ("train sede=1", "did you mean seed?"),
    ("train hinge", "did you mean model.loss=hinge?"),
    ("train model=vae bernoulli", "did you mean model.likelihood=bernoulli?"),
    ("train rmsprob", "did you mean optimizer=rmsprop?"),
    ("train data=text", "add model=bert, model=transformer or model=vae"),
    ("train data=text data.root=absent", "add model=bert, model=transformer or model=vae"),
    ("train -m data=text seed=0,1", "add model=bert, model=transformer or model=vae"),
    ("train data=pairs data.source=en", "add model=seq2seq"),
    ("train model=transformer data=digits",
     "add data.tokens=RUN, of a run of model=vqvae, or choose model=gan (the usual one), model=flow, model=hvae, "
     "model=vae, model=vqvae or other data=; `aigc ls` lists them (this model takes items laid out as tokens)"),
    ("train model=dcgan data=pydocs",
     "choose model=transformer (the usual one), model=bert, model=gan, model=vae or other data=; `aigc ls` lists them "
     "(this model takes items laid out as map or sequence or volume)"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "hint"), HINTS, ids=[line for line, _ in HINTS])
def test_the_hint_is_what_to_type(line: str, hint: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    message, *rest = capsys.readouterr().err.splitlines()
    assert rest == [f"  {hint}"]
    assert not re.search(r"Model|GAN|VAE", message)  # a class's name, which nobody can type


@pytest.mark.parametrize(
    ("files", "suits"),
    [
        (["a/1.png", "b/2.JPG", "notes.txt"], "image_folder"),
        (["1.wav", "2.m4a"], "audio_folder"),
        (["1.mp4", "2.webm", "cover.png"], "video_folder"),
        (["1.txt", "2.md", "3.md", "logo.png"], "text"),
        (["train.parquet"], "parquet"),
        (["train/state.json", "train/data-00000-of-00001.arrow"], "arrow"),
    ],
)
def test_a_path_gets_the_data_that_reads_what_lies_there(
    files: list[str], suits: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"image": [b"bytes"]})
    for path in map((workplace / "my own").joinpath, files):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        if path.suffix == ".parquet":
            parquet.write_table(table, path)
        elif path.suffix == ".arrow":
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
    for line in (["train", "data=my own"], ["data", "show", "my own"], ["data", "data.root=my own"],
                 ["train", "model=gan", "data.root=my own"]):  # fmt: skip
        assert main(line) == 2
        assert capsys.readouterr().err.splitlines()[1] == f"  write data={suits} data.root='my own'"


def test_a_path_that_cannot_be_looked_into_is_no_data(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(workplace / "pipe")
    (workplace / "locked").mkdir()
    stat = os.stat

    def refusing(path: str | Path, *rest: object, **more: object) -> os.stat_result:
        if str(path).endswith("locked/in"):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", refusing)
    monkeypatch.setattr("zipfile.is_zipfile", lambda path: pytest.fail(f"{path} is waited for"))
    for name in ("pipe", "locked/in", "/"):
        assert main(["train", f"data={name}"]) == 2
        said, hint = capsys.readouterr().err.splitlines()
        assert f"there is no data named '{name}'" in said
        assert hint.startswith("  choose from")


def test_a_root_for_data_that_has_none_names_the_data_that_have_one(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for word in ("root=there", "data.root=there"):
        assert main(["train", word]) == 2
        err = capsys.readouterr().err
        assert "data=image_folder" in err
        assert "dropout" not in err


@pytest.mark.parametrize(
    "line",
    [
        ["train", "model=bert", "data=text", "data.root=\udcff\udcfe"],
        ["sample", "n=\udcff"],
        ["ls", "\udcff"],
        ["\udcff"],
    ],
    ids=repr,
)
def test_words_that_are_not_utf8_are_refused_in_one_line(
    line: list[str], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.endswith(" is not text in UTF-8")
    assert r"\xff" in said


def test_words_that_a_locale_without_utf8_leaves_as_bytes_say_what_to_set(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", "prompt=größe".encode().decode("ascii", "surrogateescape")]) == 2
    said, hint = capsys.readouterr().err.splitlines()
    assert "prompt=größe is not ASCII" in said
    assert "PYTHONUTF8=1" in hint


def test_a_key_that_is_given_twice_says_which_counts(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "optimizer.lr=1", "optimizer.lr=2", "seed=0", "seed=0", "--cfg"]) == 0
    out, err = capsys.readouterr()
    assert err == "aigc: warning: optimizer.lr= is given several times: optimizer.lr=2 counts\n"
    assert "  lr: 2 " in out


@pytest.mark.parametrize("line", ["trian", "train optimizer.lrr=1"])
def test_a_wrong_line_in_a_process_of_its_own(line: str, workplace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aigc_cli", *line.split()], capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 2


def test_debug_shows_the_traceback(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "model=gann", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
