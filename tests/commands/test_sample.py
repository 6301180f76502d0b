import dataclasses
import errno
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.commands import sample
from aigc_cli.config import STRICT, Options, compose
from aigc_cli.errors import ConfigError, ResourceError
from aigc_cli.models.base import NoControls
from aigc_cli.models.gan import GAN
from aigc_cli.runs import Run


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
    assert record["controls"] == {"truncation": 1.0}
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
    run_sample("n=2", "step=3", "seed=9", truncation=1.0)
    folders = {path.name for path in (tiny_run.path / "generated").iterdir()}
    assert folders == {
        "step-5-seed-0", "step-5-seed-0-truncation-0.25", "step-5-seed-0-npz", "step-3-seed-9",
    }  # fmt: skip
    mild = tiny_run.path / "generated" / "step-5-seed-0-truncation-0.25"
    assert json.loads((mild / "samples.json").read_text())["controls"] == {"truncation": 0.25}
    assert not np.array_equal(images_in(mild), images_in(tiny_run.path / "generated" / "step-5-seed-0"))


def test_the_end_names_the_run_that_was_named(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run_sample("n=1", f"run={tiny_run.name}", "step=3", "out=a b".replace(" ", "_"))
    assert capsys.readouterr().out.splitlines()[-1] == f"next: aigc eval run={tiny_run.name} step=3"


def test_json(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    sample.main(compose("sample", ["n=2", "out=a"]), Options(json=True))
    shown = json.loads(capsys.readouterr().out)
    assert shown["files"] == ["000000.png", "000001.png"]
    assert shown["overview"] == ["grid.png"]
    assert (shown["out"], shown["n"], shown["label"]) == ("a", 2, "AI-generated")


@pytest.mark.parametrize(
    ("words", "controls", "message", "mend"),
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
        ([], {"truncation": 1.5}, "truncation=1.5", ""),
        ([], {"truncation": "high"}, "truncation=high", ""),
    ],
)
def test_wrong_words(tiny_run: Run, words: list[str], controls: dict[str, Any], message: str, mend: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_sample(*words, **controls)
    assert message in caught.value.message
    assert mend in caught.value.mend
    assert len(str(caught.value).splitlines()) <= 2
    assert caught.value.exit_code == 2
    assert not (tiny_run.path / "generated").exists()


def test_no_run_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no run in outputs") as caught:
        run_sample()
    assert "aigc train" in caught.value.mend
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
    assert "free some space" in caught.value.mend
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
    class_: Annotated[int | None, Field(alias="class")] = None
    prompt: str = ""
    mode: Literal["top", "all"] = "all"


def test_controls_named_by_python_keywords(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GAN, "controls", Controls)
    checked = sample.check_controls(tiny_run, {"class": 3, "prompt": "To be, or not"})
    assert sample.field_values(checked) == {"class_": 3, "prompt": "To be, or not", "mode": "all"}
    assert sample.named_values(checked) == {"class": 3, "prompt": "To be, or not", "mode": "all"}
    with pytest.raises(ConfigError) as caught:
        sample.check_controls(tiny_run, {"clas": 3})
    assert "class" in caught.value.mend
    with pytest.raises(ConfigError, match="mode=bottom"):
        sample.check_controls(tiny_run, {"mode": "bottom"})
    monkeypatch.setattr(GAN, "controls", NoControls)
    assert sample.named_values(sample.check_controls(tiny_run, {})) == {}


def test_the_folder_of_long_and_odd_controls(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GAN, "controls", Controls)

    def name(**values: Any) -> str:
        checked = sample.check_controls(tiny_run, values)
        settings = sample.SampleConfig(**compose("sample", []))
        restored = dataclasses.make_dataclass("Fake", ["step", "checksum"])(5, "ab")
        provenance = sample._provenance(tiny_run, restored, settings, "png", sample.named_values(checked))
        return sample.default_out(tiny_run, provenance, checked, True).name

    assert name() == "step-5-seed-0"
    assert name(**{"class": 3}) == "step-5-seed-0-class-3"
    long = name(prompt="To be, or not to be / that = the question " * 9)
    assert len(long) < 80
    assert not set(" =/,") & set(long)
    assert long != name(prompt="To be, or not to be / that = the question " * 8)


def test_ctrl_c_leaves_nothing(tiny_run: Run) -> None:
    code = (
        "import os, signal, sys\n"
        "from aigc_cli.commands import sample\n"
        "from aigc_cli.config import Options, compose\n"
        "from aigc_cli.sampling.images import PNGWriter\n"
        "put = PNGWriter._put\n"
        "def interrupted(self, raw):\n"
        "    put(self, raw)\n"
        "    if self.written >= 8: os.kill(os.getpid(), signal.SIGINT)\n"
        "PNGWriter._put = interrupted\n"
        "try: sample.main(compose('sample', ['n=64', 'batch_size=4']), Options())\n"
        "except KeyboardInterrupt: sys.exit(130)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert not (tiny_run.path / "generated").exists()
