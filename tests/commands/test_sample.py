import errno
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass
from toy import toy_run

from aigc_cli.cli import main
from aigc_cli.commands import sample
from aigc_cli.config.compose import compose
from aigc_cli.config.schema import STRICT, Options
from aigc_cli.errors import ConfigError, ResourceError
from aigc_cli.modalities.samples import Provenance
from aigc_cli.models.gan.gan import GAN
from aigc_cli.runs import Run
from aigc_cli.sampling.controls import check_controls, named_values


def run_sample(*words: str, **controls: Any) -> int:
    config = compose("sample", list(words))
    return sample.main({**config, "controls": controls}, Options())


def images_in(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("0*.png"))])


def test_no_words_at_all(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_sample() == 0
    out = tiny_run.path / "generated" / "step-5-seed-0"
    names = {path.name for path in out.iterdir()}
    assert names == {"grid.png", "samples.json", *(f"{i:06d}.png" for i in range(64))}
    record = json.loads((out / "samples.json").read_text())
    assert record["label"] == "AI-generated"
    assert (record["run"], record["step"], record["seed"], record["n"]) == (tiny_run.name, 5, 0, 64)
    assert (record["model"], record["data"], record["modality"], record["format"]) == ("gan", "digits", "image", "png")
    assert record["indices"] == list(range(64))
    assert record["files"] == [f"{i:06d}.png" for i in range(64)]
    assert record["controls"]["mode"] == "sample"
    assert "source" not in record
    assert len(record["model_checksum"]) == 64
    assert record["versions"]["torch"] == torch.__version__
    assert images_in(out).shape == (64, 8, 8)
    assert len(np.unique(images_in(out))) > 10
    shown, notes = capsys.readouterr()
    relative = out.relative_to(Path.cwd())
    assert f"{relative / 'grid.png'}\n" in shown
    assert f"{relative / '000000.png'} ... 000063.png\n" in shown
    assert shown.splitlines()[-1] == "next: aigc eval"
    assert f"sampling {tiny_run.name}, step 5, on " in notes


def test_samples_do_not_depend_on_batch_or_n(tiny_run: Run) -> None:
    run_sample("n=10", "out=a", "device=cpu")
    run_sample("n=23", "batch_size=5", "out=b", "device=cpu")
    run_sample("n=10", "batch_size=1", "out=c", "format=npz", "device=cpu")
    a, b = images_in(Path("a")).astype(int), images_in(Path("b")).astype(int)
    c = np.load("c/samples.npz")["images"][..., 0].astype(int)
    assert np.abs(a - b[:10]).max() <= 1
    assert np.abs(a - c).max() <= 1
    run_sample("n=10", "seed=1", "out=d", "device=cpu")
    assert np.abs(a - images_in(Path("d"))).max() > 5


def test_again_bit_for_bit_and_more_of_the_same(tiny_run: Run) -> None:
    out = tiny_run.path / "generated" / "step-5-seed-0"
    run_sample("n=4")
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    run_sample("n=4")
    assert first == {path.name: path.read_bytes() for path in out.iterdir()}
    run_sample("n=6")
    assert len(images_in(out)) == 6
    with pytest.raises(ConfigError, match="holds 6 samples"):
        run_sample("n=4")
    assert len(images_in(out)) == 6
    run_sample("n=4", "overwrite=true")
    assert len(images_in(out)) == 4


def test_controls_and_formats_have_folders_of_their_own(tiny_run: Run) -> None:
    run_sample("n=2")
    run_sample("n=2", truncation=0.25)
    run_sample("n=2", "format=npz")
    run_sample("n=2", "step=3", "seed=9", truncation=None)
    folders = {path.name for path in (tiny_run.path / "generated").iterdir()}
    assert folders == {
        "step-5-seed-0", "step-5-seed-0-truncation-0.25", "step-5-seed-0-npz", "step-3-seed-9",
    }  # fmt: skip
    mild = tiny_run.path / "generated" / "step-5-seed-0-truncation-0.25"
    assert json.loads((mild / "samples.json").read_text())["controls"]["truncation"] == 0.25
    assert not np.array_equal(images_in(mild), images_in(tiny_run.path / "generated" / "step-5-seed-0"))


def test_the_end_names_the_run_that_was_named(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run_sample("n=1", f"run={tiny_run.name}", "step=3", "out=a b".replace(" ", "_"))
    assert capsys.readouterr().out.splitlines()[-1] == f"next: aigc eval run={tiny_run.name} step=3"


def test_the_end_scores_what_was_drawn(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run_sample("n=2", truncation=0.7, mode="sample")
    assert capsys.readouterr().out.splitlines()[-1] == "next: aigc eval truncation=0.7"


def test_json(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    sample.main(compose("sample", ["n=2", "out=a"]), Options(json=True))
    shown = json.loads(capsys.readouterr().out)
    assert shown["files"] == ["000000.png", "000001.png"]
    assert shown["overview"] == ["grid.png"]
    assert (shown["out"], shown["n"], shown["label"]) == ("a", 2, "AI-generated")


@pytest.mark.parametrize(
    ("words", "controls", "message", "hint"),
    [
        (["n=0"], {}, "n=0", ""),
        (["n=-3"], {}, "n=-3", ""),
        (["n=1.5"], {}, "n=1.5", ""),
        (["n=many"], {}, "n=many", ""),
        (["seed=-1"], {}, "seed=-1", ""),
        (["batch_size=0"], {}, "batch_size=0", ""),
        (["step=4"], {}, "no checkpoint of step 4", "3"),
        (["step=last"], {}, "step=", ""),
        (["format=pgn"], {}, "format=pgn", "png"),
        (["device=gpu"], {}, "device=gpu", "cuda"),
        (["run=nowhere"], {}, "nowhere", ""),
        ([], {"trunkation": 0.5}, "trunkation: neither a key of sample nor a control of model=gan", "truncation"),
        ([], {"batchsize": 3}, "batchsize", "batch_size"),
        ([], {"zzz": 3}, "zzz", "truncation"),
        ([], {"truncation": -1.5}, "truncation=-1.5", ""),
        ([], {"mode": "top"}, "mode=top: model=gan has no such mode", "sample"),
        ([], {"mode": "reconstruct"}, "mode=reconstruct: model=gan has no such mode", "interpolate"),
        ([], {"class": "3"}, "class=3: this model was trained without classes", "conditional"),
        ([], {"truncation": "high"}, "truncation=high", ""),
    ],
)
def test_wrong_words(tiny_run: Run, words: list[str], controls: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_sample(*words, **controls)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert len(str(caught.value).splitlines()) <= 2
    assert caught.value.exit_code == 2
    assert not (tiny_run.path / "generated").exists()


def test_no_run_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no run in outputs") as caught:
        run_sample()
    assert "aigc train" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_is_left_alone(tiny_run: Run) -> None:
    Path("mine").mkdir()
    Path("mine/photo.jpg").write_text("mine")
    with pytest.raises(ConfigError, match="it holds photo"):
        run_sample("n=2", "out=mine")
    assert [path.name for path in Path("mine").iterdir()] == ["photo.jpg"]
    run_sample("n=2", "out=mine", "overwrite=true")
    assert Path("mine/photo.jpg").read_text() == "mine"
    assert len(images_in(Path("mine"))) == 2


@pytest.mark.parametrize("format", ["png", "npz"])
def test_a_full_disk(tiny_run: Run, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    real, written = zlib.crc32, []

    def crc(*arguments: Any) -> int:  # both formats sum what they write
        written.append(1)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr("zipfile.crc32", crc)
    monkeypatch.setattr("PIL.PngImagePlugin._crc32", lambda data, seed=0: crc(data, seed))
    with pytest.raises(ResourceError, match="No space left on device") as caught:
        run_sample("n=40", "batch_size=4", f"format={format}")
    assert "free some space" in caught.value.hint
    assert not (tiny_run.path / "generated").exists()
    assert not list(tiny_run.path.rglob("*partial*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_really_full_disk(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.open
    monkeypatch.setattr(
        "builtins.open", lambda path, *rest, **more: real("/dev/full" if "000003" in str(path) else path, *rest, **more)
    )
    with pytest.raises(ResourceError, match="No space left on device"):
        run_sample("n=8")
    assert not (tiny_run.path / "generated").exists()


def test_words_that_look_like_numbers_name_runs_and_folders(tiny_run: Run) -> None:
    run_sample("n=1", "out=7")
    assert Path("7/000000.png").exists()
    with pytest.raises(ConfigError, match="2026"):
        run_sample("run=2026")


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Controls:
    class_: Annotated[str | None, Field(alias="class")] = None
    prompt: str = ""


def test_the_folder_of_long_and_odd_controls(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GAN, "controls", Controls)

    def name(**values: Any) -> str:
        controls = named_values(check_controls(tiny_run, values))
        provenance = Provenance(
            modality="image", format="png", run="a/b", model="gan", data="digits", step=5, model_checksum="ab", seed=0,
            controls=controls,
        )  # fmt: skip
        return sample.default_out(tiny_run, provenance, True).name

    assert name() == "step-5-seed-0"
    assert name(**{"class": "3"}) == "step-5-seed-0-class-3"
    assert name(**{"class": "cat,dog"}) != name(**{"class": "cat_dog"})
    long = name(prompt="To be, or not to be / that = the question " * 9)
    assert len(long) < 80
    assert not set(" =/,") & set(long)
    assert long != name(prompt="To be, or not to be / that = the question " * 8)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered_toy: None) -> Run:
    """A run of the toy in the current folder."""
    monkeypatch.chdir(tmp_path)
    return toy_run(tmp_path)


@pytest.fixture
def conditional_toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered_toy: None) -> Run:
    """A run of the toy that knows classes, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return toy_run(tmp_path, conditional=True)


def record_of(run: Run, folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.path / "generated" / folder / "samples.json").read_text())
    return found


@pytest.mark.parametrize(
    ("word", "tail", "classes"),
    [
        ("class=7", "-class-7", ["7", "7", "7"]),
        ("class=7,0", "-class-7_0-*", ["7", "0", "7"]),
        ("class=null", "", ["0", "1", "2"]),
    ],
)
def test_classes_on_the_command_line(conditional_toy: Run, word: str, tail: str, classes: list[str]) -> None:
    assert main(["sample", "n=3", word]) == 0
    (out,) = (conditional_toy.path / "generated").glob(f"step-7-seed-0{tail}")
    record = record_of(conditional_toy, out.name)
    assert record["samples"]["class"] == classes
    assert record["files"] == [f"{index:06d}-{name}.png" for index, name in enumerate(classes)]
    assert json.loads(Image.open(out / record["files"][1]).text["aigc"])["class"] == classes[1]
    assert {path.name for path in out.iterdir()} == {*record["files"], "grid.png", "samples.json"}


def test_every_mode_on_the_command_line(toy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for words, folder, n, said in (
        (["mode=reconstruct", "n=4"], "mode-reconstruct", 8, "4 items of the test split and their reconstructions"),
        (["mode=interpolate", "n=2"], "mode-interpolate", 16, "2 walks of 8 samples"),
        (["mode=interpolate", "n=1", "frames=3"], "frames-3-mode-interpolate", 3, "1 walk of 3 samples"),
        (["mode=traverse"], "mode-traverse", 36, "4 latent dimensions, 9 samples each"),
        (["mode=sample", "prior=fitted", "n=5"], "prior-fitted", 5, "5 samples"),
    ):
        assert main(["sample", *words]) == 0
        assert capsys.readouterr().out.startswith(f"{said}, AI-generated by toy")
        record = record_of(toy, f"step-7-seed-0-{folder}")
        assert (record["n"], len(record["files"])) == (n, n)
        assert all((toy.path / "generated" / f"step-7-seed-0-{folder}" / name).exists() for name in record["files"])
    record = record_of(toy, "step-7-seed-0-mode-reconstruct")
    assert record["controls"]["mode"] == "reconstruct"
    assert (record["source"]["split"], len(record["samples"]["item"])) == ("test", 8)


def test_a_mode_as_one_array(conditional_toy: Run) -> None:
    assert main(["sample", "mode=interpolate", "n=2", "frames=3", "format=npz", "out=a"]) == 0
    with np.load("a/samples.npz") as archive:
        assert archive["images"].shape == (6, 8, 8, 1)
        assert archive["labels"].tolist() == [0, 0, 0, 1, 1, 1]


def test_more_rows_and_other_modes_in_the_same_folder(toy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", "out=a", "mode=interpolate"]
    assert main([*words, "n=1"]) == 0
    before = Path("a/000000-frame000.png").read_bytes()
    assert main([*words, "n=2"]) == 0
    assert Path("a/000000-frame000.png").read_bytes() == before
    assert main([*words, "n=1"]) == 2
    assert "holds 16 samples, of which these 8 are the first" in capsys.readouterr().err
    assert main(["sample", "out=a", "n=4"]) == 2
    assert "samples of another controls" in capsys.readouterr().err
    assert main(["sample", "out=a", "n=4", "overwrite=true"]) == 0
    assert {path.name for path in Path("a").glob("0*")} == {f"00000{index}.png" for index in range(4)}


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["mode=foo"], "mode=foo: model=toy has no such mode", "interpolate"),
        (["mode=interpolte"], "mode=interpolte", "did you mean interpolate?"),
        (["prior=gm"], "prior=gm", "fitted"),
        (["class=77"], "class=77: the data has no such class", "7"),
        (["class=1,x"], "class=x: the data has no such class", "0, 1"),
        (["frames=1"], "frames=1", "2"),
        (["mode=reconstruct", "n=400"], "n=400: there are 359 items in the test split", "n=359"),
        (["mode=traverse", "n=5"], "n=5: there are 4 latent dimensions", "n=4"),
        (["mode=reconstruct", "data.root=elsewhere"], "data.root", ""),
        (["data.size=8"], "there is no key data.size", ""),
        (["tempratur=1"], "tempratur", "temperature"),
    ],
    ids=str,
)
def test_wrong_controls(
    conditional_toy: Run, words: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-2] + lines[-1]
    assert hint in lines[-1]
    assert not (conditional_toy.path / "generated").exists()


def test_data_that_is_not_what_the_run_was_trained_on(toy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    saved = json.loads((toy.path / "data.json").read_text())
    (toy.path / "data.json").write_text(json.dumps({**saved, "fingerprint": "0" * 64}))
    assert main(["sample", "n=2"]) == 0
    assert "differs" not in capsys.readouterr().err
    assert main(["sample", "n=2", "mode=reconstruct"]) == 0
    assert f"the data differs from what {toy.name} was trained on" in capsys.readouterr().err


def test_ctrl_c_leaves_nothing(tiny_run: Run) -> None:
    code = (
        "import os, signal, sys\n"
        "from aigc_cli.commands import sample\n"
        "from aigc_cli.config.compose import compose\n"
        "from aigc_cli.config.schema import Options\n"
        "from aigc_cli.modalities.image_writers import PNGWriter\n"
        "put = PNGWriter.put\n"
        "def interrupted(self, raw):\n"
        "    put(self, raw)\n"
        "    if self.written >= 8: os.kill(os.getpid(), signal.SIGINT)\n"
        "PNGWriter.put = interrupted\n"
        "try: sample.main(compose('sample', ['n=64', 'batch_size=4']), Options())\n"
        "except KeyboardInterrupt: sys.exit(130)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert not (tiny_run.path / "generated").exists()
